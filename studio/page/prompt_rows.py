"""Below the prompt: its parts, each with a slider for its weight, and how much of it is read.

The prompt's text alone decides. A slider rewrites it, and a new text moves the sliders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from studio.base.errors import BadInput, shortened
from studio.engines.contract import Engine
from studio.engines.prompt_parts import Length, PromptPart
from studio.page.mirror import mirror
from studio.page.text import plain

WIDEST = 2.0  # weights from -2 to 2, unless a larger one is typed
STEP = 0.05
MOST_ROWS = 12
LABEL_LENGTH = 30


def parts_of_prompt(engine: Engine, text: str) -> list[PromptPart]:
    """The parts of a prompt; a prompt without weights, or one to be refused, is one part."""
    try:
        parts = engine.prompt_parts(text)
    except BadInput:  # Run! says what is wrong
        parts = ()
    return [*parts] or ([PromptPart(text.strip())] if text.strip() else [])


def show_rows(key: str, engine: Engine, values: Mapping[str, Any], assets_dir: Path) -> None:
    """Draw the parts of the prompt that is kept under `key`; a single plain part needs no slider.

    values: the settings in the form, by their names.
    """
    parts = parts_of_prompt(engine, st.session_state[key])
    lengths = [engine.length(part.text, values, assets_dir) for part in parts[:MOST_ROWS]]
    if len(parts) == 1 and parts[0].weight == 1:
        if length := lengths[0]:
            st.caption(_in_words(length))
        return
    with st.container(key="prompt-rows", gap="xxsmall"):
        for index, length in enumerate(lengths):
            _show_row(key, engine, parts, index, length)
        if len(parts) > MOST_ROWS:
            st.caption(f"and {len(parts) - MOST_ROWS} more")


def _show_row(
    key: str, engine: Engine, parts: Sequence[PromptPart], index: int, length: Length | None
) -> None:
    part = parts[index]
    with st.container(horizontal=True, vertical_alignment="center", key=f"prompt-row-{index}"):
        st.markdown(plain(shortened(part.text, LABEL_LENGTH)), width=250)
        st.slider(
            f"Weight of {plain(shortened(part.text))}",
            min(-WIDEST, part.weight),
            max(WIDEST, part.weight),
            part.weight,
            step=STEP,
            format="%0.4g",
            label_visibility="collapsed",
            width=220,
            **mirror(f"weight-{index}", part.weight, _reweigh, key, engine, index),
        )
        if length:
            st.caption(_in_words(length), width="content")


def _reweigh(weight: float, key: str, engine: Engine, index: int) -> None:
    """Write a slider's weight into the prompt."""
    parts = parts_of_prompt(engine, st.session_state[key])
    if index < len(parts):
        parts[index] = replace(parts[index], weight=weight)
        st.session_state[key] = engine.prompt_text(parts)


def _in_words(length: Length) -> str:
    of = "" if length.room is None else f" of {length.room}"
    count = f"{length.tokens}{of} token{'s' if (length.room or length.tokens) != 1 else ''}"
    return plain(f"⚠ {count}; left out: “{length.cut_off}”" if length.cut_off else count)
