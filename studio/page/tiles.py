"""A tile of a grid: one run of several, with its picture, its seed, its state, and one button.

The picture is part of the page's HTML, and only as large as the tile shows it. Streamlit sends an
element again only when it has changed, if it is large enough; see `.streamlit/config.toml`.
"""

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import streamlit as st
from PIL import Image

from studio.base.errors import BadInput
from studio.media.pictures import encode_jpeg, load_picture
from studio.page.actions import remove, show_stop
from studio.page.pictures import as_address
from studio.page.text import STATUS_ICONS, plain, progress_in_words, prompt_of, stage_and_seed
from studio.queue.options import StudioOptions
from studio.runs.run_index import Entry
from studio.runs.storage import ACTIVE

SIDE = 256  # px, the longer side of a tile's picture at most
QUALITY = 85


@dataclass(frozen=True)
class Grid:
    """What the tiles of a grid share.

    shape: width / height of a tile, for CSS. turns: how many runs are before each that waits, by
    its name. chosen: the name of the run whose result is shown. choose: shows that of a run.
    """

    shape: str
    turns: Mapping[str, int]
    chosen: str | None
    choose: Callable[[str], None]
    options: StudioOptions


def show_tile(entry: Entry, grid: Grid) -> None:
    """A run as it is now. A click on the picture of one that has ended shows its result."""
    with st.container(key=f"tile-{entry.name}", gap="xxsmall"):
        with st.container(key=f"open-{entry.name}", gap=None):
            st.html(_figure(entry, grid))
            if entry.status not in ACTIVE:
                st.button(
                    plain(f"Show {stage_and_seed(entry.details)}: {prompt_of(entry.details, 40)}"),
                    key=f"tile-show-{entry.name}",
                    on_click=grid.choose,
                    args=(entry.name,),
                    width="stretch",
                )
        _show_button(entry, grid.options)


def show_planned(number: int, count: int, prompt: str, shape: str) -> None:
    """A stage that is made when those before it are done."""
    words = f"stage {number} of {count}" + (f" · {prompt}" if prompt else "")
    st.html(_frame("", "", shape) + _caption(words, "waits"))


def _show_button(entry: Entry, options: StudioOptions) -> None:
    """Stop for a run that is being computed, Remove for others; told apart by their help."""
    which = stage_and_seed(entry.details)
    if entry.status == "running":
        show_stop(entry, "tile-stop", f"this run ({which})", type="tertiary")
        return
    st.button(
        "Remove",
        key=f"tile-remove-{entry.name}",
        type="tertiary",
        on_click=remove,
        args=(entry, options),
        help=f"Moves this run ({which}) to the trash; you can put it back.",
    )


def _figure(entry: Entry, grid: Grid) -> str:
    details, status = entry.details, entry.status
    progress = entry.folder.read_progress() if status == "running" else {}
    alt = html.escape(f"{stage_and_seed(details)}: {prompt_of(details)}", quote=True)
    address = _picture(entry)
    picture = f'<img alt="{alt}" src="{address}">' if address else ""
    look = " tile-chosen" if entry.name == grid.chosen else ""
    return _frame(picture, look, grid.shape, _bar(progress)) + _caption(
        stage_and_seed(details), _state(entry, progress, grid.turns)
    )


def _frame(picture: str, look: str, shape: str, bar: str = "") -> str:
    return f'<div class="tile{look}" style="aspect-ratio:{shape}">{picture}{bar}</div>'


def _bar(progress: Mapping[str, Any]) -> str:
    """How far the run is; nothing for an endless one."""
    step, planned = progress.get("step", 0), progress.get("planned_num_steps", -1)
    if not progress or planned <= 0:
        return ""
    return f'<div class="tile-bar" style="width:{min(1, step / planned):.0%}"></div>'


def _caption(label: str, state: str) -> str:
    words = f"{label} · {state}" if state else label
    return f'<div class="tile-caption">{html.escape(words)}</div>'


def _state(entry: Entry, progress: Mapping[str, Any], turns: Mapping[str, int]) -> str:
    """Such as "step 3 of 150"; "" for a run that is done."""
    if entry.status == "queued":
        before = turns.get(entry.name, 0)
        return f"waits: {before} before it" if before else "next"
    if entry.status != "running":
        icon = STATUS_ICONS.get(entry.status, "")
        return "" if entry.status == "done" else f"{icon} {entry.status}"
    return progress_in_words(progress)


def _picture(entry: Entry) -> str | None:
    """The address of the run's picture, small; None while it has none that can be read."""
    path = entry.folder.picture_path()
    try:
        return _small(path, path.stat().st_mtime_ns) if path else None
    except OSError:  # removed in the meantime
        return None


@lru_cache(maxsize=512)
def _small(path: Path, mtime_ns: int) -> str | None:
    """mtime_ns: of the file, so that a changed picture gets another address."""
    try:
        picture = load_picture(path, path.name)
    except BadInput:
        return None
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return as_address(encode_jpeg(picture, QUALITY), "jpeg")
