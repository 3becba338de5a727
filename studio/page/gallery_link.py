"""The way to the gallery of the same output folder: found where it runs, else started."""

import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import streamlit as st

from studio.base import faces
from studio.base.errors import BadInput
from studio.base.paths import ROOT
from studio.page.actions import RESULT, attempt
from studio.queue.options import StudioOptions
from studio.queue.slots import LOGS_DIR
from studio.runs.run_index import Entry

OPENING = "opening"  # the address to open once the page is drawn
LOG = "gallery.log"
PATIENCE = 20.0
LOOK_SECONDS = 0.1
LABEL, ICON = "Open in the gallery", ":material/open_in_new:"


@st.cache_resource(show_spinner=False)
def announce_page(options: StudioOptions) -> object:
    """Let the gallery find this page: what is returned lasts as long as the server."""
    port, path = st.get_option("server.port"), st.get_option("server.baseUrlPath")
    host = st.get_option("server.address") or ""
    return faces.announce(options.output_dir, "page", faces.Listening(port, host, path or ""))


def show_gallery_link(entry: Entry, options: StudioOptions) -> None:
    """A link to the run in the gallery, or a button that starts the gallery first."""
    gallery = _gallery(options)
    if gallery is None:
        key, help_text = f"gallery-{entry.name}", "Starts the gallery, which ends with this page."
        args = (entry.name, options)
        st.button(LABEL, key=key, icon=ICON, help=help_text, on_click=_open, args=args)
        return
    st.link_button(LABEL, _address(gallery, entry.name), icon=ICON)
    if address := st.session_state.pop(OPENING, None):
        script = f'<script>window.open({json.dumps(address)}, "_blank", "noopener")</script>'
        st.html(script, unsafe_allow_javascript=True)


def _open(name: str, options: StudioOptions) -> None:
    with attempt(RESULT):
        st.toast("Starting the gallery …")
        gallery = _gallery(options) or _started(options)
        st.session_state[OPENING] = _address(gallery, name)


def _address(gallery: str, name: str) -> str:
    return f"{gallery}/runs/{quote(name, safe='')}"


def _gallery(options: StudioOptions) -> str | None:
    """Its address as this tab's browser reaches it; None while it does not run."""
    return faces.address_of(options.output_dir, "gallery", _host())


def _host() -> str:
    """The name or address by which the person reached this page."""
    return urlsplit(st.context.url or "").hostname or "localhost"


def _started(options: StudioOptions) -> str:
    """Start the gallery; returns its address once it answers. Raises BadInput."""
    log = options.output_dir / LOGS_DIR / LOG
    process = _process(options, log)
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if gallery := _gallery(options):
            return gallery
        if faces.address_of(options.output_dir, "gallery", "localhost"):
            break
        time.sleep(LOOK_SECONDS)
    if process.poll() is None:
        raise BadInput(
            f"The gallery was started, but cannot be reached as {_host()}. Start it yourself:"
            " make gallery ARGS='--host ADDRESS'."
        )
    raise BadInput(f"The gallery could not be started. {_last_line(log)} The whole log: {log}")


@st.cache_resource(show_spinner=False)
def _processes() -> list["subprocess.Popen[bytes]"]:
    """The galleries of this server; the other ends of their pipes, which close when it ends."""
    return []


def _process(options: StudioOptions, log: Path) -> "subprocess.Popen[bytes]":
    """The gallery, on the address that the page listens on, until this process ends."""
    running = [process for process in _processes() if process.poll() is None]
    if running:
        return running[0]
    host = st.get_option("server.address") or ""
    command = [sys.executable, str(ROOT / "gallery.py"), str(options.output_dir)]
    command += ["--assets-dir", str(options.assets_dir)]
    command += [] if not host or faces.is_loopback(host) else ["--host", host]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        # In its own session: Ctrl-C in the terminal reaches only the page.
        process = subprocess.Popen(
            [*command, "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    _processes()[:] = [process]
    return process


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
