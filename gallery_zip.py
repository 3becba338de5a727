"""A run as one zip file, made while it is sent, so that it needs no memory. Never imports torch."""

import io
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from gallery_sending import CHUNK, Sending
from gallery_utils import Shelf

RESERVED = '\\:*?"<>|'  # on some systems
# Of the format, in bytes: what stands before a file and after it, its entry in the list at the end
# with what large numbers need there, and the end of that list for few files and for many.
BEFORE, AFTER, LISTED, LARGE, END, LARGE_END = 50, 24, 46, 4, 22, 76


@dataclass(frozen=True)
class _File:
    """A file as it was when the zip was begun. inode: by which another in its place is known."""

    name: str
    size: int
    inode: int


class _Outbox(io.RawIOBase):
    """What was written and not yet taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self._parts.append(bytes(data))  # type: ignore[call-overload]
        return len(self._parts[-1])

    def take(self) -> bytes:
        data, self._parts = b"".join(self._parts), []
        return data


def as_zip(shelf: Shelf, run: str, names: Iterable[str]) -> Sending:
    """A zip of a run's files in a folder of the run's name.

    Pictures and videos do not get smaller, so nothing is compressed. Files that are gone are left
    out. Small files come first: of a run that goes on they are replaced soonest.
    """
    files = sorted(_files(shelf, run, names), key=lambda file: file.size)
    folder = "".join(c if c.isprintable() and c not in RESERVED else "_" for c in run).strip(". ")
    parts = _parts(shelf, run, files, folder or "run")
    return Sending(parts, _length(files, folder or "run"), parts.close)


def _files(shelf: Shelf, run: str, names: Iterable[str]) -> Iterator[_File]:
    for name in names:
        try:
            with shelf.open(run, name) as opened:
                yield _as_file(name, opened)
        except OSError:
            continue


def _as_file(name: str, opened: BinaryIO) -> _File:
    facts = os.fstat(opened.fileno())
    return _File(name, facts.st_size, facts.st_ino)


def _parts(shelf: Shelf, run: str, files: list[_File], folder: str) -> Iterator[bytes]:
    outbox = _Outbox()
    with zipfile.ZipFile(outbox, "w") as archive:
        for file in files:
            with archive.open(f"{folder}/{file.name}", "w", force_zip64=True) as entry:
                for data in _contents(shelf, run, file):
                    entry.write(data)
                    yield outbox.take()
    yield outbox.take()


def _contents(shelf: Shelf, run: str, file: _File) -> Iterator[bytes]:
    """A file as long as it was. Raises OSError where it is another one now, or shorter."""
    with shelf.open(run, file.name) as opened:
        left = file.size
        if _as_file(file.name, opened).inode != file.inode:
            raise OSError(f"{file.name} was replaced")
        while left:
            data = opened.read(min(CHUNK, left))
            if not data:
                raise OSError(f"{file.name} became shorter")
            left -= len(data)
            yield data


def _length(files: list[_File], folder: str) -> int:
    """Of the whole zip, as `zipfile` writes it."""
    at = listed = 0
    for file in files:
        name = len(f"{folder}/{file.name}".encode())
        large = 2 * (file.size > zipfile.ZIP64_LIMIT) + (at > zipfile.ZIP64_LIMIT)
        listed += LISTED + name + (LARGE + 8 * large if large else 0)
        at += BEFORE + name + file.size + AFTER
    many = len(files) > zipfile.ZIP_FILECOUNT_LIMIT
    is_large = many or max(at, listed) > zipfile.ZIP64_LIMIT
    return at + listed + END + LARGE_END * is_large
