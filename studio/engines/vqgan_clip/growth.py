"""The sizes at which a large picture is made, one after the other. No torch here.

A network that was trained on small pictures composes small pictures: at a large size, it shows the
same motif all over. So a large picture begins small, where its composition forms, and is enlarged
and refined again and again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import accumulate
from typing import Any, Self

import numpy as np

USUAL_BEGINNING = 256  # pixels a side, about what published weights were trained with
# Where no size to grow from is chosen, as with published weights: pictures of up to so many pixels
# squared are made in one piece, larger ones grow.
WHOLE_UP_TO = 1536
TILE = 512  # pixels, the longest side of the tiles that large pictures are made in

Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class Stage:
    """A size in pixels, and how many steps of the run lie before it."""

    width: int
    height: int
    first_step: int

    @property
    def size(self) -> Size:
        """Width and height."""
        return self.width, self.height


@dataclass(frozen=True)
class Growth:
    """The stages of a run, of which the last has the picture's own size, and where the run is."""

    stages: Sequence[Stage]
    number: int = 0  # of the stage, counted from 0

    @classmethod
    def planned(cls, sizes: Sequence[Size], grow_steps: int) -> Self:
        """Through those sizes, with `grow_steps` steps before the last one."""
        firsts = first_steps(len(sizes), grow_steps)
        return cls([Stage(*size, first) for size, first in zip(sizes, firsts, strict=True)])

    @classmethod
    def of_state(cls, state: Mapping[str, Any], size: Size) -> Self | None:
        """Where the state of a run was in its growth; None where nothing grew.

        size: of the run's picture. Raises ValueError or other errors of Python for what is no such
        state.
        """
        if "growth" not in state:
            return None
        stages = [Stage(*map(int, row)) for row in state["growth"]["stages"]]
        number = range(len(stages))[int(state["growth"]["number"])]
        width, height = size
        fit = all(0 < s.width <= width and 0 < s.height <= height for s in stages)
        if not fit or stages[-1].size != size:
            raise ValueError(f"it does not grow to {width}x{height}")
        return cls(stages, number)

    def state(self) -> dict[str, Any]:
        """What `of_state` takes; nothing where nothing grows."""
        if not self.grows_to:
            return {}
        rows = np.array([astuple(stage) for stage in self.stages])
        return {"growth": {"stages": rows, "number": self.number}}

    @property
    def size(self) -> Size:
        """Of the pictures of this stage."""
        return self.stages[self.number].size

    @property
    def grows_to(self) -> Size | None:
        """The size of the finished picture, if there are smaller ones before it."""
        return self.stages[-1].size if len(self.stages) > 1 else None

    def due(self, steps: int) -> Self | None:
        """The growth in the stage that is to begin after so many steps, if there is one."""
        later = enumerate(self.stages[self.number + 1 :], start=self.number + 1)
        numbers = [number for number, stage in later if stage.first_step <= steps]
        return replace(self, number=numbers[-1]) if numbers else None

    def warnings(self, num_steps: int) -> list[str]:
        """A sentence for the person if a run of so many steps ends before the picture has grown."""
        full_size_after = self.stages[-1].first_step
        if not 0 < num_steps <= full_size_after:
            return []
        return [
            f"The picture begins at {self.size[0]}x{self.size[1]} and has its full size after"
            f" {full_size_after} steps. This run ends before that, so its last picture is only"
            " enlarged. Take more steps, or fewer 'Steps to full size'."
        ]


def is_large(width: int, height: int, grow_from: int) -> bool:
    """Whether a picture is larger than those that are made in one piece, of small memory."""
    return width * height > (grow_from or WHOLE_UP_TO) ** 2


def sizes(width: int, height: int, factor: int, grow_from: int) -> list[Size]:
    """The sizes of a picture's stages; the last is its own.

    factor: every side is a multiple of it. grow_from: the side of a square, about as large as which
    it begins; 0 is for a person who chose none.
    """
    doublings = 0
    if is_large(width, height, grow_from):
        doublings = _doublings(math.sqrt(width * height) / (grow_from or USUAL_BEGINNING))
    smaller = [
        (_shrunk(width, 2**n, factor), _shrunk(height, 2**n, factor))
        for n in range(doublings, 0, -1)
    ]
    return [*smaller, (width, height)]


def sizes_that_hold(sizes: Sequence[Size], width: int, height: int) -> list[Size]:
    """Those sizes that lose no detail of a picture of that size; at least the last."""
    large_enough = [size for size in sizes if size[0] >= width or size[1] >= height]
    return large_enough or [sizes[-1]]


def first_steps(count: int, grow_steps: int) -> list[int]:
    """How many steps lie before each of `count` stages: `grow_steps` before the last.

    Each stage has half as many as the one before. They depend on no number of steps to come, so n
    steps and then m more are the same as n + m.
    """
    shares = [0.5**n for n in range(count - 1)]
    return [0, *(round(end / sum(shares) * grow_steps) for end in accumulate(shares))]


def _doublings(times: float) -> int:
    """How often to double what grows so many times: to at most 1.4 times what was to begin with."""
    return max(0, math.ceil(math.log2(times) - 0.5))


def _shrunk(side: int, times: int, factor: int) -> int:
    return max(1, round(side / times / factor)) * factor
