"""The page: `streamlit run app.py -- [--output-dir DIR] [--assets-dir DIR] [--gpus N,N]`.

The form becomes settings, Run! puts them into the queue as a run folder, and from then on the page
only looks at that folder. The worker computes it. Never imports torch.
"""

import secrets
import sys
from collections.abc import Sequence
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

from studio.base.errors import BadInput
from studio.base.paths import README, ROOT, STATIC_DIR
from studio.engines import registry
from studio.making import chains
from studio.page.actions import CHOSEN, PRESSES, PROBLEM, RESULT, RUN, attempt, show_problem, stop
from studio.page.batch_grid import batches_to_show, is_over, is_sibling, show_grid
from studio.page.documents import show_document
from studio.page.dropped import show_drop_zone, show_dropped
from studio.page.engine_choice import choose_engine, unavailable_engines
from studio.page.estimates import device_of, seconds_to_come, show_estimate
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
from studio.page.last_runs import show_history
from studio.page.live_run import show_live
from studio.page.memory import Memory
from studio.page.notify import show_notify
from studio.page.options import read_options
from studio.page.picker import CONTINUE, PICKED, continuable, show_origin
from studio.page.queue import show_queue
from studio.page.result import show_result
from studio.page.shortcut import RUN_KEYS, count_presses_once
from studio.page.space import show_space
from studio.page.stages import show_stages
from studio.page.start import asked, asked_for, recall, show_how_many, start
from studio.page.text import plain, prompt_of, status_word
from studio.page.uploads import given_pictures, recall_pictures
from studio.queue import run_queue
from studio.queue.keeper import WorkerKeeper
from studio.queue.options import StudioOptions
from studio.runs import marks, run_index
from studio.runs.batches import batch_of, members
from studio.runs.run_index import Entry
from studio.runs.storage import ACTIVE, CHAIN_VIDEO

TITLE = "VQGAN-CLIP studio"
ICON, ICON_DONE = (str(STATIC_DIR / name) for name in ("icon.svg", "icon-done.svg"))
SEEK_RESULT = "seek_result"  # whether to bring the result into view
SCROLL = """<script>
document.querySelector('[class*="st-key-result-"]')?.scrollIntoView();
</script>"""
FAST, SLOW = 0.5, 2.0  # seconds between looks, while runs are active and while none is


def main() -> None:
    """Draw the page. Streamlit calls this again whenever a person uses a widget."""
    st.set_page_config(TITLE, ICON, layout="wide")
    st.html("<style>:root {}</style>")  # a toast of a fragment takes the place of the first style
    st.html(STATIC_DIR / "page.css")
    st.title(TITLE)
    _watch_server()(key="server-watch")
    try:
        options = read_options(sys.argv)
        announce_page(options)
        draw(options)
    except BadInput as error:
        st.error(plain(error.on_page))


@st.cache_resource(show_spinner=False)
def _watch_server() -> Any:
    """The script that says so in the browser when the server has ended."""
    script = (STATIC_DIR / "ended.js").read_text(encoding="utf-8")
    return component("ended", js=script)


@st.cache_resource(show_spinner=False)
def worker_keeper(options: StudioOptions) -> WorkerKeeper:
    """One for all tabs of this app."""
    return WorkerKeeper(options)


def draw(options: StudioOptions) -> None:
    """Everything below the title. Raises BadInput for a broken defaults.yaml."""
    runs = run_index.entries(options.output_dir)
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
        st.session_state["seen"] = _snapshot(options, runs)
        st.session_state["seconds"] = waiting
        is_active = any(entry.status in ACTIVE for entry in runs)
        st.fragment(watch, run_every=FAST if is_active else SLOW)(options)
    with result:
        show_removed(options)
        _show_chosen(runs, memory, options)
    with last:
        finished = [entry for entry in runs if entry.status not in ACTIVE]
        show_history(finished, choose, form, options, memory)
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
    recall(form, memory)
    recall_pictures(form.uploads, memory.asked())
    show_form(form, continuable(runs), lambda name: continue_run(name, options, memory))
    return form


