"""The log of a worker: all that its process prints, in files that a person can send."""

import faulthandler
import logging
import os
from pathlib import Path

from studio.base.version import __version__

MAX_LOG_BYTES = 1_000_000
LOGS_KEPT = 3

log = logging.getLogger("worker")


def start_log(path: Path) -> None:
    """Send all that this process prints to the log, crashes of libraries included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _redirect(path)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    faulthandler.enable()
    roll_over(path)
    log.info("VQGAN-CLIP studio %s, process %d", __version__, os.getpid())


def roll_over(path: Path) -> None:
    """Begin a new file if the old one is long, and keep a few old ones."""
    if path.exists() and path.stat().st_size <= MAX_LOG_BYTES:
        return
    for number in range(LOGS_KEPT, 0, -1):
        older = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number}"))
    _redirect(path)


def _redirect(path: Path) -> None:
    with path.open("ab") as file:
        for number in (1, 2):  # stdout and stderr
            os.dup2(file.fileno(), number)
