"""A PNG that is written in bands of rows, so that it may be larger than the memory.

Facts from the PNG specification (W3C, third edition).
"""

import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np
from PIL.PngImagePlugin import PngInfo

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBBBBB")
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels: grey, with alpha, RGB, RGBA
UP = 2  # the filter: each byte minus that above it
ROWS = 64  # that are packed at once
LEVEL = 4  # of zlib: a third of the time of its default, for files a few percent larger
ICC_NAME = b"ICC profile\0\0"  # the profile's name, and zlib as the way of compression
EXIF_HEADER = b"Exif\0\0"  # in JPEGs, not in PNGs

Chunk = tuple[bytes, bytes]


class PngWriter:
    """Writes rows [n, W, C] of uint8 or uint16, C from 1 to 4, as a PNG into a file.

    All methods raise OSError for a full disk.
    """

    def __init__(
        self, file: BinaryIO, size: tuple[int, int], like: np.ndarray, chunks: Iterable[Chunk] = ()
    ) -> None:
        self._file = file
        self._deflate = zlib.compressobj(LEVEL)
        (width, height), channels = size, like.shape[2]
        self._before = np.zeros((1, width * channels * like.itemsize), np.uint8)
        self._file.write(SIGNATURE)
        kind = (8 * like.itemsize, COLOUR_TYPES[channels], 0, 0, 0)
        self._chunk(b"IHDR", HEADER.pack(width, height, *kind))
        for name, data in chunks:
            self._chunk(name, data)

    def add(self, rows: np.ndarray) -> None:
        """Append rows."""
        for top in range(0, len(rows), ROWS):
            self._add(rows[top : top + ROWS])

    def _add(self, rows: np.ndarray) -> None:
        if rows.itemsize > 1:
            rows = rows.astype(">u2")
        plain = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
        filtered = np.empty((len(plain), plain.shape[1] + 1), np.uint8)
        filtered[:, 0] = UP
        np.subtract(plain, np.concatenate([self._before, plain[:-1]]), out=filtered[:, 1:])
        self._before = plain[-1:].copy()
        if packed := self._deflate.compress(filtered.data):
            self._chunk(b"IDAT", packed)

    def close(self) -> None:
        """Write what is left, once all rows are there."""
        self._chunk(b"IDAT", self._deflate.flush())
        self._chunk(b"IEND", b"")

    def _chunk(self, name: bytes, data: bytes) -> None:
        self._file.write(struct.pack(">I", len(data)) + name)
        self._file.write(data)
        self._file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(name))))


def chunks_of(text: Mapping[str, Any], exif: bytes = b"", icc: bytes = b"") -> list[Chunk]:
    """What a PNG carries beside its pixels. exif: as in a JPEG."""
    chunks: list[Chunk] = [(b"iCCP", ICC_NAME + zlib.compress(icc))] if icc else []
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(EXIF_HEADER)))
    info = PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    return chunks + [(name, data) for name, data, *_ in info.chunks]
