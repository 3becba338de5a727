"""The space that runs use on the disk, and what of it can be freed."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import streamlit as st

from errors import StudioError
from page_actions import attempt
from places import Places
from run_index import Entry
from storage import ACTIVE, CHECKPOINT, START_CHECKPOINT, began_at
from trash import TRASH

CHECKPOINTS = (CHECKPOINT, START_CHECKPOINT)
OLD_DAYS = 30


@dataclass(frozen=True)
class Space:
    """Bytes: all that lies in the output folder, and of it the checkpoints and the trash."""

    total: int
    checkpoints: int
    trash: int


def measure(output_dir: Path) -> Space:
    """Look at every file below an output folder."""
    total = checkpoints = trash = 0
    for path, size in _files(output_dir):
        total += size
        checkpoints += size if path.name in CHECKPOINTS else 0
        trash += size if path.is_relative_to(output_dir / TRASH) else 0
    return Space(total, checkpoints, trash)


def free_checkpoints(runs: Sequence[Entry], days: int) -> int:
    """Delete the checkpoints of runs that ended and began so long ago; returns the bytes freed.

    Such runs can still be continued, but from their picture alone.
    """
    freed = 0
    for entry in runs:
        if entry.status in (*ACTIVE, "interrupted") or not _is_older(entry.name, days):
            continue
        with suppress(OSError, StudioError), entry.folder.computing():
            for name in CHECKPOINTS:
                path = entry.folder.path / name
                size = path.stat().st_size if path.exists() else 0
                path.unlink(missing_ok=True)
                freed += size
    return freed


def show_space(runs: Sequence[Entry], places: Places) -> None:
    """Measured only while somebody looks, since it takes a look at every file."""
    popover = st.popover("Space", on_change="rerun", key="space", type="tertiary")
    if not popover.open:
        return
    with popover:
        space = measure(places.output_dir)
        st.markdown(
            f"All runs: {in_words(space.total)}  \n"
            f"of it checkpoints: {in_words(space.checkpoints)}  \n"
            f"and the trash: {in_words(space.trash)}"
        )
        days = st.number_input(
            "Older than (days)", min_value=0, step=1, value=OLD_DAYS, key="old_days"
        )
        st.button(
            "Delete their checkpoints",
            key="free-checkpoints",
            help="Pictures and videos stay. Such runs can be continued from their picture, but no"
            " longer exactly. Interrupted runs keep theirs.",
            on_click=_free,
            args=(runs, days),
        )


def in_words(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _free(runs: Sequence[Entry], days: int) -> None:
    with attempt():
        st.toast(f"Freed {in_words(free_checkpoints(runs, days))}.")


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            with suppress(OSError):  # gone meanwhile
                yield path, path.lstat().st_size


def _is_older(name: str, days: int) -> bool:
    made = began_at(name)
    return made is not None and datetime.now() - made >= timedelta(days=days)
