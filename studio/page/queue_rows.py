"""The rows of the queue: what runs with its progress, what waits with its turn.

Many siblings that wait one behind the other fold into two rows, the second of which stands for all
but the first.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from studio.engines.estimate import duration
from studio.page.actions import remove
from studio.page.batch_actions import clear
from studio.page.pictures import thumbnail
from studio.page.text import (
    plain,
    progress_in_words,
    prompt_of,
    stage_and_seed,
    turn_in_words,
)
from studio.page.upscaling import called, origin
from studio.queue import run_queue
from studio.queue.options import StudioOptions
from studio.runs import storage
from studio.runs.batches import batch_of
from studio.runs.run_index import Entry
from studio.runs.upscalings import is_upscaling

SMALL = 44  # px
FOLDED = 4  # siblings in a row, from which on they fold
UNFOLDED = "queue_unfolded"  # the batches whose runs this tab shows one by one


def show_running(entry: Entry) -> None:
    """A run that is being computed, with its progress."""
    progress = entry.folder.read_progress()
    words, left = progress_in_words(progress), progress.get("seconds_left")
    with _row(f"runs-{entry.name}"):
        _show_small(entry)
        time = "" if left is None else f" :gray[· {duration(left)} left]"
        st.markdown(f"{_name(entry)} :gray[— {words}]{time}", width="stretch")


def show_line(
    waiting: Sequence[Entry],
    running: int,
    seconds: Mapping[str, float],
    paused: bool,
    options: StudioOptions,
) -> None:
    """The runs that wait, in their order. running, seconds: as for `queue.show_queue`."""
    for place, group in _groups(waiting):
        shown = group if len(group) < FOLDED or _is_unfolded(group) else group[:1]
        for at, entry in enumerate(shown, start=place):
            with _row(f"wait-{entry.name}"):
                with st.container(horizontal=True, vertical_alignment="center", wrap=False):
                    _show_small(entry)
                    _show_place(entry, turn_in_words(at + running, paused), seconds.get(entry.name))
                _show_controls(entry, at, len(waiting), options)
        if folded := group[len(shown) :]:
            _show_folded(folded, options)


def _groups(waiting: Sequence[Entry]) -> Iterator[tuple[int, list[Entry]]]:
    """Siblings that wait one behind the other, with the place of the first; others alone."""
    place = 0
    for _, found in groupby(waiting, lambda entry: batch_of(entry.details) or entry.name):
        group = list(found)
        yield place, group
        place += len(group)


def _is_unfolded(group: Sequence[Entry]) -> bool:
    return batch_of(group[0].details) in st.session_state.get(UNFOLDED, ())


def _row(key: str) -> DeltaGenerator:
    return st.container(horizontal=True, vertical_alignment="center", key=key)


def _name(entry: Entry) -> str:
    """The prompt, and for one of several siblings what tells it apart."""
    if is_upscaling(entry.folder):
        return plain(called(entry))
    label = f" :gray[· {plain(stage_and_seed(entry.details))}]" if batch_of(entry.details) else ""
    return plain(prompt_of(entry.details, 60)) + label


def _show_place(entry: Entry, turn: str, seconds: float | None) -> None:
    time = "" if seconds is None else f" :gray[· about {duration(seconds)}]"
    st.markdown(f"{_name(entry)} :gray[— {turn}]{time}", width="stretch")


def _show_folded(folded: Sequence[Entry], options: StudioOptions) -> None:
    batch, names = batch_of(folded[0].details), {entry.name for entry in folded}

    def unfold() -> None:
        st.session_state[UNFOLDED] = {*st.session_state.get(UNFOLDED, ()), batch}

    with _row(f"folded-{folded[0].name}"):
        st.markdown(f":gray[{len(folded)} more of these]", width="stretch")
        st.button("Show", key=f"unfold-{folded[0].name}", on_click=unfold, type="tertiary")
        st.button(
            f"Remove {len(folded)}",
            key=f"clear-{folded[0].name}",
            on_click=clear,
            args=(names, options),
            help="Removes them from the queue; you can undo that.",
        )


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
    folder = origin(entry) if is_upscaling(entry.folder) else entry.folder
    paths = (folder.path / name for name in names)
    if data := thumbnail(next((path for path in paths if path.is_file()), None)):
        st.image(data, width=SMALL, alt=prompt_of(entry.details))
