"""Augmentations of cutouts by kornia, one after the other. kornia is imported for them alone."""

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from studio.engines.random_stream import RandomStream
from studio.engines.vqgan_clip.augmentation_list import Augmentation

SEEDS_APART = 1_000_003  # of two augmentations; more than there are cutouts


def _pair(value: Any) -> tuple[Any, Any]:
    return value if isinstance(value, tuple) else (value, value)


def _about_zero(value: Any) -> tuple[Any, Any]:
    return value if isinstance(value, tuple) else (-abs(value), abs(value))


# kornia's class, and its arguments from the values of an augmentation and the side of a cutout.
# kornia's crop cuts a square of the cutout's own size, so it needs something around the cutout.
KORNIA: dict[str, tuple[str, Callable[[Augmentation, int], dict[str, Any]]]] = {
    "flip": ("RandomHorizontalFlip", lambda a, side: {}),
    "colour_jitter": (
        "ColorJitter",
        lambda a, side: {n: a[n] for n in ("brightness", "contrast", "saturation", "hue")},
    ),
    "sharpness": ("RandomSharpness", lambda a, side: {"sharpness": float(a["sharpness"])}),
    "gaussian_noise": ("RandomGaussianNoise", lambda a, side: {n: a[n] for n in ("mean", "std")}),
    "gaussian_blur": (
        "RandomGaussianBlur",
        lambda a, side: {
            "kernel_size": _pair(a["kernel_size"]),
            "sigma": _pair(a["sigma"]),
            "border_type": a["border_type"],
        },
    ),
    "motion_blur": (
        "RandomMotionBlur",
        lambda a, side: {
            "kernel_size": a["kernel_size"],
            "angle": _about_zero(a["angle"]),
            "direction": _pair(a["direction"]),
            "border_type": a["border_type"],
            "resample": "bilinear",
        },
    ),
    "perspective": (
        "RandomPerspective",
        lambda a, side: {"distortion_scale": float(a["distortion_scale"])},
    ),
    "rotation": ("RandomRotation", lambda a, side: {"degrees": _about_zero(a["degrees"])}),
    "affine": (
        "RandomAffine",
        lambda a, side: {
            "degrees": _about_zero(a["degrees"]),
            "translate": _pair(a["translate"]),
            "scale": a["scale"],
            "shear": _about_zero(a["shear"]),
            "padding_mode": a["padding_mode"],
        },
    ),
    "elastic_transform": (
        "RandomElasticTransform",
        lambda a, side: {
            **{n: _pair(a[n]) for n in ("kernel_size", "sigma", "alpha")},
            "padding_mode": a["padding_mode"],
        },
    ),
    "thin_plate_spline": (
        "RandomThinPlateSpline",
        lambda a, side: {"scale": float(a["scale"]), "padding_mode": a["padding_mode"]},
    ),
    "crop": (
        "RandomCrop",
        lambda a, side: {
            "size": (side, side),
            "padding": max(1, round(a["padding"] * side)),
            "padding_mode": a["padding_mode"],
        },
    ),
    "erasing": (
        "RandomErasing",
        lambda a, side: {n: a[n] for n in ("scale", "ratio", "value")},
    ),
    "resized_crop": (
        "RandomResizedCrop",
        lambda a, side: {
            "size": (side, side),
            "scale": a["scale"],
            "ratio": a["ratio"],
            "cropping_mode": "resample",
        },
    ),
}


class AugmentationList:
    """Changes cutouts [N, 3, S, S] in [0, 1] by each augmentation of a list, in its order.

    Each cutout gets an augmentation by its chance p, with random values of its own; or, with
    same_on_batch, all cutouts get the same. side: S.
    """

    def __init__(self, items: Iterable[Augmentation], side: int) -> None:
        self._items = [(item, _of_kornia(item, side)) for item in items]

    def __call__(self, cutouts: Tensor, seed: int, first: int) -> Tensor:
        """Draws by that seed, and differently for cutouts that begin at another row `first`.

        Several of kornia's kernels on a GPU give other bytes each time. Where the same are wanted,
        the CPU computes.
        """
        device = cutouts.device
        if device.type != "cpu" and torch.are_deterministic_algorithms_enabled():
            cutouts = cutouts.cpu()
        for number, (item, change) in enumerate(self._items):
            own = seed + number * SEEDS_APART + (0 if item["same_on_batch"] else first)
            with RandomStream(own):
                cutouts = _changed(cutouts, item, change)
        return cutouts.to(device)


def _changed(cutouts: Tensor, item: Augmentation, change: nn.Module) -> Tensor:
    """The cutouts, some of them changed by the augmentation's chance."""
    draws = 1 if item["same_on_batch"] else len(cutouts)
    chosen = (torch.rand(draws) < item["p"]).expand(len(cutouts)).nonzero()[:, 0]
    chosen = chosen.to(cutouts.device)
    return cutouts.index_copy(0, chosen, change(cutouts[chosen])) if len(chosen) else cutouts


def _of_kornia(item: Augmentation, side: int) -> nn.Module:
    name, arguments = KORNIA[item.name]
    kind = getattr(import_module("kornia.augmentation"), name)
    return kind(**arguments(item, side), p=1.0, same_on_batch=bool(item["same_on_batch"]))
