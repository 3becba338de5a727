"""Cutout methods against slow and plain references. Augmentations are in test_augmentations."""

import math
import subprocess
import sys
from pathlib import Path

import kornia.augmentation as K
import numpy as np
import pytest
import tiny_models
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from logic import VQGANCLIPRun
from studio.base.errors import BadInput
from studio.engines.clip.cutouts import Windows
from studio.engines.vqgan_clip import cutout_methods, libraries
from studio.engines.vqgan_clip.augmentation_list import NAMES, parse_augmentations
from studio.engines.vqgan_clip.cutout_methods import Drawn, Views
from studio.engines.vqgan_clip.settings import OWN_AUGMENTATIONS, VQGANCLIPSettings
from studio.settings.values import make

SQUARES, POOLED = ("original", "updated", "nrupdated"), ("updatedpooling", "latest")
PLACES = [(40, 0, 0), (33, 7, 3), (40, 16, 0), (33, 0, 7), (36, 20, 4)]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def views(side: int = 32, **changes) -> Views:
    settings = make(VQGANCLIPSettings, {"text_input": "a", "cutn": 6, **changes})
    return Views(settings, side)


def drawn(places=PLACES, noise: Tensor | None = None) -> Drawn:
    return Drawn(Windows(*torch.tensor(places).T), noise)


def smooth_picture(height: int, width: int) -> Tensor:
    return F.interpolate(torch.rand(1, 3, 6, 6), (height, width), mode="bicubic").clamp(0, 1)


# --- places and sampling ---------------------------------------------------------------------


def plain_lanczos(row: list[float], side: int) -> list[float]:
    """A row of numbers, smoothed for `side` samples; beyond its ends it is mirrored."""
    ratio, count = side / len(row), len(row)
    taps = math.ceil(2 / ratio + 1) - 2
    kernel = []
    for tap in range(-taps, taps + 1):
        x = tap * ratio
        sinc = [math.sin(math.pi * v) / (math.pi * v) if v else 1.0 for v in (x, x / 2)]
        kernel.append(sinc[0] * sinc[1] if abs(x) < 2 else 0.0)
    smoothed = []
    for place in range(count):
        total = 0.0
        for tap, weight in zip(range(-taps, taps + 1), kernel, strict=True):
            source = abs(place + tap)
            source = source if source < count else 2 * (count - 1) - source
            total += weight * row[source]
        smoothed.append(total / sum(kernel))
    return smoothed


def plain_square(window: Tensor, side: int) -> Tensor:
    """A window [C, s, s], smoothed row by row and column by column, then by torch's bicubic."""
    if window.shape[-1] > side:
        for axis in (2, 1):
            rows = window.movedim(axis, -1)
            done = [[plain_lanczos(row, side) for row in channel] for channel in rows.tolist()]
            window = torch.tensor(done).movedim(-1, axis)
    how = {"mode": "bicubic", "align_corners": True}
    return F.interpolate(window[None], (side, side), **how)[0]


@pytest.mark.parametrize("side", [16, 36, 48])
def test_squares_are_smoothed_and_sampled_by_cubic_convolution(side: int) -> None:
    picture = torch.rand(1, 3, 40, 56)
    ours = cutout_methods.resampled(picture, Windows(*torch.tensor(PLACES).T), side)
    plain = [
        plain_square(picture[0, :, top : top + size, left : left + size], side)
        for size, left, top in PLACES
    ]
    torch.testing.assert_close(ours, torch.stack(plain), atol=2e-5, rtol=0)


def plain_pooled(picture: Tensor, side: int) -> Tensor:
    height, width = picture.shape[-2:]
    result = torch.empty(1, 3, side, side)
    for y in range(side):
        for x in range(side):
            top, bottom = y * height // side, math.ceil((y + 1) * height / side)
            left, right = x * width // side, math.ceil((x + 1) * width / side)
            part = picture[..., top:bottom, left:right].flatten(2)
            result[..., y, x] = (part.mean(dim=-1) + part.max(dim=-1).values) / 2
    return result


