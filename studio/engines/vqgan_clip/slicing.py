"""The slices of a run that makes nine: what each has come to, and the picture of them all.

No torch here. States of slices are kept as they are given.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from studio.engines.vqgan_clip.growth import Size
from studio.engines.vqgan_clip.slice_plan import SLICES, due, made_boxes
from studio.media.nine_slices import blended_within, boxes
from studio.media.pictures import check_rgb

NONE = -1  # the number of no slice


class Slicing:
    """Nine slices of a picture of `size` (width, height), by number.

    factor: of the VQGAN. each: the steps that a slice takes at a time.
    under: the picture that the slices begin with, and lie on; None until it is there.
    current: the number of the slice that is worked on; NONE before the first.
    steps: made of each slice. pictures: of those that were made whole.
    states: of those that were begun, but the current one's.
    inherited: whether the run goes on with slices of another one.
    """

    def __init__(self, size: Size, factor: int, each: int) -> None:
        self.size, self._each = size, each
        self._boxes, self._made = boxes(*size), made_boxes(*size, factor)
        self.under: np.ndarray | None = None
        self.current = NONE
        self.steps = [0] * SLICES
        self.pictures: dict[int, np.ndarray] = {}
        self.states: dict[int, Mapping[str, Any]] = {}
        self.inherited = False
        self._whole: np.ndarray | None = None  # of the pictures, over what lies under them
        self._live: Mapping[int, np.ndarray] = {}  # the pictures and that of the last step, if any

    @property
    def made_size(self) -> Size:
        """Width and height of a slice as the VQGAN makes it."""
        box = self._made[0]
        return box.right - box.left, box.bottom - box.top

    @property
    def due(self) -> int:
        """The number of the slice to work on next."""
        return due(self.steps, self._each)

    def begin_with(self, under: np.ndarray) -> None:
        """From here on, slices are made. under: the starting picture, uint8 [H, W, 3]."""
        self.under, self._whole = under, None

    def turn_to(self, number: int, state: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Work on another slice. state: of the one so far. Returns its own, if it was begun."""
        if self.current != NONE:
            self.states[self.current] = state
        self.current = number
        return self.states.pop(number, None)

    def start_of(self, number: int) -> np.ndarray:
        """What a slice begins with, as the VQGAN makes it: its part of the starting picture.

        Of a slice that was taken from a file, whose state is not known, it is that picture.
        """
        assert self.under is not None
        made = self._made[number]
        start = made.of(self.under).copy()
        if number in self.pictures:
            self._boxes[number].moved(made).of(start)[:] = self.pictures[number]
        return start

    def add(self, made: np.ndarray) -> bool:
        """Take in a step's picture of the current slice; whether the slice is whole now."""
        number = self.current
        picture = self._boxes[number].moved(self._made[number]).of(made)
        self.steps[number] += 1
        self._live = {**self.pictures, number: picture}
        if is_whole := self.steps[number] % self._each == 0:
            self.pictures[number] = picture.copy()
            if self._whole is not None:
                self._blend(number, self.pictures, self._whole)
        return is_whole

    def picture(self) -> np.ndarray:
        """The slices, as they are after the last step, over what lies under them."""
        assert self.under is not None
        if self._whole is None:
            self._whole = self.under.copy()
            for number in self.pictures:
                self._blend(number, self.pictures, self._whole)
        shown = self._whole.copy()
        if self._live:
            self._blend(self.current, self._live, shown)
        return shown

    def _blend(self, number: int, slices: Mapping[int, np.ndarray], picture: np.ndarray) -> None:
        """Blend slices into a picture where one of them lies: a part takes less memory."""
        assert self.under is not None
        box = self._boxes[number]
        box.of(picture)[:] = blended_within(box, slices, self.under)

    @property
    def are_whole(self) -> bool:
        """Whether all nine are there."""
        return len(self.pictures) == SLICES

    def take(self, pictures: Mapping[int, np.ndarray]) -> bool:
        """Let the slices that are whole be these, and make those again that are not among them.

        Slices of a run that goes on with another one's stay as they are: this run could not make
        them alone. Returns whether anything is different now.
        """
        before = dict(self.pictures)
        for number in range(SLICES):
            if number in pictures:
                self._put(number, pictures[number])
            elif number in self.pictures and not self.inherited:
                self._forget(number)
        self._whole, self._live = None, {}
        return before.keys() != self.pictures.keys() or any(
            not np.array_equal(before[number], picture) for number, picture in self.pictures.items()
        )

    def fits(self, picture: np.ndarray) -> bool:
        """Whether it has the size of a slice."""
        box = self._boxes[0]
        return picture.shape == (box.bottom - box.top, box.right - box.left, 3)

    def _put(self, number: int, picture: np.ndarray) -> None:
        """A slice that is there is not made; later rounds go on from its own state."""
        self.pictures[number] = picture
        if self.steps[number] < self._each:
            self._forget_work(number)
            self.steps[number] = self._each

    def _forget(self, number: int) -> None:
        self.steps[number] = 0
        self.pictures.pop(number, None)
        self._forget_work(number)

    def _forget_work(self, number: int) -> None:
        self.states.pop(number, None)
        if self.current == number:
            self.current = NONE

    def state(self) -> dict[str, Any]:
        """What `restore` takes. Arrays in it are never changed."""
        under = {} if self.under is None else {"under": self.under}
        return {
            "current": self.current,
            "inherited": self.inherited,
            "steps": np.array(self.steps),
            "pictures": {str(number): picture for number, picture in self.pictures.items()},
            "states": {str(number): state for number, state in self.states.items()},
            **under,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` gave. Raises ValueError or other errors of Python."""
        current, steps = int(state["current"]), [int(count) for count in state["steps"]]
        pictures = {int(n): picture for n, picture in state.get("pictures", {}).items()}
        states: dict[int, Mapping[str, Any]] = {
            int(n): dict(found) for n, found in state.get("states", {}).items()
        }
        under, (width, height) = state.get("under"), self.size
        if len(steps) != SLICES or min(steps) < 0:
            raise ValueError("it does not count the steps of nine slices")
        if not {current, *pictures, *states} <= {*range(NONE, SLICES)}:
            raise ValueError("it has slices of other numbers")
        if not all(map(self.fits, pictures.values())):
            raise ValueError("its slices have another size")
        if under is not None and under.shape != (height, width, 3):
            raise ValueError("its slices are of a picture of another size")
        check_rgb([*pictures.values()])
        check_rgb([] if under is None else [under])
        self.inherited = bool(state.get("inherited"))
        self.current, self.steps, self.pictures, self.states = current, steps, pictures, states
        self.under, self._whole = under, None


def restarted(state: Mapping[str, Any], seeded: Sequence[Any] | None) -> dict[str, Any]:
    """The state of a run with slices, for another run to go on from with other settings.

    Each latent is anchored where it is. seeded: random numbers to come, by slice; None: the same.
    """
    slices = dict(state["slices"])
    slices["states"] = {
        number: _anchored(found, seeded and seeded[int(number)])
        for number, found in slices.get("states", {}).items()
    }
    if (current := int(slices["current"])) != NONE:
        state = _anchored(state, seeded and seeded[current])
    return {**state, "slices": slices}


def _anchored(state: Mapping[str, Any], random: Any) -> dict[str, Any]:
    kept = {**state, "mse_target": state["z"], "optimisation_steps": 0}
    return kept if random is None else {**kept, "random": random}
