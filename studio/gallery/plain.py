"""Files for strangers: pictures and films without metadata, settings without facts about this
machine. Never imports torch.

A picture's pixels and a film's frames stay as they are, byte for byte. Metadata is overwritten
while the file is read, with as many bytes that mean nothing, so that every length and every offset
in the file stays right.
"""

import io
import json
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from studio.base import files
from studio.base.errors import BadInput
from studio.runs.details_keys import BOOKKEEPING

MASK = tuple[int, bytes]  # an offset in the file, and what is read there instead
# Keys of details.json that say something about this machine.
MACHINE = ("device", *(key for key, facts in BOOKKEEPING.items() if facts.of_the_machine))
PROMPT = "text_input"
PATH = re.compile(r"(?<![\w./\\:])(?:[A-Za-z]:\\|~?/)(?:[^\s\"'/\\][^\n\"'/\\]*[/\\])+")

PNG_DRAWN = {
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"sRGB", b"iCCP", b"cICP"),
    *(b"sBIT", b"bKGD", b"hIST", b"pHYs", b"sPLT", b"acTL", b"fcTL", b"fdAT"),
}
WEBP_DRAWN = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"}
WEBP_SAYS = 0x0C  # the bits that announce EXIF and XMP
MP4_WITHIN = {b"moov", b"trak", b"mdia", b"minf", b"moof", b"traf"}
MP4_SAYS = {b"udta", b"meta", b"uuid", b"free", b"skip"}
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
JPEG_END, JPEG_ALONE = 0xD9, (0x01, 0xD8)
JPEG_SAYS = {0xFE, *range(0xE1, 0xF0)} - {
    0xEE
}  # comments and application segments, but not Adobe's
JPEG_NOTHING = b"\xef"  # the last of the application segments
JPEG_COLOURS = b"ICC_PROFILE\0"


def plain_media(opened: BinaryIO) -> BinaryIO:
    """A picture or a film in a known format, without its metadata.

    Raises OSError for other formats, whose metadata nobody knows, and for broken files.
    """
    opened.seek(0)
    head = opened.read(12)
    for is_it, find in FORMATS:
        if is_it(head):
            try:
                return io.BufferedReader(_Masked(opened, list(find(opened))))
            except (struct.error, ValueError) as error:
                raise OSError(f"it is broken: {error}") from None
    raise OSError("it is in an unknown format")


def plain_json(opened: BinaryIO) -> BinaryIO:
    """The settings in a file, without facts about this machine. Raises OSError."""
    try:
        details = files.parse_json(opened.read(files.MAX_JSON_BYTES), "It")
    except BadInput as error:
        raise OSError(str(error)) from None
    return io.BytesIO(json.dumps(plain_details(details), indent=2).encode())


def plain_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without this machine's name and device, and with file names for paths."""
    return {
        key: value if key == PROMPT else _without_paths(value)
        for key, value in details.items()
        if key not in MACHINE
    }


def without_folders(text: str) -> str:
    """A text in which absolute paths are cut to file names."""
    return PATH.sub("", text)


def _without_paths(value: Any) -> Any:
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, Mapping):
        return {key: _without_paths(item) for key, item in value.items()}
    return [_without_paths(item) for item in value] if isinstance(value, list) else value


class _Masked(io.RawIOBase):
    """A file in which some parts are read as other bytes, just as many."""

    def __init__(self, opened: BinaryIO, masks: list[MASK]) -> None:
        self._file, self._masks = opened, masks
        opened.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        at = self._file.tell()
        count = self._file.readinto(buffer)  # pyright: ignore[reportAttributeAccessIssue]
        for start, new in self._masks:
            low, high = max(start, at), min(start + len(new), at + count)
            if low < high:
                buffer[low - at : high - at] = new[low - start : high - start]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


# --- Formats -----------------------------------------------------------------------------------


def _png(file: BinaryIO) -> Iterator[MASK]:
    end, at, kind = _size(file), 8, b""
    while at < end and kind != b"IEND":
        length, kind = struct.unpack(">I4s", _read(file, at, 8))
        if kind not in PNG_DRAWN:
            body = b"noNe" + bytes(_within(at + 12 + length, end) - at - 12)
            yield at + 4, body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    yield at, bytes(max(0, end - at))


def _webp(file: BinaryIO) -> Iterator[MASK]:
    size, at = _size(file), 12
    end = min(size, 8 + struct.unpack("<I", _read(file, 4, 4))[0])
    while at + 8 <= end:
        kind, length = struct.unpack("<4sI", _read(file, at, 8))
        if kind == b"VP8X":
            yield at + 8, bytes([_read(file, at + 8, 1)[0] & ~WEBP_SAYS])
        elif kind not in WEBP_DRAWN:
            yield at, b"NONE"
            yield at + 8, bytes(_within(at + 8 + length, end) - at - 8)
        at += 8 + length + length % 2
    yield at, bytes(max(0, size - at))


def _jpeg(file: BinaryIO) -> Iterator[MASK]:
    file.seek(0)
    data, at = file.read(), 0
    while found := JPEG_MARKER.search(data, at):
        at, kind = found.end(), data[found.start() + 1]
        if kind == JPEG_END:
            yield at, bytes(len(data) - at)
            return
        if kind in JPEG_ALONE:
            continue
        (length,) = struct.unpack(">H", data[at : at + 2])
        if kind in JPEG_SAYS and not data.startswith(JPEG_COLOURS, at + 2):
            yield at - 1, JPEG_NOTHING
            yield at + 2, bytes(_within(at + length, len(data)) - at - 2)
        at += length


def _mp4(file: BinaryIO) -> Iterator[MASK]:
    yield from _boxes(file, 0, _size(file))


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[MASK]:
    while at + 8 <= end:
        length, kind = struct.unpack(">I4s", _read(file, at, 8))
        head = 8
        if length == 1:
            (length,), head = struct.unpack(">Q", _read(file, at + 8, 8)), 16
        after = _within(at + length, end) if length else end
        if kind in MP4_SAYS:
            yield at + 4, b"free"
            yield at + head, bytes(after - at - head)
        elif kind in MP4_WITHIN:
            yield from _boxes(file, at + head, after)
        at = max(after, at + head)


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _read(file: BinaryIO, at: int, length: int) -> bytes:
    file.seek(at)
    return file.read(length)


def _within(place: int, end: int) -> int:
    if place > end:
        raise ValueError("it ends too early")
    return place


FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO], Iterator[MASK]]], ...] = (
    (lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), _png),
    (lambda head: head.startswith(b"\xff\xd8\xff"), _jpeg),
    (lambda head: head.startswith(b"RIFF") and head[8:] == b"WEBP", _webp),
    (lambda head: head[4:8] == b"ftyp", _mp4),
)
