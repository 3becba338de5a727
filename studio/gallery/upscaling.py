"""Upscaled pictures in the gallery, and the upscalings that a person asked for. No torch.

The gallery only puts one into the queue; the app's worker, or worker.py, computes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gallery_utils import LARGER, FoundRun, as_text
from studio.base.errors import shortened
from studio.gallery.search import SMALL, Tile
from studio.runs import upscalings
from studio.runs.details_keys import upscaled_in
from studio.runs.storage import ACTIVE

AS_MADE = "made"  # in addresses, the picture that is not upscaled
MAX_SCALE = 8
MAX_MESSAGE = 600


@dataclass(frozen=True)
class Version:
    """A picture of a run, as it was made or upscaled.

    key: names it in addresses. mark: changes with the file, for the address of the picture.
    """

    key: str
    file: str
    called: str
    width: int
    height: int
    mark: str

    @property
    def is_larger(self) -> bool:
        """Whether it is upscaled."""
        return self.key != AS_MADE

    @property
    def is_crisp(self) -> bool:
        """Whether it is so small that it is enlarged with pixels as squares."""
        return not self.is_larger and max(self.width, self.height) <= SMALL


@dataclass(frozen=True)
class Shown:
    """One of a run's pictures: the version to show, and all there are, the newest first."""

    version: Version
    versions: Sequence[Version]

    @property
    def as_made(self) -> Version:
        """The picture that is not upscaled."""
        return self.versions[-1]


@dataclass(frozen=True)
class Job:
    """An upscaling that waits, is computed, or ended without a picture. done: in per cent."""

    scale: int
    model: str
    status: str
    done: int
    error: str

    @property
    def is_active(self) -> bool:
        """Whether it waits or is computed."""
        return self.status in ACTIVE


def shown_pictures(run: FoundRun, tile: Tile, key: str) -> list[Shown]:
    """The run's pictures, each in the version of that key, else in the newest one."""
    found = [_versions(run, tile, name) for name in run.pictures]
    return [
        Shown(next((one for one in versions if one.key == key), versions[0]), versions)
        for versions in found
    ]


def larger_of(run: FoundRun, picture: str) -> str:
    """The file that one of the run's pictures was upscaled to last; "" if it was not."""
    found = (str(entry["file"]) for entry in reversed(_entries(run)) if entry.get("of") == picture)
    return next(found, "")


def larger_files(run: FoundRun) -> set[str]:
    """The upscaled pictures of a run."""
    return {str(entry["file"]) for entry in _entries(run)}


def jobs_of(output_dir: Path, tile: Tile) -> list[Job]:
    """The upscalings of a run that are under way or ended without a picture."""
    found = [(upscalings.asked_in(e.details), e) for e in upscalings.of_run(output_dir, tile.name)]
    return [
        Job(
            asked.scale,
            as_text(asked.model),
            as_text(entry.status),
            round(100 * upscalings.share_done(entry.folder)),
            shortened(entry.details.get("error") or "", MAX_MESSAGE),
        )
        for asked, entry in found
        if asked
    ]


def _versions(run: FoundRun, tile: Tile, name: str) -> list[Version]:
    """The upscaled ones, the newest first, then the picture as it was made."""
    larger = [
        Version(
            f"x{entry['scale']}",
            entry["file"],
            f"×{entry['scale']} {as_text(entry.get('model'))}",
            tile.width * entry["scale"],
            tile.height * entry["scale"],
            f"{tile.stamp}-{as_text(entry.get('model'))}",
        )
        for entry in reversed(_entries(run))
        if entry.get("of") == name
    ]
    made = Version(AS_MADE, name, "As made", tile.width, tile.height, str(tile.stamp))
    return [*larger, made]


def _entries(run: FoundRun) -> list[Mapping[str, Any]]:
    """What the details tell of upscaled pictures that are there."""
    there = run.files.get(LARGER, ())
    return [
        entry
        for entry in upscaled_in(run.details)
        if entry.get("file") in there and _is_scale(entry.get("scale"))
    ]


def _is_scale(value: object) -> bool:
    return type(value) is int and 1 < value <= MAX_SCALE
