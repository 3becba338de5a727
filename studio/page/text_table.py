"""A table of text fields for a setting that has a text for each slice of a picture.

The setting's lines, under its name in the session state, are all there is to keep.
"""

import streamlit as st
from pydantic.fields import FieldInfo

from studio.media.nine_slices import NAMES
from studio.page.mirror import mirror
from studio.settings.declare import meta

COLUMNS = 3


def show_text_table(name: str, field: FieldInfo, key: str) -> None:
    """Draw the table. key: where the setting's lines lie in the session state."""
    label = meta(field)["label"]
    texts = _texts(key)
    with st.container(key=f"table-{key}", gap="xxsmall"):
        st.caption(label, help=field.description)
        for first in range(0, len(NAMES), COLUMNS):
            with st.container(horizontal=True, wrap=False, gap="xsmall"):
                for number in range(first, first + COLUMNS):
                    st.text_input(
                        f"{label}: {NAMES[number]}",
                        texts[number],
                        placeholder=NAMES[number],
                        label_visibility="collapsed",
                        **mirror(f"{key}-{number}", texts[number], _write, key, number),
                    )


def _texts(key: str) -> list[str]:
    lines = str(st.session_state.get(key) or "").split("\n")
    return [*lines, *[""] * len(NAMES)][: len(NAMES)]


def _write(text: str, key: str, number: int) -> None:
    texts = _texts(key)
    texts[number] = " ".join(text.split())
    st.session_state[key] = "\n".join(texts) if any(texts) else ""
