"""What a person does with runs on the page. A refusal is shown where the person acted."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import streamlit as st

from studio.base.errors import BadInput, StudioError
from studio.making import chains
from studio.page.text import plain
from studio.queue import run_queue
from studio.queue.options import StudioOptions
from studio.runs import trash
from studio.runs.run_index import Entry
from studio.runs.upscalings import is_upscaling

ECHO_SECONDS = 0.2  # nobody presses a button again within this time
PROBLEM = "problem"
REMOVED = "removed"  # what Undo puts back: by name, what waited behind a waiting run; else None
CHOSEN = "chosen"
RUN, QUEUE, RESULT, REMOVAL, TRASH = "run", "queue", "result", "removal", "trash"  # places


class Presses:
    """Which presses of a button were carried out; Streamlit may report one press several times.

    Each drawing of a button has a token. The token alone is not enough: where the page was
    interrupted before it drew the button again, the next press comes with the last one's token.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heeded: dict[str, float] = {}  # by token: when its last press was carried out

    @contextmanager
    def heeding(self, token: str) -> Iterator[bool]:
        """Whether to carry out a press, or whether it is an echo. Other presses wait meanwhile."""
        with self._lock:
            now = time.monotonic()
            self._heeded = {t: at for t, at in self._heeded.items() if now - at < ECHO_SECONDS}
            if token in self._heeded:
                yield False
                return
            try:
                yield True
            finally:
                self._heeded[token] = time.monotonic()


PRESSES = Presses()  # of all tabs


@contextmanager
def attempt(place: str = RUN) -> Iterator[None]:
    """Around what a button does: a refusal becomes a message at that place of the page.

    It clears an older message.
    """
    st.session_state[PROBLEM] = None
    try:
        yield
    except StudioError as problem:
        st.session_state[PROBLEM] = place, problem.on_page
    except OSError as error:
        st.session_state[PROBLEM] = place, f"That did not work: {error.strerror or error}."


def show_problem(place: str) -> None:
    """Say what could not be done there."""
    at, message = st.session_state.get(PROBLEM) or (None, "")
    if at == place:
        st.error(plain(message))


def toast_problem() -> None:
    """Show the problem in front as well, wherever on the page the person is."""
    if problem := st.session_state.get(PROBLEM):
        st.toast(plain(problem[1]), icon=":material/error:", duration="long")


def look_out_for(names: Iterable[str]) -> None:
    """Let this tab show how these new runs end, even if they do before its next look."""
    state = st.session_state
    state["active"] = {*state.get("active", ()), *names}
    state[CHOSEN] = None


def stop(entry: Entry) -> None:
    """Ask the process that computes a run to stop."""
    with attempt(QUEUE):
        entry.folder.request_stop()


def show_stop(entry: Entry, key: str, called: str, **look: Any) -> None:
    """The button that stops a run. called: the run, in its help. look: as `st.button` takes it."""
    words = f"Ends {called} after this step and keeps what is there."
    stop_button(entry, f"{key}-{entry.name}", stop, words, **look)


def stop_button(
    entry: Entry, key: str, on_stop: Callable[[Entry], None], words: str, **look: Any
) -> None:
    """A button that asks a run, or an upscaling, to stop, and that says when it was asked.

    on_stop: what it calls, with the entry. words: its help. look: as `st.button` takes it.
    """
    is_stopping = entry.folder.stop_requested()
    st.button(
        "Stopping …" if is_stopping else "Stop",
        key=key,
        disabled=is_stopping,
        on_click=on_stop,
        args=(entry,),
        help=words,
        **look,
    )


def resume(entry: Entry, options: StudioOptions) -> None:
    """Let a run continue in its folder."""
    with attempt(RESULT):
        run_queue.resume(entry.folder, options.queue_url)
        st.session_state[CHOSEN] = None


def remove(entry: Entry, options: StudioOptions) -> None:
    """Move a run to the trash; one that the worker has just taken stops instead.

    An upscaling that waits is gone: nothing of it is worth an undo.
    """
    if is_upscaling(entry.folder):
        with attempt(QUEUE):
            run_queue.withdraw_upscaling(entry.folder)
        return
    waited = entry.status == "queued"
    with attempt(QUEUE if waited else RESULT):
        behind = run_queue.behind(options.output_dir, entry.name)
        if waited and run_queue.cancel(entry.folder) == "running":
            return
        trash.move_to_trash(options.output_dir, entry.name)
        st.session_state[REMOVED] = {entry.name: behind if waited else None}


def make_film(entry: Entry) -> None:
    """Make one film of a run and of those that it continues."""
    with attempt(RESULT):
        if chains.make_video(entry.folder) is None:
            raise BadInput("There is no other video to join: those of the earlier runs are gone.")


def put_back(names: Iterable[str], options: StudioOptions, place: str) -> None:
    """Take runs out of the trash. Those that this tab took out of the queue get their places back.

    Those that cannot be put back do not keep the others from it.
    """
    removed = st.session_state.get(REMOVED) or {}
    with attempt(place):
        waited, problems = {}, []
        for name in names:
            behind = removed.pop(name, None)
            try:
                folder = trash.restore(options.output_dir, name)
                if behind is not None:
                    run_queue.resume(folder, options.queue_url)
                    waited[name] = behind
            except BadInput as problem:
                problems.append(problem)
        run_queue.move_back(options.output_dir, waited)
        if problems:
            raise problems[0]
