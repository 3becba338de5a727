"""The process that computes runs, one after the other, on one device whose models it keeps warm.

It takes what is first in the queue (`run_queue.py`), and ends by itself on SIGINT or SIGTERM and
when the pipe on its standard input closes; whoever keeps it (`keeper.py`) holds the other end, so
that no end of the app leaves one behind. The run that is going is then saved and put back into the
queue. Only this process imports torch, once it serves.
"""

import argparse
import faulthandler
import json
import logging
import os
import platform
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from studio.base.errors import BadInput, RunFailed
from studio.base.files import atomic_write, to_json, unwritable
from studio.base.stopping import Stop
from studio.base.version import __version__
from studio.making import chains
from studio.queue import run_queue
from studio.queue.delivery import QUEUE_DIR, Delivery, notify
from studio.runs import run_index
from studio.runs.claims import Claim, claimed, this_machine
from studio.runs.storage import RunFolder, Taken

LOGS_DIR = ".logs"
POLL_SECONDS = 0.2
LOOK_SECONDS = 2.0  # between looks into the folders while no message comes
MAX_LOG_BYTES = 1_000_000
LOGS_KEPT = 3
EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT = 0, 1, 2

log = logging.getLogger("worker")


@dataclass(frozen=True)
class WorkerSlot:
    """One of the slots for workers of an output folder: a machine, a device, a number.

    Lock, state and log of whoever has it lie under its name.
    """

    output_dir: Path
    name: str

    @property
    def lock_path(self) -> Path:
        """Locked while a worker is there."""
        return self._workers / f"{self.name}.lock"

    @property
    def state_path(self) -> Path:
        """A WorkerState as JSON."""
        return self._workers / f"{self.name}.json"

    @property
    def log_path(self) -> Path:
        """What its workers print, tracebacks included."""
        return self.output_dir / LOGS_DIR / f"worker-{self.name}.log"

    @property
    def _workers(self) -> Path:
        return self.output_dir / QUEUE_DIR / "workers"


@dataclass(frozen=True)
class WorkerState:
    """What a worker says of itself.

    phase: starting, ready or refused (then `error` says why, for the person).
    device: in words, once known. run: the run folder's name while one is computed.
    """

    pid: int
    machine: str = ""
    phase: str = "starting"
    device: str = ""
    run: str | None = None
    error: str | None = None


def read_states(output_dir: Path) -> list[WorkerState]:
    """What the workers said last, whether or not they still live, the latest first."""
    found = []
    for path in (output_dir / QUEUE_DIR / "workers").glob("*.json"):
        try:
            state = WorkerState(**json.loads(path.read_text(encoding="utf-8")))
            found.append((path.stat().st_mtime_ns, path.name, state))
        except (OSError, ValueError, TypeError):
            continue
    return [state for _, _, state in sorted(found, key=lambda row: row[:2], reverse=True)]


def is_served(output_dir: Path, device: str = "") -> bool:
    """Whether a worker of this machine lives that computes this folder's runs (on that device)."""
    locks = (output_dir / QUEUE_DIR / "workers").glob(f"{this_machine()}-{device}*.lock")
    return any(_is_locked(path) for path in locks)


def device_name(gpu: int | None) -> str:
    """In the names of slots."""
    return "main-" if gpu is None else f"gpu{gpu}-"


def _is_locked(path: Path) -> bool:
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True


def refuse_unwritable(output_dir: Path) -> None:
    """Raises BadInput for an output folder that no worker can work in."""
    try:
        for folder in (output_dir, output_dir / QUEUE_DIR / "workers", output_dir / LOGS_DIR):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise unwritable(output_dir, error) from None


