"""One widget for a setting, of the kind that suits its declaration.

A widget keeps its value in Streamlit's session state under the setting's name.
"""

from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st
from pydantic.fields import FieldInfo

from studio.engines.contract import Choices
from studio.page.form_values import fits_browser
from studio.page.text_table import show_text_table
from studio.settings.declare import choice_in_words, choices, meta, value_type

LONG = 60  # characters of a text that needs several lines

About = Mapping[str, Any]  # label, help, key and on_change, as every widget takes them


def show_widget(
    name: str,
    field: FieldInfo,
    offered: Choices | None = None,
    on_change: Callable[[], None] | None = None,
    key: str | None = None,
) -> None:
    """Draw the widget of a setting.

    offered: what the engine offers for it, if anything. on_change: called after another choice.
    key: where the value lies in the session state, if not under the setting's name.
    """
    about: dict[str, Any] = {**about_setting(name, field, key), "on_change": on_change}
    kept: dict[str, Any] = {**about, "persist_state": "page"}
    if meta(field)["lines"]:
        show_text_table(name, field, key or name)
    elif value_type(field) is bool or meta(field)["is_switch"]:
        st.checkbox(**kept)
    elif words := choices(field):
        st.selectbox(**kept, options=words, format_func=choice_in_words)
    elif offered is not None:
        _choice_box(offered, about)
    elif len(str(field.default)) > LONG:
        st.text_area(**kept, height=160)
    elif not fits_browser(field):
        st.text_input(**kept, placeholder=meta(field)["example"])
    elif value_type(field) is int:
        st.number_input(**kept, step=1)
    else:
        st.number_input(**kept, step=_step(field.default), format="%0.4g")


def show_prompt_box(name: str, field: FieldInfo, key: str | None = None) -> None:
    """Several lines for text. key: as for `show_widget`."""
    st.text_area(**about_setting(name, field, key), height=80, placeholder=meta(field)["example"])


def about_setting(name: str, field: FieldInfo, key: str | None = None) -> dict[str, Any]:
    """Label, help and key of a setting's widget.

    A number has no limits in the browser: the settings refuse a wrong one, and say why.
    """
    return {"label": meta(field)["label"], "help": field.description, "key": key or name}


def _choice_box(offered: Choices, about: About) -> None:
    """A value that came from elsewhere, such as defaults.yaml, is offered as well."""
    current = st.session_state.get(about["key"])
    options = list(offered.options)
    if current and current not in options:
        options.append(current)
    st.selectbox(**about, options=options, accept_new_options=offered.is_open)


def _step(default: float) -> float:
    """A pleasant step for the buttons beside a number: about a tenth of its usual size."""
    return next((s for s in (0.0001, 0.001, 0.01) if 0 < default <= 10 * s), 0.1)
