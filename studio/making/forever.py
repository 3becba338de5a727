"""Series without an end: when a run ends, one like it follows, with a new seed, until stopped.

What follows lies in the run's details, as with chains, so that a series goes on without any page,
and after a restart. The next run begins where this one began, with the same settings. A run that a
person stops is followed as well; one that failed is not. `end` ends a series. Never imports torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.making.prepare import Request, prepare
from studio.making.submit import submit
from studio.runs import run_index
from studio.runs.batches import BATCH, batch_of
from studio.runs.claims import claimed
from studio.runs.details import DETAILS
from studio.runs.details_keys import engine_of
from studio.runs.run_index import Entry
from studio.runs.storage import RunFolder
from studio.settings.common import MAX_SEED

FOREVER = "forever"  # the key in details.json
FIRST: Mapping[str, Any] = {FOREVER: {"after": None}}  # for `submit`, of the first run of a series


def goes_on(entry: Entry) -> bool:
    """Whether another run follows this one when it ends."""
    return isinstance(entry.details.get(FOREVER), dict) and not entry.folder.is_last


def follow(folder: RunFolder, assets_dir: Path) -> RunFolder | None:
    """Put the run after one that has ended into its folder; None if there is none to make.

    The caller holds the run's claim, so it is made once. Raises BadInput where it cannot be made.
    """
    details = folder.read()
    runs = run_index.entries(folder.path.parent)
    ended = details.get("status") in ("done", "stopped")
    if not ended or not _may_follow(details) or folder.is_last or _next_runs(folder.name, runs):
        return None
    plan = prepare(
        Request(
            given=_given(details),
            output_dir=folder.path.parent,
            assets_dir=assets_dir,
            engine=engine_of(details),
            settings_file=folder.path / DETAILS,
            new_seed=True,
        )
    )
    belongs = {FOREVER: {"after": folder.name}, BATCH: batch_of(details)}
    following = submit(plan, "queued", belongs)
    folder.update(**{FOREVER: details[FOREVER] | {"followed_by": following.name}})
    return _withdrawn(following) if folder.is_last else following


def unfollowed(runs: Sequence[Entry]) -> list[Entry]:
    """The runs that are done and after which the next run of the series has not been made."""
    done = [e for e in runs if e.details.get("status") == "done" and _may_follow(e.details)]
    return [e for e in done if not e.folder.is_last and not _next_runs(e.name, runs)]


def end(runs: Iterable[Entry]) -> None:
    """Let nothing follow these runs. Those that are being computed go on to their own end."""
    for entry in runs:
        if entry.folder.path.is_dir() and _may_follow(entry.details):
            entry.folder.end_series()


def _withdrawn(following: RunFolder) -> RunFolder | None:
    """Take back a run that was made while somebody ended the series and could not see it yet.

    None, unless a worker has it already; then it is the last.
    """
    with claimed(following.path) as claim:
        if claim and following.live_status() == "queued":
            following.remove()
            return None
    following.end_series()
    return following


def _given(details: Mapping[str, Any]) -> dict[str, Any]:
    """What the next run does not take over: it makes all steps, with a seed of its own."""
    given = {"num_steps": details["planned_num_steps"], "set_seed": bool(details["set_seed"])}
    if given["set_seed"]:
        given["seed"] = (details["seed"] + 1) % (MAX_SEED + 1)
    return given


def _may_follow(details: Mapping[str, Any]) -> bool:
    series = details.get(FOREVER)
    return isinstance(series, dict) and not series.get("followed_by")


def _next_runs(name: str, runs: Sequence[Entry]) -> list[Entry]:
    series = ((entry, entry.details.get(FOREVER)) for entry in runs)
    return [entry for entry, told in series if isinstance(told, dict) and told.get("after") == name]
