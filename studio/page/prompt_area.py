"""Above Run!: the prompt, its parts and styles, and what is to be avoided."""

from pathlib import Path
from typing import Any

import streamlit as st

from studio.engines import registry
from studio.page.parts import PROMPT
from studio.page.prompt_rows import show_rows
from studio.page.styles import show_styles
from studio.page.widgets import about_setting, show_prompt_box
from studio.settings.common import AVOIDED
from studio.settings.declare import meta
from studio.settings.run_settings import RunSettings


def show_prompt_area(engine: str, assets_dir: Path) -> None:
    """Draw what an engine takes of these. A widget keeps its value under the setting's name."""
    chosen = registry.get(engine)
    fields = chosen.settings.model_fields
    if PROMPT in fields:
        show_prompt_box(PROMPT, fields[PROMPT])
        show_rows(PROMPT, chosen, entered(chosen.settings), assets_dir)
        show_styles(PROMPT, chosen, engine)
    for name in AVOIDED:
        if name in fields:
            field = fields[name]
            st.text_input(**about_setting(name, field), placeholder=meta(field)["example"])


def entered(kind: type[RunSettings]) -> dict[str, Any]:
    """The settings in the form, by their names, as its widgets hold them."""
    state = st.session_state
    return {name: state[name] for name in kind.model_fields if name in state}
