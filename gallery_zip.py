"""A run as one zip file, made while it is sent, so that it needs no memory. Never imports torch."""

import io
import zipfile
from collections.abc import Iterable, Iterator

from gallery_utils import Shelf

CHUNK = 262_144
RESERVED = '\\:*?"<>|'  # on some systems


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


def as_zip(shelf: Shelf, run: str, files: Iterable[str]) -> Iterator[bytes]:
    """The parts of a zip of a run's files in a folder of the run's name.

    Pictures and videos do not get smaller, so nothing is compressed. Files that are gone are left
    out.
    """
    outbox = _Outbox()
    folder = "".join(c if c.isprintable() and c not in '\\:*?"<>|' else "_" for c in run).strip(
        ". "
    )
    with zipfile.ZipFile(outbox, "w") as archive:
        for name in files:
            try:
                opened = shelf.open(run, name)
            except OSError:
                continue
            with opened, archive.open(f"{folder or 'run'}/{name}", "w", force_zip64=True) as entry:
                while data := opened.read(CHUNK):
                    entry.write(data)
                    yield outbox.take()
    yield outbox.take()
