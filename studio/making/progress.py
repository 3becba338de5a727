"""The progress of a run: its speed, its loss over the steps, and the live files that show both."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from studio.base.files import atomic_write, to_json
from studio.media.pictures import encode_jpeg, tiled
from studio.runs import storage

LIVE_SECONDS = 0.25
LIVE_SHARE = 0.02  # the largest share of the run's time that its live files may take
LIVE_QUALITY = 85
HISTORY_POINTS = 200
TOTAL = "total"  # the loss that `History` keeps


class Progress:
    """Speed and loss of a run, written to its folder now and then."""

    def __init__(self, folder: Path, planned: int) -> None:
        self._folder = folder
        self._planned = planned
        self.enlarge: Callable[[np.ndarray], np.ndarray] | None = None  # what is shown live
        self._next = 0.0
        self.history = History(HISTORY_POINTS)
        self.clock = Clock()

    def add(self, index: int, losses: Mapping[str, float]) -> None:
        """Take in a step."""
        self.clock.tick()
        if TOTAL in losses:
            self.history.add(index, losses[TOTAL])

    @property
    def is_due(self) -> bool:
        """Whether it is time to write the live files again."""
        return time.monotonic() >= self._next

    def tell(self, index: int, losses: Mapping[str, float], pictures: Sequence[np.ndarray]) -> None:
        """Write the live picture and progress.json. Raises OSError."""
        began = time.monotonic()
        if len(pictures):
            shown = tiled(pictures)
            shown = self.enlarge(shown) if self.enlarge else shown
            picture = encode_jpeg(Image.fromarray(shown), LIVE_QUALITY)
            atomic_write(self._folder / storage.PREVIEW, picture, durable=False)
        facts = to_json(self._facts(index, losses))
        atomic_write(self._folder / storage.PROGRESS, facts, durable=False)
        spent = time.monotonic() - began
        self._next = began + max(LIVE_SECONDS, spent / LIVE_SHARE)

    def _facts(self, index: int, losses: Mapping[str, float]) -> dict[str, Any]:
        rate = self.clock.steps_per_second
        return {
            "step": index,
            "planned_num_steps": self._planned,
            "steps_per_second": rate,
            "seconds_left": (self._planned - index) / rate if self._planned > 0 and rate else None,
            "losses": finite(losses),
            "history": self.history.points,
        }


class History:
    """A value over the steps, as at most `limit` evenly spaced points [step, value]."""

    def __init__(self, limit: int) -> None:
        self.points: list[tuple[int, float | None]] = []
        self._limit = limit
        self._stride = 1

    def add(self, step: int, value: float) -> None:
        """Take in the value of a step, counted from 1."""
        if (step - 1) % self._stride:
            return
        self.points.append((step, value if math.isfinite(value) else None))
        if len(self.points) > self._limit:
            self.points = self.points[::2]
            self._stride *= 2

    def forget_after(self, step: int) -> None:
        """Leave out the steps after that one: they are made again."""
        self.points = [point for point in self.points if point[0] <= step]

    def as_dict(self) -> dict[str, Any]:
        """All that `restore` needs, for JSON."""
        return {"points": self.points, "stride": self._stride}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue with what `as_dict` gave."""
        self.points = [(step, value) for step, value in saved["points"]]
        self._stride = saved["stride"]


class Clock:
    """Steps per second. The first step, which warms up, counts only until there is a second."""

    def __init__(self) -> None:
        self._began = self._first = self._last = time.monotonic()
        self._steps = 0

    def start(self) -> None:
        """The first step begins now."""
        self._began = time.monotonic()

    def tick(self) -> None:
        """A step is done."""
        self._last = time.monotonic()
        self._steps += 1
        if self._steps == 1:
            self._first = self._last

    @property
    def steps_per_second(self) -> float | None:
        """The rate so far; None before the first step."""
        steps, since = (self._steps - 1, self._first) if self._steps > 1 else (1, self._began)
        seconds = self._last - since
        return round(steps / seconds, 4) if self._steps and seconds > 0 else None


def finite(losses: Mapping[str, float]) -> dict[str, float | None]:
    """Losses for JSON, which has no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in losses.items()}
