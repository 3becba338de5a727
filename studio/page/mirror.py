"""Widgets that show a value kept elsewhere, such as the slider of a weight in the prompt's text.

With each touch, a browser sends the state of all widgets. So when the page has just changed such a
widget, the next touch may bring back the widget's last state, as if a person had chosen it. To tell
the two apart, the widget gets a new key with each change from outside, and only the newest counts.
"""

from collections.abc import Callable
from typing import Any

import streamlit as st


def mirror(name: str, value: Any, act: Callable[..., None], *args: Any) -> dict[str, Any]:
    """The key and the callback of the widget that is to show `value` now, as its default.

    act: called with the value that a person chooses, and with args. A choice keeps the key, and so
    the keyboard's place, if the value follows it.
    """
    state = st.session_state
    number, start = state.get(_last(name), (0, None))
    if state.get(_key(name, number), start) != value:
        number += 1
        state[_last(name)] = (number, value)
    return {"key": _key(name, number), "on_change": _heed, "args": (name, number, act, *args)}


def _heed(name: str, number: int, act: Callable[..., None], *args: Any) -> None:
    """Act, unless this comes too late, or from a widget that holds nothing yet."""
    state = st.session_state
    if number == state[_last(name)][0] and (chosen := state[_key(name, number)]) is not None:
        act(chosen, *args)


def _key(name: str, number: int) -> str:
    return f"{name}-{number}"


def _last(name: str) -> str:
    return f"mirror-of-{name}"
