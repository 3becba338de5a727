"""The page: `streamlit run app.py -- [--output-dir DIR] [--assets-dir DIR] [--gpus N,N]`.

The form becomes settings, Run! puts them into the queue as a run folder, and from then on the page
only looks at that folder. The computing is the worker's. Never imports torch.
"""

import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import streamlit as st

from studio.base.errors import BadInput
from studio.base.paths import README, ROOT, STATIC_DIR
from studio.engines import registry
from studio.engines.estimate import Estimate, estimate_in_words, together
from studio.making import chains
from studio.making.recipes import settings_in
from studio.page import run_views
from studio.page.actions import CHOSEN, PRESSES, PROBLEM, RESULT, RUN, attempt, show_problem, stop
from studio.page.documents import show_document
from studio.page.form import Form
from studio.page.history import show_actions, show_history, show_removed, show_trash
from studio.page.incoming import (
    MODEL,
    continue_run,
    follow_link,
    show_drop_zone,
    show_settings_menu,
    use_settings,
)
from studio.page.memory import Memory
from studio.page.options import read_options
from studio.page.picker import CONTINUE, PICKED, continuable, show_origin
from studio.page.queue import show_queue
from studio.page.run_views import plain, prompt_of
from studio.page.space import show_space
from studio.page.start import (
    asked,
    asked_for,
    planned_runs,
    recall,
    show_how_many,
    show_stages,
    start,
)
from studio.queue import run_queue
from studio.queue.keeper import WorkerKeeper
from studio.queue.options import StudioOptions
from studio.queue.slots import read_states
from studio.runs import run_index
from studio.runs.run_index import Entry
from studio.runs.storage import ACTIVE, CHAIN_VIDEO
from studio.settings.run_settings import RunSettings

TITLE = "VQGAN-CLIP studio"
ICON, ICON_DONE = (str(STATIC_DIR / name) for name in ("icon.svg", "icon-done.svg"))
FAST, SLOW = 0.5, 2.0  # seconds between looks, while something goes and while nothing does
PAST_RUNS = 100  # of which estimates are made


def main() -> None:
    """Draw the page; Streamlit calls this again at every touch."""
    st.set_page_config(TITLE, ICON, layout="wide")
    st.html(STATIC_DIR / "page.css")
    st.title(TITLE)
    _watch_server()(key="server-watch")
    try:
        options = read_options(sys.argv)
        draw(options)
    except BadInput as error:
        st.error(plain(error.on_page))


@st.cache_resource(show_spinner=False)
def _watch_server() -> Any:
    """What tells in the browser that the server has ended."""
    script = (STATIC_DIR / "ended.js").read_text(encoding="utf-8")
    return st.components.v2.component("ended", js=script)


@st.cache_resource(show_spinner=False)
def worker_keeper(options: StudioOptions) -> WorkerKeeper:
    """One for all tabs of this app."""
    return WorkerKeeper(options)


def draw(options: StudioOptions) -> None:
    """Everything below the title. Raises BadInput for a broken defaults.yaml."""
    runs = run_index.entries(options.output_dir)
    memory = Memory(options.output_dir)
    with st.sidebar:
        follow_link(options, memory)
        model = _choose_model()
        form = Form(registry.get(model).settings, options.assets_dir, memory)
        form.fill()
        recall(form, memory)
        form.show(continuable(runs), lambda name: continue_run(name, options, memory))
    form.show_prompt()
    show_stages(form)
    show_origin(runs)
    with st.container(horizontal=True, vertical_alignment="bottom", key="run-row"):
        press = (secrets.token_hex(), options, model, form)
        st.button("Run!", type="primary", on_click=press_run, args=press)
        show_how_many()
        show_settings_menu(form, options, memory)
        show_drop_zone(options, memory)
    _show_estimate(form, model, options, runs)
    memory.remember(form.changed() | asked())
    problems, going_on, result, last = (st.container() for _ in range(4))
    with problems:
        _show_problems(options)
    with going_on:
        going = any(entry.status in ACTIVE for entry in runs)
        st.session_state["seen"] = _snapshot(options, runs)
        st.session_state["seconds"] = _seconds_of_waiting(options, runs)
        st.fragment(watch, run_every=FAST if going else SLOW)(options)
    with result:
        show_removed(options)
        _show_chosen(runs, memory, options)
    with last:
        show_history([entry for entry in runs if entry.status not in ACTIVE], choose)
        with st.container(horizontal=True):
            show_trash(options)
            show_space(runs, options)
    show_document(README)
    show_document(ROOT / "CHANGELOG.md")


