"""Settings that come into the form as a whole: from a link, an earlier run, a file or a preset."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from studio.base.errors import BadInput, shortened
from studio.making import recipes
from studio.making.recipes import Recipe
from studio.page.actions import RUN, attempt, show_problem
from studio.page.engine_choice import ENGINE
from studio.page.form import Form
from studio.page.memory import Memory
from studio.page.picker import begin_as, pick
from studio.page.text import plain
from studio.queue.options import StudioOptions
from studio.runs import storage
from studio.runs.details import DETAILS
from studio.runs.details_keys import engine_of

MENU = "presets"  # the place of its problems
LINKS = ("use", "continue")


def follow_link(options: StudioOptions, memory: Memory) -> None:
    """Follow `?use=RUN_ID` or `?continue=RUN_ID` once; later the person may change the form."""
    for link in LINKS:
        if run_id := st.query_params.get(link):
            del st.query_params[link]
            (use_settings if link == "use" else continue_run)(run_id, options, memory)


def use_settings(run_id: str, options: StudioOptions, memory: Memory, place: str = RUN) -> None:
    """Take all that makes a run's picture again: its settings, and what it began from.

    place: where to say what is wrong.
    """
    with attempt(place):
        folder = storage.find_run(options.output_dir, run_id)
        take_settings(folder.path / DETAILS, folder.name, options, memory)


def continue_run(run_id: str, options: StudioOptions, memory: Memory, place: str = RUN) -> None:
    """Take the settings of a run, and let Run! continue it. place: where to say what is wrong."""
    with attempt(place):
        folder = storage.find_run(options.output_dir, run_id)
        engine = engine_of(folder.read())
        _fill_in(engine, lambda: recipes.continued(folder, engine), folder.name, options, memory)
        pick(folder.name)
        st.toast("Run! continues this one; its settings are in the form.")


def take_settings(path: Path, called: str, options: StudioOptions, memory: Memory) -> None:
    """Take the settings of an output.PNG or details.json. Raises BadInput.

    called: what messages call the file.
    """
    engine = recipes.engine_in(path, called)

    def read() -> Recipe:
        return recipes.from_file(
            path, options.output_dir, engine, called=called, assets_dir=options.assets_dir
        )

    recipe = _fill_in(engine, read, called, options, memory)
    begin_as(recipe)
    st.toast(f"These are the settings of {plain(shortened(called))}.")
    for sentence in recipe.said:
        st.toast(plain(sentence), duration="infinite")


def _fill_in(
    engine: str, read: Callable[[], Recipe], called: str, options: StudioOptions, memory: Memory
) -> Recipe:
    """Show that engine's form with what `read` finds for it.

    called: what the settings are from. Raises BadInput, having changed nothing, also for an engine
    that is unknown here.
    """
    try:
        form = Form(engine, options.assets_dir, memory)
    except BadInput as error:
        raise error.prefixed(f"The settings of {shortened(called)} cannot be used here. ") from None
    recipe = read()
    form.take(recipe.values)
    st.session_state[ENGINE] = engine
    return recipe


def show_settings_menu(form: Form, options: StudioOptions, memory: Memory) -> None:
    """Presets, and settings from a file that is chosen instead of dropped."""
    popover = st.popover("Presets", on_change="rerun", key="presets")
    if not popover.open:
        return
    with popover:
        show_problem(MENU)
        _show_presets(form, memory)
        st.file_uploader(
            "Take the settings of a picture or details.json",
            type=["png", "jpg", "jpeg", "webp", "json"],
            key="settings_file",
            help="A picture of another web UI will do, too. Or drop it anywhere on the page.",
            on_change=_take_upload,
            args=(options, memory),
        )


def _show_presets(form: Form, memory: Memory) -> None:
    presets = memory.presets(form.engine)
    if presets:
        name = st.selectbox("Saved settings", list(presets), key="preset")
        with st.container(horizontal=True):
            st.button("Apply", on_click=_apply, args=(form, presets[name]), key="apply-preset")
            st.button("Delete", on_click=_delete, args=(form, memory, name), key="delete-preset")
    with st.form("save-preset", border=False, clear_on_submit=True):
        st.text_input("Save the form's settings as", key="preset_name", placeholder="a name")
        st.form_submit_button("Save", on_click=_save, args=(form, memory))


def _apply(form: Form, values: Mapping[str, Any]) -> None:
    with attempt(MENU):
        form.take(values)


def _save(form: Form, memory: Memory) -> None:
    with attempt(MENU):
        name = st.session_state["preset_name"]
        memory.save_preset(form.engine, name, form.changed())
        st.toast(f"Saved as {plain(name)}.")


def _delete(form: Form, memory: Memory, name: str) -> None:
    with attempt(MENU):
        memory.delete_preset(form.engine, name)


def _take_upload(options: StudioOptions, memory: Memory) -> None:
    file = st.session_state["settings_file"]
    if file:
        with attempt(MENU):
            take_file(file.name, file.getvalue(), options, memory)


def take_file(name: str, data: bytes, options: StudioOptions, memory: Memory) -> None:
    """Take the settings of an output.PNG or details.json in memory. Raises BadInput."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings"
        path.write_bytes(data)
        take_settings(path, name, options, memory)
