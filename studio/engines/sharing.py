"""Processors that a run shares with other programs.

OpenMP's threads wait for each other by spinning. That is quickest, as a step has hundreds of short
parallel parts. But where another program needs the processors too, a thread may spin on the very
processor that the thread it waits for cannot get: two runs at once took over ten times as long as
one. GNU's OpenMP spins 100 times instead of 300,000 while it has more threads than there are
processors (libgomp's manual on GOMP_SPINCOUNT). So idle threads of OpenMP are added while our
threads have to wait for a processor. Each thread still computes the same part, so no byte of a
picture changes.
"""

import math
import os
import threading
import time
from pathlib import Path

import torch

LOOK_SECONDS = 0.5
TASKS = Path("/proc/self/task")  # of Linux; elsewhere, nothing is done
CROWDED, ROOMY = 0.25, 0.1  # the share of time for which some thread waits for a processor
PATIENCE, MOST_PATIENCE = 2.0, 60.0  # seconds of room before spinning again
GRAIN = 32768  # the fewest numbers that PyTorch gives a thread


class Crowd:
    """Whether other programs need the processors, by how long our threads wait for them.

    Beside a program that always makes way, there seems to be room until our threads spin again. So
    each time that this soon proves wrong, the patience until the next try doubles.
    """

    def __init__(self) -> None:
        self.is_there = False
        self._patience = PATIENCE
        self._since = -math.inf  # when the crowd was last seen, or left

    def look(self, now: float, waited: float) -> bool:
        """Whether a crowd is there now.

        waited: the share of the time since the last look for which some thread had to wait.
        """
        if self.is_there:
            self._look_for_room(now, waited)
        elif waited > CROWDED:
            wrong = now - self._since < self._patience
            self._patience = min(2 * self._patience, MOST_PATIENCE) if wrong else PATIENCE
            self.is_there, self._since = True, now
        return self.is_there

    def _look_for_room(self, now: float, waited: float) -> None:
        if waited > ROOMY:
            self._since = now
        elif now - self._since >= self._patience:
            self.is_there, self._since = False, now


class IdleTeam:
    """Idle threads of OpenMP, as many as a parallel part uses, until `dismiss`."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._idle, name="idle team", daemon=True)
        self._thread.start()

    def _idle(self) -> None:
        torch.zeros(GRAIN * torch.get_num_threads(), dtype=torch.int8).add_(1)
        self._over.wait()

    def dismiss(self) -> None:
        """End its threads."""
        self._over.set()
        self._thread.join()


class Sharing:
    """Within `with sharing:` a thread watches for other programs, and this process makes way."""

    def __init__(self) -> None:
        self._computing = threading.Event()
        self._watch: threading.Thread | None = None
        self.teams: list[IdleTeam] = []

    def __enter__(self) -> None:
        self._computing.set()
        if self._watch is None and torch.get_num_threads() > 1:
            self._watch = threading.Thread(target=self._look, name="sharing", daemon=True)
            self._watch.start()

    def __exit__(self, *error: object) -> None:
        self._computing.clear()

    def _look(self) -> None:
        crowd, waits = Crowd(), Waits()
        while self._computing.wait():
            self.make_way(crowd.look(time.monotonic(), waits.share()))
            time.sleep(LOOK_SECONDS)

    def make_way(self, wanted: bool) -> None:
        """Let OpenMP spin hardly at all, or as long as it does by default."""
        if wanted and not self.teams:
            self.teams = [IdleTeam() for _ in range(teams_needed())]
        while self.teams and not wanted:
            self.teams.pop().dismiss()


class Waits:
    """How long the threads of this process have waited for a processor."""

    def __init__(self) -> None:
        self._looked, self._waited = time.monotonic(), _waited()

    def share(self) -> float:
        """The longest wait of a thread, as a share of the time since the last look."""
        now, waited = time.monotonic(), _waited()
        longest = max((waited[t] - self._waited.get(t, waited[t]) for t in waited), default=0.0)
        share = longest / max(now - self._looked, 1e-9)
        self._looked, self._waited = now, waited
        return share


def teams_needed() -> int:
    """How many idle teams it takes for OpenMP to have more threads than there are processors."""
    processors, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    return (processors - threads) // (threads - 1) + 1


def _waited() -> dict[str, float]:
    """Seconds that each thread of this process has waited for a processor so far."""
    waited = {}
    for path in TASKS.glob("*/schedstat"):
        try:
            waited[path.parent.name] = int(path.read_text().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            continue  # the thread has ended
    return waited


sharing = Sharing()
