"""The keys that press Run!, wherever on the page a person is."""

from typing import Any

import streamlit as st
from streamlit.components.v2 import component

from studio.base.paths import STATIC_DIR

RUN_KEYS = "Ctrl+Enter"  # Cmd+Enter on a Mac


def count_presses_once() -> None:
    """Let keys that are held down press Run! only once."""
    _once()(key="once")


@st.cache_resource(show_spinner=False)
def _once() -> Any:
    return component("once", js=(STATIC_DIR / "once.js").read_text(encoding="utf-8"))
