"""The disk space that runs use, and how much of it can be freed."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import streamlit as st

from studio.base.errors import StudioError
from studio.page.actions import attempt, show_problem
from studio.queue.options import StudioOptions
from studio.runs.run_index import Entry
from studio.runs.storage import ACTIVE, CHECKPOINT, START_CHECKPOINT, began_at
from studio.runs.trash import TRASH

CHECKPOINTS = (CHECKPOINT, START_CHECKPOINT)
OLD_DAYS = 30
PLACE = "space"  # of its problems
ASKED = "asked_to_free"


@dataclass(frozen=True)
class Space:
    """Bytes of all files in the output folder, of the checkpoints among them, and of the trash."""

    total: int
    checkpoints: int
    trash: int


def measure(output_dir: Path) -> Space:
    """Add up the files below an output folder."""
    total = checkpoints = trash = 0
    for path, size in _files(output_dir):
        total += size
        checkpoints += size if path.name in CHECKPOINTS else 0
        trash += size if path.is_relative_to(output_dir / TRASH) else 0
    return Space(total, checkpoints, trash)


def old_runs(runs: Sequence[Entry], days: int) -> list[Entry]:
    """The runs that have ended, began at least so many days ago and keep checkpoints."""
    ended = (entry for entry in runs if entry.status not in (*ACTIVE, "interrupted"))
    return [entry for entry in ended if _is_older(entry.name, days) and _checkpoints(entry)]


def free_checkpoints(runs: Iterable[Entry]) -> int:
    """Delete the checkpoints of runs; returns the bytes freed.

    Such runs can still be continued, but from their picture alone.
    """
    freed = 0
    for entry in runs:
        with suppress(OSError, StudioError), entry.folder.computing():
            for path in _checkpoints(entry):
                size = path.stat().st_size
                path.unlink()
                freed += size
    return freed


def show_space(runs: Sequence[Entry], options: StudioOptions) -> None:
    """The space and a way to free some. Measured only while it is open, as it reads every file."""
    popover = st.popover("Disk space", on_change="rerun", key="space", type="tertiary")
    if not popover.open:
        st.session_state[ASKED] = False
        return
    with popover:
        show_problem(PLACE)
        space = measure(options.output_dir)
        st.markdown(
            f"All runs: {size_in_words(space.total)}  \n"
            f"Of these, checkpoints: {size_in_words(space.checkpoints)}  \n"
            f"In the trash: {size_in_words(space.trash)}"
        )
        days = st.number_input(
            "Older than (days)", min_value=0, step=1, value=OLD_DAYS, key="old_days"
        )
        _show_deletion(old_runs(runs, days))


def _show_deletion(old: Sequence[Entry]) -> None:
    """A button that asks first."""
    size = sum(path.stat().st_size for entry in old for path in _checkpoints(entry))
    if not st.session_state.get(ASKED):
        st.button(
            f"Delete their checkpoints ({size_in_words(size)}) …",
            key="free-checkpoints",
            disabled=not old,
            on_click=_ask,
            args=(True,),
        )
        return
    st.warning(
        f"Delete the checkpoints of {len(old)} run{'s' if len(old) != 1 else ''}? This cannot be"
        " undone. Pictures and videos stay. These runs can then no longer be resumed, and"
        " are continued from their picture alone. Interrupted runs keep their checkpoints."
    )
    with st.container(horizontal=True):
        st.button("Delete", key="free-yes", type="primary", on_click=_free, args=(old,))
        st.button("Keep", key="free-no", on_click=_ask, args=(False,))


def size_in_words(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _ask(on: bool) -> None:
    st.session_state[ASKED] = on


def _free(old: Iterable[Entry]) -> None:
    _ask(False)
    with attempt(PLACE):
        st.toast(f"Freed {size_in_words(free_checkpoints(old))}.")


def _checkpoints(entry: Entry) -> list[Path]:
    paths = (entry.folder.path / name for name in CHECKPOINTS)
    return [path for path in paths if path.is_file()]


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            with suppress(OSError):  # deleted in the meantime
                yield path, path.lstat().st_size


def _is_older(name: str, days: int) -> bool:
    made = began_at(name)
    return made is not None and datetime.now() - made >= timedelta(days=days)
