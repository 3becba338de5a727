"""The queue on the page: what runs and what waits, until when, and what can be done with it."""

from collections.abc import Mapping, Sequence

import streamlit as st

from studio.page.actions import QUEUE, attempt, show_problem
from studio.page.batch_actions import clear
from studio.page.finish import finish_in_words
from studio.page.queue_rows import show_line, show_running
from studio.page.text import plain
from studio.queue import run_queue
from studio.queue.options import StudioOptions
from studio.runs.run_index import Entry
from studio.runs.upscalings import is_upscaling


def show_queue(
    waiting: Sequence[Entry],
    running: Sequence[Entry],
    seconds: Mapping[str, float],
    options: StudioOptions,
) -> None:
    """The runs that are being computed, then what waits, in the order of their turns.

    seconds: how long the queue needs for each run, by its name, if that is known; see
    `estimates.seconds_to_come`.
    """
    show_problem(QUEUE)
    pause = run_queue.paused(options.output_dir)
    if not waiting and not pause:
        return
    runs = [entry for entry in waiting if not is_upscaling(entry.folder)]
    _show_head(waiting, finish_in_words(runs, running, seconds, pause), options, pause)
    for entry in running:
        show_running(entry)
    show_line(waiting, len(running), seconds, pause is not None, options)


def _show_head(
    waiting: Sequence[Entry], until: str, options: StudioOptions, pause: run_queue.Pause | None
) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="queue-head"):
        left = f" :small[:gray[· {plain(until)}]]" if until else ""
        st.markdown(f"**Queue**{left}", width="stretch")
        if pause:
            st.button(
                "Start the queue",
                key="start-queue",
                on_click=_start,
                args=(options,),
                type="primary",
            )
        elif waiting:
            help_text = "Runs that have begun go on; no other run begins until you start the queue."
            st.button("Pause", key="pause", on_click=_pause, args=(options,), help=help_text)
        if waiting:
            st.button(
                "Clear all",
                key="clear-all",
                on_click=clear,
                args=({entry.name for entry in waiting}, options),
                help="Removes all runs that wait; you can undo that. Runs that have begun go on.",
            )
    if pause:
        st.info(plain(f"The queue is paused: waiting runs do not start. {pause.reason}"))


def _pause(options: StudioOptions) -> None:
    with attempt(QUEUE):
        run_queue.pause(options.output_dir)


def _start(options: StudioOptions) -> None:
    with attempt(QUEUE):
        run_queue.unpause(options.output_dir, options.queue_url)
