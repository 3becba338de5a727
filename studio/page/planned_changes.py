"""What Run! changes while the next run is made, as the run did whose settings were taken."""

from collections.abc import Callable

import streamlit as st

from studio.making.changes import described, left_out, steps_in_words
from studio.making.recipes import Recipe
from studio.page.text import plain
from studio.settings.run_settings import RunSettings

MOST = 5  # changes that are told one by one


def show_planned_changes(
    recipe: Recipe, kind: type[RunSettings], leave_out: Callable[[], None]
) -> None:
    """The changes with their steps, and a button that calls `leave_out`.

    kind: the settings of the form's engine.
    """
    with st.container(horizontal=True, vertical_alignment="center", border=True, key="planned"):
        typed = {name: st.session_state.get(name) for name in recipe.began_with}
        if other := recipe.changed_otherwise(typed):
            st.markdown(plain(left_out(recipe.changes, kind, other)), width="stretch")
            return
        lines = [f"{when}: {what}" for when, what in described(recipe.changes, kind)]
        more = ["…"] if len(lines) > MOST else []
        steps = steps_in_words(recipe.changes)
        words = f"That run changed at {steps}. Run! changes the next run in the same way."
        told = "  \n".join(f":small[{plain(line)}]" for line in [*lines[:MOST], *more])
        st.markdown(f"{words}  \n{told}", width="stretch")
        help_text = "The next run keeps the form's settings from its first step to its last."
        st.button("Leave the changes out", key="no-changes", on_click=leave_out, help=help_text)
