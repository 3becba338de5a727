"""A picture of nine slices, each half as wide and half as high, that overlap and are blended.

Pictures are uint8 [H, W, 3]. Never imports torch.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

NAMES = ("NW", "N", "NE", "W", "X", "E", "SW", "S", "SE")  # by number; X is the middle
OPAQUE = ("NW", "NE", "SW", "SE")  # the corners, which fill the picture
OVER = ("N", "S", "W", "E", "X")  # in the order in which they are laid over the corners
FADE_FROM, FADE_TO = 0.1, 0.9  # of the way from a slice's edge to its middle


class Box(NamedTuple):
    """Where a slice lies in the picture, in pixels: right and bottom are the first ones beyond."""

    left: int
    top: int
    right: int
    bottom: int

    def of(self, picture: np.ndarray) -> np.ndarray:
        """That part of a picture, a view."""
        return picture[self.top : self.bottom, self.left : self.right]

    def common(self, other: "Box") -> "Box":
        """What both cover; it may be empty."""
        ends = min(self.right, other.right), min(self.bottom, other.bottom)
        return Box(max(self.left, other.left), max(self.top, other.top), *ends)

    def moved(self, origin: "Box") -> "Box":
        """The same box, measured from the upper left corner of another."""
        left, top = origin.left, origin.top
        return Box(self.left - left, self.top - top, self.right - left, self.bottom - top)


def boxes(width: int, height: int) -> list[Box]:
    """The slices of a picture of that size, by number: at the offsets 0, 1/4 and 1/2.

    Odd sides are halved upwards, so that the corners fill the picture.
    """
    wide, high = (width + 1) // 2, (height + 1) // 2
    lefts, tops = ((0, (side - part) // 2, side - part) for side, part in _sides(width, height))
    return [Box(left, top, left + wide, top + high) for top in tops for left in lefts]


def blended(slices: Mapping[int, np.ndarray], under: np.ndarray) -> np.ndarray:
    """The picture of the slices that are there, by number; elsewhere it is what lies under them.

    The corners are opaque. N and S, which hide the corners' seam, fade towards their left and right
    edges; W and E, likewise, towards their upper and lower ones; the middle fades towards all.
    """
    height, width, _ = under.shape
    return blended_within(Box(0, 0, width, height), slices, under)


def blended_within(within: Box, slices: Mapping[int, np.ndarray], under: np.ndarray) -> np.ndarray:
    """That part of what `blended` gives."""
    height, width, _ = under.shape
    picture, places = within.of(under).astype(np.float32), boxes(width, height)
    for name in (*OPAQUE, *OVER):
        number = NAMES.index(name)
        seen = within.common(places[number])
        if number in slices and seen.left < seen.right and seen.top < seen.bottom:
            part = seen.moved(within).of(picture)
            of_slice, slice_ = seen.moved(places[number]), slices[number]
            weight = of_slice.of(alpha(name, *slice_.shape[1::-1]))
            part += weight * (of_slice.of(slice_) - part)
    return picture.round().astype(np.uint8)


def alpha(name: str, width: int, height: int) -> np.ndarray:
    """How much of each pixel of a slice of that size is seen, in [0, 1]: [height, width, 1]."""
    across = _fade(width) if name in ("N", "S", "X") else np.ones(width, np.float32)
    down = _fade(height) if name in ("W", "E", "X") else np.ones(height, np.float32)
    return (down[:, None] * across)[..., None]


def _fade(length: int) -> np.ndarray:
    """From 0 at both ends to 1 in the middle, by smoothstep, at the middle of each pixel."""
    places = (np.arange(length, dtype=np.float32) + 0.5) / length
    inwards = 1 - np.abs(2 * places - 1)
    t = ((inwards - FADE_FROM) / (FADE_TO - FADE_FROM)).clip(0, 1)
    return t * t * (3 - 2 * t)


def _sides(width: int, height: int) -> list[tuple[int, int]]:
    """Each side of a picture with that of its slices."""
    return [(width, (width + 1) // 2), (height, (height + 1) // 2)]