def _show_request(
    form: Form, refusal: str, runs: Sequence[Entry], options: StudioOptions, memory: Memory
) -> None:
    """The prompt, Run! and what belongs to them. refusal: why Run! is disabled; "" if it is not."""
    show_dropped(form, options, memory)
    form.show_prompt()
    show_stages(form)
    show_origin(runs, form.kind)
    with st.container(horizontal=True, vertical_alignment="bottom", key="run-row"):
        press = (secrets.token_hex(), options, form)
        how: dict[str, Any] = {"type": "primary", "shortcut": RUN_KEYS, "disabled": bool(refusal)}
        st.button("Run!", on_click=press_run, args=press, **how)
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
    state = st.session_state
    with attempt():
        requests, rows = asked_for(form, options)
        names = [folder.name for folder in start(requests, rows, form.kind, options.queue_url)]
        state["active"] = {*state.get("active", ()), *names}  # they may end before the next look
        state[CHOSEN] = None
        if state.get(CONTINUE):
            state[PICKED] = names[-1]


def watch(options: StudioOptions) -> None:
    """Look at the active runs again and again; redraw the page when other things change."""
    runs = run_index.entries(options.output_dir)
    if _snapshot(options, runs) != st.session_state["seen"]:
        st.rerun()
    _follow(runs)
    running = run_index.running(runs)
    grids = batches_to_show(runs, st.session_state.get(CHOSEN))
    for batch in grids:
        show_grid(batch, runs, choose_from_grid, options)
    for entry in running:
        if batch_of(entry.details) not in grids:
            show_live(entry, stop)
    show_queue(run_queue.waiting(runs), running, st.session_state["seconds"], options)
    _name_tab(running, runs)


def _follow(runs: Sequence[Entry]) -> None:
    """Once a run that this tab has seen active has ended, show its result.

    A stage may begin and end between two looks, so a chain is followed by its details.
    """
    state = st.session_state
    active = {entry.name for entry in runs if entry.status in ACTIVE}
    watched = {chains.newest_after(name, runs) for name in state.get("active", ())}
    ended = [e for e in runs if e.name in watched and e.name not in active]
    state["active"] = active | {e.name for e in chains.unfollowed(ended)}
    last = next((entry for entry in ended if _is_alone_or_last(entry, runs)), None)
    if last and last.name != state.get("ended"):
        state["ended"] = last.name
        if not is_sibling(last.details):
            state[CHOSEN] = last.name
        st.rerun()


def _is_alone_or_last(entry: Entry, runs: Sequence[Entry]) -> bool:
    """Whether the end of a run is worth a notice: of siblings, the end of the last one is."""
    batch = batch_of(entry.details)
    return batch is None or is_over(batch, runs)


def _name_tab(running: Sequence[Entry], runs: Sequence[Entry]) -> None:
    """Show the progress in the tab's title, for people who look at another tab.

    When several siblings are made, it says so; `_show_chosen` does for a single run.
    """
    name = st.session_state.get("ended")
    ended = next((entry for entry in runs if entry.name == name), None) if name else None
    if running:
        st.session_state["ended"] = None
        progress = running[0].folder.read_progress()
        step, planned = progress.get("step", 0), progress.get("planned_num_steps", 0)
        share = f"{100 * step // planned} %" if planned > 0 else f"step {step}"
        st.set_page_config(f"{share} · {prompt_of(running[0].details, 40)}", ICON)
    elif ended and is_sibling(ended.details):
        count = len(members(runs, batch_of(ended.details) or ""))
        st.set_page_config(f"✓ {count} made: {prompt_of(ended.details, 40)}", ICON_DONE)


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
        st.html(SCROLL, unsafe_allow_javascript=True)
    if state.get("ended") == chosen.name:
        icon = ICON_DONE if chosen.status in ("done", "stopped") else ICON
        st.set_page_config(f"{status_word(chosen)}: {prompt_of(chosen.details, 40)}", icon)


def choose(name: str) -> None:
    """Show the result of that run."""
    st.session_state[CHOSEN] = name


def choose_from_grid(name: str) -> None:
    """Show the result of that run, and bring it into view: the rest of the grid may be between."""
    choose(name)
    st.session_state[SEEK_RESULT] = True


def _snapshot(options: StudioOptions, runs: Sequence[Entry]) -> tuple[object, ...]:
    """What the page shows outside `watch`. When it changes, the page is drawn again."""
    refusal, device = worker_keeper(options).refusal(), device_of(options)
    line = [entry.name for entry in run_queue.waiting(runs)]
    chosen = st.session_state.get(CHOSEN)
    has_film = bool(chosen) and (options.output_dir / chosen / CHAIN_VIDEO).is_file()
    broken = sorted(unavailable_engines(options).items())
    marked = marks.stamp(options.output_dir)
    statuses = ((entry.name, entry.status) for entry in runs)
    return refusal, device, broken, line, chosen, has_film, marked, *statuses


if __name__ == "__main__":
    main()
