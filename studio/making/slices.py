"""The slices of a run's picture, kept as files: read again, or one of them made again.

Never imports torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from studio.base.errors import BadInput
from studio.base.files import atomic_write, disk_failure
from studio.making import recipes
from studio.media.nine_slices import NAMES
from studio.media.pictures import encode_png, load_picture
from studio.runs import checkpoints, storage
from studio.runs.storage import RunFolder
from studio.settings.values import make

NUMBERS = range(len(NAMES))


def has_slices(details: Mapping[str, Any]) -> bool:
    """Whether a run's picture is made from nine slices."""
    return details.get("slices") == "nine"


def are_kept(details: Mapping[str, Any]) -> bool:
    """Whether a run keeps its slices as files."""
    return has_slices(details) and bool(details.get("save_nine"))


def keep(folder: RunFolder, slices: Mapping[int, np.ndarray]) -> None:
    """Write slices into a run's folder, by number. Raises OSError."""
    for number, slice_ in slices.items():
        path = storage.part_path(folder.path, number)
        path.parent.mkdir(exist_ok=True)
        atomic_write(path, encode_png(Image.fromarray(slice_)))


def there(folder: RunFolder) -> tuple[dict[int, np.ndarray], list[str]]:
    """The slices in a run's folder, by number, and sentences about those that are broken."""
    found, warnings = {}, []
    for number in NUMBERS:
        path = storage.part_path(folder.path, number)
        if path.exists():
            try:
                found[number] = np.asarray(load_picture(path, f"{storage.PARTS}/{path.name}"))
            except BadInput as error:
                warnings.append(f"{error} It was made again.")
    return found, warnings


def are_missing(folder: RunFolder) -> bool:
    """Whether a run that keeps its slices lacks some, so that it can make them again."""
    return are_kept(folder.read()) and len(there(folder)[0]) < len(NUMBERS)


def number_of(text: str) -> int:
    """The slice that a person names: 0 to 8, or NW, N, ... SE. Raises BadInput."""
    name = text.strip().upper()
    if name in NAMES:
        return NAMES.index(name)
    if name.isascii() and name.isdigit() and int(name) in NUMBERS:
        return int(name)
    known = ", ".join(f"{number} ({name})" for number, name in enumerate(NAMES))
    raise BadInput(f"There is no slice '{text[:20]}'. There are: {known}.")


def line_of(lines: Sequence[str], number: int) -> str:
    """The line for a slice in a file of slice prompts. Raises BadInput."""
    if len(lines) != len(NUMBERS):
        raise BadInput(f"--slice-prompts must be nine lines; there were {len(lines)}.")
    return lines[number].strip()


def forget(
    folder: RunFolder, number: int, prompt: str | None = None, seed: int | None = None
) -> None:
    """Let a run that is resumed make one of its slices again.

    prompt, seed: of the slice from now on; None keeps them. Raises BadInput.
    """
    details, status = folder.read(), folder.proven_status()
    if status in storage.ACTIVE:
        raise BadInput(f"The run {folder.name} is {status}. Make a slice again when it has ended.")
    if not has_slices(details):
        raise BadInput(f"The run {folder.name} has no slices: it was made without --slices nine.")
    if details.get("continue_prev_run"):
        raise BadInput(
            f"The run {folder.name} goes on with the slices of another run. Make a slice again in"
            " that run, or start a new one."
        )
    changes: dict[str, Any] = {"save_nine": True}
    if prompt is not None:
        changes["slice_prompts"] = _with(details.get("slice_prompts"), number, prompt)
    if seed is not None:
        changes["slice_seeds"] = _with(details.get("slice_seeds"), number, str(seed))
    settings = recipes.settings_in(details)
    settings = make(type(settings), settings.model_dump(), changes)
    try:
        if not are_kept(details):
            keep(folder, _in_checkpoint(folder))
        storage.part_path(folder.path, number).unlink(missing_ok=True)
        folder.update(**{name: getattr(settings, name) for name in changes})
    except OSError as error:
        raise disk_failure(error) from None


def _with(texts: list[str] | None, number: int, text: str) -> list[str]:
    return [text if n == number else old for n, old in enumerate(texts or [""] * len(NUMBERS))]


def _in_checkpoint(folder: RunFolder) -> dict[int, np.ndarray]:
    """The slices that are whole in the state of a run that did not keep them as files."""
    path = folder.path / storage.CHECKPOINT
    if not path.exists():
        raise BadInput(f"The run {folder.name} kept neither its slices nor a checkpoint.")
    state = checkpoints.read(path).state.get("slices", {})
    return {int(number): slice_ for number, slice_ in state.get("pictures", {}).items()}
