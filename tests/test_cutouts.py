"""What CLIP gets to see, against slow and plain references."""

import math

import kornia
import kornia.augmentation as K
import pytest
import torch
import torch.nn.functional as F
from kornia.geometry.transform import warp_perspective
from torch import Tensor, nn

from studio.engines.clip import cutouts


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def smooth_picture(side: int) -> Tensor:
    return F.interpolate(torch.rand(1, 3, 6, 6), (side, side), mode="bicubic").clamp(0, 1)


# --- Cutouts -------------------------------------------------------------------------------------


def plain_cutouts(picture: Tensor, windows: cutouts.Windows, side: int) -> Tensor:
    """Pad by the edge's colours, crop, and resize, one window at a time."""
    pad, views = 64, []
    padded = F.pad(picture, (pad, pad, pad, pad), mode="replicate")
    for size, left, top in zip(windows.sides, windows.lefts, windows.tops, strict=True):
        window = padded[..., pad + top : pad + top + size, pad + left : pad + left + size]
        views.append(F.interpolate(window, (side, side), mode="bilinear", antialias=True))
    return torch.cat(views)


def windows(*rows: tuple[int, int, int]) -> cutouts.Windows:
    return cutouts.Windows(*torch.tensor(rows).T)


@pytest.mark.parametrize("side", [8, 32, 50])
def test_cutouts_are_antialiased_crops(side: int) -> None:
    picture = torch.rand(1, 3, 40, 56, requires_grad=True)
    places = windows((40, 0, 0), (40, 16, 0), (17, 3, 22), (8, 48, 32), (32, 5, 1), (56, 0, -8))
    ours = cutouts.cut_out(picture, places, side)
    plain = plain_cutouts(picture, places, side)
    torch.testing.assert_close(ours, plain, atol=1e-4, rtol=0)
    upstream = torch.randn_like(ours)
    for_ours, for_plain = (
        torch.autograd.grad(views, picture, upstream)[0] for views in (ours, plain)
    )
    torch.testing.assert_close(for_ours, for_plain, atol=1e-3, rtol=1e-3)


def test_whole_views_hold_the_picture_undistorted() -> None:
    wide, tall = cutouts.whole_views(64, 48, 2), cutouts.whole_views(30, 50, 1)
    assert (wide.sides.tolist(), wide.lefts.tolist()) == ([64, 64], [0, 0])
    assert wide.tops.tolist() == [-8, -8]
    assert [tall.sides.item(), tall.lefts.item(), tall.tops.item()] == [50, -10, 0]


@pytest.mark.parametrize(
    ("count", "share", "whole"),
    [(3, 0.125, 0), (4, 0.125, 1), (24, 0.125, 3), (64, 0.125, 8), (64, 0, 0), (10, 0.5, 5)],
)
def test_some_cutouts_see_the_whole_picture(count: int, share: float, whole: int) -> None:
    places = cutouts.random_windows(64, 48, count, smallest=16, cut_pow=1.0, whole=share)
    assert len(places.sides) == count
    assert (places.sides == 64).sum() == whole


def test_random_windows_stay_inside_and_reach_everywhere() -> None:
    places = cutouts.random_windows(20, 13, 4000, smallest=5, cut_pow=1.0, whole=0.125)
    inside = places.sides < 20
    sides, lefts, tops = places.sides[inside], places.lefts[inside], places.tops[inside]
    assert (sides.min(), sides.max()) == (5, 12)
    assert (lefts.min(), tops.min()) == (0, 0)
    assert ((lefts + sides).max(), (tops + sides).max()) == (20, 13)


def test_sizes_and_places_of_windows_are_independent() -> None:
    places = cutouts.random_windows(300, 300, 4000, smallest=50, cut_pow=1.0, whole=0)
    room = 301 - places.sides
    drawn = torch.stack([places.sides, places.lefts / room, places.tops / room])
    assert (torch.corrcoef(drawn) - torch.eye(3)).abs().max() < 0.06


