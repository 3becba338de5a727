"""Looking at the runs again and again: what is being made, and when to draw the page again."""

from collections.abc import Sequence

import streamlit as st

from studio.base.paths import STATIC_DIR
from studio.making import chains
from studio.page.actions import CHOSEN
from studio.page.batch_grid import batches_to_show, is_over, is_sibling, show_grid
from studio.page.engine_choice import unavailable_engines
from studio.page.estimates import device_of
from studio.page.live_run import show_live
from studio.page.queue import show_queue
from studio.page.text import prompt_of, status_word
from studio.page.upscaling import show_elsewhere
from studio.queue import keeper, run_queue
from studio.queue.options import StudioOptions
from studio.runs import marks, run_index, upscalings
from studio.runs.batches import batch_of, members
from studio.runs.run_index import Entry
from studio.runs.storage import ACTIVE, CHAIN_VIDEO

ICON, ICON_DONE = (str(STATIC_DIR / name) for name in ("icon.svg", "icon-done.svg"))
SEEK_RESULT = "seek_result"  # whether to bring the result into view


@st.cache_resource(show_spinner=False)
def worker_keeper(options: StudioOptions) -> keeper.WorkerKeeper:
    """One for all tabs of this app."""
    return keeper.WorkerKeeper(options)


def watch(options: StudioOptions) -> None:
    """Look at the active runs again and again; redraw the page when other things change."""
    jobs, runs = upscalings.entries(options.output_dir), run_index.entries(options.output_dir)
    if snapshot(options, runs, jobs) != st.session_state["seen"]:
        st.rerun()
    _follow(runs)
    running = run_index.running(runs)
    grids = batches_to_show(runs, st.session_state.get(CHOSEN))
    for batch in grids:
        show_grid(batch, runs, choose_from_grid, options)
    for entry in running:
        if batch_of(entry.details) not in grids:
            show_live(entry)
    show_elsewhere(jobs, st.session_state.get(CHOSEN))
    line = run_queue.waiting([*runs, *jobs])
    show_queue(line, running, st.session_state["seconds"], options)
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
    """Tell people who look at another tab of the progress, and then of the end, in the title."""
    state = st.session_state
    if running:
        state["ended"] = None
        st.set_page_config(f"{_progress(running[0])} · {prompt_of(running[0].details, 40)}", ICON)
    elif ended := next((entry for entry in runs if entry.name == state.get("ended")), None):
        words = prompt_of(ended.details, 40)
        if is_sibling(ended.details):
            count = len(members(runs, batch_of(ended.details) or ""))
            st.set_page_config(f"✓ {count} made: {words}", ICON_DONE)
        elif state.get(CHOSEN) == ended.name:
            icon = ICON_DONE if ended.status in ("done", "stopped") else ICON
            st.set_page_config(f"{status_word(ended)}: {words}", icon)


def _progress(entry: Entry) -> str:
    progress = entry.folder.read_progress()
    step, planned = progress.get("step", 0), progress.get("planned_num_steps", 0)
    return f"{100 * step // planned} %" if planned > 0 else f"step {step}"


def choose(name: str) -> None:
    """Show the result of that run."""
    st.session_state[CHOSEN] = name


def choose_from_grid(name: str) -> None:
    """Show the result of that run, and bring it into view: the rest of the grid may be between."""
    choose(name)
    st.session_state[SEEK_RESULT] = True


def snapshot(
    options: StudioOptions, runs: Sequence[Entry], jobs: Sequence[Entry]
) -> tuple[object, ...]:
    """What the page shows outside `watch`. When it changes, the page is drawn again.

    jobs: the upscalings, read before the runs: when one ends, its picture is told by the run.
    """
    refusal, device = worker_keeper(options).refusal(), device_of(options)
    line = [entry.name for entry in run_queue.waiting([*runs, *jobs])]
    chosen = st.session_state.get(CHOSEN)
    has_film = bool(chosen) and (options.output_dir / chosen / CHAIN_VIDEO).is_file()
    broken = sorted(unavailable_engines(options).items())
    marked = marks.stamp(options.output_dir)
    statuses = ((entry.name, entry.status) for entry in (*runs, *jobs))
    return refusal, device, broken, line, chosen, has_film, marked, *statuses
