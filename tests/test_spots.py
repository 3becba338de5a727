"""Spots of colour that runs start from: what they look like, and which is chosen."""

import pytest
import torch

import spots
from spots import CHOICES, COLOURS, WHITE


def index(colour: tuple[float, float, float]) -> int:
    """The palette's colour nearest to `colour`."""
    return int((COLOURS - torch.tensor(colour)).norm(dim=1).argmin())


RED, BLUE, YELLOW = index((0.9, 0.1, 0.1)), index((0.2, 0.3, 0.9)), index((1, 0.8, 0.2))
RED_AND_YELLOW = (WHITE, *sorted((RED, YELLOW)))


def test_one_spot_lies_in_the_middle_of_its_ground() -> None:
    picture = spots.paint((BLUE, RED), 40, 64)
    assert picture.shape == (3, 40, 64)
    for place, colour in {(20, 32): RED, (0, 0): BLUE, (20, 48): BLUE, (2, 32): BLUE}.items():
        torch.testing.assert_close(picture[:, *place], COLOURS[colour], atol=0.03, rtol=0)
    assert torch.allclose(picture, picture.flip(1, 2), atol=1e-6)


def test_two_spots_lie_side_by_side_in_their_order() -> None:
    picture = spots.paint((WHITE, RED, YELLOW), 64, 64)
    for place, colour in {(32, 17): RED, (32, 46): YELLOW, (2, 32): WHITE, (5, 17): WHITE}.items():
        torch.testing.assert_close(picture[:, *place], COLOURS[colour], atol=0.08, rtol=0)


def test_edges_are_soft() -> None:
    picture = spots.paint((WHITE, RED), 64, 64)
    assert 0.01 < max(picture.diff(dim=side).abs().max() for side in (1, 2)) < 0.15


def test_a_shift_moves_all_of_it() -> None:
    moved = spots.paint((WHITE, RED, YELLOW), 64, 64, shift=torch.tensor([0.25, -0.125]))
    plain = spots.paint((WHITE, RED, YELLOW), 64, 64)
    torch.testing.assert_close(moved[:, :60, 8:], plain[:, 4:, :-8])


@pytest.mark.parametrize(
    ("similarities", "chosen"),
    [
        ({(BLUE, RED): 0.3, (WHITE, RED): 0.25}, (WHITE, RED)),
        ({(BLUE, RED): 0.4, (WHITE, RED): 0.25}, (BLUE, RED)),
        ({(WHITE, RED): 0.3, RED_AND_YELLOW: 0.32}, (WHITE, RED)),
        ({(WHITE, RED): 0.3, RED_AND_YELLOW: 0.4}, RED_AND_YELLOW),
    ],
    ids=["white is preferred", "unless far off", "so is one spot", "unless far off too"],
)
def test_the_nearest_is_chosen_but_simple_ones_first(
    similarities: dict[tuple[int, ...], float], chosen: tuple[int, ...]
) -> None:
    similarity = torch.tensor([similarities.get(choice, -1.0) for choice in CHOICES])
    assert spots.choose(similarity) == chosen


def test_every_pair_of_colours_is_among_the_choices_once() -> None:
    assert len(set(CHOICES)) == len(CHOICES) == 12 * 11 + 11 * 10 / 2
