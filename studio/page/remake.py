"""Making one of a run's nine slices again: a table to choose it from, and what is to differ."""

import secrets
from collections.abc import Sequence

import streamlit as st

from studio.making import slices
from studio.media.nine_slices import NAMES
from studio.page.actions import CHOSEN, RESULT, attempt
from studio.page.pictures import thumbnail
from studio.page.seeds import DRAWN_BELOW
from studio.page.text_table import COLUMNS
from studio.queue import run_queue
from studio.queue.options import StudioOptions
from studio.runs.run_index import Entry
from studio.runs.storage import part_path


def can_remake(entry: Entry) -> bool:
    """Whether the run's picture is made from slices of its own."""
    return slices.has_slices(entry.details) and not entry.details.get("continue_prev_run")


def show_remake(entry: Entry, options: StudioOptions) -> None:
    """A button that opens the table."""
    popover = st.popover("Make a slice again", on_change="rerun", key=f"remake-{entry.name}")
    if not popover.open:
        return
    with popover:
        number = _show_slices(entry)
        known: Sequence[str] = entry.details.get("slice_prompts") or [""] * len(NAMES)
        st.text_input(
            "Slice prompt",
            known[number],
            key=_key(entry, f"prompt-{number}"),
            help="What this slice should show, besides the prompt.",
        )
        st.checkbox(
            "New seed",
            value=True,
            key=_key(entry, "seed"),
            help="Without it, and with the same prompt, the slice comes out as it is.",
        )
        st.button(
            f"Make {NAMES[number]} again",
            key=_key(entry, "go"),
            type="primary",
            on_click=_remake,
            args=(entry, number, options),
        )


def _show_slices(entry: Entry) -> int:
    """The slices in a table; returns the number of the chosen one."""
    state, chosen = st.session_state, _key(entry, "chosen")
    state.setdefault(chosen, NAMES.index("X"))
    with st.container(gap="xxsmall"):
        for first in range(0, len(NAMES), COLUMNS):
            with st.container(horizontal=True, wrap=False, gap="xsmall"):
                for number in range(first, first + COLUMNS):
                    with st.container(gap="xxsmall"):
                        _show_slice(entry, number, is_chosen=number == state[chosen])
    return state[chosen]


def _show_slice(entry: Entry, number: int, is_chosen: bool) -> None:
    if data := thumbnail(part_path(entry.folder.path, number)):
        st.image(data, width="stretch", alt=f"Slice {NAMES[number]}")
    st.button(
        NAMES[number],
        key=_key(entry, f"choose-{number}"),
        type="primary" if is_chosen else "secondary",
        width="stretch",
        on_click=st.session_state.update,
        args=({_key(entry, "chosen"): number},),
    )


def _remake(entry: Entry, number: int, options: StudioOptions) -> None:
    """With what stands in the fields now, which may be newer than the button."""
    state = st.session_state
    with attempt(RESULT):
        seed = secrets.randbelow(DRAWN_BELOW) if state[_key(entry, "seed")] else None
        slices.forget(entry.folder, number, state[_key(entry, f"prompt-{number}")], seed)
        run_queue.resume(entry.folder, options.queue_url)
        state[CHOSEN] = None


def _key(entry: Entry, what: str) -> str:
    return f"remake-{what}-{entry.name}"
