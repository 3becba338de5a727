"""Upscalings that a person asked for beside a result: a folder for each. Never imports torch.

The folders lie in `.upscaling/` of the output folder, as `<run folder>-x4`. To the queue, each is
what a run folder is: the status in its details.json, its claims, its heartbeat and its `stop` mean
the same. The folder goes once the large picture lies in the run's own folder.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from studio.runs import run_index, storage
from studio.runs.details import now
from studio.runs.run_index import Entry
from studio.runs.storage import ACTIVE, UPSCALINGS, RunFolder
from studio.runs.trash import TRASH

ASKED = "upscaling"  # the key of its details that says what a person asked for
SHARE = "share"  # the key of its progress.json: how much is done, from 0 to 1


@dataclass(frozen=True)
class Asked:
    """Of which run, how many times as large, and by which model."""

    run: str
    scale: int
    model: str


def folder_of(run: RunFolder, scale: int) -> RunFolder:
    """The folder of a run's upscaling, which may not exist."""
    return RunFolder(run.path.parent / UPSCALINGS / f"{run.name}-x{scale}")


def is_upscaling(folder: RunFolder) -> bool:
    """Whether it is the folder of an upscaling, not of a run."""
    return folder.path.parent.name == UPSCALINGS


def entries(output_dir: Path) -> list[Entry]:
    """All upscalings that wait, are computed, or ended without a picture; the newest first."""
    home = output_dir / UPSCALINGS
    if home.is_symlink():  # it may lead anywhere
        return []
    found = run_index.entries(home)
    return [e for e in found if asked_in(e.details) and not e.folder.path.is_symlink()]


def of_run(output_dir: Path, name: str) -> list[Entry]:
    """Those of one run, by their scales."""
    found = [(asked_in(entry.details), entry) for entry in entries(output_dir)]
    ours = [(asked.scale, entry) for asked, entry in found if asked and asked.run == name]
    return [entry for _, entry in sorted(ours, key=lambda pair: pair[0])]


def asked_in(details: Mapping[str, Any]) -> Asked | None:
    """What a person asked for; None where the details do not say it."""
    found = details.get(ASKED)
    try:
        asked = Asked(**found) if isinstance(found, dict) else None
    except TypeError:
        return None
    if asked is None or type(asked.scale) is not int:
        return None
    is_text = all(isinstance(text, str) for text in (asked.run, asked.model))
    return asked if is_text and Path(asked.run).name == asked.run else None


def details_of(asked: Asked, prompt: str) -> dict[str, Any]:
    """details.json as an upscaling begins with it. prompt: of the run, to be shown."""
    return {
        "status": "queued",
        "error": None,
        "queued_at": now(),
        "start_time": None,
        "end_time": None,
        "heartbeat": now(),
        "host": None,
        "text_input": prompt,
        ASKED: asdict(asked),
    }


def share_done(folder: RunFolder) -> float:
    """How much of it is done, from 0 to 1."""
    share = folder.read_progress().get(SHARE)
    return min(1.0, max(0.0, share)) if isinstance(share, int | float) else 0.0


def forget(output_dir: Path, name: str) -> None:
    """Delete the upscalings of a run that ended without a picture."""
    for entry in of_run(output_dir, name):
        if entry.status not in ACTIVE:
            entry.folder.remove()


def sweep(output_dir: Path) -> None:
    """Delete those that ended, and whose run is neither here nor in the trash."""
    homes = output_dir, output_dir / TRASH
    for entry in entries(output_dir):
        asked = asked_in(entry.details)
        is_known = asked and any((home / asked.run / storage.DETAILS).is_file() for home in homes)
        if entry.status not in ACTIVE and not is_known:
            entry.folder.remove()
