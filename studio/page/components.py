"""Components of ours: their markup, script and style are in static/, under the component's name."""

import json
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

from studio.base.paths import STATIC_DIR


@st.cache_resource(show_spinner=False)
def mounted(name: str) -> Any:
    """What mounts the component of that name. All of them share component.js and component.css."""
    html = _static(f"{name}.html")
    js, css = (_static(f"component.{kind}") + _static(f"{name}.{kind}") for kind in ("js", "css"))
    return component(name, html=html, js=js, css=css)


@st.cache_resource(show_spinner=False)
def listener(name: str) -> Any:
    """What mounts a component that shows nothing: a script alone, for the whole page."""
    return component(name, js=_static(f"{name}.js"))


def bring_into_view(selector: str, **how: str) -> None:
    """Scroll to what a CSS selector finds, if anything. how: the options of `scrollIntoView`."""
    act = f"document.querySelector({json.dumps(selector)})?.scrollIntoView({json.dumps(how)});"
    st.html(f"<script>{act}</script>", unsafe_allow_javascript=True)


def _static(name: str) -> str:
    return (STATIC_DIR / name).read_text(encoding="utf-8")
