"""The slots of an output folder in which workers run: one worker a slot. Never imports torch."""

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from studio.base.files import atomic_write, to_json, unwritable
from studio.base.machine import this_machine
from studio.queue.delivery import QUEUE_DIR

LOGS_DIR = ".logs"
MAX_SLOTS = 1000  # on one device

log = logging.getLogger("worker")


@dataclass(frozen=True)
class WorkerState:
    """What a worker tells others about itself.

    phase: starting, ready, or refused (then `error` tells the person why).
    device: in words, once known. run: the run folder's name while one is computed.
    unavailable: the engines that this worker cannot use, each with the reason.
    """

    pid: int
    machine: str = ""
    phase: str = "starting"
    device: str = ""
    run: str | None = None
    error: str | None = None
    unavailable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerSlot:
    """A place for one worker: a machine, a device and a number.

    The worker's lock, state and log have the slot's name.
    """

    output_dir: Path
    name: str

    @property
    def lock_path(self) -> Path:
        """Locked while a worker has the slot."""
        return _slots_dir(self.output_dir) / f"{self.name}.lock"

    @property
    def state_path(self) -> Path:
        """A WorkerState as JSON."""
        return _slots_dir(self.output_dir) / f"{self.name}.json"

    @property
    def log_path(self) -> Path:
        """What its workers print, tracebacks included."""
        return self.output_dir / LOGS_DIR / f"worker-{self.name}.log"

    def write(self, state: WorkerState) -> None:
        """Publish the worker's state. If that fails, runs continue without it."""
        try:
            self.state_path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self.state_path, to_json(asdict(state)), durable=False)
        except OSError as error:  # such as a full disk
            log.info("cannot write the worker's state: %s", error)


def read_states(output_dir: Path) -> list[WorkerState]:
    """The last states of all workers, alive or not, the latest first."""
    found = []
    for path in _slots_dir(output_dir).glob("*.json"):
        try:
            state = WorkerState(**json.loads(path.read_text(encoding="utf-8")))
            found.append((path.stat().st_mtime_ns, path.name, state))
        except (OSError, ValueError, TypeError):
            continue
    return [state for _, _, state in sorted(found, key=lambda row: row[:2], reverse=True)]


def is_served(output_dir: Path, device: str = "") -> bool:
    """Whether a worker on this machine is alive that serves this folder (on that device)."""
    locks = _slots_dir(output_dir).glob(f"{this_machine()}-{device}*.lock")
    return any(_is_locked(path) for path in locks)


def device_name(gpu: int | None) -> str:
    """The device in the names of slots."""
    return "main-" if gpu is None else f"gpu{gpu}-"


def take_slot(output_dir: Path, gpu: int | None, alone: bool) -> tuple[WorkerSlot, FileLock] | None:
    """The first free slot on a device, locked.

    alone: only the first slot counts; None if another worker has it.
    """
    for number in range(1 if alone else MAX_SLOTS):
        slot = WorkerSlot(output_dir, f"{this_machine()}-{device_name(gpu)}{number}")
        slot.lock_path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(slot.lock_path)
        try:
            lock.acquire(timeout=1 if alone else 0)  # `is_served` holds it for an instant
            return slot, lock
        except Timeout:
            continue
    return None


def refuse_unwritable(output_dir: Path) -> None:
    """Raises BadInput if no worker can work in this output folder."""
    try:
        for folder in (output_dir, _slots_dir(output_dir), output_dir / LOGS_DIR):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise unwritable(output_dir, error) from None


def _slots_dir(output_dir: Path) -> Path:
    return output_dir / QUEUE_DIR / "workers"


def _is_locked(path: Path) -> bool:
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True
