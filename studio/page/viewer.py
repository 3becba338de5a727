"""Our components for a run's pictures and its video: crisp, with zoom, before and after, frames."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import streamlit as st

from studio.base.errors import BadInput
from studio.making.run_upscaling import larger_of
from studio.media import frames
from studio.media.pictures import load_picture
from studio.page.components import mounted
from studio.page.media import address_of
from studio.page.text import plain
from studio.page.upscaling import times
from studio.runs.run_index import Entry
from studio.runs.storage import INIT_IMAGE, START, RunFolder

FRAME = "frame"  # what the video's component tells Python

# What a person can do with a frame, by the words on its button. It takes the run's folder name, and
# the number of the frame, counted from 1.
FrameUses = Mapping[str, Callable[[str, int], None]]


@dataclass(frozen=True)
class Before:
    """What a run began with. called: in words, after "Before:"."""

    path: Path
    called: str


def show_pictures(entry: Entry, paths: Sequence[Path], alt: str) -> None:
    """The run's pictures, one at a time, beside what the run began with."""
    with _said_if_unreadable("picture"):
        pictures = [_picture(path) | {"larger": _larger(entry, path)} for path in paths]
        before = before_of(entry)
        beside = before and {"address": address_of(before.path), "called": before.called}
        data = {"pictures": pictures, "before": beside, "alt": alt}
        mounted("viewer")(key=f"viewer-{entry.name}", data=data)


def before_of(entry: Entry) -> Before | None:
    """What to compare the run's picture with: what it continued, else its starting image."""
    folder, parent = entry.folder.path, entry.details.get("parent")
    if (folder / START).is_file():
        return Before(folder / START, "what it continues")
    if isinstance(parent, str) and parent:
        path = RunFolder(folder.parent / Path(parent).name).picture_path()
        return path and Before(path, "what it continues")
    path = folder / INIT_IMAGE
    return Before(path, "its starting image") if path.is_file() else None


def show_film(entry: Entry, film: Path, uses: FrameUses) -> None:
    """The run's video, which loops, and a scrubber that steps through its frames."""
    key = f"film-of-{entry.name}"

    def use() -> None:
        chosen = st.session_state[key].get(FRAME) or {}
        act, number = uses.get(str(chosen.get("use"))), chosen.get("number")
        if act and isinstance(number, int):
            act(entry.name, number)

    with _said_if_unreadable("video"):
        length = frames.length(film)._asdict()
        data = {**length, "address": address_of(film), "uses": list(uses)}
        mounted("film")(key=key, data=data, on_frame_change=use)


@contextmanager
def _said_if_unreadable(what: str) -> Iterator[None]:
    """Say why a file cannot be shown, in its place."""
    try:
        yield
    except BadInput as error:
        st.caption(plain(error.on_page))
    except OSError as error:
        st.caption(plain(f"The {what} cannot be read: {error.strerror or error}."))


def _picture(path: Path) -> dict[str, Any]:
    width, height = _size(path, path.stat().st_mtime_ns)
    return {"address": address_of(path), "width": width, "height": height}


def _larger(entry: Entry, path: Path) -> list[dict[str, Any]]:
    """The upscaled pictures of one of a run's pictures, without those too large for a browser."""
    found = []
    for larger in larger_of(entry.folder, entry.details, path.name):
        with suppress(BadInput):
            words = f"{times(larger.scale)} {larger.model}"
            found.append(_picture(larger.path) | {"called": words})
    return found


@lru_cache(maxsize=256)
def _size(path: Path, mtime_ns: int) -> tuple[int, int]:
    """Of a picture that can be shown. mtime_ns: of the file, so that a new one is read again."""
    return load_picture(path, path.name).size
