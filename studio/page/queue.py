"""The queue on the page: the runs that wait, for how long, and what can be done with them."""

from collections.abc import Mapping, Sequence

import streamlit as st

from studio.engines.estimate import duration
from studio.page.actions import QUEUE, attempt, remove, show_problem
from studio.page.pictures import thumbnail
from studio.page.text import plain, prompt_of
from studio.queue import run_queue
from studio.queue.options import StudioOptions
from studio.runs import storage
from studio.runs.run_index import Entry

SMALL = 44  # px


def show_queue(
    waiting: Sequence[Entry],
    running: Sequence[Entry],
    seconds: Mapping[str, float],
    options: StudioOptions,
) -> None:
    """Each waiting run with its place.

    running: the runs that are being computed. seconds: how long each waiting run takes, by its
    name, if that is known.
    """
    show_problem(QUEUE)
    pause = run_queue.paused(options.output_dir)
    if not waiting and not pause:
        return
    left = [seconds.get(entry.name) for entry in waiting] + [_seconds_left(e) for e in running]
    _show_head(sum(filter(None, left)), options, pause, can_pause=bool(waiting))
    for place, entry in enumerate(waiting):
        with st.container(horizontal=True, vertical_alignment="center", key=f"wait-{entry.name}"):
            with st.container(horizontal=True, vertical_alignment="center", wrap=False):
                _show_small(entry)
                before = place + len(running)
                _show_place(entry, _turn(before, pause is not None), seconds.get(entry.name))
            _show_controls(entry, place, len(waiting), options)


def _seconds_left(running: Entry) -> float | None:
    return running.folder.read_progress().get("seconds_left")


def _turn(before: int, paused: bool) -> str:
    """When a waiting run starts."""
    if before:
        return f"waits: {before} before it"
    return "starts when the queue is resumed" if paused else "starts as soon as it can"


def _show_place(entry: Entry, turn: str, seconds: float | None) -> None:
    time = "" if seconds is None else f" :gray[· about {duration(seconds)}]"
    st.markdown(f"{plain(prompt_of(entry.details, 60))} :gray[— {turn}]{time}", width="stretch")


def _show_head(
    seconds: float, options: StudioOptions, pause: run_queue.Pause | None, can_pause: bool
) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="queue-head"):
        left = f" :small[:gray[· about {duration(seconds)}]]" if seconds else ""
        st.markdown(f"**Queue**{left}", width="stretch")
        if pause:
            st.button(
                "Resume queue",
                key="resume-queue",
                on_click=_resume,
                args=(options,),
                type="primary",
            )
        elif can_pause:
            help_text = "The current run continues; no other run starts until you resume the queue."
            st.button("Pause", key="pause", on_click=_pause, args=(options,), help=help_text)
    if pause:
        st.info(plain(f"The queue is paused: waiting runs do not start. {pause.reason}"))


def _show_controls(entry: Entry, place: int, count: int, options: StudioOptions) -> None:
    with st.container(
        horizontal=True, width="content", gap="xxsmall", key=f"controls-{entry.name}"
    ):
        for word, icon, to in (("Earlier", "upward", place - 1), ("Later", "downward", place + 1)):
            st.button(
                word,
                key=f"{word}-{entry.name}",
                icon=f":material/arrow_{icon}:",
                help=word,
                type="tertiary",
                disabled=not 0 <= to < count,
                on_click=run_queue.move,
                args=(options.output_dir, entry.name, to),
            )
        st.button("Remove", key=f"remove-{entry.name}", on_click=remove, args=(entry, options))


def _show_small(entry: Entry) -> None:
    """A picture that the run already has, or that it starts from; nothing if it has neither."""
    names = (storage.PREVIEW, storage.PICTURE, storage.START, storage.INIT_IMAGE)
    paths = (entry.folder.path / name for name in names)
    if data := thumbnail(next((path for path in paths if path.is_file()), None)):
        st.image(data, width=SMALL, alt=prompt_of(entry.details))


def _pause(options: StudioOptions) -> None:
    with attempt(QUEUE):
        run_queue.pause(options.output_dir)


def _resume(options: StudioOptions) -> None:
    with attempt(QUEUE):
        run_queue.unpause(options.output_dir, options.queue_url)
