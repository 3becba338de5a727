"""Who may change a run: exclusive claims in its folder, also between machines. Never imports torch.

Claims are files `.claims/<number>`, each made by exclusive creation, so that of all who would have
the next number one gets it. The newest counts. Its holder keeps a lock on it while it lives, by
which processes of the same machine see at once that it died; other machines go by the run's
heartbeat. A claim is never taken back, only followed by the next: whoever slept through that finds
a newer number, and leaves the folder alone.
"""

import fcntl
import json
import os
import platform
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

CLAIMS = ".claims"
GRACE_SECONDS = 5.0  # from a claim's creation until it says whose it is
SILENT_SECONDS = 60.0  # of another machine's claim on a run that nobody computes


@cache
def this_machine() -> str:
    """A name of this machine that no other has, safe in file names."""
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in platform.node()) or "machine"
    return f"{name}-{uuid.getnode():012x}"


@dataclass(frozen=True)
class Claim:
    """The right to change a run. fd holds its lock."""

    path: Path
    fd: int

    @property
    def is_newest(self) -> bool:
        """False once somebody took the run over, having found this process silent."""
        return not self.path.with_name(str(int(self.path.name) + 1)).exists()


@contextmanager
def claimed(folder: Path, *, of_silent: bool = False) -> Iterator[Claim | None]:
    """The claim on a run folder while inside, or None where somebody else has it.

    of_silent: take it from a holder whose heartbeat was seen to stand still.
    """
    claim = _take(folder, of_silent)
    try:
        yield claim
    finally:
        if claim:
            with suppress(OSError):
                os.pwrite(claim.fd, b'{"over": true}'.ljust(os.fstat(claim.fd).st_size), 0)
            os.close(claim.fd)


def is_claimed(folder: Path) -> bool:
    """Whether somebody has the run, as far as can be known."""
    path = _newest(folder)
    return path is not None and not _is_over(path)


def is_orphaned(folder: Path) -> bool:
    """Whether a process of this machine died while it had the run."""
    path = _newest(folder)
    if path is None:
        return False
    said = _read(path)
    return said.get("machine") == this_machine() and not _is_locked(path)


def lives_here(folder: Path) -> bool:
    """Whether a process of this machine has the run, be it frozen."""
    path = _newest(folder)
    return path is not None and _read(path).get("machine") == this_machine() and _is_locked(path)


def was_claimed(folder: Path) -> bool:
    """Whether the run ever was in the hands of a worker."""
    return _newest(folder) is not None


def _take(folder: Path, of_silent: bool) -> Claim | None:
    newest = _newest(folder)
    if newest and not of_silent and not _is_over(newest):
        return None
    path = folder / CLAIMS / str(int(newest.name) + 1 if newest else 1)
    try:
        path.parent.mkdir(exist_ok=True)
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    except (FileExistsError, FileNotFoundError):  # somebody was quicker, or the folder is gone
        return None
    with suppress(OSError):  # a file system without locks leaves the heartbeat to go by
        fcntl.flock(fd, fcntl.LOCK_EX)
    with suppress(OSError):  # on a full disk; the lock says enough
        os.write(fd, json.dumps({"machine": this_machine(), "pid": os.getpid()}).encode())
    return Claim(path, fd)


def _newest(folder: Path) -> Path | None:
    try:
        paths = [path for path in (folder / CLAIMS).iterdir() if path.name.isdecimal()]
    except OSError:
        return None
    return max(paths, key=lambda path: int(path.name), default=None)


def _is_over(path: Path) -> bool:
    said = _read(path)
    if said.get("over"):
        return True
    if said.get("machine", this_machine()) == this_machine():
        return (bool(said) or _age(path) > GRACE_SECONDS) and not _is_locked(path)
    return _age(path) > SILENT_SECONDS


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)


def _read(path: Path) -> Mapping[str, Any]:
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
