"""Keeps workers alive: one process for each device, replaced if it dies, and its run put back.

The page and worker.py each have a keeper. Never imports torch.
"""

import atexit
import logging
import os
import subprocess
import sys
import threading
import time

from studio.base.errors import BadInput
from studio.base.paths import ROOT
from studio.queue.options import StudioOptions
from studio.queue.recovery import Watch
from studio.queue.slots import LOGS_DIR, device_name, is_served, read_states, refuse_unwritable
from studio.queue.worker_process import EXIT_BAD_INPUT

WORKER = (sys.executable, "-m", "studio.queue.worker_process")
LOOK_SECONDS = 0.5
WATCH_SECONDS = 2.0
RESTART_PAUSE = 3.0
SAVE_PATIENCE = 30.0

log = logging.getLogger("keeper")


class WorkerKeeper:
    """Keeps workers that serve an output folder, from a thread of its own.

    alone: start no worker on a device that already has one on this machine.
    """

    def __init__(self, options: StudioOptions, *, alone: bool = True) -> None:
        self._workers = [_KeptWorker(options, gpu, alone) for gpu in options.gpus or (None,)]
        self._watch = Watch(options.output_dir, options.queue_url)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def refusal(self) -> str | None:
        """Why workers gave up for good: a GPU does not exist, for example. None if none did."""
        return " ".join(filter(None, (worker.refusal() for worker in self._workers))) or None

    @property
    def is_idle(self) -> bool:
        """Whether all workers gave up for good."""
        return all(worker.refusal() for worker in self._workers)

    def close(self) -> None:
        """End the workers: they put their runs back into the queue. Wait until they have ended."""
        self._closed.set()
        self._thread.join()
        for worker in self._workers:
            worker.end()
        deadline = time.monotonic() + SAVE_PATIENCE
        for worker in self._workers:
            worker.wait(max(0.1, deadline - time.monotonic()))

    def _keep(self) -> None:
        next_watch = 0.0
        while True:
            for worker in self._workers:
                worker.keep()
            if time.monotonic() >= next_watch:
                self._watch.look()
                next_watch = time.monotonic() + WATCH_SECONDS
            if self._closed.wait(LOOK_SECONDS):
                return


class _KeptWorker:
    """A device and the worker process on it."""

    def __init__(self, options: StudioOptions, gpu: int | None, alone: bool) -> None:
        self._output_dir = options.output_dir
        self._gpu = gpu
        self._alone = alone
        self._command = _command(options, gpu, alone)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = -RESTART_PAUSE
        self._unwritable: str | None = None

    def refusal(self) -> str | None:
        return self._unwritable or self._gave_up()

    def _gave_up(self) -> str | None:
        if self._process is None or self._process.poll() != EXIT_BAD_INPUT:
            return None
        states = read_states(self._output_dir)
        said = next((s.error for s in states if s.pid == self._process.pid and s.error), None)
        return said or f"The worker stopped. The logs in {self._output_dir / LOGS_DIR} say why."

    def keep(self) -> None:
        if self._process and self._process.poll() is None:
            return
        too_soon = time.monotonic() - self._started < RESTART_PAUSE
        if too_soon or self._gave_up() or not self._can_write() or self._is_taken():
            return
        if self._process:
            log.info("a worker ended with %s; starting another", self._process.returncode)
        self._started = time.monotonic()
        # In its own session: Ctrl-C in the terminal reaches only the keeper, which ends the worker.
        self._process = subprocess.Popen(
            self._command, env=_env(), stdin=subprocess.PIPE, start_new_session=True
        )

    def _can_write(self) -> bool:
        """Whether a worker could work. If not, say why once, and look again after a pause."""
        try:
            refuse_unwritable(self._output_dir)
            self._unwritable = None
        except BadInput as error:
            if self._unwritable is None:
                log.warning("%s", error)
            self._unwritable, self._started = error.on_page, time.monotonic()
        return self._unwritable is None

    def end(self) -> None:
        if self._process:
            self._process.terminate()
            assert self._process.stdin  # a pipe
            self._process.stdin.close()

    def wait(self, seconds: float) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _is_taken(self) -> bool:
        return self._alone and is_served(self._output_dir, device_name(self._gpu))


def _command(options: StudioOptions, gpu: int | None, alone: bool) -> list[str]:
    command = [*WORKER, "--output-dir", str(options.output_dir)]
    command += ["--assets-dir", str(options.assets_dir)]
    command += [] if gpu is None else ["--gpu", str(gpu)]
    command += ["--queue-url", options.queue_url] if options.queue_url else []
    return [*command, "--alone"] if alone else command


def _env() -> dict[str, str]:
    """The environment, in which a worker finds the project's modules from any folder."""
    known = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    return os.environ | {"PYTHONPATH": os.pathsep.join(known)}
