"""Widgets that show a value kept elsewhere, such as the slider of a weight in the prompt's text.

With each touch, a browser sends the state of all widgets. So when the page has just changed such a
widget, the next touch may bring back the widget's last state, as if a person had chosen it. To tell
the two apart, the widget gets a new key with each change from outside, and only the newest counts.
"""

from typing import Any

import streamlit as st


def mirror(name: str, value: Any) -> str:
    """The key of the widget that is to show `value` now. Draw it with that key and that default.

    A person's own choice keeps the key, and so the keyboard's place, if the value follows it.
    """
    state = st.session_state
    number, start = state.get(_last(name), (0, None))
    if state.get(newest(name), start) != value:
        state[_last(name)] = (number + 1, value)
    return newest(name)


def newest(name: str) -> str:
    """The key of the widget of that name. A callback for another key came too late."""
    number, _ = st.session_state.get(_last(name), (0, None))
    return f"{name}-{number}"


def _last(name: str) -> str:
    return f"mirror-of-{name}"
