"""The headings that settings are folded under, and the box that finds a setting under them.

What is folded away or does not fit the search is drawn all the same, only out of sight: a widget
that is not drawn forgets its value.
"""

from collections.abc import Callable

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

FIND = "find_setting"


def show_search() -> list[str]:
    """The box for words; returns them in lower case."""
    typed = st.text_input(
        "Find a setting",
        type="search",
        live=True,
        key=FIND,
        placeholder="Find a setting",
        label_visibility="collapsed",
        help="Any words of a setting's name, help or choices.",
    )
    return (typed or "").casefold().split()


def heading(name: str, changed: int, reset: Callable[[str], None]) -> DeltaGenerator:
    """The place for the settings under a heading, which a click on the heading unfolds.

    changed: how many of them differ from the usual values. reset: called with the heading's name.
    """
    with st.container(key=f"heading-{name}", gap=None):
        with st.container(key=f"changed-{name}"):  # always there: the heading must not move
            if changed:
                st.button(
                    f"{changed} changed · reset",
                    key=f"reset-{name}",
                    type="tertiary",
                    help=f"Put the usual values back under {name}.",
                    on_click=reset,
                    args=(name,),
                )
        return st.expander(name)


def unseen() -> DeltaGenerator:
    """The place for what does not fit the search."""
    return st.container(key="unseen")
