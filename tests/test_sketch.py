"""Sketches that runs start from: how blots look, and that the search finds what is wished for."""

import pytest
import torch
from torch import Tensor

import sketch
from sketch import BEGINNINGS, COLOURS, WHITE


def index(colour: tuple[float, float, float]) -> int:
    """The palette's colour nearest to `colour`."""
    return int((COLOURS - torch.tensor(colour)).norm(dim=1).argmin())


RED, BLUE, YELLOW = index((0.9, 0.1, 0.1)), index((0.2, 0.3, 0.9)), index((1, 0.8, 0.2))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def blot(x: float, y: float, across: float, along: float, angle: float, colour: int) -> Tensor:
    return torch.tensor([[x, y, across, along, angle, colour]])


def shown(picture: Tensor, places: dict[tuple[int, int], int]) -> None:
    """That the picture [3, H, W] has these colours at these (row, column)."""
    for (row, column), colour in places.items():
        torch.testing.assert_close(picture[:, row, column], COLOURS[colour], atol=0.05, rtol=0)


def test_a_blot_is_an_ellipse_where_and_as_large_as_it_says() -> None:
    picture = sketch.paint(BLUE, blot(0.25, -0.5, 0.5, 0.2, 0, RED), 64, 64)
    inside = {(16, 40): RED, (16, 45): RED, (16, 35): RED, (17, 40): RED}
    outside = {(16, 63): BLUE, (16, 12): BLUE, (26, 40): BLUE, (6, 40): BLUE, (40, 40): BLUE}
    shown(picture, inside | outside)


def test_a_blot_turns_by_its_angle() -> None:
    picture = sketch.paint(WHITE, blot(0, 0, 0.6, 0.2, torch.pi / 4, RED), 64, 64)
    shown(picture, {(38, 38): RED, (25, 25): RED, (43, 20): WHITE, (20, 43): WHITE})


def test_later_blots_lie_over_earlier_ones() -> None:
    blots = torch.cat([blot(0, 0, 0.8, 0.8, 0, RED), blot(0, 0, 0.4, 0.4, 0, YELLOW)])
    shown(sketch.paint(BLUE, blots, 64, 64), {(32, 32): YELLOW, (32, 50): RED, (2, 2): BLUE})


@pytest.mark.parametrize(("height", "width"), [(64, 160), (160, 64)])
def test_blots_keep_to_the_middle_of_wide_and_high_pictures(height: int, width: int) -> None:
    picture = sketch.paint(BLUE, blot(0, 0, 0.5, 0.5, 0, RED), height, width)
    top, left = (height - 64) // 2, (width - 64) // 2
    middle = picture[:, top : top + 64, left : left + 64]
    torch.testing.assert_close(
        middle, sketch.paint(BLUE, blot(0, 0, 0.5, 0.5, 0, RED), 64, 64), atol=1e-5, rtol=0
    )
    shown(picture, {(0, 0): BLUE, (height - 1, width - 1): BLUE})


def test_each_copy_of_a_canvas_gets_its_own_blot() -> None:
    blots = sketch.random_blots(5)
    canvas = torch.rand(3, 24, 24)
    copies = sketch.lay(canvas, blots)
    for copy, row in zip(copies, blots, strict=True):
        assert torch.equal(copy, sketch.lay(canvas, row[None])[0])


def test_random_blots_are_of_all_colours_and_touch_the_square() -> None:
    blots = sketch.random_blots(2000)
    assert set(blots[:, 5].tolist()) == set(range(len(COLOURS)))
    assert blots[:, :2].abs().max() <= 0.65
    assert blots[:, 2:4].min() >= 0.12 and blots[:, 2:4].max() <= 0.57


def nearness(wish: Tensor):
    """How similar pictures are to one [3, S, S]: 1 less the mean absolute difference."""
    return lambda pictures: 1 - (pictures - wish).abs().mean(dim=(1, 2, 3))


def test_the_search_finds_a_picture_of_plain_shapes() -> None:
    body = blot(0, 0, 0.5, 0.5, 0, RED)
    ears = blot(0.3, -0.3, 0.3, 0.2, 1, YELLOW), blot(-0.3, 0.3, 0.25, 0.25, 0, BLUE)
    blots = torch.cat([body, *ears])
    wish = sketch.paint(WHITE, blots, 32, 32)
    found = sketch.sketch(nearness(wish), 32, 64, 64)
    assert found.shape == (3, 64, 64)
    begun = sketch.paint(WHITE, blots[:1], 64, 64)
    large = sketch.paint(WHITE, blots, 64, 64)
    assert (found - large).abs().mean() < 0.5 * (begun - large).abs().mean()


def test_two_things_begin_as_two_blots() -> None:
    left, right = sorted((RED, BLUE))
    blots = next(b for g, b in BEGINNINGS if [row[5] for row in b] == [left, right])
    wish = sketch.paint(WHITE, torch.tensor(blots), 32, 32)
    found = sketch.sketch(nearness(wish), 32, 32, 32)
    torch.testing.assert_close(found, wish, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("lead", "ground"), [(0.05, WHITE), (0.2, BLUE)], ids=["as white is usual", "as it was asked"]
)
def test_white_ground_is_left_only_for_a_clear_wish(lead: float, ground: int) -> None:
    def similarity(pictures: Tensor) -> Tensor:
        corner = pictures[:, :, 0, 0]
        return lead * ((corner - COLOURS[BLUE]).abs().sum(1) < 0.05).float()

    picture = sketch.sketch(similarity, 32, 32, 32)
    torch.testing.assert_close(picture[:, 0, 0], COLOURS[ground], atol=0.02, rtol=0)


def test_the_same_numbers_give_the_same_sketch() -> None:
    wish = sketch.paint(BLUE, sketch.random_blots(4), 32, 32)
    sketches = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        sketches.append(sketch.sketch(nearness(wish), 32, 48, 40))
    assert torch.equal(sketches[0], sketches[1]) and not torch.equal(sketches[0], sketches[2])