def test_moves_are_independent() -> None:
    change = cutouts.random_augmentations(4000, 32)
    moved = (change.source @ change.frame.inverse()).flatten(1)[:, [0, 2, 3, 5]]  # turned, shifted
    bent, hue = change.frame.flatten(1)[:, :6], change.colour.flatten(1)[:, :2]
    groups = (moved, bent, hue, change.softening[:, None], change.noise[:, None])
    links = torch.corrcoef(torch.cat(groups, dim=1).T)
    within = torch.block_diag(*(torch.ones(2 * [group.shape[1]]) for group in groups))
    assert (links * (1 - within)).abs().max() < 0.08


def test_a_picture_under_the_perceptors_size_is_seen_whole() -> None:
    places = cutouts.random_windows(16, 16, 10, smallest=32, cut_pow=1.0, whole=0.125)
    assert (places.sides == 16).all() and (places.lefts == 0).all() and (places.tops == 0).all()


def test_a_high_cut_power_favours_small_cutouts() -> None:
    small, even, large = (
        cutouts.random_windows(100, 100, 1000, 10, power, whole=0.125).sides.float().mean()
        for power in (4.0, 1.0, 0.25)
    )
    assert small < even < large


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_softened_cutouts_are_cutouts_softened(share: float) -> None:
    """Along an axis, as kornia's sharpness softens, except for the edge pixels."""
    picture = torch.rand(1, 3, 1, 20).expand(1, 3, 20, 20)
    factor = 1 - share
    softening = torch.tensor([(1 - factor) * 3 / 13])
    ours = cutouts.cut_out(picture, windows((20, 0, 0)), 20, softening)
    theirs = kornia.enhance.sharpness(picture, factor)
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1])


def test_spread_numbers_are_uniform_and_even() -> None:
    numbers = cutouts.spread(2000, 10)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert ((numbers.sort(dim=1).values * 10).long() == torch.arange(10)).all()
    one = numbers[:, 3].sort().values
    assert (one - torch.linspace(0, 1, 2000)).abs().max() < 0.04


def test_a_warp_is_its_moves_one_after_the_other() -> None:
    """Against kornia's warps, in pixels; sampling twice differs a little from sampling once."""
    side, count = 48, 12
    batch = torch.cat([smooth_picture(side) for _ in range(count)])
    change = cutouts.random_augmentations(count, side)
    ours = cutouts.warp(batch, change.source, change.frame)
    pixels = torch.tensor([[side / 2, 0, (side - 1) / 2], [0, side / 2, (side - 1) / 2], [0, 0, 1]])
    before_frame = change.source @ change.frame.inverse()

    def moved(pictures: Tensor, back: Tensor, padding: str) -> Tensor:
        forward = (pixels @ back @ pixels.inverse()).inverse()
        return warp_perspective(
            pictures, forward, (side, side), padding_mode=padding, align_corners=True
        )

    plain = moved(moved(batch, before_frame, "border"), change.frame, "zeros")
    assert (ours - plain).abs().mean() < 0.01
    assert ((ours == 0).all(dim=1) == (plain == 0).all(dim=1)).float().mean() > 0.99


def test_augmentations_have_the_distributions_of_kornia() -> None:
    side, count = 32, 1500
    picture = smooth_picture(side)
    plain = nn.Sequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomSharpness(0.3, p=0.4),
        K.RandomAffine(degrees=30, translate=(0.1, 0.1), p=0.8, padding_mode="border"),
        K.RandomPerspective(0.2, p=0.4),
        K.ColorJitter(hue=0.01, saturation=0.01, p=0.7),
    )(picture.repeat(count, 1, 1, 1))
    change = cutouts.random_augmentations(count, side)
    whole = cutouts.whole_views(side, side, count)
    ours = cutouts.cut_out(picture, whole, side, change.softening)
    ours = cutouts.warp(ours, change.source, change.frame)
    ours = cutouts.recolour(ours, change.colour, torch.zeros(count), seed=0)
    assert (ours.mean(0) - plain.mean(0)).abs().mean() < 0.015
    assert (ours.std(0) - plain.std(0)).abs().mean() < 0.01
    black, plain_black = (
        (batch < 0.01).all(dim=1).float().mean().item() for batch in (ours, plain)
    )
    assert black == pytest.approx(plain_black, rel=0.15)
    steps, plain_steps = (batch.diff(dim=-1).abs().mean().item() for batch in (ours, plain))
    assert steps == pytest.approx(plain_steps, rel=0.03)


