"""What an empty page shows: what the weights can draw, and pictures that they really made."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import streamlit as st

from studio.base.errors import BadInput
from studio.engines import registry
from studio.making import recipes
from studio.page.form_values import FormValues
from studio.page.parts import PROMPT
from studio.page.prompt_area import entered
from studio.page.seeds import SEED, SET_SEED
from studio.page.text import plain


def show_examples(engine: str, assets_dir: Path) -> None:
    """Draw the examples of the chosen weights; a click on one fills the prompt."""
    chosen, values = registry.get(engine), entered(registry.get(engine).settings)
    if words := chosen.introduction(values, assets_dir):
        st.markdown(plain(words))
    examples = [(path, _made_from(path, engine)) for path in chosen.examples(values, assets_dir)]
    with st.container(horizontal=True, key="examples"):
        for number, (path, made_from) in enumerate(examples):
            if PROMPT in made_from:
                with st.container(width=136, gap="xxsmall", key=f"example-{number}"):
                    _show_one(path, made_from, engine, assets_dir)


def _show_one(path: Path, made_from: Mapping[str, Any], engine: str, assets_dir: Path) -> None:
    st.image(path.read_bytes(), width="stretch", output_format="PNG", alt="")  # see the button
    st.button(
        plain(made_from[PROMPT]),
        key=f"fill-{path.stem}",
        type="tertiary",
        wrap=True,
        help="Puts it into the prompt; Run! then makes it.",
        on_click=_fill_in,
        args=(made_from, engine, assets_dir),
    )


def _fill_in(made_from: Mapping[str, Any], engine: str, assets_dir: Path) -> None:
    """Take the prompt, and the seed unless the person has set one."""
    names = (PROMPT,) if st.session_state.get(SET_SEED) else (PROMPT, SET_SEED, SEED)
    taken = {name: made_from[name] for name in names if name in made_from}
    st.session_state.update(FormValues(engine, assets_dir).as_typed(taken))
    st.toast(f"“{plain(made_from[PROMPT])}” is in the prompt. Press Run! to make it.")


def _made_from(path: Path, engine: str) -> Mapping[str, Any]:
    """The settings in a picture; none if it cannot be read."""
    try:
        return _read(path, path.stat().st_mtime_ns, engine)
    except (BadInput, OSError):
        return {}


@lru_cache(maxsize=64)
def _read(path: Path, mtime_ns: int, engine: str) -> Mapping[str, Any]:
    """mtime_ns: of the file, so that a changed picture is read again."""
    return recipes.from_file(path, path.parent, engine).values
