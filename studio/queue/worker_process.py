"""The worker: a process that computes runs, one after the other, and keeps its models warm.

It takes the run that is first in the queue (`run_queue.py`). It ends on SIGINT, on SIGTERM, and
when the pipe on its standard input closes: its keeper (`keeper.py`) holds the other end, so no
worker outlives the app, however the app ends. The current run is then saved and put back into the
queue. Only this process imports torch, after it has started to serve.
"""

import argparse
import logging
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from studio.base.errors import BadInput, RunFailed
from studio.base.files import unwritable
from studio.base.machine import this_machine
from studio.base.options import add_assets_dir, add_output_dir, add_queue_url
from studio.base.stopping import Stop, when_stdin_closes
from studio.queue import run_queue
from studio.queue.delivery import Delivery
from studio.queue.next_stages import enqueue_missing, enqueue_next
from studio.queue.options import StudioOptions
from studio.queue.slots import WorkerSlot, WorkerState, refuse_unwritable, take_slot
from studio.queue.worker_log import roll_over, start_log
from studio.runs.claims import Claim, claimed
from studio.runs.storage import RunFolder, Taken
from studio.runs.upscalings import is_upscaling, sweep

POLL_SECONDS = 0.2
LOOK_SECONDS = 2.0  # between looks into the folders while no message comes
EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT = 0, 1, 2

log = logging.getLogger("worker")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to stop. Returns the exit status."""
    args = _arguments(argv)
    try:
        with Stop() as stop:
            when_stdin_closes(stop.request)
            return _serve(args, stop)
    except OSError as error:  # of the output folder; the keeper tells the person
        log.info("%s", unwritable(args.output_dir, error))
        return EXIT_FAILED


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Started by the page and by worker.py.")
    add_output_dir(parser, required=True)
    add_assets_dir(parser, required=True)
    parser.add_argument("--gpu", type=int)
    add_queue_url(parser)
    parser.add_argument("--alone", action="store_true", help="not if another worker has the device")
    return parser.parse_args(argv)


def _serve(args: argparse.Namespace, stop: Stop) -> int:
    taken = take_slot(args.output_dir, args.gpu, args.alone)
    if taken is None:
        return EXIT_DONE
    slot, lock = taken
    options = StudioOptions(args.output_dir, args.assets_dir, queue_url=args.queue_url)
    with lock:
        start_log(slot.log_path)
        return Worker(slot, options, args.gpu, stop).serve()


class Worker:
    """Computes the runs of an output folder on one device, from a slot that it has locked."""

    def __init__(
        self, slot: WorkerSlot, options: StudioOptions, gpu: int | None, stop: Stop
    ) -> None:
        self._slot = slot
        self._options = options
        self._gpu = gpu
        self._stop = stop
        self._state = WorkerState(os.getpid(), this_machine())
        self._delivery = Delivery(options.output_dir, options.queue_url)

    def serve(self) -> int:
        """Compute queued runs until told to stop. Returns the exit status."""
        self._tell()
        try:
            self._warm_up()
        except BadInput as error:
            log.error("%s", error)
            self._tell(phase="refused", error=error.on_page)
            return EXIT_BAD_INPUT
        log.info("serving %s on %s", self._options.output_dir, self._state.device)
        enqueue_missing(self._options)
        sweep(self._options.output_dir)
        while not self._stop.requested:
            folder = run_queue.next_run(self._options.output_dir)
            if folder is None:
                self._wait()
            elif not self._take(folder):
                return EXIT_FAILED
        return EXIT_DONE

    def _warm_up(self) -> None:
        """Import what takes seconds to import, before a run waits for it. Raises BadInput."""
        unavailable = load_engines()
        from studio.engines import device

        log.info("PyTorch %s, Python %s, %s", version("torch"), sys.version, platform.platform())
        name = device.describe(device.pick_device(self._gpu))
        self._tell(phase="ready", device=name, unavailable=unavailable)

    def _wait(self) -> None:
        """Wait for a message, but only until it is time to look into the folders again."""
        deadline = time.monotonic() + LOOK_SECONDS
        while not self._stop.requested and time.monotonic() < deadline:
            if self._delivery.receive():
                return
            if not self._delivery.waits:
                time.sleep(POLL_SECONDS)

    def _take(self, folder: RunFolder) -> bool:
        """Compute a run, unless another worker is quicker.

        Returns whether this process may compute more. After a failure inside a run, memory or
        device may be in disorder, so a fresh process takes over and tries the run once more.
        """
        try:
            with claimed(folder.path) as claim:
                if claim is None or folder.live_status() != "queued":
                    return True
                roll_over(self._slot.log_path)
                self._tell(run=folder.name)
                return self._compute(folder, claim)
        except (BadInput, OSError) as error:  # the folder cannot be used: it was removed, say
            log.info("%s cannot be made: %s", folder.name, error)
            time.sleep(POLL_SECONDS)
            return self._can_write()
        finally:
            self._tell(run=None)

    def _compute(self, folder: RunFolder, claim: Claim) -> bool:
        log.info("%s begins", folder.name)
        try:
            status = self._execute(folder, claim)
        except Taken as error:  # this process was frozen for long
            log.info("%s", error)
            return False
        except BadInput as error:
            log.info("%s refused: %s", folder.name, error)
            return True
        except RunFailed as error:
            log.info("%s failed: %s", folder.name, error)
            run_queue.after_failure(folder, error)
            return False
        log.info("%s %s", folder.name, status)
        if not is_upscaling(folder):
            enqueue_next(folder, self._options)
        return True

    def _execute(self, folder: RunFolder, claim: Claim) -> str:
        """Returns the run's status; "queued" if it was put back because this process ends."""
        if is_upscaling(folder):
            from studio.making.execute_upscaling import execute
        else:
            from studio.making.execute import execute

        stopped_by_person = False

        def on_step(step: Any) -> None:
            nonlocal stopped_by_person
            stopped_by_person = folder.stop_requested()

        status = execute(
            folder,
            assets_dir=self._options.assets_dir,
            gpu=self._gpu,
            on_step=on_step,
            stop=self._stop,
            claim=claim,
        )
        if status == "stopped" and self._stop.requested and not stopped_by_person:
            run_queue.hand_back(folder)
            return "queued"
        return status

    def _can_write(self) -> bool:
        try:
            refuse_unwritable(self._options.output_dir)
        except BadInput:
            return False
        return True

    def _tell(self, **changes: Any) -> None:
        self._state = replace(self._state, **changes)
        self._slot.write(self._state)


def load_engines() -> dict[str, str]:
    """Import the run classes of all engines. Returns those that cannot be used, with the reason.

    One broken library must not stop the others.
    """
    from studio.engines import registry

    unavailable = {}
    for name in registry.names():
        try:
            registry.check_available(name)
            registry.run_class(name)
        except BadInput as error:
            log.warning("%s", error, exc_info=error.__cause__)
            unavailable[name] = error.on_page
    return unavailable


if __name__ == "__main__":
    sys.exit(main())
