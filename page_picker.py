"""The switch "Continue previous run" with the choice of the run, by thumbnails."""

from collections.abc import Sequence

import streamlit as st

from page_runs import date_of, plain, prompt_of, show_choice, show_thumbnail
from run_index import Entry

CONTINUE = "continue_previous_run"
PICKED = "picked"
MOST = 24


def continue_switch(previous: Entry | None, others: Sequence[Entry]) -> None:
    """The checkbox, and while it is on the run that is meant and those to pick instead."""
    with st.container():
        on = st.checkbox(
            "Continue previous run",
            help="Go on from the last run, or from the one that you pick, with this prompt and"
            " these settings; without a prompt, with its own. A smaller size crops it.",
            key=CONTINUE,
        )
        if on and previous:
            _show_previous(previous)
            _show_picker(others)
        elif on:
            st.caption("There is no finished run to continue yet.")


def picked_or_last(runs: Sequence[Entry]) -> Entry | None:
    """The run to continue. runs: those that can be, the newest first."""
    name = st.session_state.get(PICKED)
    return next((e for e in runs if e.name == name), next(iter(runs), None))


def pick(name: str) -> None:
    """Let the next run go on from this one."""
    st.session_state[PICKED] = name
    st.session_state[CONTINUE] = True


def _show_previous(previous: Entry) -> None:
    with st.container(horizontal=True, vertical_alignment="center", wrap=False, key="previous"):
        with st.container(width=64):
            show_thumbnail(previous)
        words = f"Goes on from “{plain(prompt_of(previous.details, 60))}” ({plain(previous.name)})."
        st.caption(words, width="stretch")


def _show_picker(others: Sequence[Entry]) -> None:
    popover = st.popover("Pick another run", on_change="rerun", key="picker", width="stretch")
    if not popover.open:
        return
    with popover, st.container(key="picking"):
        words = st.text_input("Find by prompt", key="find_run")
        found = [e for e in others if words.casefold() in prompt_of(e.details, 1000).casefold()]
        with st.container(horizontal=True, key="pickable-runs"):
            for entry in found[:MOST]:
                _show_choice(entry)
        if len(found) > MOST:
            st.caption(f"{len(found) - MOST} more: type a word of the prompt.")


def _show_choice(entry: Entry) -> None:
    with st.container(width=116, gap="xxsmall"):
        show_choice(entry, "pick", 24, pick, plain(prompt_of(entry.details, 300)))
        st.caption(date_of(entry.name))
