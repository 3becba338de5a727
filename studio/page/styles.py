"""Styles: chips that add a text to the prompt. A person edits them in `styles.yaml`.

The prompt's text alone decides: a chip is chosen while its text is in the prompt.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import streamlit as st

from studio.base.errors import BadInput, shortened
from studio.base.paths import STYLES_FILE
from studio.base.yaml_files import read_yaml
from studio.engines.contract import Engine
from studio.page.mirror import mirror
from studio.page.prompt_rows import parts_of_prompt
from studio.page.text import plain

STYLES = "styles"
Styles = Mapping[str, str]  # the text of each style by its name


def show_styles(key: str, engine: Engine, called: str) -> None:
    """Draw the chips for the prompt that is kept under `key`, or say what is wrong with the file.

    called: the engine's name. Styles that are parts of their own are for engines whose prompts
    have parts.
    """
    try:
        styles = read_styles(STYLES_FILE, called)
    except BadInput as problem:
        st.warning(plain(problem.on_page))
        return
    has_parts = bool(engine.prompt_parts("a"))
    styles = {n: text for n, text in styles.items() if has_parts or not _is_part(text)}
    if not styles:
        return
    text = st.session_state[key]
    chosen = [name for name, style in styles.items() if has_style(text, style, engine)]
    st.pills(
        "Styles",
        list(styles),
        selection_mode="multi",
        default=chosen,
        format_func=plain,
        help="Each adds words to the prompt; choose it again to take them out. The styles are in"
        " `styles.yaml`, for you to edit.",
        **mirror(STYLES, chosen, _choose, key, styles, engine),
    )


def read_styles(path: Path, engine: str) -> Styles:
    """An engine's styles in a file, in its order; none without a file. Raises BadInput."""
    content = (read_yaml(path) or {}) if path.is_file() else {}
    section = (content.get(engine) or {}) if isinstance(content, dict) else None
    if not isinstance(section, dict):
        raise BadInput(
            f"{path} must hold a section for each engine, with lines of 'name: words'. Correct it"
            " or delete it."
        )
    for name, words in section.items():
        if not isinstance(words, str) or not _words(words):
            raise BadInput(
                f"{path}: the style '{shortened(name)}' has no words, but"
                f" '{shortened(words)}'. Write it as 'name: words', the words in quotes if they"
                " are a number or begin with a sign."
            )
    return {str(name): " ".join(words.split()) for name, words in section.items()}


def has_style(prompt: str, style: str, engine: Engine) -> bool:
    """Whether a style's text is in the prompt."""
    parts = parts_of_prompt(engine, prompt)
    if _is_part(style):
        return {p.text for p in parts_of_prompt(engine, _words(style))} <= {p.text for p in parts}
    return bool(parts and _pattern(style).search(parts[0].text))


def add_style(prompt: str, style: str, engine: Engine) -> str:
    """The prompt with a style behind the words of its first part, or as a part of its own."""
    parts = parts_of_prompt(engine, prompt)
    if _is_part(style) or not parts:
        return engine.prompt_text([*parts, *parts_of_prompt(engine, _words(style))])
    space = "" if style.startswith(",") else " "
    parts[0] = replace(parts[0], text=f"{parts[0].text}{space}{style}")
    return engine.prompt_text(parts)


def remove_style(prompt: str, style: str, engine: Engine) -> str:
    """The prompt without a style."""
    parts = parts_of_prompt(engine, prompt)
    if _is_part(style):
        gone = {part.text for part in parts_of_prompt(engine, _words(style))}
        return engine.prompt_text([part for part in parts if part.text not in gone])
    if parts:
        left = _pattern(style).sub("", parts[0].text, count=1).strip(" ,")
        parts[0] = replace(parts[0], text=left)
    return engine.prompt_text([part for part in parts if part.text])


def _choose(chosen: Sequence[str], key: str, styles: Styles, engine: Engine) -> None:
    """Bring the prompt that is kept under `key` into step with the chips."""
    text = st.session_state[key]
    for name, style in styles.items():
        if (name in chosen) != has_style(text, style, engine):
            change = add_style if name in chosen else remove_style
            text = change(text, style, engine)
    st.session_state[key] = text


def _is_part(style: str) -> bool:
    return style.startswith("|")


def _words(style: str) -> str:
    """A style's text without the sign that joins it to the prompt."""
    return style.strip("|, ")


def _pattern(style: str) -> re.Pattern[str]:
    """The style's words where they stand for themselves, with what joins them to words before."""
    return re.compile(rf"(^|[\s,]+){re.escape(_words(style))}(?=$|[\s,.;])", re.IGNORECASE)
