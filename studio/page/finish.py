"""When everything in the queue is done, as people say it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import streamlit as st

from studio.engines.estimate import duration
from studio.making import forever
from studio.queue.run_queue import Pause
from studio.runs.run_index import Entry


def finish_in_words(
    waiting: Sequence[Entry],
    running: Sequence[Entry],
    seconds: Mapping[str, float],
    pause: Pause | None,
) -> str:
    """Such as "all done at about 14:35 (in 12 min)"; "" where that is not known.

    seconds: as for `queue.show_queue`. Runs that are computed at the same time share the rest.
    """
    if any(_is_endless(entry) for entry in (*waiting, *running)):
        return "goes on until you stop it"
    known = [seconds.get(entry.name) for entry in waiting]
    known += [_seconds_left(entry, seconds) for entry in running]
    if not known or None in known:
        return ""
    left = sum(filter(None, known)) / max(1, len(running))
    return f"about {duration(left)}" if pause else f"all done {_time_in(left)}"


def _is_endless(entry: Entry) -> bool:
    planned = entry.details.get("planned_num_steps")
    return forever.goes_on(entry) or (isinstance(planned, int) and planned < 0)


def _seconds_left(entry: Entry, seconds: Mapping[str, float]) -> float | None:
    """Of a run that is being computed, and of what follows it; None until it has begun to count."""
    left = entry.folder.read_progress().get("seconds_left")
    return None if left is None else left + seconds.get(entry.name, 0.0)


def _time_in(seconds: float) -> str:
    """The time on the clock of the person's browser, if it tells; else on this machine's."""
    now = _now()
    then = now + timedelta(seconds=seconds)
    days = (then.date() - now.date()).days
    day = {0: "", 1: "tomorrow "}.get(days, f"on {then.day} {then:%b} ")
    return f"{day}at about {then:%H:%M} (in {duration(seconds)})"


def _now() -> datetime:
    with suppress(KeyError, ValueError, OSError):  # a browser may say what it likes
        if zone := st.context.timezone:
            return datetime.now(ZoneInfo(zone))
    return datetime.now().astimezone()
