"""How the page shows pictures: their size, thumbnails, and addresses that hold the picture."""

import base64
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import streamlit as st
from PIL import Image, ImageOps

from studio.base.errors import BadInput
from studio.making.run_upscaling import larger_of
from studio.media.pictures import encode_jpeg, load_picture
from studio.page.text import plain, prompt_of
from studio.runs.run_index import Entry

PICTURE_SIDE = 512
THUMBNAIL_SIDE = 320


def as_address(data: bytes, kind: str) -> str:
    """An address that holds the image itself: the server would keep every picture it serves.

    kind: such as "jpeg" or "svg+xml".
    """
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def shown_size(width: Any, height: Any) -> tuple[int, int, str]:
    """The width and height to show a picture at, and "crisp" or "smooth" for the style sheet.

    Small pictures are enlarged by a whole factor, with each pixel a square.
    """
    if not isinstance(width, int) or not isinstance(height, int) or min(width, height) < 1:
        return PICTURE_SIDE, PICTURE_SIDE, "smooth"
    factor = max(1, PICTURE_SIDE // max(width, height))
    return width * factor, height * factor, "crisp" if factor > 1 else "smooth"


def show_thumbnail(entry: Entry) -> None:
    """The run's picture, upscaled if it is, as a thumbnail, as wide as the container."""
    path = entry.folder.picture_path()
    larger = larger_of(entry.folder, entry.details, path.name) if path else []
    readable = (one.path for one in larger if thumbnail(one.path))
    show_small(next(readable, path), prompt_of(entry.details))


def show_small(path: Path | None, alt: str) -> None:
    """The picture at that path as a thumbnail, as wide as the container."""
    if data := thumbnail(path):
        st.image(data, width="stretch", alt=alt)
    else:
        st.html('<div class="no-picture">no picture</div>')


def show_choice(
    entry: Entry, key: str, length: int, choose: Callable[[str], None], help_text: str | None = None
) -> None:
    """The run's thumbnail, and below it a button with `length` characters of its prompt.

    choose: what the button calls, with the folder's name.
    """
    show_thumbnail(entry)
    st.button(
        plain(prompt_of(entry.details, length)),
        key=f"{key}-{entry.name}",
        type="tertiary",
        help=help_text,
        on_click=choose,
        args=(entry.name,),
    )


def thumbnail(path: Path | None) -> bytes | None:
    """A square JPEG of the picture's middle; None if there is no picture that can be read."""
    return _thumbnail_and_size(path)[0]


def size_of(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture; None if there is none that can be read."""
    return _thumbnail_and_size(path)[1]


def _thumbnail_and_size(path: Path | None) -> tuple[bytes | None, tuple[int, int] | None]:
    try:
        return _read(path, path.stat().st_mtime_ns) if path else (None, None)
    except OSError:  # deleted in the meantime
        return None, None


@lru_cache(maxsize=256)
def _read(path: Path, mtime_ns: int) -> tuple[bytes | None, tuple[int, int] | None]:
    """mtime_ns: of the file, so that a changed picture gets another thumbnail."""
    try:
        picture = load_picture(path, path.name)
    except BadInput:
        return None, None
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    square = ImageOps.fit(picture, side, Image.Resampling.LANCZOS)
    return encode_jpeg(square, 90), picture.size
