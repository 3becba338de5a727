"""Large answers, sent as fast as each client reads, while no thread waits for the client.

The server hands a `Sending` to its one loop over all connections. A client that stops reading costs
a socket and an open file, and keeps nobody waiting. Never imports torch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Self

from flask import Response, request
from waitress.buffers import ReadOnlyFileBasedBuffer
from werkzeug.exceptions import RequestedRangeNotSatisfiable

CHUNK = 65_536


@dataclass(frozen=True)
class Opened:
    """An open file, and its size now in bytes. mark: differs when the content may differ."""

    file: BinaryIO
    size: int
    inode: int
    mark: str


class Sending(ReadOnlyFileBasedBuffer):
    """Parts of `length` bytes in all, each made when the previous one was taken.

    parts may raise OSError, which ends the connection: the client sees that something is missing.
    """

    def __init__(self, parts: Iterator[bytes], length: int, close: Callable[[], None]) -> None:
        self._parts, self.remain, self._close = parts, length, close
        self._next = b""

    def prepare(self, size: int | None = None) -> int:
        """How many bytes there are."""
        return self.remain

    def get(self, numbytes: int = -1, skip: bool = False) -> bytes:
        """The next bytes, of the current part only. They stay until they are skipped."""
        if not self._next and self.remain:
            self._next = next(self._parts, b"")
            if not self._next:
                raise OSError("the file became shorter")
        data = self._next[:numbytes] if numbytes >= 0 else self._next
        if skip:
            self.skip(len(data))
        return data

    def skip(self, numbytes: int, allow_prune: int = False) -> None:
        """Drop bytes that were taken."""
        self._next = self._next[numbytes:]
        self.remain -= numbytes

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if not self.remain:
            raise StopIteration
        return self.get(skip=True)

    def close(self) -> None:
        """Close the file."""
        self._close()
        self.remain = 0


def send_file(opened: Opened, kind: str) -> Response:
    """An answer with an open file: all of it, the range asked for, or 304."""
    try:
        part = _asked_part(opened)
    except RequestedRangeNotSatisfiable:
        opened.file.close()
        raise
    start, stop = part or (0, opened.size)
    sending = Sending(_read(opened.file, start, stop), stop - start, opened.file.close)
    response = Response(sending, content_type=kind, direct_passthrough=True)
    response.content_length = stop - start
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["Cache-Control"] = "no-cache"
    response.set_etag(opened.mark)
    if part:
        response.status_code = 206
        response.content_range.set(start, stop, opened.size)
    response.make_conditional(request)
    return response


def _asked_part(opened: Opened) -> tuple[int, int] | None:
    """The one range that is asked for, in bytes; None for the whole file.

    Whoever asks in other units, for several ranges, or for a range of an older file gets all of it.
    """
    asked = request.range
    if request.method != "GET" or asked is None or asked.units != "bytes" or len(asked.ranges) > 1:
        return None
    if "If-Range" in request.headers and request.if_range.etag != opened.mark:
        return None
    start, stop = asked.ranges[0]
    start = max(0, start + opened.size) if start < 0 else start
    if start >= opened.size:
        raise RequestedRangeNotSatisfiable(opened.size)
    return start, min(opened.size, stop or opened.size)


def _read(opened: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    opened.seek(start)
    while start < stop and (data := opened.read(min(CHUNK, stop - start))):
        start += len(data)
        yield data
