"""Weights that are chosen by a name and are not here yet: what they are, and their download.

A download lives in the page's server, not in a tab; what has arrived stays, whatever is closed.
"""

import threading
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from studio.base.errors import StudioError
from studio.engines import registry
from studio.engines.contract import Download, size_in_words
from studio.page.actions import attempt, show_problem
from studio.page.form import Form
from studio.page.prompt_area import entered
from studio.page.text import plain
from studio.queue.options import StudioOptions

FOUND = "found_weights"  # what the hub told last
AWAITED = "awaited_weights"  # the name of those that were chosen and not here
PLACE = "download"
SECONDS = 1.0  # between looks at a download


class _Stopped(Exception):
    """Somebody pressed Stop."""


@dataclass
class Transfer:
    """A download in a thread of its own."""

    found: Download
    here: int = 0  # bytes
    problem: str = ""
    stopped: bool = False

    def start(self) -> None:
        """Begin, or go on."""
        self.problem, self.stopped = "", False
        self._thread = threading.Thread(target=self._run, name=self.found.name, daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether it goes on."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.found.fetch(self._note)
        except _Stopped:
            pass
        except StudioError as problem:
            self.problem = problem.on_page

    def _note(self, here: int) -> None:
        self.here = here
        if self.stopped:
            raise _Stopped


_TRANSFERS: dict[tuple[Path, str], Transfer] = {}  # of all tabs


def take_on_arrived(form: Form, options: StudioOptions) -> None:
    """Put in what weights recommend that have arrived meanwhile; before the form is drawn."""
    state, values = st.session_state, entered(form.kind)
    if registry.get(form.engine).lacks(values, options.assets_dir):
        return
    if state.pop(AWAITED, None) in values.values():
        form.take_on_choice()


def show_download(form: Form, options: StudioOptions) -> None:
    """If the chosen weights are not here: a button to look them up, and one to download them."""
    engine = registry.get(form.engine)
    name = engine.lacks(entered(form.kind), options.assets_dir)
    if not name:
        return
    st.session_state[AWAITED] = name
    with st.container(border=True):
        running = _TRANSFERS.get((options.assets_dir, name))
        if running and running.is_running:
            st.fragment(_show_progress, run_every=SECONDS)(running)
            return
        found = st.session_state.get(FOUND)
        if found is None or found.name != name:
            st.markdown(plain(f"The weights {name} are not here."))
            st.button(
                f"Look up {name}",
                key="look-up",
                help="Ask the Hugging Face hub how large they are, and under which licence.",
                on_click=_look_up,
                args=(form.engine, name, options.assets_dir),
            )
        else:
            st.markdown(plain(f"{found.in_words()}."))
            again = bool(running and running.here)
            label = "Go on with the download" if again else "Download"
            st.button(label, key="download", on_click=_download, args=(found, options.assets_dir))
        if running and running.problem:
            st.error(plain(running.problem))
        show_problem(PLACE)


def _look_up(engine: str, name: str, assets_dir: Path) -> None:
    with attempt(PLACE):
        st.session_state[FOUND] = registry.get(engine).look_up(name, assets_dir)


def _download(found: Download, assets_dir: Path) -> None:
    transfer = _TRANSFERS.setdefault((assets_dir, found.name), Transfer(found))
    transfer.found = found
    transfer.start()


def _show_progress(transfer: Transfer) -> None:
    """Drawn again and again while bytes come; at the end the whole page is drawn."""
    size = transfer.found.size
    if not transfer.is_running:
        st.rerun(scope="app")
    words = f"{transfer.found.name}: {size_in_words(transfer.here)}"
    words += f" of {size_in_words(size)}" if size else ""
    st.progress(min(1.0, transfer.here / size) if size else 0.0, text=plain(words))
    if st.button("Stop", key="stop-download", help="What is here stays; you can go on later."):
        transfer.stopped = True
