"""Where the page and the gallery of an output folder listen, so that each finds the other.

A face that listens leaves a file in its own hidden folder, and keeps it locked while it lives: the
lock ends with the process, whatever ends that. Only faces of the same machine count.
"""

import fcntl
import ipaddress
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from studio.base.machine import this_machine

HOMES = {"page": ".page", "gallery": ".gallery"}  # of each face, in the output folder
EVERYWHERE = ("", "0.0.0.0", "::")
TRIES, PAUSE = 10, 0.02  # seconds between tries to lock


@dataclass(frozen=True)
class Listening:
    """Where a face listens. host: an address of this machine; path: below which it answers."""

    port: int
    host: str = ""
    path: str = ""

    def address_for(self, host: str) -> str | None:
        """Its address for a browser that reached another face as `host`; None if it cannot."""
        if self.host in EVERYWHERE or (is_loopback(self.host) and is_loopback(host)):
            reached = host
        elif is_loopback(self.host):
            return None
        else:
            reached = self.host
        name = f"[{reached}]" if ":" in reached else reached
        path = self.path.strip("/")
        return f"http://{name}:{self.port}" + (f"/{path}" if path else "")


def announce(output_dir: Path, face: str, listening: Listening) -> BinaryIO | None:
    """Tell the other faces. It holds until the returned file is closed; None if nobody can be told.

    face: a key of HOMES.
    """
    path = output_dir / HOMES[face] / f"listens-{this_machine()}-{listening.port}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
        if not _lock(file):
            return None
        file.truncate(0)
        file.write(json.dumps(asdict(listening)).encode())
        file.flush()
        return file
    except OSError:  # a folder that cannot be written, or a file system without locks
        return None


def address_of(output_dir: Path, face: str, host: str) -> str | None:
    """Where a browser that reached another face as `host` finds this face; None if nowhere."""
    found = (there.address_for(host) for there in _listening(output_dir, face))
    return next(filter(None, found), None)


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(output_dir: Path, face: str) -> Iterator[Listening]:
    """The faces that live."""
    for path in sorted((output_dir / HOMES[face]).glob(f"listens-{this_machine()}-*.json")):
        with suppress(OSError, ValueError, TypeError), path.open("rb") as file:
            if _is_locked(file):
                yield Listening(**json.load(file))


def _lock(file: BinaryIO) -> bool:
    """Others hold the lock for an instant, to see whether it is free."""
    for _ in range(TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(PAUSE)
    return False


def _is_locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
