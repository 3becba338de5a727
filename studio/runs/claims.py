"""Who owns a run: numbered claims in its folder, which also work between machines. No torch.

A claim is a file `.claims/<number>`. Exclusive creation gives each number to exactly one process,
and the newest claim counts. A claim is never taken back, only followed by the next one: a process
that slept while another took over finds a newer number, and leaves the folder alone.

The holder of a claim locks its file while it lives, so other processes of the same machine see its
death at once. Other machines, and file systems without locks, go by the run's heartbeat.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput
from studio.base.machine import this_machine
from studio.runs.details import SILENT_SECONDS, is_silent, read_details

CLAIMS = ".claims"
GRACE_SECONDS = 5.0  # from a claim's creation until it is locked and says who holds it


@dataclass(frozen=True)
class Claim:
    """The right to compute or change a run. fd holds the lock on its file."""

    path: Path
    fd: int

    @property
    def is_newest(self) -> bool:
        """False once another process has taken the run over, because this one was silent."""
        return not self.path.with_name(str(int(self.path.name) + 1)).exists()


@contextmanager
def claimed(
    folder: Path, *, of_silent: bool = False, attended: bool = False
) -> Iterator[Claim | None]:
    """Hold the claim on a run folder while inside; None if another process holds it.

    of_silent: take it from a holder whose heartbeat was seen to stand still.
    attended: for a person at a terminal, so if this process dies, the queue does not take the run.
    Raises OSError where the folder cannot be written.
    """
    claim = _take(folder, of_silent, attended)
    try:
        yield claim
    finally:
        if claim:
            over = json.dumps({"over": True, "attended": attended}).encode()
            with suppress(OSError):
                os.pwrite(claim.fd, over.ljust(os.fstat(claim.fd).st_size), 0)
            os.close(claim.fd)


def is_claimed(folder: Path) -> bool:
    """Whether a process owns the run, as far as this machine can tell."""
    newest = _newest(folder)
    return newest is not None and not _is_over(newest)


def is_abandoned(folder: Path) -> bool:
    """Whether the last owner certainly ended: it gave the run up, or died on this machine."""
    newest = _newest(folder)
    return newest is not None and (bool(_read(newest).get("over")) or _died_here(newest))


def is_orphaned(folder: Path) -> bool:
    """Whether a process of this machine died while it owned the run."""
    newest = _newest(folder)
    return newest is not None and _died_here(newest)


def lives_here(folder: Path) -> bool:
    """Whether a process of this machine owns the run, even if it is frozen."""
    newest = _newest(folder)
    return newest is not None and _is_of_this_machine(_read(newest)) and _is_locked(newest) is True


def belongs_to_queue(folder: Path) -> bool:
    """Whether a worker owned the run last, rather than a person at a terminal or nobody."""
    newest = _newest(folder)
    return newest is not None and not _read(newest).get("attended")


def _take(folder: Path, of_silent: bool, attended: bool) -> Claim | None:
    newest = _newest(folder)
    if newest and not of_silent and not _is_over(newest):
        return None
    path = folder / CLAIMS / str(int(newest.name) + 1 if newest else 1)
    try:
        path.parent.mkdir(exist_ok=True)
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    except (FileExistsError, FileNotFoundError):  # another was quicker, or the folder is gone
        return None
    with suppress(OSError):  # on a file system without locks the heartbeat has to do
        fcntl.flock(fd, fcntl.LOCK_EX)
    holder = {"machine": this_machine(), "pid": os.getpid(), "attended": attended}
    with suppress(OSError):  # on a full disk; the lock says enough
        os.write(fd, json.dumps(holder).encode())
    return Claim(path, fd)


def _newest(folder: Path) -> Path | None:
    try:
        paths = [path for path in (folder / CLAIMS).iterdir() if path.name.isdecimal()]
    except OSError:
        return None
    return max(paths, key=lambda path: int(path.name), default=None)


def _is_over(path: Path) -> bool:
    """Whether the holder of a claim ended, as far as this machine can tell."""
    said = _read(path)
    if said.get("over"):
        return True
    locked = _is_locked(path) if not said or _is_of_this_machine(said) else None
    if locked is None:
        return _age(path) > SILENT_SECONDS and _is_silent(path.parent.parent)
    return not locked and (bool(said) or _age(path) > GRACE_SECONDS)


def _died_here(path: Path) -> bool:
    return _is_of_this_machine(_read(path)) and _is_locked(path) is False


def _is_of_this_machine(said: Mapping[str, Any]) -> bool:
    return said.get("machine") == this_machine()


def _is_locked(path: Path) -> bool | None:
    """None on a file system without locks."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(fd)


def _is_silent(folder: Path) -> bool:
    try:
        return is_silent(read_details(folder))
    except BadInput:
        return True


def _read(path: Path) -> Mapping[str, Any]:
    """What a claim says of its holder; nothing for one that was just made or cannot be read."""
    try:
        said = json.loads(path.read_bytes())
        return said if isinstance(said, dict) else {}
    except (OSError, ValueError):
        return {}


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
