"""Ctrl-C and SIGTERM as a request to stop, so that no file is left half-written."""

import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """A request to stop: after the current step, or at once while only the engine computes.

    As a context manager it handles SIGINT and SIGTERM (main thread only). A signal during
    `computing()` raises KeyboardInterrupt there; at any other time it is only noted.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._request = threading.Event()
        self._computing = False

    @property
    def requested(self) -> bool:
        """Whether a stop was requested."""
        return self._request.is_set()

    def request(self) -> None:
        """Request a stop after the current step, from any thread."""
        self._request.set()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Wrap work that may be interrupted anywhere, with nothing lost but the work itself."""
        self._computing = True
        try:
            if self.signum:
                raise KeyboardInterrupt
            yield
        finally:
            self._computing = False

    def __enter__(self) -> "Stop":
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = self.signum or signum
        self._request.set()
        if self._computing:
            self._computing = False
            raise KeyboardInterrupt


def when_stdin_closes(act: Callable[[], None]) -> None:
    """Call `act`, from a thread, when the program that started this one has ended.

    Only a pipe counts: a person who starts this by hand has a terminal or nothing there.
    """
    if sys.stdin is None or not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        return

    def watch(fd: int = sys.stdin.fileno()) -> None:
        while os.read(fd, 1024):
            pass
        act()

    threading.Thread(target=watch, name="stdin", daemon=True).start()
