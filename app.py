"""The page: `streamlit run app.py -- [--output-dir DIR] [--assets-dir DIR] [--gpus N,N]`.

The form becomes settings, Run! puts them into the queue as a run folder, and from then on the page
only looks at that folder. The worker computes it. Never imports torch.
"""

import secrets
import sys
from collections.abc import Sequence

import streamlit as st

from studio.base.errors import BadInput
from studio.base.paths import README, ROOT, STATIC_DIR
from studio.engines import registry
from studio.page.actions import (
    CHOSEN,
    PRESSES,
    PROBLEM,
    RESULT,
    RUN,
    attempt,
    look_out_for,
    show_problem,
)
from studio.page.components import bring_into_view, listener
from studio.page.documents import show_document
from studio.page.downloads import show_download, take_on_arrived
from studio.page.dropped import show_drop_zone, show_dropped
from studio.page.engine_choice import choose_engine, unavailable_engines
from studio.page.estimates import seconds_to_come, show_estimate
from studio.page.examples import show_examples
from studio.page.form import Form
from studio.page.form_view import show_form
from studio.page.frame_uses import frame_uses
from studio.page.gallery_link import announce_page
from studio.page.history import show_actions, show_removed, show_trash
from studio.page.incoming import (
    continue_run,
    follow_link,
    show_settings_menu,
    use_settings,
)
from studio.page.last_runs import show_last_runs
from studio.page.memory import Memory
from studio.page.notify import show_notify
from studio.page.options import read_options
from studio.page.picker import CONTINUE, PICKED, continuable, show_origin
from studio.page.result import show_result
from studio.page.shortcut import RUN_KEYS, count_presses_once
from studio.page.space import show_space
from studio.page.stages import show_stages
from studio.page.start import asked, asked_for, recall, show_how_many, start
from studio.page.text import plain
from studio.page.uploads import given_pictures, recall_pictures
from studio.page.watching import (
    ICON,
    SEEK_RESULT,
    choose,
    snapshot,
    watch,
    worker_keeper,
)
from studio.queue.options import StudioOptions
from studio.runs import run_index, upscalings
from studio.runs.run_index import Entry
from studio.runs.storage import ACTIVE

TITLE = "VQGAN-CLIP studio"
FAST, SLOW = 0.5, 2.0  # seconds between looks, while runs are active and while none is


def main() -> None:
    """Draw the page. Streamlit calls this again whenever a person uses a widget."""
    st.set_page_config(TITLE, ICON, layout="wide")
    st.html("<style>:root {}</style>")  # a toast of a fragment takes the place of the first style
    st.html(STATIC_DIR / "page.css")
    st.title(TITLE)
    listener("ended")(key="server-watch")  # says so in the browser when the server has ended
    try:
        options = read_options(sys.argv)
        announce_page(options)
        draw(options)
    except BadInput as error:
        st.error(plain(error.on_page))


def draw(options: StudioOptions) -> None:
    """Everything below the title. Raises BadInput for a broken defaults.yaml."""
    # In this order: whoever has left the one is in the other.
    jobs, runs = upscalings.entries(options.output_dir), run_index.entries(options.output_dir)
    memory = Memory(options.output_dir)
    unavailable = unavailable_engines(options)
    with st.sidebar:
        follow_link(options, memory)
        engine = choose_engine(unavailable, options, memory)
        form = _show_form(engine, runs, options, memory)
    waiting = seconds_to_come(options, runs)
    if form:
        _show_request(form, unavailable.get(engine, ""), runs, options, memory)
        memory.remember(engine, form.changed(), asked() | given_pictures(form.uploads))
    if engine in unavailable:
        st.error(plain(f"{engine} cannot be used here. {unavailable[engine]}"))
    elif form:
        show_estimate(form, options, runs, waiting)
        if not runs:
            show_examples(engine, options.assets_dir)
    problems, active, result, last = (st.container() for _ in range(4))
    with problems:
        _show_problems(options)
    with active:
        show_notify(runs)
        st.session_state["seen"] = snapshot(options, runs, jobs)
        st.session_state["seconds"] = waiting
        is_active = any(entry.status in ACTIVE for entry in (*runs, *jobs))
        st.fragment(watch, run_every=FAST if is_active else SLOW)(options)
    with result:
        show_removed(options)
        _show_chosen(runs, memory, options)
    with last:
        finished = [entry for entry in runs if entry.status not in ACTIVE]
        show_last_runs(finished, choose, form, options, memory)
        with st.container(horizontal=True):
            show_trash(options)
            show_space(runs, options)
    show_document(README)
    show_document(ROOT / "CHANGELOG.md")


def _show_form(
    engine: str, runs: Sequence[Entry], options: StudioOptions, memory: Memory
) -> Form | None:
    """The sidebar's form; None for an engine that cannot be imported and so has no settings."""
    if registry.find(engine) is None:
        return None
    form = Form(engine, options.assets_dir, memory)
    form.fill()
    take_on_arrived(form, options)
    recall(form, memory)
    recall_pictures(form.uploads, memory.asked())
    show_form(form, continuable(runs), lambda name: continue_run(name, options, memory))
    return form


def _show_request(
    form: Form, refusal: str, runs: Sequence[Entry], options: StudioOptions, memory: Memory
) -> None:
    """The prompt, Run! and what belongs to them. refusal: why Run! is disabled; "" if it is not."""
    show_dropped(form, options, memory)
    show_download(form, options)
    form.show_prompt()
    show_stages(form)
    show_origin(runs, form.kind)
    with st.container(horizontal=True, vertical_alignment="bottom", key="run-row"):
        st.button(
            "Run!",
            type="primary",
            shortcut=RUN_KEYS,
            on_click=press_run,
            args=(secrets.token_hex(), options, form),
            disabled=bool(refusal),
        )
        show_how_many()
        show_settings_menu(form, options, memory)
        show_drop_zone(options, memory)
        count_presses_once()


def press_run(token: str, options: StudioOptions, form: Form) -> None:
    """Put what the form says into the queue, or say why not.

    token: of the button as it was drawn; see `Presses`.
    """
    with PRESSES.heeding(token) as is_heeded:
        if is_heeded:
            _submit(options, form)


def _submit(options: StudioOptions, form: Form) -> None:
    with attempt():
        requests, rows = asked_for(form, options)
        names = [folder.name for folder in start(requests, rows, form.kind, options.queue_url)]
        look_out_for(names)
        if st.session_state.get(CONTINUE):
            st.session_state[PICKED] = names[-1]


def _show_problems(options: StudioOptions) -> None:
    """Why Run! was refused, and why there is no worker."""
    show_problem(RUN)
    refusal = worker_keeper(options).refusal()
    if refusal and st.session_state.get(PROBLEM) != (RUN, refusal):  # said by Run! as well
        st.error(plain(refusal))


def _show_chosen(runs: Sequence[Entry], memory: Memory, options: StudioOptions) -> None:
    """The result that was asked for, or that has just arrived."""
    state = st.session_state
    chosen = next((entry for entry in runs if entry.name == state.get(CHOSEN)), None)
    if chosen is None or chosen.status in ACTIVE:
        return

    def use(name: str) -> None:
        use_settings(name, options, memory, RESULT)

    def continue_(name: str) -> None:
        continue_run(name, options, memory, RESULT)

    show_result(
        chosen,
        lambda entry: show_actions(entry, use, continue_, options),
        frame_uses(options, memory),
    )
    if state.pop(SEEK_RESULT, False):
        bring_into_view('[class*="st-key-result-"]')


if __name__ == "__main__":
    main()
