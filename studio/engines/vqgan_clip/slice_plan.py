"""Which of nine slices is made when, and by how many steps. No torch here.

A run makes a small picture first, unless it begins with a picture, and then slice after slice. What
comes next depends on the steps that were made, and on no number of steps to come: n steps and then
m more are the same as n + m.
"""

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from studio.base.errors import BadInput
from studio.engines.vqgan_clip import growth
from studio.engines.vqgan_clip.growth import USUAL_BEGINNING, Size
from studio.media.nine_slices import NAMES, Box, boxes
from studio.settings.common import MAX_SEED

SLICES = len(NAMES)
COMPOSING = 0.25  # share of a run's steps that the small picture takes at least
ENDLESS_STEPS = 50  # of a slice, in a run without an end


def nine(texts: Sequence[str], what: str) -> list[str]:
    """Texts without spaces around them: nine, or none if all are blank. Raises ValueError."""
    if texts and len(texts) != SLICES:
        raise ValueError(f"must be nine {what}; there were {len(texts)}")
    found = [text.strip() for text in texts]
    return found if any(found) else []


def is_seed(text: str) -> bool:
    """Whether a text is a seed in digits."""
    return text.isascii() and text.isdigit() and int(text) <= MAX_SEED


def check_size(width: int, height: int, factor: int) -> None:
    """Raises BadInput for a picture whose slices would be smaller than what a code covers."""
    if min(width, height) < 2 * factor:
        raise BadInput(
            f"{width}x{height} is too small for nine slices. Choose at least"
            f" {2 * factor}x{2 * factor}, or one picture without slices."
        )


def fitted_to_slices(
    num_steps: int, slice_steps: int, grow_steps: int, begins_with_picture: bool
) -> tuple[dict[str, Any], list[str]]:
    """How the steps of a run are shared out, as settings, and warnings.

    slice_steps: of each slice, if they are chosen; then grow_steps are those of the small picture.
    """
    fitting: dict[str, Any] = {}
    if not slice_steps and num_steps < 0:
        fitting["slice_steps"] = slice_steps = ENDLESS_STEPS
    elif not slice_steps:
        composing = 0 if begins_with_picture else math.ceil(num_steps * COMPOSING)
        slice_steps = max(1, (num_steps - composing) // SLICES)
        grow_steps = max(1, num_steps - SLICES * slice_steps)
        fitting = {"slice_steps": slice_steps}
        fitting |= {} if begins_with_picture else {"grow_steps": grow_steps}
    needed = SLICES * slice_steps + (0 if begins_with_picture else grow_steps)
    if 0 < num_steps < needed:
        return fitting, [
            f"All nine slices take {needed} steps. This run ends before that, so the last slices"
            " are only enlarged. Take more steps."
        ]
    if "slice_steps" in fitting and num_steps > needed:
        fitting["num_steps"] = needed
        return fitting, [f"The {num_steps} steps became {needed}, the same for each slice."]
    return fitting, []


def first_size(width: int, height: int, factor: int, grow_from: int) -> Size:
    """The size of the small picture that the slices begin with, as of a picture that grows."""
    return growth.sizes(width, height, factor, grow_from or USUAL_BEGINNING)[0]


def due(steps: Sequence[int], each: int) -> int:
    """The slice to work on, by number. steps: made of each slice so far. each: of a round."""
    return min(range(SLICES), key=lambda number: (steps[number] // each, number))


def slice_seed(seed: int, seeds: Sequence[str], number: int) -> int:
    """The seed of a slice's own random numbers. seeds: those that were chosen, by number; or none.

    It depends on no other slice, so that a slice made again alone is the same.
    """
    chosen = int(seeds[number]) if seeds and seeds[number] else seed
    digest = blake2b(f"{chosen} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def made_boxes(width: int, height: int, factor: int) -> list[Box]:
    """The slices of a picture as a VQGAN makes them, whose sides are multiples of `factor`.

    Where half a side is none, a slice is made with more of what is beside it.
    """
    wide, high = (math.ceil(side / 2 / factor) * factor for side in (width, height))
    return [
        Box(left, top, left + wide, top + high)
        for box in boxes(width, height)
        for left, top in [(min(box.left, width - wide), min(box.top, height - high))]
    ]
