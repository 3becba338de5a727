"""Settings that come into the form as a whole: a link's, an earlier run's, a file's, a preset's."""

import base64
import binascii
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

import recipes
import storage
from errors import BadInput, shortened
from page_actions import attempt, show_problem, toast_problem
from page_form import Form
from page_memory import Memory
from page_picker import pick
from page_runs import plain
from places import Places

DROP = "drop"
MENU = "presets"  # where its problems are told
LARGEST_DROP = 20_000_000
LINKS = ("use", "continue")
JAVASCRIPT = (Path(__file__).parent / "static" / "drop.js").read_text(encoding="utf-8")


def follow_link(form: Form, places: Places) -> None:
    """`?use=RUN_ID` and `?continue=RUN_ID`, once: later the form is the person's."""
    for link in LINKS:
        if run_id := st.query_params.get(link):
            del st.query_params[link]
            (use_settings if link == "use" else continue_run)(run_id, form, places)


def use_settings(run_id: str, form: Form, places: Places) -> None:
    """The settings of a run, as they make its picture again."""
    with attempt():
        folder = storage.find_run(places.output_dir, run_id)
        path = folder.path / storage.DETAILS
        form.take(recipes.from_file(path, places.output_dir, form.kind).values)
        st.toast(f"These are the settings of {plain(folder.name)}.")


def continue_run(run_id: str, form: Form, places: Places) -> None:
    """The settings of a run, and its picture to go on from."""
    with attempt():
        folder = storage.find_run(places.output_dir, run_id)
        form.take(recipes.continued(folder, form.kind).values)
        pick(folder.name)


def show_settings_menu(form: Form, places: Places, memory: Memory) -> None:
    """Presets, and settings from a file that is chosen instead of dropped."""
    popover = st.popover("Presets", on_change="rerun", key="presets")
    if not popover.open:
        return
    with popover:
        show_problem(MENU)
        _show_presets(form, memory)
        st.file_uploader(
            "Take the settings of an output.PNG or details.json",
            type=["png", "json"],
            key="settings_file",
            help="Or drop it anywhere on the page.",
            on_change=_take_upload,
            args=(form, places),
        )


def _show_presets(form: Form, memory: Memory) -> None:
    presets = memory.presets()
    if presets:
        name = st.selectbox("Saved settings", list(presets), key="preset")
        with st.container(horizontal=True):
            st.button("Apply", on_click=_apply, args=(form, presets[name]), key="apply-preset")
            st.button("Delete", on_click=_delete, args=(memory, name), key="delete-preset")
    with st.form("save-preset", border=False, clear_on_submit=True):
        st.text_input("Save the form's settings as", key="preset_name", placeholder="a name")
        st.form_submit_button("Save", on_click=_save, args=(form, memory))


def _apply(form: Form, values: Mapping[str, Any]) -> None:
    with attempt(MENU):
        form.take(values)


def _save(form: Form, memory: Memory) -> None:
    with attempt(MENU):
        name = st.session_state["preset_name"]
        memory.save_preset(name, form.changed())
        st.toast(f"Saved as {plain(name)}.")


def _delete(memory: Memory, name: str) -> None:
    with attempt(MENU):
        memory.delete_preset(name)


def _take_upload(form: Form, places: Places) -> None:
    file = st.session_state["settings_file"]
    if file:
        with attempt(MENU):
            _take_file(file.name, file.getvalue(), form, places)


@st.cache_resource(show_spinner=False)
def _drop_zone() -> Any:
    return st.components.v2.component("drop_zone", js=JAVASCRIPT)


def show_drop_zone(form: Form, places: Places) -> None:
    """The whole page takes an output.PNG or details.json that is dropped on it."""

    def take() -> None:
        dropped = st.session_state[DROP].get("file") or {}
        with attempt():
            _take_file(str(dropped.get("name")), _data_of(dropped), form, places)
        toast_problem()  # a drop may fall anywhere, far from Run!

    _drop_zone()(key=DROP, data={"largest": LARGEST_DROP}, on_file_change=take)


def _data_of(dropped: Mapping[str, Any]) -> bytes:
    if "data" not in dropped:
        raise BadInput(
            f"The dropped file {shortened(dropped.get('name'))} is over {LARGEST_DROP // 10**6} MB."
            " Drop the output.PNG or the details.json of a run."
        )
    try:
        return base64.b64decode(str(dropped["data"]).partition(",")[2])
    except binascii.Error:
        raise BadInput("The dropped file could not be read. Drop it once more.") from None


def _take_file(name: str, data: bytes, form: Form, places: Places) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings"
        path.write_bytes(data)
        form.take(recipes.from_file(path, places.output_dir, form.kind, called=name).values)
        st.toast(f"These are the settings of {plain(shortened(name))}.")
