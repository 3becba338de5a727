"""The queue: the run folders whose status is queued, in their order. Never imports torch.

The folders of upscalings (`upscalings.py`) wait in it like those of runs. The folders are the
truth, and claims (`claims.py`) decide which process may change one. Messages (`delivery.py`) only
wake workers up; nothing here depends on them.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput, DiskFull, RunFailed
from studio.base.files import atomic_write
from studio.making.ask_upscaling import ask
from studio.making.prepare import Plan
from studio.making.submit import reopen, submit
from studio.making.upscaling import Upscaling
from studio.queue.delivery import notify
from studio.runs import run_index, storage, upscalings
from studio.runs.claims import claimed, is_claimed
from studio.runs.run_index import Entry
from studio.runs.storage import RunFolder

RANK = ".rank"  # in a waiting run's folder: its place, if somebody moved it
FIRST = float("-inf")
PAUSED = "paused"
MAX_CRASHES = 1


# --- order ---------------------------------------------------------------------------------------


def entries(output_dir: Path) -> list[Entry]:
    """The runs and the upscalings of an output folder, each newest first."""
    return [*run_index.entries(output_dir), *upscalings.entries(output_dir)]


def line(output_dir: Path) -> list[Entry]:
    """What waits in an output folder, in the order in which workers take it."""
    return waiting(entries(output_dir))


def waiting(runs: Sequence[Entry]) -> list[Entry]:
    """Those that are queued, in the order in which workers take them. runs: newest first."""
    queued = [entry for entry in reversed(runs) if entry.status == "queued"]
    return sorted(queued, key=lambda entry: (_rank(entry), _queued_at(entry)))


def move(output_dir: Path, name: str, place: int) -> None:
    """Put a waiting run at a place, counted from 0. A run that does not wait stays as it is."""
    entries = line(output_dir)
    moved = next((entry for entry in entries if entry.name == name), None)
    if moved is None:
        return
    entries.remove(moved)
    entries.insert(max(0, place), moved)
    for rank, entry in enumerate(entries):
        _write_rank(entry.folder, rank)


def behind(output_dir: Path, name: str) -> list[str]:
    """The names of the runs that wait behind a waiting one; none if it does not wait."""
    names = [entry.name for entry in line(output_dir)]
    return names[names.index(name) + 1 :] if name in names else []


def move_back(output_dir: Path, behind: Mapping[str, Sequence[str]]) -> None:
    """Put waiting runs where they were: each before the first that waits of those behind it.

    behind: by the runs' names, in the order of the line, what `behind` gave for each.
    """
    waits = {entry.name: entry for entry in line(output_dir)}
    names = list(waits)
    for name in reversed([name for name in behind if name in waits]):
        names.remove(name)
        others = (names.index(other) for other in behind[name] if other in names)
        names.insert(next(others, len(names)), name)
    for rank, name in enumerate(names):
        _write_rank(waits[name].folder, rank)


def move_up(output_dir: Path, name: str) -> None:
    """Put a waiting run one place earlier. Raises BadInput if it no longer waits."""
    names = [entry.name for entry in line(output_dir)]
    if name not in names:
        raise BadInput(f"The run {name} is not in the queue any more.")
    move(output_dir, name, names.index(name) - 1)


def _rank(entry: Entry) -> float:
    with suppress(OSError, ValueError):
        return float((entry.folder.path / RANK).read_text())
    with suppress(ValueError):
        return datetime.fromisoformat(_queued_at(entry)).timestamp()
    return 0.0


def _queued_at(entry: Entry) -> str:
    return str(entry.details.get("queued_at", entry.name))


def _write_rank(folder: RunFolder, rank: float) -> None:
    with suppress(OSError):  # the run is gone, or the disk is full: then it keeps its place
        atomic_write(folder.path / RANK, str(rank).encode(), durable=False)


# --- what a person does --------------------------------------------------------------------------


def enqueue(
    plan: Plan, queue_url: str | None = None, belongs: Mapping[str, Any] | None = None
) -> RunFolder:
    """Make the run's folder and wake up a worker. belongs: as for `submit`. Raises BadInput."""
    folder = submit(plan, belongs=belongs)
    notify(plan.output_dir, queue_url, folder.name)
    return folder