def test_recolouring_turns_hues_and_scales_saturation() -> None:
    colours = cutouts._colours(cutouts.spread(3, 4000), chance=0.7, most=0.01)
    turned = colours @ torch.tensor([0.7, 0.4, 0.4])
    grey = colours @ torch.full((3,), 0.5)
    torch.testing.assert_close(grey, torch.full_like(grey, 0.5))
    changed = (turned - torch.tensor([0.7, 0.4, 0.4])).abs().amax(dim=1) > 1e-6
    assert changed.float().mean().item() == pytest.approx(0.7, abs=0.01)
    axes = torch.stack([turned[:, 1] - turned[:, 2], math.sqrt(3) * (turned[:, 0] - 0.5)], dim=1)
    hues = torch.atan2(axes[:, 0], axes[:, 1]) / (2 * math.pi)
    assert 0.0095 < hues.abs().max() < 0.0101
    saturations = axes.norm(dim=1) / (0.2 * math.sqrt(3))
    assert 0.98 < saturations.min() < 0.9905 and 1.0095 < saturations.max() < 1.02


def test_augmentations_let_gradients_through() -> None:
    batch = torch.rand(8, 3, 16, 16, requires_grad=True)
    change = cutouts.random_augmentations(8, 16)
    moved = cutouts.warp(batch, change.source, change.frame)
    cutouts.recolour(moved, change.colour, change.noise, seed=1).sum().backward()
    assert batch.grad.isfinite().all() and (batch.grad.abs().sum(dim=(1, 2, 3)) > 0).all()


def test_noise_is_of_another_strength_in_each_cutout() -> None:
    strengths, same = cutouts.random_augmentations(200, 16).noise, torch.eye(3).repeat(200, 1, 1)
    noise = cutouts.recolour(torch.zeros(200, 3, 16, 16), same, strengths, seed=1)
    torch.testing.assert_close(noise.std(dim=(1, 2, 3)), strengths, atol=5e-3, rtol=0.1)
    assert strengths.min() < 0.001 and 0.099 < strengths.max() < 0.1
    assert noise.mean().abs() < 1e-3


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_noise_comes_four_times_turned_and_with_opposite_signs(count: int) -> None:
    strengths, same = torch.linspace(0.1, 0.5, count), torch.eye(3).repeat(count, 1, 1)
    noise = cutouts.recolour(torch.zeros(count, 3, 8, 8), same, strengths, seed=1)
    drawn = noise / strengths[:, None, None, None]
    half, quarter = (count + 1) // 2, (count + 3) // 4
    torch.testing.assert_close(drawn[half:], -drawn[: count - half])
    turned = drawn[: half - quarter].rot90(2, dims=(2, 3))
    torch.testing.assert_close(drawn[quarter:half], turned)
    assert drawn[:quarter].std(dim=(1, 2, 3)).sub(1).abs().max() < 0.2


def test_sampling_by_lookup_is_torchs_sampling() -> None:
    pictures, places = torch.rand(3, 2, 9, 9, requires_grad=True), torch.rand(3, 9, 9, 2) * 3 - 1.5
    plain = F.grid_sample(pictures, places, padding_mode="border", align_corners=False)
    ours = cutouts.sample_by_lookup(pictures, places)
    torch.testing.assert_close(ours, plain)
    upstream = torch.randn_like(ours)
    of_ours, of_plain = (torch.autograd.grad(y, pictures, upstream)[0] for y in (ours, plain))
    torch.testing.assert_close(of_ours, of_plain)
