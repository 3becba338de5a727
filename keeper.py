"""The app's end of the worker: starts one where none serves, replaces one that died, ends its own.

Never imports torch.
"""

import atexit
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

from worker import EXIT_BAD_INPUT, is_served, log_path, read_state

WORKER = Path(__file__).with_name("worker.py")
LOOK_SECONDS = 0.5
RESTART_PAUSE = 3.0
SAVE_PATIENCE = 30.0
MAX_LOG_BYTES = 1_000_000


class WorkerKeeper:
    """Sees to it, from a thread of its own, that a worker serves an output folder."""

    def __init__(self, output_dir: Path, assets_dir: Path, gpu: int | None = None) -> None:
        self.output_dir = output_dir
        self._command = [sys.executable, str(WORKER)]
        self._command += ["--output-dir", str(output_dir), "--assets-dir", str(assets_dir)]
        self._command += [] if gpu is None else ["--gpu", str(gpu)]
        self._process: subprocess.Popen[bytes] | None = None
        self._started = -RESTART_PAUSE
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def refusal(self) -> str | None:
        """Why its worker gave up for good, such as a GPU that is not there."""
        if self._process is None or self._process.poll() != EXIT_BAD_INPUT:
            return None
        state = read_state(self.output_dir)
        return (state and state.error) or f"The worker stopped; see {log_path(self.output_dir)}."

    def close(self) -> None:
        """Let the worker save the run that is going, and wait until it is gone."""
        self._closed.set()
        self._thread.join()
        if self._process is None:
            return
        self._process.terminate()
        self._process.stdin.close()
        try:
            self._process.wait(SAVE_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _keep(self) -> None:
        while True:
            if self._is_needed():
                self._start()
            if self._closed.wait(LOOK_SECONDS):
                return

    def _is_needed(self) -> bool:
        if self._process and self._process.poll() is None:
            return False
        too_soon = time.monotonic() - self._started < RESTART_PAUSE
        return not (too_soon or self.refusal() or is_served(self.output_dir))

    def _start(self) -> None:
        self._started = time.monotonic()
        with _open_log(log_path(self.output_dir)) as output:
            # A session of its own: Ctrl-C in the terminal reaches the app alone, which ends it.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def _open_log(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")
