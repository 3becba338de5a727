"""The runs of an output folder, with what details.json says of each. Never imports torch.

Pages look every half second, and an output folder may hold thousands of runs. So details are read
again only when they have changed.
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
    """A run folder and its details."""

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
    """Every run with readable details, newest first. Anything else in the folder is skipped."""
    try:
        paths = [path for path in output_dir.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []
    found = [entry for entry in map(_entry, paths) if entry]
    return sorted(found, key=_began, reverse=True)


def running(runs: list[Entry]) -> list[Entry]:
    """The runs that are being computed, by any process, the earliest first."""
    return [entry for entry in reversed(runs) if entry.status == "running"]


def _began(entry: Entry) -> tuple[str, str]:
    """The time in the folder's name, which older layouts have too, then that in the details."""
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
