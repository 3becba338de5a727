"""Which engine the form is for, and why an engine cannot be used."""

from collections.abc import Mapping
from contextlib import suppress

import streamlit as st

from studio.base.errors import BadInput
from studio.engines import registry
from studio.page.form import Form
from studio.page.memory import Memory
from studio.page.text import plain
from studio.queue.options import StudioOptions
from studio.queue.slots import read_states

ENGINE = "engine"
ENGINE_BEFORE = "engine_before"  # the one that the page was drawn for last


def choose_engine(unavailable: Mapping[str, str], options: StudioOptions, memory: Memory) -> str:
    """Draw the choice if there are several engines; returns the name of the chosen one.

    unavailable: as `unavailable_engines` gives it.
    """
    names, state = registry.names(), st.session_state
    if state.get(ENGINE) not in names:
        last = memory.engine()
        state[ENGINE] = last if last in names else names[0]
    if len(names) > 1:
        st.selectbox(
            "Engine",
            names,
            key=ENGINE,
            format_func=lambda name: f"{name} (unavailable)" if name in unavailable else name,
            help="What makes the picture. Each engine has settings of its own.",
            on_change=_enter,
            args=(options, memory),
        )
        for name, reason in unavailable.items():
            st.caption(plain(f"{name} is unavailable: {reason}"))
    state[ENGINE_BEFORE] = state[ENGINE]
    return state[ENGINE]


def unavailable_engines(options: StudioOptions) -> dict[str, str]:
    """The engines that cannot be used, each with the reason: this machine's, or every worker's."""
    ready = [state for state in read_states(options.output_dir) if state.phase == "ready"]
    reasons = {}
    for name in registry.names():
        told = [state.unavailable.get(name, "") for state in ready]
        if reason := registry.unavailable(name) or (told[0] if told and all(told) else ""):
            reasons[name] = reason
    return reasons


def _enter(options: StudioOptions, memory: Memory) -> None:
    """Keep what was typed for the last engine, and show what was typed for this one.

    An engine that cannot be imported has no form; the page says why.
    """
    before, now = (st.session_state[key] for key in (ENGINE_BEFORE, ENGINE))
    with suppress(BadInput):
        memory.remember(before, Form(before, options.assets_dir, memory).changed())
    with suppress(BadInput):
        Form(now, options.assets_dir, memory).enter()