def enqueue_upscaling(
    folder: RunFolder, wanted: Upscaling, assets_dir: Path, queue_url: str | None = None
) -> RunFolder:
    """Let a worker upscale the result of a run. Raises BadInput as `ask_upscaling.ask` does."""
    job = ask(folder, wanted, assets_dir)
    notify(folder.output_dir, queue_url, job.name)
    return job


def withdraw_upscaling(folder: RunFolder) -> None:
    """Stop an upscaling after its current tile; one that waits is gone at once. Raises BadInput."""
    if cancel(folder) == "stopped":
        folder.remove()


def cancel(folder: RunFolder) -> str:
    """Take a run out of the queue, or stop it after its current step. It keeps what it has.

    Returns its new status: "stopped", or "running" until the step is done. Raises BadInput for a
    run that has ended.
    """
    status = folder.live_status()
    if status not in storage.ACTIVE:
        raise BadInput(f"The run {folder.name} is {status} already; there is nothing to cancel.")
    if withdraw(folder):
        return "stopped"
    folder.request_stop()
    return "running"


def withdraw(folder: RunFolder) -> bool:
    """Take a run out of the queue, if it still waits; returns whether it did. Raises BadInput."""
    if folder.live_status() == "queued":
        with claimed(folder.path) as claim:
            if claim and folder.live_status() == "queued":
                folder.update(status="stopped", end_time=storage.now())
                return True
    return False


def resume(folder: RunFolder, queue_url: str | None = None) -> None:
    """Put a run that failed, was interrupted or was stopped back into the queue, at its end.

    Raises BadInput as `submit.reopen` does, and if another process owns the run.
    """
    with claimed(folder.path) as claim:
        if claim is None:
            raise BadInput(f"The process that computes the run {folder.name} is still alive.")
        reopen(folder, claim=claim)
        (folder.path / RANK).unlink(missing_ok=True)
        folder.update(queued_at=storage.now(), crashes=0)
    notify(folder.path.parent, queue_url, folder.name)


@dataclass(frozen=True)
class Pause:
    """The state in which no waiting run is started. reason: in words, "" if a person paused."""

    reason: str


def pause(output_dir: Path, reason: str = "") -> None:
    """Start no waiting run until `unpause`. Runs that are being computed continue."""
    path = _pause_path(output_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()  # a full disk mostly still allows that
    with suppress(OSError):
        atomic_write(path, reason.encode(), durable=False)


def paused(output_dir: Path) -> Pause | None:
    """The pause, or None while the queue is not paused."""
    try:
        return Pause(_pause_path(output_dir).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return Pause("")


def unpause(output_dir: Path, queue_url: str | None = None) -> None:
    """End the pause, and wake up a worker for each waiting run."""
    _pause_path(output_dir).unlink(missing_ok=True)
    for entry in line(output_dir):
        notify(output_dir, queue_url, entry.name)


def _pause_path(output_dir: Path) -> Path:
    return output_dir / ".queue" / PAUSED


# --- what workers do -----------------------------------------------------------------------------


def next_run(output_dir: Path) -> RunFolder | None:
    """The run to take now; None while nothing waits, or the queue is paused."""
    if paused(output_dir):
        return None
    waits = line(output_dir)
    return next((entry.folder for entry in waits if not is_claimed(entry.folder.path)), None)


def hand_back(folder: RunFolder) -> None:
    """Put a run that its worker cannot finish into the queue again, first in line."""
    _write_rank(folder, FIRST)
    folder.update(status="queued", end_time=None)


def after_failure(folder: RunFolder, error: RunFailed) -> None:
    """As `after_crash`, for a run that recorded its failure. A full disk pauses the queue."""
    if isinstance(error, DiskFull):
        pause(folder.output_dir, error.on_page)
    else:
        after_crash(folder, error.on_page)


def after_crash(folder: RunFolder, reason: str) -> str:
    """Put a run whose worker crashed into the queue again once; mark it failed the second time.

    The caller holds the run's claim. Returns the new status.
    """
    details = folder.read()
    crashes = int(details.get("crashes") or 0) + 1
    if crashes > MAX_CRASHES:
        done = max(folder.read_progress().get("step", 0), details.get("num_steps") or 0)
        folder.update(
            status="failed", error=reason, crashes=crashes, num_steps=done, end_time=storage.now()
        )
        return "failed"
    _write_rank(folder, FIRST)
    folder.update(status="queued", error=None, crashes=crashes, last_crash=reason, end_time=None)
    return "queued"
