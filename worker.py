"""The process that computes runs, one after the other.

One worker serves an output folder: it holds a lock there, owns the device and keeps the models
warm. Runs wait as folders whose status is `queued`. It stops by itself, saving the run that is
going, on SIGINT or SIGTERM and when the pipe on its standard input closes; the app holds the other
end (`keeper.py`), so that no end of the app leaves a worker behind. Only the serving process
imports torch.
"""

import argparse
import json
import logging
import os
import stat
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

import run_index
from errors import BadInput, RunFailed
from stopping import Stop
from storage import RunFolder, atomic_write, now, to_json

POLL_SECONDS = 0.2
LOCK_PATIENCE = 5.0  # whoever only asks `is_served` holds the lock for an instant
EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT = 0, 1, 2
INTERRUPTED = (
    "The process that computed this run ended without warning: it was killed, or the memory ran"
    " out. What the run had shown last is kept. Start it again, with a smaller size or fewer"
    " cutouts if memory was short."
)

log = logging.getLogger("worker")


@dataclass(frozen=True)
class WorkerState:
    """What a worker says of itself in `.queue/worker.json`.

    phase: starting, ready or refused (then `error` says why, for the person).
    device: in words, once known. run: the run folder's name while one is computed.
    """

    pid: int
    phase: str = "starting"
    device: str = ""
    run: str | None = None
    error: str | None = None


def state_path(output_dir: Path) -> Path:
    """Where the worker tells its state."""
    return output_dir / ".queue" / "worker.json"


def log_path(output_dir: Path) -> Path:
    """What the worker prints, tracebacks included."""
    return output_dir / ".logs" / "worker.log"


def read_state(output_dir: Path) -> WorkerState | None:
    """The last worker's words, whether or not it still lives; None where there are none."""
    try:
        return WorkerState(**json.loads(state_path(output_dir).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def is_served(output_dir: Path) -> bool:
    """Whether a living worker holds this output folder."""
    try:
        with _lock(output_dir).acquire(timeout=0):
            return False
    except Timeout:
        return True


def _lock(output_dir: Path) -> FileLock:
    path = state_path(output_dir).with_name("worker.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Compute the runs that wait in an output folder.")
    add_place_options(parser)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with Stop() as stop:
        _stop_when_stdin_closes(stop)
        try:
            with _lock(args.output_dir).acquire(timeout=LOCK_PATIENCE):
                return serve(args.output_dir, args.assets_dir, args.gpu, stop)
        except Timeout:
            log.info("another worker serves %s", args.output_dir)
            return EXIT_DONE


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where runs and weights are and which GPU computes."""
    here = Path(__file__).parent
    parser.add_argument("--output-dir", type=Path, default=here / "output", metavar="DIR")
    parser.add_argument("--assets-dir", type=Path, default=here / "assets", metavar="DIR")
    parser.add_argument("--gpu", type=int, metavar="N")


def serve(output_dir: Path, assets_dir: Path, gpu: int | None, stop: Stop) -> int:
    """Compute queued runs until told to stop, in this process. Returns the exit status."""
    _close_interrupted(output_dir)
    state = WorkerState(os.getpid())
    _tell(output_dir, state)
    try:
        state = replace(state, phase="ready", device=_warm_up(gpu))
    except BadInput as error:
        log.error("%s", error)
        _tell(output_dir, replace(state, phase="refused", error=str(error)))
        return EXIT_BAD_INPUT
    _tell(output_dir, state)
    log.info("serving %s on %s", output_dir, state.device)
    while not stop.requested:
        waiting = run_index.queued(run_index.entries(output_dir))
        if not waiting:
            time.sleep(POLL_SECONDS)
            continue
        _tell(output_dir, replace(state, run=waiting[0].name))
        usable = _compute(waiting[0].folder, assets_dir, gpu, stop)
        _tell(output_dir, state)
        if not usable:
            return EXIT_FAILED
    return EXIT_DONE


def _compute(folder: RunFolder, assets_dir: Path, gpu: int | None, stop: Stop) -> bool:
    """One run; its folder records any failure. Returns whether this process is good for another.

    After a failure inside a run memory or device may be in disorder: a fresh process takes over.
    """
    from runner import execute

    try:
        status = execute(folder, assets_dir=assets_dir, gpu=gpu, stop=stop)
        log.info("%s %s", folder.name, status)
    except BadInput as error:
        log.info("%s refused: %s", folder.name, error)
    except RunFailed as error:
        log.info("%s failed: %s", folder.name, error)
        return False
    except OSError as error:  # a folder that can be neither read nor written, such as a removed one
        log.info("%s cannot be made: %s", folder.name, error)
        return False
    return True


def _warm_up(gpu: int | None) -> str:
    """Import what takes seconds to import, before a run waits for it. Returns the device's name."""
    import device
    import registry

    for name in registry.MODELS:
        registry.run_class(name)
    return device.describe(device.pick_device(gpu))


def _close_interrupted(output_dir: Path) -> None:
    """Record the end of the run that the worker before this one died in; the lock proves it."""
    before = read_state(output_dir)
    if before is None or before.run is None:
        return
    folder = RunFolder(output_dir / Path(before.run).name)
    try:
        if folder.read().get("status") == "running":
            done = folder.read_progress().get("step", 0)
            folder.update(status="failed", error=INTERRUPTED, end_time=now(), num_steps=done)
    except BadInput as error:
        log.info("%s", error)


def _tell(output_dir: Path, state: WorkerState) -> None:
    atomic_write(state_path(output_dir), to_json(asdict(state)), durable=False)


def _stop_when_stdin_closes(stop: Stop) -> None:
    """Only a pipe counts: a worker started by hand has a terminal or nothing there."""
    if sys.stdin is None or not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        return

    def watch(fd: int = sys.stdin.fileno()) -> None:
        while os.read(fd, 1024):
            pass
        stop.request()

    threading.Thread(target=watch, name="stdin", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