@pytest.mark.parametrize("side", [16, 20, 60])
def test_pooling_is_half_the_average_and_half_the_largest(side: int) -> None:
    picture = torch.rand(1, 3, 40, 56, requires_grad=True)
    ours, plain = cutout_methods.pooled(picture, side), plain_pooled(picture, side)
    torch.testing.assert_close(ours, plain)
    upstream = torch.randn_like(plain)
    gradients = [torch.autograd.grad(found, picture, upstream)[0] for found in (ours, plain)]
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("method", SQUARES)
@pytest.mark.parametrize("cut_pow", [0.5, 1.0, 3.0])
def test_squares_have_random_sides_and_places(method: str, cut_pow: float) -> None:
    count, low, high = 3000, 32, 80
    windows = views(cut_method=method, cutn=1000, cut_pow=cut_pow).draw(80, 120).windows
    assert windows is not None
    assert (windows.sides >= low).all() and (windows.sides <= high).all()
    plain = (torch.rand(count) ** cut_pow * (high - low) + low).long().sort().values
    levels = torch.linspace(0, 0.999, 50)
    for level in levels:
        ours = windows.sides.sort().values[int(level * 1000)]
        assert abs(ours - plain[int(level * count)]) <= 4
    room = torch.stack([120 - windows.sides, 80 - windows.sides])
    places = torch.stack([windows.lefts, windows.tops])
    assert (places >= 0).all() and (places <= room).all()
    share = (places / room.clamp(min=1))[:, (room > 10).all(dim=0)]
    assert (share.mean(dim=1) - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("method", POOLED)
def test_pooled_methods_look_at_the_whole_picture_each_time(method: str) -> None:
    looks = views(cut_method=method, use_cutout_augmentations=False)
    picture = torch.rand(1, 3, 40, 56)
    found = looks.cutouts(picture, slice(0, 6), looks.draw(40, 56), seed=1)
    assert found.shape == (6, 3, 32, 32)
    torch.testing.assert_close(found, plain_pooled(picture, 32).expand(6, 3, 32, 32))


def test_original_is_squares_in_range_and_nothing_more() -> None:
    looks = views(16, cut_method="original", cutn=5)
    picture = (torch.rand(1, 3, 40, 56) > 0.5).float()  # so that the sampling overshoots
    found = looks.cutouts(picture, slice(0, 5), drawn(), seed=1)
    assert looks.draw(40, 56).noise is None
    plain = [plain_square(picture[0, :, t : t + s, left : left + s], 16) for s, left, t in PLACES]
    assert torch.stack(plain).min() < -0.01
    torch.testing.assert_close(found, torch.stack(plain).clamp(0, 1), atol=2e-5, rtol=0)


# --- the methods as a whole ------------------------------------------------------------------

LIST = "affine(20, translate=0.2, p=0.5) | gaussian_blur(3, 1.0, p=1)"
PLAIN = {
    "updated": lambda: [
        K.RandomHorizontalFlip(p=0.5),
        K.ColorJitter(hue=0.01, saturation=0.01, p=0.7),
        K.RandomSharpness(0.3, p=0.4),
        K.RandomAffine(degrees=30, translate=(0.1, 0.1), p=0.8, padding_mode="border"),
        K.RandomPerspective(0.2, p=0.4),
    ],
    "updatedpooling": lambda: [
        K.RandomAffine(degrees=15, translate=(0.1, 0.1), p=0.7, padding_mode="border"),
        K.RandomPerspective(0.7, p=0.7),
        K.ColorJitter(hue=0.1, saturation=0.1, p=0.7),
        K.RandomErasing((0.1, 0.4), (0.3, 1 / 0.3), same_on_batch=False, p=0.7),
    ],
    "nrupdated": lambda: [
        K.RandomAffine(degrees=20, translate=(0.2, 0.2), p=0.5, padding_mode="border"),
        K.RandomGaussianBlur((3, 3), (1.0, 1.0), p=1.0),
    ],
}
PLAIN["latest"] = PLAIN["nrupdated"]


@pytest.mark.parametrize("method", PLAIN)
def test_a_method_is_squares_or_pooling_then_augmentations_then_noise(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By mean and spread of each pixel: plain loops, kornia's own chances, a normal sample.

    One batch gets one erasing in `updatedpooling`; here each cutout gets its own, to compare.
    """
    own = OWN_AUGMENTATIONS.get(method, "").replace(", same_on_batch=true", "")
    if method == "updatedpooling":
        monkeypatch.setitem(OWN_AUGMENTATIONS, method, own)
    count, side = 1024, 16
    looks = views(side, cut_method=method, augmentations=LIST, cutn=count)
    picture = smooth_picture(20, 20)
    places = [(20, 0, 0)] * count
    found = looks.draw(20, 20)
    assert found.noise is not None and (found.windows is None) == (method in POOLED)
    assert found.noise.min() >= 0 and 0.09 < found.noise.max() <= 0.1
    found = drawn(places, found.noise) if found.windows else found
    ours = looks.cutouts(picture, slice(0, count), found, seed=3)

    one = plain_pooled(picture, side)[0] if method in POOLED else plain_square(picture[0], side)
    plain = nn.Sequential(*PLAIN[method]())(one.repeat(count, 1, 1, 1))
    factors = torch.empty(count, 1, 1, 1).uniform_(0, 0.1)
    plain = plain + factors * torch.randn_like(plain)
    assert (ours.mean(dim=0) - plain.mean(dim=0)).abs().max() < 0.06
    assert (ours.mean(dim=0) - plain.mean(dim=0)).abs().mean() < 0.012
    assert (ours.std(dim=0) - plain.std(dim=0)).abs().mean() < 0.012
    assert not torch.equal(ours[0], ours[1])


def test_the_erasing_of_updatedpooling_is_the_same_on_the_batch() -> None:
    looks = views(cut_method="updatedpooling", cutn=40)
    items = parse_augmentations(OWN_AUGMENTATIONS["updatedpooling"])
    assert [item.name for item in items] == ["affine", "perspective", "colour_jitter", "erasing"]
    only = Views(looks.settings, 32)
    erasing = OWN_AUGMENTATIONS["updatedpooling"].rpartition("| ")[2].replace("p=0.7", "p=1")
    changes = cutout_methods.AugmentationList(parse_augmentations(erasing), only.side)
    white = torch.ones(4, 3, 32, 32)
    first, later = changes(white, 5, 0), changes(white, 5, 16)
    assert (first == 0).any() and (first[0] == first).all() and torch.equal(first, later)


@pytest.mark.parametrize("method", [*PLAIN, "original"])
def test_gradients_reach_the_picture(method: str) -> None:
    looks = views(cut_method=method, augmentations=LIST)
    picture = smooth_picture(40, 56).requires_grad_()
    found = looks.cutouts(picture, slice(0, 6), looks.draw(40, 56), seed=3)
    (gradient,) = torch.autograd.grad(found.square().sum(), picture)
    assert gradient.isfinite().all() and (gradient != 0).float().mean() > 0.5


def test_only_the_usual_cutouts_are_quick() -> None:
    def wanted(**changes) -> bool:
        return Views.wanted(make(VQGANCLIPSettings, {"text_input": "a", **changes}))

    assert not wanted()
    assert not wanted(augmentations="", use_cutout_augmentations=False)
    assert not wanted(augmentations=SPELT_OTHERWISE)
    assert wanted(augmentations="") and wanted(cut_method="latest")


SPELT_OTHERWISE = (
    "Flip | sharpness(sharpness=0.3, p=.4)|affine(degrees=30, translate=(0.1, 0.1), p=0.8)"
    "| perspective(0.2,p=0.4) | Color Jitter(0, 0, 0.01, 0.01)"
).replace("(0.1, 0.1)", "0.1")


def test_the_usual_path_imports_neither_library() -> None:
    check = "import sys, logic; print({'kornia', 'pytorch_optimizer'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_unneeded_list_is_said_and_a_missing_library_too(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = views(cut_method="updated", augmentations=LIST).settings._fit_augmentations()
    assert said == ["'Augmentations' is ignored: the cutout method updated takes no others."]
    assert views(cut_method="nrupdated", augmentations=LIST).settings._fit_augmentations() == []
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    assert views(cut_method="original").settings._fit_augmentations() == []
    assert views().settings._fit_augmentations() == []
    for changes in ({"cut_method": "latest"}, {"augmentations": LIST}):
        with pytest.raises(BadInput, match=r"needs the library kornia.*make setup"):
            views(**changes).settings._fit_augmentations()


# --- whole runs ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    tiny_models.write_tiny_assets(folder)
    return folder


def ready(assets: Path, **changes) -> VQGANCLIPRun:
    given = {"text_input": "a red heart", "vqgan_ckpt": "tiny_f8", "clip_model": "tiny_clip"}
    given |= {"Xdim": 48, "ydim": 40, "cutn": 5, "seed": 3, **changes}
    run = VQGANCLIPRun(
        make(VQGANCLIPSettings, given), assets_dir=assets, device=torch.device("cpu")
    )
    run.load_model()
    run.model_init()
    return run


ALL = " | ".join(name for name in NAMES)
KNOBS = [{"cut_method": method} for method in (*SQUARES, *POOLED)]
KNOBS += [{"augmentations": ALL}, {"augmentations": ""}]
KNOBS += [{"cut_method": "latest", "augmentations": "crop | motion_blur"}]


@pytest.mark.parametrize("knob", KNOBS, ids=str)
def test_a_run_resumes_exactly(knob: dict, assets: Path) -> None:
    straight, broken = ready(assets, **knob), ready(assets, **knob)
    pictures = [straight.iterate().picture for _ in range(4)]
    for _ in range(2):
        broken.iterate()
    again = ready(assets, **knob)
    again.load_state_dict(broken.state_dict())
    assert np.array_equal(again.iterate().picture, pictures[2])
    assert np.array_equal(again.iterate().picture, pictures[3])
    assert np.array_equal(again.state_dict()["z"], straight.state_dict()["z"])


def test_each_choice_moves_otherwise(assets: Path) -> None:
    latents = set()
    for knob in [{}, *KNOBS]:
        run = ready(assets, **knob)
        run.iterate()
        latents.add(run.state_dict()["z"].tobytes())
    assert len(latents) == 1 + len(KNOBS)


@pytest.mark.parametrize("method", [*SQUARES, *POOLED])
def test_the_same_with_fewer_cutouts_at_a_time(method: str, assets: Path) -> None:
    """Without noise and augmentations, which depend on it."""
    run = ready(assets, cut_method=method, use_cutout_augmentations=False)
    picture, gradients = torch.rand(1, 3, 40, 48), []
    for at_a_time in (5, 2):
        torch.manual_seed(2)
        gradients.append(run._comparison.differentiate(picture, at_a_time)[0])
    # CLIP sees in the precision of the machine.
    assert (gradients[0] - gradients[1]).norm() < 0.05 * gradients[0].norm()
