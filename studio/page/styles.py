"""Styles: chips that add a text to the prompt. A person edits them in `styles.yaml`.

The texts alone decide: a chip is chosen while its text is in the prompt, or, where it has none, in
what is to be avoided.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import streamlit as st

from studio.base.errors import BadInput, shortened
from studio.base.paths import STYLES_FILE
from studio.base.yaml_files import read_yaml
from studio.engines.contract import Engine
from studio.page.mirror import mirror
from studio.page.prompt_rows import parts_of_prompt
from studio.page.text import plain
from studio.settings.common import AVOIDED

STYLES = "styles"
PLACE = "{prompt}"  # where a style's text takes the words that are there
PARTS = {"prompt", "negative"}  # of a style that is no plain text


@dataclass(frozen=True)
class Style:
    """What a style adds to the prompt, and to what is to be avoided."""

    prompt: str = ""
    negative: str = ""


Styles = Mapping[str, Style]  # by their names
PLAIN = Engine()  # whose texts have no parts


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
    avoided = next((name for name in AVOIDED if name in engine.settings.model_fields), None)
    styles = {n: style for n, style in styles.items() if _suits(style, engine, avoided)}
    if not styles:
        return
    chosen = [name for name, style in styles.items() if _is_chosen(style, key, avoided, engine)]
    st.pills(
        "Styles",
        list(styles),
        selection_mode="multi",
        default=chosen,
        format_func=plain,
        help="Each adds words to the prompt; choose it again to take them out. The styles are in"
        " `styles.yaml`, for you to edit.",
        **mirror(STYLES, chosen, _choose, key, avoided, styles, engine),
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
    return {str(name): _style(path, name, told) for name, told in section.items()}


def _style(path: Path, name: object, told: Any) -> Style:
    parts = told if isinstance(told, dict) else {"prompt": told}
    is_text = all(isinstance(words, str) for words in parts.values())
    words = [_words(text).replace(PLACE, "").strip() for text in parts.values() if is_text]
    if not is_text or not any(words) or not parts.keys() <= PARTS:
        raise BadInput(
            f"{path}: the style '{shortened(name)}' has no words, but '{shortened(told)}'. Write it"
            " as 'name: words', the words in quotes if they are a number or begin with a sign, or"
            " with 'prompt:' and 'negative:' below the name."
        )
    return Style(**{part: " ".join(text.split()) for part, text in parts.items()})


def _suits(style: Style, engine: Engine, avoided: str | None) -> bool:
    """Whether an engine can take a style."""
    if not style.prompt:
        return avoided is not None
    return not _is_part(style.prompt) or bool(engine.prompt_parts("a"))


def _is_chosen(style: Style, key: str, avoided: str | None, engine: Engine) -> bool:
    if style.prompt:
        return has_style(st.session_state[key], style.prompt, engine)
    return bool(avoided) and has_style(_avoided_text(avoided), style.negative, PLAIN)


def _avoided_text(avoided: str | None) -> str:
    return str(st.session_state.get(avoided) or "") if avoided else ""


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
        words = " ".join(_words(style).replace(PLACE, "").split())
        return engine.prompt_text([*parts, *parts_of_prompt(engine, words)])
    if PLACE in style:
        text = style.replace(PLACE, parts[0].text, 1)
    else:
        text = f"{parts[0].text}{'' if style.startswith(',') else ' '}{style}"
    parts[0] = replace(parts[0], text=text)
    return engine.prompt_text(parts)


def remove_style(prompt: str, style: str, engine: Engine) -> str:
    """The prompt without a style."""
    parts = parts_of_prompt(engine, prompt)
    if _is_part(style):
        gone = {part.text for part in parts_of_prompt(engine, _words(style))}
        return engine.prompt_text([part for part in parts if part.text not in gone])
    if parts:
        left = _pattern(style).sub(_inside, parts[0].text, count=1).strip(" ,")
        parts[0] = replace(parts[0], text=left)
    return engine.prompt_text([part for part in parts if part.text])


def add_avoided(text: str, words: str, joined: str) -> str:
    """What is to be avoided, with a style's words. joined: by what several things are joined."""
    return text if has_style(text, words, PLAIN) else joined.join(filter(None, (text, words)))


def remove_avoided(text: str, words: str) -> str:
    """What is to be avoided without a style's words."""
    return _pattern(words).sub("", text, count=1).strip(" ,|")


def _choose(
    chosen: Sequence[str], key: str, avoided: str | None, styles: Styles, engine: Engine
) -> None:
    """Bring the prompt that is kept under `key`, and what is to be avoided, into step."""
    state = st.session_state
    for name, style in styles.items():
        is_on = name in chosen
        if is_on == _is_chosen(style, key, avoided, engine):
            continue
        if style.prompt:
            change = add_style if is_on else remove_style
            state[key] = change(state[key], style.prompt, engine)
        if style.negative and avoided:
            text = _avoided_text(avoided)
            added = add_avoided(text, style.negative, AVOIDED[avoided])
            state[avoided] = added if is_on else remove_avoided(text, style.negative)


def _is_part(style: str) -> bool:
    return style.startswith("|")


def _words(style: str) -> str:
    """A style's text without the sign that joins it to the prompt."""
    return style.strip("|, ")


def _inside(match: re.Match[str]) -> str:
    """What a style that is taken out leaves."""
    return match.groupdict().get("inside") or ""


def _pattern(style: str) -> re.Pattern[str]:
    """The style's words where they stand for themselves, with what joins them to words before.

    What stands in their PLACE is the group `inside`.
    """
    if PLACE in style:
        before, after = (re.escape(words.strip()) for words in style.split(PLACE, 1))
        inside = rf"(?<!\w){before}\s*(?P<inside>.*){after}(?!\w)"
        return re.compile(inside, re.IGNORECASE | re.DOTALL)
    return re.compile(rf"(^|[\s,|]+){re.escape(_words(style))}(?=$|[\s,.;|])", re.IGNORECASE)
