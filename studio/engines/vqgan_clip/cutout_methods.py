"""Other ways to cut out, as in XibQGAN-CLIP and its ancestors; and ours with augmentations listed.

Facts are from XibQGAN-CLIP's `XibGAN/Augments.py` and VQGAN-CLIP's `generate.py`.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.engines.clip.cutouts import (
    NOISE_FACTOR,
    Windows,
    apply_weights,
    cut_out,
    random_windows,
    recolour,
)
from studio.engines.vqgan_clip.augmentation_list import USUAL, Augmentation, parse_augmentations
from studio.engines.vqgan_clip.augmentations import AugmentationList
from studio.engines.vqgan_clip.settings import OWN_AUGMENTATIONS, VQGANCLIPSettings
from vqgan_utils import clamp_with_gradient

POOLED = ("updatedpooling", "latest")
LANCZOS = 2  # half the width of the kernel, in target pixels
CUBIC = -0.75  # torch's coefficient of cubic convolution


@dataclass(frozen=True)
class Drawn:
    """Random windows for N cutouts, and the deviations of their noise [N]. None: without."""

    windows: Windows | None
    noise: Tensor | None


@dataclass(frozen=True)
class Views:
    """What CLIP gets of a picture: cutouts by a method, then augmentations, then noise.

    original: random squares, clamped; nothing more. updated: random squares, and augmentations of
    its own. nrupdated: random squares, and the list. updatedpooling: the whole picture, pooled, and
    augmentations of its own. latest: the whole picture, pooled, and the list. ours: our windows,
    and the list.
    side: of the cutouts.
    """

    settings: VQGANCLIPSettings
    side: int

    @staticmethod
    def wanted(settings: VQGANCLIPSettings) -> bool:
        """Whether the settings need them. The usual ones have a quick path, `cutouts`."""
        usual = parse_augmentations(USUAL)
        is_listed = settings.use_cutout_augmentations and (
            parse_augmentations(settings.augmentations) != usual
        )
        return settings.cut_method != "ours" or is_listed

    def draw(self, height: int, width: int) -> Drawn:
        """For a picture of that size."""
        s, windows = self.settings, None
        if s.cut_method not in POOLED:
            whole = s.whole_views if s.cut_method == "ours" else 0
            windows = random_windows(width, height, s.cutn, self.side, s.cut_pow, whole)
        noise = NOISE_FACTOR * torch.rand(s.cutn) if self._is_augmented else None
        return Drawn(windows, noise)

    def cutouts(self, picture: Tensor, rows: slice, drawn: Drawn, seed: int) -> Tensor:
        """Those rows of all cutouts of a picture [1, 3, H, W]: [n, 3, side, side]."""
        device, method = picture.device, self.settings.cut_method
        if drawn.windows is None:
            found = pooled(picture, self.side).expand(rows.stop - rows.start, -1, -1, -1)
        elif method == "ours":
            found = cut_out(picture, drawn.windows.part(rows, device), self.side)
        else:
            found = resampled(picture, drawn.windows.part(rows, device), self.side)
        if method == "original":
            return clamp_with_gradient(found)
        if drawn.noise is None:
            return found
        found = self._augmentations(found, seed, rows.start)
        unchanged = torch.eye(3, device=device).expand(len(found), 3, 3)
        return recolour(found, unchanged, drawn.noise[rows].to(device), seed + rows.start)

    @property
    def _is_augmented(self) -> bool:
        return self.settings.use_cutout_augmentations and self.settings.cut_method != "original"

    @cached_property
    def _augmentations(self) -> AugmentationList:
        s = self.settings
        return AugmentationList(listed(s.cut_method, s.augmentations), self.side)


def listed(cut_method: str, chosen: str) -> list[Augmentation]:
    """The augmentations of a method: its own, or else those that were chosen."""
    return parse_augmentations(OWN_AUGMENTATIONS.get(cut_method, chosen))


def resampled(picture: Tensor, windows: Windows, side: int) -> Tensor:
    """The windows on a picture [1, C, H, W], each resized to [C, side, side].

    Where a window shrinks, a Lanczos filter smooths it first; then it is sampled by cubic
    convolution, with the corners' centres on the corners' centres. Both are linear and separable,
    so they are two matrix products for all windows at once, as in `cut_out`.
    """
    height, width = picture.shape[-2:]
    across = picture.new_zeros(len(windows.sides), side, width)
    down = picture.new_zeros(len(windows.sides), side, height)
    known: dict[int, Tensor] = {}
    places = (windows.sides, windows.lefts, windows.tops)
    for row, (size, left, top) in enumerate(zip(*(p.tolist() for p in places), strict=True)):
        if size not in known:
            known[size] = sampling_weights(size, side).to(picture)
        across[row, :, left : left + size] = known[size]
        down[row, :, top : top + size] = known[size]
    return apply_weights(picture, across, down)


def sampling_weights(size: int, side: int) -> Tensor:
    """The weight of each of `size` pixels in each of `side` others, [side, size]: `resampled`."""
    cubic = _cubic_weights(size, side)
    if size <= side:
        return cubic
    ratio = side / size
    reach = math.ceil(LANCZOS / ratio + 1) - 2  # of the filter, in pixels to each side
    offsets = torch.arange(-reach, reach + 1) * ratio
    kernel = torch.sinc(offsets) * torch.sinc(offsets / LANCZOS) * (offsets.abs() < LANCZOS)
    kernel = (kernel / kernel.sum())[None, None]
    spread = F.conv_transpose1d(cubic[:, None], kernel)[:, 0]  # reaches beyond both ends
    weights = spread[:, reach:-reach].clone()
    weights[:, 1 : reach + 1] += spread[:, :reach].flip(1)  # beyond the ends, pixels are mirrored
    weights[:, -reach - 1 : -1] += spread[:, -reach:].flip(1)
    return weights


def _cubic_weights(size: int, side: int) -> Tensor:
    """Of cubic convolution (Keys 1981), the ends' pixels repeated beyond the ends: [side, size]."""
    places = torch.arange(side) * ((size - 1) / max(side - 1, 1))
    first = places.floor()
    beyond = places - first
    weights = torch.zeros(side, size)
    for tap in (-1, 0, 1, 2):
        pixels = (first + tap).long().clamp(0, size - 1)
        weights.scatter_add_(1, pixels[:, None], _cubic((tap - beyond).abs())[:, None])
    return weights


def _cubic(x: Tensor) -> Tensor:
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = CUBIC * (((x - 5) * x + 8) * x - 4)
    return torch.where(x <= 1, near, far)


def pooled(picture: Tensor, side: int) -> Tensor:
    """The mean of the average and the largest value of each part of a picture [1, C, H, W].

    Parts are those of torch's adaptive pooling. Its own gradients on a GPU add up in any order;
    these are repeatable.
    """
    height, width = picture.shape[-2:]
    across, down = (_averages(length, side).to(picture) for length in (width, height))
    average = down @ picture @ across.T
    _, largest = F.adaptive_max_pool2d(picture.detach(), side, return_indices=True)
    values = picture.flatten(2).gather(2, largest.flatten(2)).view_as(average)
    return (average + values) / 2


def _averages(length: int, side: int) -> Tensor:
    """The weights [side, length] of a mean over each of `side` parts, which may overlap."""
    parts, pixels = torch.arange(side)[:, None], torch.arange(length)
    starts, ends = parts * length // side, -(-(parts + 1) * length // side)
    inside = ((pixels >= starts) & (pixels < ends)).float()
    return inside / inside.sum(dim=1, keepdim=True)