def press_run(token: str, options: StudioOptions, model: str, form: Form) -> None:
    """Put what the form says into the queue, or say why not.

    token: of the button as it was drawn; see `Presses`.
    """
    with PRESSES.heeding(token) as is_heeded:
        if is_heeded:
            _submit(options, model, form)


def _submit(options: StudioOptions, model: str, form: Form) -> None:
    state = st.session_state
    with attempt():
        requests, rows = asked_for(form, options, model)
        names = [folder.name for folder in start(requests, rows, form.kind, options.queue_url)]
        state["active"] = {*state.get("active", ()), *names}  # they may end before the next look
        state[CHOSEN] = None
        if state.get(CONTINUE):
            state[PICKED] = names[-1]


def watch(options: StudioOptions) -> None:
    """Look at the runs that go and wait, again and again; redraw the page when that changes."""
    runs = run_index.entries(options.output_dir)
    if _snapshot(options, runs) != st.session_state["seen"]:
        st.rerun()
    _follow(runs)
    running = run_index.running(runs)
    for entry in running:
        run_views.show_live(entry, stop)
    show_queue(run_queue.waiting(runs), running, st.session_state["seconds"], options)
    _name_tab(running)


def _follow(runs: Sequence[Entry]) -> None:
    """Once a run that this tab has seen going has ended, show its result.

    A stage may begin and end between two looks, so that a chain is followed by its details.
    """
    state = st.session_state
    active = {entry.name for entry in runs if entry.status in ACTIVE}
    watched = {chains.newest_after(name, runs) for name in state.get("active", ())}
    ended = [e for e in runs if e.name in watched and e.name not in active]
    state["active"] = active | {e.name for e in chains.unfollowed(ended)}
    if ended and ended[0].name != state.get("ended"):
        state[CHOSEN] = state["ended"] = ended[0].name
        st.rerun()


def _name_tab(running: Sequence[Entry]) -> None:
    """Say in the tab's title how far it is, for people who look at another tab meanwhile."""
    if running:
        st.session_state["ended"] = None
        progress = running[0].folder.read_progress()
        step, planned = progress.get("step", 0), progress.get("planned_num_steps", 0)
        share = f"{100 * step // planned} %" if planned > 0 else f"step {step}"
        st.set_page_config(f"{share} · {prompt_of(running[0].details, 40)}", ICON)


def _show_problems(options: StudioOptions) -> None:
    """Why Run! was refused, and why there is no worker."""
    show_problem(RUN)
    refusal = worker_keeper(options).refusal()
    if refusal and st.session_state.get(PROBLEM) != (RUN, refusal):  # said by Run! as well
        st.error(plain(refusal))


def _show_chosen(runs: Sequence[Entry], memory: Memory, options: StudioOptions) -> None:
    """The result that was asked for, or that has just come."""
    state = st.session_state
    chosen = next((entry for entry in runs if entry.name == state.get(CHOSEN)), None)
    if chosen is None or chosen.status in ACTIVE:
        return

    def use(name: str) -> None:
        use_settings(name, options, memory, RESULT)

    def continue_(name: str) -> None:
        continue_run(name, options, memory, RESULT)

    run_views.show_result(chosen, lambda entry: show_actions(entry, use, continue_, options))
    if state.get("ended") == chosen.name:
        icon = ICON_DONE if chosen.status in ("done", "stopped") else ICON
        word = run_views.status_word(chosen)
        st.set_page_config(f"{word}: {prompt_of(chosen.details, 40)}", icon)


