"""The runs of an output folder, with what details.json says of each. Never imports torch.

Pages look every half second, and an output folder may hold thousands of runs. So details are read
again only when they have changed, and paths are text: `Path` would take most of the time.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
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

    @cached_property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def status(self) -> str:
        """As `RunFolder.live_status`."""
        return status_of(self.details)

    @cached_property
    def began(self) -> tuple[str, str]:
        """The time in the folder's name, which older layouts have too, then that in the details."""
        began = self.details.get("queued_at") or self.details.get("start_time")
        return self.name[:TIME_LENGTH], str(began)


def entries(output_dir: Path) -> list[Entry]:
    """Every run with readable details, newest first. Anything else in the folder is skipped."""
    try:
        names = [name for name in os.listdir(output_dir) if name[0] != "."]  # noqa: PTH208
    except OSError:
        return []
    found = [entry for name in names if (entry := _entry(f"{output_dir}{os.sep}{name}"))]
    return sorted(found, key=lambda entry: entry.began, reverse=True)


def running(runs: list[Entry]) -> list[Entry]:
    """The runs that are being computed, by any process, the earliest first."""
    return [entry for entry in reversed(runs) if entry.status == "running"]


def _entry(folder: str) -> Entry | None:
    try:
        stat = os.stat(f"{folder}{os.sep}{DETAILS}")  # noqa: PTH116
        return _read(folder, stat.st_mtime_ns, stat.st_ino)
    except (OSError, BadInput):
        return None


@lru_cache(maxsize=20_000)
def _read(folder: str, mtime_ns: int, inode: int) -> Entry:
    """The same object until the details change, so that a look costs little."""
    run = RunFolder(Path(folder))
    return Entry(run, run.read())
