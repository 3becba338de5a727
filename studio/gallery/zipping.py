"""A run as a zip file that is made while it is sent, so it needs no memory. Never imports torch."""

import io
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from studio.gallery.sending import CHUNK, Opened, Sending

RESERVED = '\\:*?"<>|'  # on some systems
# Lengths in bytes, fixed by the format: the header before a file and the descriptor after it; its
# entry in the directory at the end, and what large numbers add to it; the end of the directory, and
# what large zips add to that.
BEFORE, AFTER, LISTED, LARGE, END, LARGE_END = 50, 24, 46, 4, 22, 76


Opener = Callable[[str], Opened]


@dataclass(frozen=True)
class _File:
    """A file as it was when the zip was started."""

    name: str
    size: int
    inode: int


class _Outbox(io.RawIOBase):
    """What was written and not taken yet."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        data, self._parts = b"".join(self._parts), []
        return data


def as_zip(run: str, names: Iterable[str], open_file: Opener) -> Sending:
    """A zip of a run's files, in a folder with the run's name.

    Pictures and videos do not get smaller, so nothing is compressed. Missing files are left out.
    Small files come first, since a running run replaces them most often.
    """
    files = sorted(_files(names, open_file), key=lambda file: file.size)
    folder = "".join(c if c.isprintable() and c not in RESERVED else "_" for c in run).strip(". ")
    parts = _parts(files, folder or "run", open_file)
    return Sending(parts, _length(files, folder or "run"), parts.close)


def _files(names: Iterable[str], open_file: Opener) -> Iterator[_File]:
    for name in names:
        with suppress(OSError):
            opened = open_file(name)
            opened.file.close()
            yield _File(name, opened.size, opened.inode)


def _parts(files: list[_File], folder: str, open_file: Opener) -> Generator[bytes, None, None]:
    outbox = _Outbox()
    with zipfile.ZipFile(outbox, "w") as archive:
        for file in files:
            with archive.open(f"{folder}/{file.name}", "w", force_zip64=True) as entry:
                for data in _contents(file, open_file(file.name)):
                    entry.write(data)
                    yield outbox.take()
    yield outbox.take()


def _contents(file: _File, opened: Opened) -> Iterator[bytes]:
    """A file up to its length then. Raises OSError if it was replaced or became shorter."""
    with opened.file as source:
        left = file.size
        if opened.inode != file.inode:
            raise OSError(f"{file.name} was replaced")
        while left:
            data = source.read(min(CHUNK, left))
            if not data:
                raise OSError(f"{file.name} became shorter")
            left -= len(data)
            yield data


def _length(files: list[_File], folder: str) -> int:
    """The length of the whole zip in bytes, as `zipfile` writes it."""
    at = listed = 0
    for file in files:
        name = len(f"{folder}/{file.name}".encode())
        large = 2 * (file.size > zipfile.ZIP64_LIMIT) + (at > zipfile.ZIP64_LIMIT)
        listed += LISTED + name + (LARGE + 8 * large if large else 0)
        at += BEFORE + name + file.size + AFTER
    many = len(files) > zipfile.ZIP_FILECOUNT_LIMIT
    is_large = many or max(at, listed) > zipfile.ZIP64_LIMIT
    return at + listed + END + LARGE_END * is_large
