"""The mark of a picture that was taken from a film: which frame of which run it is.

The mark is a text chunk of a PNG, or a comment of a JPEG. So it stays with the picture however that
comes back: as a file, by a drop, or as the copy that a run keeps. Never imports torch.
"""

import io
import json
import re
from typing import Any, NamedTuple

from PIL import Image

from studio.media.pictures import encode_png, opened_image

KEY = "frame-of"  # of the PNG's text chunk; a JPEG's comment begins with it
RUN = re.compile(r"[\w-]{1,60}", re.ASCII)
JPEG_START, JPEG_COMMENT = b"\xff\xd8", b"\xff\xfe"
SIZE_BYTES = 2  # of a JPEG's segment; they count themselves


class FrameOf(NamedTuple):
    """A frame of a run's film. run: the folder's name. frame: counted from 1."""

    run: str
    frame: int


def marked_png(picture: Image.Image, mark: FrameOf) -> bytes:
    """An RGB picture as a PNG that carries its mark."""
    return encode_png(picture, {KEY: _as_text(mark)})


def marked_jpeg(jpeg: bytes, mark: FrameOf | None) -> bytes:
    """A JPEG with the mark; the same bytes if there is none to add, or if it has the mark."""
    if mark is None or mark_of(jpeg) == mark:
        return jpeg
    comment = f"{KEY} {_as_text(mark)}".encode()
    size = (len(comment) + SIZE_BYTES).to_bytes(SIZE_BYTES, "big")
    return JPEG_START + JPEG_COMMENT + size + comment + jpeg[len(JPEG_START) :]


def mark_of(data: bytes) -> FrameOf | None:
    """The mark of a picture file, if it carries one."""
    try:
        with opened_image(io.BytesIO(data), ("PNG", "JPEG")) as image:
            return _read(image.info)
    except Exception:  # a decoder may raise anything for a broken file
        return None


def _as_text(mark: FrameOf) -> str:
    return json.dumps(mark._asdict())


def _read(info: dict[Any, Any]) -> FrameOf | None:
    """From strangers' files: anything but a mark counts as none."""
    text = info.get(KEY)
    comment = info.get("comment")
    if isinstance(comment, bytes) and comment.startswith(f"{KEY} ".encode()):
        text = comment[len(KEY) :].decode(errors="replace")
    try:
        mark = FrameOf(**json.loads(text or ""))
    except (ValueError, TypeError, RecursionError):
        return None
    is_one = isinstance(mark.run, str) and RUN.fullmatch(mark.run) and type(mark.frame) is int
    return mark if is_one and mark.frame > 0 else None
