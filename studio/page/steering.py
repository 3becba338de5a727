"""Changing a run while it is made: its prompts, its step size, and what else its engine allows.

The page redraws all this twice a second. What somebody types stays, since a field is filled with
the value in force only when it is first shown, or when the box opens and nobody has changed it.
"""

import secrets
from typing import Any

import streamlit as st

from studio.base.errors import BadInput
from studio.engines import registry
from studio.making.changes import in_words
from studio.making.steering import ask, settings_now
from studio.page.actions import PRESSES, attempt, show_problem
from studio.page.parts import PROMPT
from studio.page.text import plain
from studio.page.widgets import show_prompt_box, show_widget
from studio.runs import change_requests
from studio.runs.details_keys import engine_of
from studio.runs.run_index import Entry
from studio.settings.declare import matters
from studio.settings.run_settings import RunSettings

MOST = 4  # changes that are told
NOTHING_NEW = "These values are in force already. Change one of them, then apply it."


def show_steering(entry: Entry) -> None:
    """What has changed in a run that is being made, and a box to change more of it."""
    engine = registry.find(engine_of(entry.details))
    if engine is None or not engine.settings.CHANGEABLE or not entry.details.get("num_steps"):
        return
    with st.container(key=_key(entry, "steering")):
        box = st.expander(
            "Change this run",
            key=_key(entry, "change"),
            on_change=_refresh,
            args=(entry,),
        )
        if box.open:
            with box:
                _show_fields(entry)
        _show_changes(entry)


def _show_fields(entry: Entry) -> None:
    state = st.session_state
    settings = settings_now(entry.details)
    for name in _changeable(settings):
        field, key = type(settings).model_fields[name], _key(entry, name)
        if key not in state or name not in _filled(entry):
            state[key] = _filled(entry)[name] = getattr(settings, name)
        show = show_prompt_box if name == PROMPT else show_widget
        show(name, field, key=key)
    st.button(
        "Apply to this run",
        key=_key(entry, "apply"),
        help="The values count from the next step on. The run notes them with the step, so that its"
        " picture can be made again.",
        on_click=_apply,
        args=(secrets.token_hex(), entry),
    )
    show_problem(_key(entry, "problem"))


def _apply(token: str, entry: Entry) -> None:
    """token: of the button as it was drawn; see `Presses`."""
    with PRESSES.heeding(token) as is_heeded:
        if is_heeded:
            with attempt(_key(entry, "problem")):
                _ask(entry)


def _ask(entry: Entry) -> None:
    """Ask for the values that were typed. What nobody touched stays, also if it changes later."""
    filled = _filled(entry)
    typed = {name: st.session_state.get(_key(entry, name), was) for name, was in filled.items()}
    given = {name: value for name, value in typed.items() if value != filled[name]}
    if not given:
        raise BadInput(NOTHING_NEW)
    ask(entry.folder, given)
    filled.update(given)
    st.toast("Changed from the next step on.")


def _refresh(entry: Entry) -> None:
    """Show what is in force by now in the fields that nobody has touched."""
    state, settings = st.session_state, settings_now(entry.folder.read())
    for name, was in _filled(entry).items():
        if state.get(_key(entry, name)) == was:
            state[_key(entry, name)] = _filled(entry)[name] = getattr(settings, name)


def _show_changes(entry: Entry) -> None:
    """The latest changes, and whether one is still to be taken up."""
    for when, what in list(in_words(entry.details))[-MOST:]:
        st.caption(plain(f"{when}: {what}"))
    if change_requests.pending(entry.folder.path):
        st.caption("A change counts from the next step on.")


def _changeable(settings: RunSettings) -> list[str]:
    """What may change, apart from settings without effect."""
    fields, values = type(settings).model_fields, settings.model_dump()
    return [name for name in settings.CHANGEABLE if matters(fields[name], values)]


def _filled(entry: Entry) -> dict[str, Any]:
    """The values that the fields were filled with."""
    return st.session_state.setdefault(_key(entry, "filled"), {})


def _key(entry: Entry, what: str) -> str:
    return f"steer-{what}-{entry.name}"
