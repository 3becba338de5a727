"""details.json: how a run tells other processes what it is doing. Never imports torch.

The process that computes a run refreshes `heartbeat` in it. Once the heartbeat has stood still for
SILENT_SECONDS, that process counts as gone, wherever nothing proves it sooner.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from studio.base.files import read_json

DETAILS = "details.json"
HEARTBEAT_SECONDS = 5.0
SILENT_SECONDS = 30.0


def now() -> str:
    """The time as ISO 8601 with the zone, to the millisecond."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def read_details(folder: Path) -> dict[str, Any]:
    """details.json of a run folder. Raises BadInput where it is missing or broken."""
    return read_json(folder / DETAILS)


def is_silent(details: Mapping[str, Any]) -> bool:
    """Whether the last heartbeat is long ago, or there is none."""
    try:
        last = datetime.fromisoformat(str(details.get("heartbeat")))
        return (datetime.now().astimezone() - last).total_seconds() > SILENT_SECONDS
    except (ValueError, TypeError):
        return True


def status_of(details: Mapping[str, Any]) -> str:
    """queued, running, done, stopped, failed, or interrupted: running, but silent.

    Folders of the older layout have no status: they are done.
    """
    status = str(details.get("status", "done"))
    return "interrupted" if status == "running" and is_silent(details) else status
