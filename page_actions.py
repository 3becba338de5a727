"""What a person does with runs on the page. What cannot be done is said beside Run!."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

import run_queue
import stages
import trash
from errors import BadInput, StudioError
from places import Places
from run_index import Entry

PROBLEMS = "problems"
REMOVED, WAITED = "removed", "removed_waited"
CHOSEN = "chosen"


@contextmanager
def attempt() -> Iterator[None]:
    """Around what a button does: a refusal becomes the page's message, and clears older ones."""
    st.session_state[PROBLEMS] = []
    try:
        yield
    except StudioError as problem:
        st.session_state[PROBLEMS] = [problem.on_page]
    except OSError as error:
        st.session_state[PROBLEMS] = [f"That did not work: {error.strerror or error}."]


def resume(entry: Entry, places: Places) -> None:
    """Let a run go on in its folder."""
    with attempt():
        run_queue.resume(entry.folder, places.queue_url)
        st.session_state[CHOSEN] = None


def remove(entry: Entry, places: Places) -> None:
    """To the trash; one that the worker has just taken stops instead."""
    with attempt():
        waited = entry.folder.live_status() == "queued"
        if waited and run_queue.cancel(entry.folder) == "running":
            return
        trash.move_to_trash(places.output_dir, entry.name)
        st.session_state[REMOVED], st.session_state[WAITED] = entry.name, waited


def make_film(entry: Entry) -> None:
    """One film of a run and of those that it goes on from."""
    with attempt():
        if stages.make_video(entry.folder) is None:
            raise BadInput("There is no other video to join: the earlier runs have none any more.")


def put_back(name: str, places: Places) -> None:
    """Out of the trash again; what this tab took out of the queue waits once more."""
    with attempt():
        folder = trash.restore(places.output_dir, name)
        if st.session_state.get(REMOVED) == name:
            st.session_state[REMOVED] = None
            if st.session_state[WAITED]:
                run_queue.resume(folder, places.queue_url)
