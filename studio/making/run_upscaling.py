"""Upscaled pictures of runs: where they lie in the run's folder, and what its details say of them.

Never imports torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput
from studio.base.stopping import Stop
from studio.runs.details_keys import UPSCALED, upscaled_in
from studio.runs.storage import ACTIVE, RunFolder


@dataclass(frozen=True)
class Larger:
    """An upscaled file of a run: how many times as large, and by which model."""

    path: Path
    scale: int
    model: str


class EitherStop(Stop):
    """A request to the process, or to the run (or the upscaling) in its folder."""

    def __init__(self, process: Stop, folder: RunFolder) -> None:
        super().__init__()
        self._process, self._folder = process, folder

    @property
    def requested(self) -> bool:
        """Whether a stop was requested."""
        return self._process.requested or self._folder.stop_requested()


def check_ended(folder: RunFolder) -> None:
    """Raises BadInput for a run that is still being made."""
    if (status := folder.live_status()) in ACTIVE:
        raise BadInput(f"The run {folder.name} is {status}. Wait until it has ended.")


def note_upscaled(folder: RunFolder, target: Path, origin: Mapping[str, Any]) -> None:
    """Tell in the run's details of an upscaled file. One outside the folder is not told of."""
    if target.parent.resolve() != folder.path.resolve():
        return
    folder.update(**with_upscaled(folder.read(), target, origin))


def with_upscaled(
    details: Mapping[str, Any], target: Path, origin: Mapping[str, Any]
) -> dict[str, Any]:
    """What changes in a run's details by an upscaled file in its folder."""
    kept = [other for other in upscaled_in(details) if other.get("file") != target.name]
    return {UPSCALED: [*kept, {"file": target.name, **origin}]}


def larger_of(folder: RunFolder, details: Mapping[str, Any], of: str) -> list[Larger]:
    """The upscaled files of a run that are there, made of the file of that name; newest first."""
    found = (entry for entry in reversed(upscaled_in(details)) if entry.get("of") == of)
    paths = ((folder.path / Path(str(entry.get("file"))).name, entry) for entry in found)
    return [
        Larger(path, entry["scale"], str(entry.get("model")))
        for path, entry in paths
        if path.is_file() and isinstance(entry.get("scale"), int)
    ]


def forget_upscaled(folder: RunFolder) -> None:
    """Delete the upscaled files of a run that goes on: they show what it was before."""
    if not (before := upscaled_in(folder.read())):
        return
    for entry in before:
        (folder.path / Path(str(entry.get("file"))).name).unlink(missing_ok=True)
    folder.update(**{UPSCALED: []})
