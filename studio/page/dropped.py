"""Files that are dropped or pasted anywhere on the page, and the choice of what they are for."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from studio.base.errors import BadInput, shortened
from studio.making import recipes
from studio.page.actions import attempt, toast_problem
from studio.page.components import bring_into_view, listener
from studio.page.form import IMAGE_PROMPTS, Form
from studio.page.incoming import take_file, take_settings
from studio.page.memory import Memory
from studio.page.picker import pick
from studio.page.pictures import show_small, size_of
from studio.page.text import plain
from studio.page.uploads import START_IMAGE, add_picture, keep_checked, take_pictures
from studio.queue.options import StudioOptions

DROP = "drop"
DROPPED = "dropped"  # the picture whose use is being chosen
LARGEST_DROP = 20_000_000


@dataclass
class Dropped:
    """A picture that waits for its use. is_new: whether it has not been shown yet."""

    name: str
    path: Path
    has_settings: bool
    is_new: bool = True


def show_drop_zone(options: StudioOptions, memory: Memory) -> None:
    """The whole page takes a picture or a details.json that is dropped or pasted."""

    def take() -> None:
        with attempt():
            _take(st.session_state[DROP].get("file") or {}, options, memory)
        toast_problem()  # a drop may fall anywhere, far from Run!

    listener("drop")(key=DROP, data={"largest": LARGEST_DROP}, on_file_change=take)


def _take(file: Mapping[str, Any], options: StudioOptions, memory: Memory) -> None:
    """A picture waits for a choice; another file can only be a details.json."""
    name, data = str(file.get("name")), _data_of(file)
    if name.lower().endswith(".json") or data.lstrip()[:1] == b"{":
        take_file(name, data, options, memory)
        return
    path = keep_checked(options.output_dir, name, data)
    st.session_state[DROPPED] = Dropped(name, path, _has_settings(path))


def _data_of(file: Mapping[str, Any]) -> bytes:
    if "data" not in file:
        raise BadInput(
            f"The dropped file {shortened(file.get('name'))} is over {LARGEST_DROP // 10**6} MB."
            " Drop a smaller picture, or the details.json of a run."
        )
    try:
        return base64.b64decode(str(file["data"]).partition(",")[2])
    except binascii.Error:
        raise BadInput("The dropped file could not be read. Drop it once more.") from None


def _has_settings(path: Path) -> bool:
    try:
        return bool(recipes.engine_in(path))
    except BadInput:
        return False


def show_dropped(form: Form, options: StudioOptions, memory: Memory) -> None:
    """The picture that was dropped or pasted last, until its use is chosen."""
    dropped: Dropped | None = st.session_state.get(DROPPED)
    with st.container():  # also without a picture, so that the prompt below keeps its place
        if dropped is not None:
            _show_card(dropped, form, options, memory)


def _show_card(dropped: Dropped, form: Form, options: StudioOptions, memory: Memory) -> None:
    with st.container(
        horizontal=True, vertical_alignment="center", border=True, key="dropped-picture"
    ):
        with st.container(width=96):
            show_small(dropped.path, "The picture that you gave")
        with st.container(gap="xsmall"):
            _show_name(dropped)
            _show_uses(dropped, form, options, memory)
    if dropped.is_new:
        dropped.is_new = False
        bring_into_view(".st-key-dropped-picture", behavior="smooth", block="center")


def _show_name(dropped: Dropped) -> None:
    size = size_of(dropped.path)
    words = f" :gray[· {size[0]}x{size[1]}]" if size else ""
    st.markdown(f"What is **{plain(shortened(dropped.name))}** for?{words}")


def _show_uses(dropped: Dropped, form: Form, options: StudioOptions, memory: Memory) -> None:
    path = str(dropped.path)
    uses = []
    if dropped.has_settings:
        uses.append(("Use its settings", _use_settings, (dropped, options, memory)))
    if START_IMAGE in form.uploads:
        uses.append(("Starting image", _start_from, (path,)))
    if IMAGE_PROMPTS in form.uploads:
        uses.append(("Image prompt", _resemble, (path,)))
    if not uses:
        st.caption(plain(f"{form.engine} takes no pictures, and this one carries no settings."))
    with st.container(horizontal=True):
        for label, use, about in uses:
            st.button(label, key=f"dropped-{label}", on_click=use, args=about)
        st.button("Cancel", key="dropped-cancel", type="tertiary", on_click=_let_go)


def _use_settings(dropped: Dropped, options: StudioOptions, memory: Memory) -> None:
    _let_go()
    with attempt():
        take_settings(dropped.path, dropped.name, options, memory)
    toast_problem()


def _start_from(path: str) -> None:
    _let_go()
    start_from(path)


def start_from(path: str, called: str = "This picture") -> None:
    """Let the next run begin from a picture, and from no earlier run; show the form.

    called: begins the toast that says so.
    """
    pick(None)
    take_pictures(START_IMAGE, path)
    st.toast(f"{called} is the starting image of the next run.")


def _resemble(path: str) -> None:
    _let_go()
    add_picture(IMAGE_PROMPTS, path)
    st.toast("The result will resemble this picture.")


def _let_go() -> None:
    st.session_state[DROPPED] = None
