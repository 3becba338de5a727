"""The run that is being computed: its picture as it forms, its progress, and Stop."""

import html
from collections.abc import Mapping
from typing import Any

import streamlit as st

from studio.engines.estimate import duration
from studio.page.actions import show_stop
from studio.page.losses import show_losses
from studio.page.pictures import as_address, shown_size
from studio.page.steering import show_steering
from studio.page.text import plain, prompt_of
from studio.runs.run_index import Entry
from studio.runs.storage import PREVIEW


def show_live(entry: Entry) -> None:
    """The picture as it forms, the progress, and Stop.

    A run that has no picture, and whose details tell no size of one, shows its progress alone.
    """
    picture = _preview(entry)
    with st.container(border=True, key=f"live-{entry.name}"):
        if not picture:
            _show_facts(entry)
            return
        left, right = st.columns([3, 2], gap="medium")
        with left:
            st.html(picture)
        with right:
            _show_facts(entry)


def _preview(entry: Entry) -> str:
    """The picture as HTML, or an empty frame until there is one; "" if its size is unknown."""
    size = [entry.details.get(side) for side in ("Xdim", "ydim")]
    width, height, look = shown_size(*size)
    style = f"width:{width}px;aspect-ratio:{width}/{height}"
    try:
        address = as_address((entry.folder.path / PREVIEW).read_bytes(), "jpeg")
    except OSError:
        waiting = f'<div class="run-picture run-waiting" style="{style}"></div>'
        return waiting if all(size) else ""
    alt = html.escape(prompt_of(entry.details), quote=True)
    return f'<img class="run-picture {look}" style="{style}" alt="{alt}" src="{address}">'


def _show_facts(entry: Entry) -> None:
    progress = entry.folder.read_progress()
    st.markdown(f"**{plain(prompt_of(entry.details))}**")
    _show_progress(progress, entry.details)
    show_stop(entry, "stop", "the run", width="stretch")
    show_steering(entry)
    show_losses(progress.get("history"), progress.get("losses"))


def _show_progress(progress: Mapping[str, Any], details: Mapping[str, Any]) -> None:
    step = progress.get("step", 0)
    planned = progress.get("planned_num_steps", details.get("planned_num_steps", -1))
    if not step:
        st.progress(0.0, text="Loading the models …")
        return
    endless = planned <= 0
    words = f"step {step}, until you stop it" if endless else f"step {step} of {planned}"
    st.progress(0.0 if endless else min(1.0, step / planned), text=words)
    speed, left = progress.get("steps_per_second"), progress.get("seconds_left")
    facts = [f"{speed:.3g} steps/s"] if speed else []
    facts += [f"{duration(left)} left"] if left is not None else []
    st.caption(" · ".join(facts))
