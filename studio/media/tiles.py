"""A large picture in tiles that a network can hold, each with a margin of its neighbours."""

import math
from collections.abc import Iterator
from typing import NamedTuple

GRAIN = 12  # tiles and margins are multiples, so that any scale gives whole pixels


class Span(NamedTuple):
    """A tile along one axis. start, end: with its margin. core_start, core_end: without."""

    start: int
    end: int
    core_start: int
    core_end: int


def spans(length: int, side: int, margin: int) -> list[Span]:
    """Tiles along one axis, of `side` pixels at most; one tile where it would fit with margins."""
    margin = -(-margin // GRAIN) * GRAIN
    if length <= side + 2 * margin:
        return [Span(0, length, 0, length)]
    count = math.ceil(length / side)
    core = -(-length // (count * GRAIN)) * GRAIN
    starts = range(0, length, core)
    return [
        Span(max(0, at - margin), min(length, at + core + margin), at, min(length, at + core))
        for at in starts
    ]


def grid(size: tuple[int, int], side: int, margin: int) -> Iterator[tuple[Span, list[Span]]]:
    """Rows of tiles of a picture (width, height): the row's span, and those of its tiles."""
    across = spans(size[0], side, margin)
    for down in spans(size[1], side, margin):
        yield down, across
