"""A notification of the browser when a run has ended while the person looked at another tab."""

from collections.abc import Sequence

import streamlit as st

from studio.page.components import mounted
from studio.page.text import prompt_of, status_word
from studio.runs.run_index import Entry
from studio.runs.storage import ACTIVE

ENDED = "ended"  # the name of the run whose end this tab has seen last


def show_notify(runs: Sequence[Entry]) -> None:
    """The button that asks the browser, while runs are active; and the notification itself."""
    name = st.session_state.get(ENDED)
    ended = next((entry for entry in runs if entry.name == name), None)
    is_active = any(entry.status in ACTIVE for entry in runs)
    data = {"active": is_active, "ended": ended and ended.name}
    if ended:
        data |= {"title": status_word(ended), "body": prompt_of(ended.details)}
    mounted("notify")(key="notify", data=data)
