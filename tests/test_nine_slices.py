"""Nine slices of a picture: where they lie, how much of each is seen, and their picture."""

import numpy as np
import pytest

from studio.media.nine_slices import NAMES, alpha, blended, boxes

SIZES = [(128, 96), (4, 4), (101, 67), (2, 2), (1, 1), (3, 50)]


def test_slices_lie_at_0_a_quarter_and_a_half() -> None:
    assert boxes(128, 96) == [
        (0, 0, 64, 48),
        (32, 0, 96, 48),
        (64, 0, 128, 48),
        (0, 24, 64, 72),
        (32, 24, 96, 72),
        (64, 24, 128, 72),
        (0, 48, 64, 96),
        (32, 48, 96, 96),
        (64, 48, 128, 96),
    ]


@pytest.mark.parametrize("size", SIZES)
def test_slices_of_a_picture_give_it_back(size: tuple[int, int]) -> None:
    width, height = size
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    slices = {number: box.of(picture).copy() for number, box in enumerate(boxes(width, height))}
    assert len({part.shape for part in slices.values()}) == 1
    assert np.array_equal(blended(slices, np.zeros_like(picture)), picture)


# Of a slice of 20x20 pixels, whose pixel n lies at 0.05 + 0.1 n of the way from the edge to the
# middle: smoothstep from .1 to .9 of that.
FADE = [0.0, 0.0112, 0.0923, 0.2319, 0.4067, 0.5933, 0.7681, 0.9077, 0.9888, 1.0]


@pytest.mark.parametrize("name", NAMES)
def test_how_much_of_a_slice_is_seen(name: str) -> None:
    found, fade = alpha(name, 20, 20)[..., 0], np.array([*FADE, *FADE[::-1]])
    across = fade if name in "NSX" else np.ones(20)
    down = fade if name in "WEX" else np.ones(20)
    np.testing.assert_allclose(found, np.outer(down, across), atol=1e-4)


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ((0, 0), "NW"),
        ((99, 0), "NE"),
        ((0, 99), "SW"),
        ((99, 99), "SE"),
        ((50, 3), "N"),
        ((50, 96), "S"),
        ((3, 50), "W"),
        ((96, 50), "E"),
        ((50, 50), "X"),
    ],
)
def test_seams_lie_below_the_middles_of_other_slices(place: tuple[int, int], shown: str) -> None:
    greys = [np.full((50, 50, 3), 10 * number, np.uint8) for number in range(9)]
    picture = blended(dict(enumerate(greys)), np.zeros((100, 100, 3), np.uint8))
    x, y = place
    assert picture[y, x, 0] == 10 * NAMES.index(shown)


def test_slices_that_are_not_there_leave_what_lies_under_them() -> None:
    under = np.full((40, 60, 3), 7, np.uint8)
    assert np.array_equal(blended({}, under), under)
    found = blended({0: np.full((20, 30, 3), 200, np.uint8)}, under)
    assert (found[:20, :30] == 200).all() and (found[20:] == 7).all() and (found[:, 30:] == 7).all()
