"""Beside the seed: a die that draws a new one, and an arrow for the last run's."""

import secrets
from collections.abc import Iterable

import streamlit as st

from studio.runs.details_keys import engine_of
from studio.runs.run_index import Entry

SET_SEED, SEED = "set_seed", "seed"
DRAWN_BELOW = 2**32  # short enough to read; a person may type any up to MAX_SEED


def show_seed_buttons(last: int | None) -> None:
    """last: the seed of the last run, if there is one."""
    st.button(
        "New seed",
        icon=":material/casino:",
        key="icon-new-seed",
        help="Draw a new seed and keep it for each run from now on. To let every run draw its own,"
        " switch off 'Set seed'.",
        on_click=_draw,
    )
    st.button(
        "Seed of the last run",
        icon=":material/replay:",
        key="icon-last-seed",
        help="Use the seed of the last run again."
        if last is not None
        else "Use the seed of the last run again. There is no such run yet.",
        on_click=_use,
        args=(last,),
        disabled=last is None,
    )


def last_seed(runs: Iterable[Entry], engine: str) -> int | None:
    """The seed of the newest run of that engine. runs: the newest first."""
    seeds = (entry.details.get(SEED) for entry in runs if engine_of(entry.details) == engine)
    return next((seed for seed in seeds if isinstance(seed, int)), None)


def _draw() -> None:
    _use(secrets.randbelow(DRAWN_BELOW))


def _use(seed: int) -> None:
    st.session_state.update({SET_SEED: True, SEED: str(seed)})
