"""A run that has ended: its pictures, its videos, its settings, and what can be downloaded."""

import html
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from studio.base.errors import shortened
from studio.base.notes import notes_in_words
from studio.engines import registry
from studio.making.changes import in_words
from studio.making.run_upscaling import larger_of
from studio.page.losses import show_losses
from studio.page.text import plain, prompt_of, stage_in_words, status_word
from studio.page.upscaling import times
from studio.page.viewer import FrameUses, show_film, show_pictures
from studio.runs.details import DETAILS
from studio.runs.details_keys import begins_with, engine_of, value_in_words
from studio.runs.run_index import Entry
from studio.runs.storage import CHAIN_VIDEO
from studio.settings.declare import matters, meta

MAX_MESSAGE = 600  # characters of what a run has to say
MAX_VALUE = 300  # characters of a setting


def show_result(entry: Entry, show_actions: Callable[[Entry], None], frame_uses: FrameUses) -> None:
    """Pictures, videos, downloads, what can be done with the run, and the settings used.

    frame_uses: what can be done with a frame of its video.
    """
    with st.container(border=True, key=f"result-{entry.name}"):
        pictures, facts = st.columns([3, 2], gap="medium")
        with pictures:
            _show_pictures(entry)
            _show_films(entry, frame_uses)
        with facts:
            _show_facts(entry)
            show_actions(entry)
            st.caption(f"Run folder: `{entry.name}`")
        st.html(_settings_list(entry.details))


def _show_facts(entry: Entry) -> None:
    details = entry.details
    st.markdown(f"**{plain(prompt_of(details))}**")
    st.caption(_outcome(entry))
    if began := begins_with(details):
        st.caption(plain(began))
    if details.get("error"):
        st.error(plain(shortened(details["error"], MAX_MESSAGE)))
    for warning in [*(details.get("warnings") or []), *notes_in_words(details)]:
        st.warning(plain(shortened(warning, MAX_MESSAGE)))
    show_losses(details.get("loss_history"), details.get("losses"))
    _show_downloads(entry)


def _show_films(entry: Entry, frame_uses: FrameUses) -> None:
    """The run's own film, and for a chain the film of all stages."""
    if film := entry.folder.video_path():
        show_film(entry, film, frame_uses)
    chain = entry.folder.path / CHAIN_VIDEO
    if chain.is_file():
        st.caption("All stages:")
        st.video(str(chain), loop=True, muted=True)


def _outcome(entry: Entry) -> str:
    details = entry.details
    words = [status_word(entry)]
    if steps := _steps(entry):
        words.append(steps)
    if stage := stage_in_words(details):
        words.append(stage)
    if speed := details.get("steps_per_second"):
        words.append(f"{speed:.3g} steps/s")
    if device := details.get("device"):
        words.append(plain(device))
    return " · ".join(words)


def _steps(entry: Entry) -> str:
    """Such as "65 of 400 steps" for a run that ended before its time."""
    steps, planned = entry.details.get("num_steps"), entry.details.get("planned_num_steps")
    if not steps:
        return ""
    if entry.status != "done" and isinstance(planned, int) and planned > 0:
        return f"{steps} of {planned} steps"
    return f"{steps} step{'s' if steps != 1 else ''}"


def _show_pictures(entry: Entry) -> None:
    paths = entry.folder.picture_paths()
    if paths:
        show_pictures(entry, paths, prompt_of(entry.details))
    else:
        st.caption("This run has no picture.")


def _show_downloads(entry: Entry) -> None:
    """The download buttons."""
    folder = entry.folder
    pictures = folder.picture_paths()
    files = {f"Picture {number}": path for number, path in enumerate(pictures, start=1)}
    if len(pictures) == 1:
        files = {"Picture": pictures[0]}
    if video := folder.video_path():
        files |= {"Video": video}
    with st.container(horizontal=True):
        for label, path in files.items():
            _show_download(entry, label, path)
            for larger in larger_of(folder, entry.details, path.name):
                _show_download(entry, f"{label} {times(larger.scale)}", larger.path)
        _show_download(entry, "Details", folder.path / DETAILS)


def _show_download(entry: Entry, label: str, path: Path) -> None:
    st.download_button(
        label,
        data=path.read_bytes,  # once it is asked for: some are large
        file_name=f"{entry.name}-{path.name}",
        icon=":material/download:",
        on_click="ignore",
        key=f"get-{label}-{entry.name}",
    )


def _settings_list(details: Mapping[str, Any]) -> str:
    """The settings that mattered, by their labels, as HTML."""
    items = (
        f"<div><dt>{html.escape(label)}</dt>"
        f"<dd>{html.escape(shortened(value, MAX_VALUE))}</dd></div>"
        for label, value in _settings(details)
    )
    return f'<dl class="settings">{"".join(items)}</dl>'


def _settings(details: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Label and value in words; first the engine, if there is more than one."""
    name = engine_of(details)
    engine = registry.find(name)
    if engine is None:
        yield "Engine", f"{name}, which cannot be used here"
        return
    if len(registry.names()) > 1:
        yield "Engine", name
    for setting, field in engine.settings.model_fields.items():
        if details.get(setting) not in (None, "", []) and matters(field, details):
            yield meta(field)["label"], value_in_words(details[setting])
    yield from in_words(details)