def take_slot(output_dir: Path, gpu: int | None, alone: bool) -> tuple[WorkerSlot, FileLock] | None:
    """The first free slot on a device, locked; None where it should be the only one and is not."""
    for number in range(1 if alone else 1000):
        slot = WorkerSlot(output_dir, f"{this_machine()}-{device_name(gpu)}{number}")
        slot.lock_path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(slot.lock_path)
        try:
            lock.acquire(timeout=1 if alone else 0)  # `is_served` has it for an instant
            return slot, lock
        except Timeout:
            continue
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop. Returns the exit status."""
    args = _arguments(argv)
    try:
        with Stop() as stop:
            _stop_when_stdin_closes(stop)
            return _serve(args, stop)
    except OSError as error:  # of the output folder; the keeper tells the person
        log.info("%s", unwritable(args.output_dir, error))
        return EXIT_FAILED


def _serve(args: argparse.Namespace, stop: Stop) -> int:
    taken = take_slot(args.output_dir, args.gpu, args.alone)
    if taken is None:
        return EXIT_DONE
    slot, lock = taken
    with lock:
        _start_log(slot.log_path)
        return Server(slot, args, stop).serve()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Started by the page and by worker.py.")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--assets-dir", type=Path, required=True)
    parser.add_argument("--gpu", type=int)
    parser.add_argument("--queue-url")
    parser.add_argument("--alone", action="store_true", help="not beside another on the device")
    return parser.parse_args(argv)


class Server:
    """The loop of the process."""

    def __init__(self, slot: WorkerSlot, args: argparse.Namespace, stop: Stop) -> None:
        self._slot = slot
        self._args = args
        self._stop = stop
        self._state = WorkerState(os.getpid(), this_machine())
        self._delivery = Delivery(args.output_dir, args.queue_url)

    def serve(self) -> int:
        """Compute queued runs until told to stop. Returns the exit status."""
        self._tell()
        try:
            self._tell(phase="ready", device=_warm_up(self._args.gpu))
        except BadInput as error:
            log.error("%s", error)
            self._tell(phase="refused", error=error.on_page)
            return EXIT_BAD_INPUT
        log.info("serving %s on %s", self._args.output_dir, self._state.device)
        self._begin_next_stages()
        while not self._stop.requested:
            folder = run_queue.next_run(self._args.output_dir)
            if folder is None:
                self._wait()
            elif not self._compute(folder):
                return EXIT_FAILED
        return EXIT_DONE

    def _wait(self) -> None:
        """Until a message comes, but look into the folders now and then, as none need come."""
        deadline = time.monotonic() + LOOK_SECONDS
        while not self._stop.requested and time.monotonic() < deadline:
            if self._delivery.receive():
                return
            if not self._delivery.waits:
                time.sleep(POLL_SECONDS)

    def _compute(self, folder: RunFolder) -> bool:
        """One run, unless another worker is quicker. Returns whether this process is good for more.

        After a failure inside a run memory or device may be in disorder: a fresh process takes
        over, and the run goes on there once.
        """
        try:
            with claimed(folder.path) as claim:
                if claim is None or folder.live_status() != "queued":
                    return True
                _roll_over(self._slot.log_path)
                self._tell(run=folder.name)
                return self._execute(folder, claim)
        except (BadInput, OSError) as error:  # a folder that cannot be used, such as a removed one
            log.info("%s cannot be made: %s", folder.name, error)
            time.sleep(POLL_SECONDS)
            return self._can_write()
        finally:
            self._tell(run=None)

    def _can_write(self) -> bool:
        try:
            refuse_unwritable(self._args.output_dir)
        except BadInput:
            return False
        return True

    def _execute(self, folder: RunFolder, claim: Claim) -> bool:
        from studio.making.execute import execute

        wished = False

        def on_step(step: Any) -> None:
            nonlocal wished
            wished = folder.stop_requested()
            _leave_if_lost(claim)

        log.info("%s begins", folder.name)
        args = self._args
        try:
            status = execute(
                folder, assets_dir=args.assets_dir, gpu=args.gpu, on_step=on_step, stop=self._stop
            )
        except Taken:  # by generate.py, or by a worker that is frozen
            time.sleep(LOOK_SECONDS)
            return True
        except BadInput as error:
            log.info("%s refused: %s", folder.name, error)
            return True
        except RunFailed as error:
            log.info("%s failed: %s", folder.name, error)
            run_queue.after_failure(folder, error)
            return False
        if status == "stopped" and self._stop.requested and not wished:
            _leave_if_lost(claim)
            run_queue.hand_back(folder)
            status = "put back into the queue"
        log.info("%s %s", folder.name, status)
        self._begin_next_stage(folder)
        return True

    def _begin_next_stages(self) -> None:
        """Of chains whose worker died between two runs."""
        for entry in chains.unfollowed(run_index.entries(self._args.output_dir)):
            with claimed(entry.folder.path) as claim:
                if claim:
                    self._begin_next_stage(entry.folder)

    def _begin_next_stage(self, folder: RunFolder) -> None:
        """Put the run that follows in a chain, if one does, into the queue; film a chain's end."""
        try:
            following = chains.follow(folder, self._args.assets_dir)
            chain = folder.read().get("chain")
            if chain and not chain["next"]:
                chains.make_video(folder)
        except (BadInput, RunFailed) as error:
            log.info("%s is not followed: %s", folder.name, error)
            return
        if following:
            notify(self._args.output_dir, self._args.queue_url, following.name)

    def _tell(self, **changes: Any) -> None:
        self._state = replace(self._state, **changes)
        try:
            self._slot.state_path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self._slot.state_path, to_json(asdict(self._state)), durable=False)
        except OSError as error:  # a full disk, say; runs have priority
            log.info("cannot say what goes on: %s", error)


def _leave_if_lost(claim: Claim) -> None:
    """After a sleep so long that another worker took the run over, nothing there is ours."""
    if not claim.is_newest:
        log.info("another worker took %s over", claim.path.parent.parent.name)
        os._exit(EXIT_FAILED)


def _warm_up(gpu: int | None) -> str:
    """Import what takes seconds to import, before a run waits for it. Returns the device's name."""
    from studio.engines import device, registry

    for name in registry.names():
        registry.run_class(name)
    log.info("PyTorch %s, Python %s, %s", version("torch"), sys.version, platform.platform())
    return device.describe(device.pick_device(gpu))


def _start_log(path: Path) -> None:
    """Everything that this process prints goes into a file that a person can send."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _redirect(path)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    faulthandler.enable()
    _roll_over(path)
    log.info("VQGAN-CLIP studio %s, process %d", __version__, os.getpid())


def _roll_over(path: Path) -> None:
    """Begin a new file where the old one is long."""
    if not path.exists() or path.stat().st_size > MAX_LOG_BYTES:
        for number in range(LOGS_KEPT, 0, -1):
            older = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{number}"))
        _redirect(path)


def _redirect(path: Path) -> None:
    with path.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)


def _stop_when_stdin_closes(stop: Stop) -> None:
    """Only a pipe counts: whoever starts this by hand has a terminal or nothing there."""
    if sys.stdin is None or not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        return

    def watch(fd: int = sys.stdin.fileno()) -> None:
        while os.read(fd, 1024):
            pass
        stop.request()

    threading.Thread(target=watch, name="stdin", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