def choose(name: str) -> None:
    """Show the result of that run."""
    st.session_state[CHOSEN] = name


def _show_estimate(form: Form, engine: str, options: StudioOptions, runs: Sequence[Entry]) -> None:
    """How long and how much memory, or why these settings would be refused."""
    try:
        planned, count, warnings = planned_runs(form)
    except BadInput as problem:
        st.caption(plain(problem.on_page))
        return
    words = []
    if told := _estimate(engine, planned, options, runs, count):
        waiting = _seconds_until_free(options, runs)
        words = [estimate_in_words(told, _device(options), len(planned) * count, waiting)]
    st.caption(" ".join(map(plain, [*words, *warnings])))


def _estimate(
    engine: str,
    planned: Sequence[RunSettings],
    options: StudioOptions,
    runs: Sequence[Entry],
    times: int = 1,
) -> Estimate | None:
    """Of runs of an engine that follow each other; None where it cannot tell."""
    past, device = _past(engine, runs), _device(options)
    known = registry.get(engine)
    each = [known.estimate(run, options.assets_dir, device, past) for run in planned]
    told = [estimate for estimate in each if estimate]
    return together(told, times) if len(told) == len(each) else None


def _seconds_of_waiting(options: StudioOptions, runs: Sequence[Entry]) -> dict[str, float]:
    """How long each waiting run takes, by its name, where that can be said."""
    seconds = {}
    for entry in run_queue.waiting(runs):
        with suppress(BadInput, TypeError):
            engine = registry.engine_of(entry.details)
            told = _estimate(engine, _with_stages(entry), options, runs)
            if told and told.seconds:
                done = entry.details["num_steps"] * told.seconds_per_step
                seconds[entry.name] = max(0.0, told.seconds - done)
    return seconds


def _seconds_until_free(options: StudioOptions, runs: Sequence[Entry]) -> float:
    """How long all that goes and waits takes, as far as that can be said."""
    going = (e.folder.read_progress().get("seconds_left") for e in run_index.running(list(runs)))
    return sum(filter(None, (*going, *_seconds_of_waiting(options, runs).values())))


def _with_stages(entry: Entry) -> list[RunSettings]:
    """The settings of a run and of the stages that follow it. Raises BadInput."""
    first, chain = settings_in(entry.details), entry.details.get("chain") or {}
    return [first, *chains.settings_of(first, chain.get("next", []))]


def _past(engine: str, runs: Sequence[Entry]) -> list[Mapping[str, Any]]:
    """Details of the engine's earlier runs, the newest first."""
    ended = (entry.details for entry in runs[:PAST_RUNS] if entry.status not in ACTIVE)
    return [details for details in ended if registry.engine_of(details) == engine]


def _choose_model() -> str:
    names = registry.names()
    return st.selectbox("Model", names, key=MODEL) if len(names) > 1 else names[0]


def _snapshot(options: StudioOptions, runs: Sequence[Entry]) -> tuple[object, ...]:
    """What the page outside of `watch` shows of the world."""
    refusal, device = worker_keeper(options).refusal(), _device(options)
    line = [entry.name for entry in run_queue.waiting(runs)]
    chosen = st.session_state.get(CHOSEN)
    has_film = bool(chosen) and (options.output_dir / chosen / CHAIN_VIDEO).is_file()
    return refusal, device, line, has_film, *((entry.name, entry.status) for entry in runs)


def _device(options: StudioOptions) -> str:
    """What the worker that spoke last computes on; "" until one has said."""
    return next((state.device for state in read_states(options.output_dir) if state.device), "")


if __name__ == "__main__":
    main()
