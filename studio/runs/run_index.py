"""The runs of an output folder at a glance: which go, which wait, which came last.

Pages look every half second and folders fill over the years, so that details which did not change
are read once. Never imports torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput
from studio.runs.storage import DETAILS, RunFolder, status_of

TIME_LENGTH = len("YYYYmmddTHHMMSS")


@dataclass(frozen=True)
class Entry:
    """A run folder and what its details say of it."""

    folder: RunFolder
    details: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def status(self) -> str:
        """As `RunFolder.live_status`."""
        return status_of(self.details)


def entries(output_dir: Path) -> list[Entry]:
    """Every run with readable details, newest first. Whatever else lies there is passed over."""
    try:
        paths = [path for path in output_dir.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []
    found = [entry for entry in map(_entry, paths) if entry]
    return sorted(found, key=_age, reverse=True)


def running(runs: list[Entry]) -> list[Entry]:
    """Those being computed, by whichever process, the earliest first."""
    return [entry for entry in reversed(runs) if entry.status == "running"]


def queued(runs: list[Entry]) -> list[Entry]:
    """Those that wait for the worker, in the order that it takes them."""
    waiting = [entry for entry in reversed(runs) if entry.status == "queued"]
    return sorted(waiting, key=lambda entry: str(entry.details.get("queued_at", entry.name)))


def _age(entry: Entry) -> tuple[str, str]:
    """By the folder's time, which older layouts have as well; within a second by the details'."""
    began = entry.details.get("queued_at") or entry.details.get("start_time")
    return entry.name[:TIME_LENGTH], str(began)


def _entry(path: Path) -> Entry | None:
    try:
        stat = (path / DETAILS).stat()
        details = _details(path, stat.st_mtime_ns, stat.st_ino)
    except (OSError, BadInput):
        return None
    return Entry(RunFolder(path), details)


@lru_cache(maxsize=20_000)
def _details(path: Path, mtime_ns: int, inode: int) -> Mapping[str, Any]:
    return RunFolder(path).read()
