"""A PNG that is written in bands of rows, so that it may be larger than the memory.

Facts from the PNG specification (W3C, third edition). The file appears when it is whole.
"""

import os
import secrets
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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
    """Writes rows [n, W, C] of uint8 or uint16, C from 1 to 4, into a PNG at `path`.

    All methods raise OSError for a full disk or a place that cannot be written; nothing is left
    behind then, once `abandon` was called.
    """

    def __init__(
        self, path: Path, size: tuple[int, int], like: np.ndarray, chunks: Iterable[Chunk] = ()
    ) -> None:
        self.path = path
        self._beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        self._deflate = zlib.compressobj(LEVEL)
        (width, height), channels = size, like.shape[2]
        self._before = np.zeros((1, width * channels * like.itemsize), np.uint8)
        self._file = self._beside.open("wb")
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
        """Let the whole file appear."""
        self._chunk(b"IDAT", self._deflate.flush())
        self._chunk(b"IEND", b"")
        self._file.flush()
        os.fsync(self._file)
        self._file.close()
        self._beside.replace(self.path)

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self._beside.unlink(missing_ok=True)

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
