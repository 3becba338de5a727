"""The pictures that a person gives to a run: a starting image, image prompts.

An upload shows while its switch is on. Pictures that came with the settings of an earlier run lie
in the session state as paths, under `kept_` and the setting's name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st
from pydantic.fields import FieldInfo

from studio.base.errors import BadInput
from studio.media.pictures import SUFFIXES
from studio.page.widgets import about_setting
from studio.settings.declare import meta, value_type


def show_upload(name: str, field: FieldInfo) -> None:
    """Draw the switch, and while it is on the upload."""
    label, help_text = meta(field)["upload"]
    if st.checkbox(label, help=help_text, key=_switch(name)):
        st.file_uploader(
            **about_setting(name, field),
            type=list(SUFFIXES),
            accept_multiple_files=_is_list(field),
        )
        _show_kept(name)


def take_pictures(name: str, paths: str | list[str] | None) -> None:
    """Let the pictures of an earlier run count as uploaded. paths: none switches the upload off."""
    pictures = paths if isinstance(paths, list) else [paths] if paths else []
    st.session_state[_switch(name)] = bool(pictures)
    st.session_state[_kept(name)] = pictures


def uploaded(name: str, field: FieldInfo, uploads: dict[str, bytes]) -> dict[str, Any]:
    """The setting's value: names in `uploads`, to which the files are added, or kept paths.

    Empty while the switch is off. Raises BadInput if it is on and there is no file.
    """
    if not st.session_state.get(_switch(name)):
        return {}
    files = st.session_state.get(name) or []
    files = files if isinstance(files, list) else [files]
    names = [_add(file, uploads) for file in files] or st.session_state.get(_kept(name))
    if not names:
        raise BadInput(_missing(field))
    return {name: names if _is_list(field) else names[0]}


def _add(file: Any, uploads: dict[str, bytes]) -> str:
    name = _unused(file.name, uploads)
    uploads[name] = file.getvalue()
    return name


def _missing(field: FieldInfo) -> str:
    facts, limit = meta(field), st.get_option("server.maxUploadSize")
    return (
        f"'{facts['upload'][0]}' is on: give '{facts['label']}' a file of at most {limit} MB, or"
        " switch it off."
    )


def _show_kept(name: str) -> None:
    """Pictures that came with an earlier run's settings count until others are uploaded."""
    kept = [path for path in st.session_state.get(_kept(name)) or [] if Path(path).is_file()]
    if kept and not st.session_state.get(name):
        st.image(kept, width=64, alt=["Picture of an earlier run"] * len(kept))
        st.caption("From the run whose settings these are, unless you upload another.")


def _switch(name: str) -> str:
    return f"use_{name}"


def _kept(name: str) -> str:
    return f"kept_{name}"


def _is_list(field: FieldInfo) -> bool:
    return value_type(field) is list


def _unused(name: str, taken: Mapping[str, bytes]) -> str:
    """Two uploads may have the same name."""
    number = 2
    unused = name
    while unused in taken:
        unused, number = f"{number}-{name}", number + 1
    return unused
