"""The pictures that a person gives to a run: a starting image, image prompts.

Uploads, dropped and pasted pictures, frames, and those of earlier runs are one list of paths in the
session state, under `kept_` and the setting's name. It counts, and shows, while its switch is on.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import streamlit as st
from pydantic.fields import FieldInfo

from studio.base.errors import BadInput, shortened
from studio.media.pictures import SUFFIXES, load_picture
from studio.page.actions import attempt, show_problem
from studio.page.kept import keep_picture
from studio.page.mask_painter import MASK, show_mask_painter
from studio.page.pictures import show_small, size_of
from studio.page.widgets import about_setting
from studio.settings.declare import meta, value_type
from studio.settings.weighted import picture_and_weight, with_weight

START_IMAGE = "init_image"  # the setting, of engines that have it


def show_upload(name: str, field: FieldInfo, output_dir: Path) -> None:
    """Draw the switch, and while it is on the upload and the pictures that there are."""
    label, help_text = meta(field)["upload"]
    if not st.checkbox(label, help=help_text, key=_switch(name)):
        return
    show_problem(name)
    key = f"upload_{name}_{st.session_state.get(_count(name), 0)}"
    about: dict[str, Any] = about_setting(name, field) | {"key": key}
    st.file_uploader(
        **about,
        type=list(SUFFIXES),
        accept_multiple_files=_is_list(field),
        on_change=_take_files,
        args=(name, field, key, output_dir),
    )
    for number, path in enumerate(_paths(name), start=1):
        _show_picture(name, field, path, number)
    if name == MASK:
        start = _paths(START_IMAGE)[-1:] if st.session_state.get(_switch(START_IMAGE)) else []
        mask = next(reversed(_paths(MASK)), None)
        show_mask_painter(next(iter(start), None), mask, output_dir, _take_mask)


def _take_mask(path: str | None) -> None:
    """Let a painted mask count; without one, the place to paint stays."""
    st.session_state[_kept(MASK)] = [path] if path else []


def take_pictures(name: str, paths: str | list[str] | None) -> None:
    """Let these pictures count as uploaded, and no others. None switches the upload off.

    paths: those in a list may end in their weights, as `weighted.picture_and_weight` reads them.
    Only before the widgets are drawn, so from a callback or at the start of a session.
    """
    texts = paths if isinstance(paths, list) else []
    weighted = [picture_and_weight(text) for text in texts] or [(paths, 1.0)] * bool(paths)
    st.session_state[_switch(name)] = bool(weighted)
    st.session_state[_kept(name)] = []
    for path, weight in weighted:
        add_picture(name, str(path), weight)


def add_picture(name: str, path: str, weight: float = 1.0) -> None:
    """Let one more picture count as uploaded. Only before the widgets are drawn."""
    state = st.session_state
    state[_switch(name)] = True
    state[_kept(name)] = [*(other for other in _paths(name) if other != path), path]
    state[_weight(name, path)] = weight


def given_pictures(names: Iterable[str]) -> dict[str, list[str]]:
    """What `recall_pictures` puts in the next time. names: of the settings."""
    switched_on = (name for name in names if st.session_state.get(_switch(name)))
    return {name: _weighted(name, _paths(name)) for name in switched_on}


def recall_pictures(names: Iterable[str], last: Mapping[str, Any]) -> None:
    """In a new tab, put in the pictures that were given last, as far as they are still there."""
    for name in names:
        if _kept(name) in st.session_state:
            continue
        st.session_state[_kept(name)] = []
        known = last.get(name)
        texts = map(str, known if isinstance(known, list) else [])
        with suppress(BadInput):  # of a weight that could not be used
            if there := [t for t in texts if Path(picture_and_weight(t)[0]).is_file()]:
                take_pictures(name, there)


def uploaded(name: str, field: FieldInfo) -> dict[str, Any]:
    """The setting's value: a path, or a list of paths with their weights.

    Empty while the switch is off. Raises BadInput if it is on and a picture is missing.
    """
    if not st.session_state.get(_switch(name)):
        return {}
    paths = _paths(name)
    if not paths or not all(Path(path).is_file() for path in paths):
        raise BadInput(_missing(field, paths))
    return {name: _weighted(name, paths) if _is_list(field) else paths[-1]}


def _weighted(name: str, paths: Sequence[str]) -> list[str]:
    weights = (st.session_state.get(_weight(name, path), 1.0) for path in paths)
    return [with_weight(path, weight) for path, weight in zip(paths, weights, strict=True)]


def _missing(field: FieldInfo, paths: Sequence[str]) -> str:
    facts, limit = meta(field), st.get_option("server.maxUploadSize")
    if paths:
        return f"A picture of '{facts['upload'][0]}' is not there any more. Remove it."
    return (
        f"'{facts['upload'][0]}' is on: give '{facts['label']}' a file of at most {limit} MB, or"
        " switch it off."
    )


def _take_files(name: str, field: FieldInfo, key: str, output_dir: Path) -> None:
    """Move what was uploaded into the list, so that there is one place for all pictures."""
    state = st.session_state
    files = state[key] if _is_list(field) else filter(None, [state[key]])
    state[_count(name)] = state.get(_count(name), 0) + 1  # the next uploader is empty
    with attempt(name):
        for file in files:
            path = str(keep_checked(output_dir, file.name, file.getvalue()))
            add_picture(name, path) if _is_list(field) else take_pictures(name, path)


def keep_checked(output_dir: Path, called: str, data: bytes) -> Path:
    """The file that holds a picture of a person from now on. Raises BadInput if it is none.

    called: its name.
    """
    load_picture(data, f"The picture '{shortened(called)}'")
    suffix = Path(called).suffix.lower()
    return keep_picture(output_dir, data, suffix if suffix[1:] in SUFFIXES else ".png")


def _show_picture(name: str, field: FieldInfo, path: str, number: int) -> None:
    """A thumbnail with its size, its weight where it has one, and a button to remove it."""
    with st.container(horizontal=True, vertical_alignment="center", wrap=False):
        with st.container(width=72):
            show_small(Path(path), f"{meta(field)['upload'][0]}: picture {number}")
        with st.container(gap="xxsmall"):
            size = size_of(Path(path))
            weight = " · weight" if _is_list(field) else ""
            st.caption(f"{size[0]}x{size[1]}{weight}" if size else "not there any more")
            if _is_list(field):
                _show_weight(name, path, number)
        st.button(
            f"Remove picture {number}",
            key=f"icon-remove-{name}-{number}",
            icon=":material/close:",
            help="Remove",
            type="tertiary",
            on_click=_remove,
            args=(name, path),
        )


def _show_weight(name: str, path: str, number: int) -> None:
    st.number_input(
        f"Weight of picture {number}",
        key=_weight(name, path),
        persist_state="page",
        step=0.1,
        format="%0.4g",
        label_visibility="collapsed",
        placeholder="weight",
        help="How much it counts. A negative weight repels.",
    )


def _remove(name: str, path: str) -> None:
    st.session_state[_kept(name)] = [other for other in _paths(name) if other != path]


def _paths(name: str) -> list[str]:
    return st.session_state.get(_kept(name)) or []


def _switch(name: str) -> str:
    return f"use_{name}"


def _kept(name: str) -> str:
    return f"kept_{name}"


def _count(name: str) -> str:
    return f"uploads_of_{name}"


def _weight(name: str, path: str) -> str:
    return f"weight_{name}_{path}"


def _is_list(field: FieldInfo) -> bool:
    return value_type(field) is list
