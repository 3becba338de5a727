"""Finds the runs whose worker died, on any machine, and puts them into the queue again, once.

Every keeper of workers watches (`keeper.py`). Never imports torch.
"""

import logging
import time
from pathlib import Path

from studio.base.errors import BadInput
from studio.queue import run_queue
from studio.queue.delivery import notify
from studio.runs import upscalings
from studio.runs.claims import belongs_to_queue, claimed, is_orphaned, lives_here
from studio.runs.details import SILENT_SECONDS
from studio.runs.run_index import Entry

BROKE_OFF = (
    "The process that computed this run ended without warning: it was killed, or the memory ran"
    " out. The last picture that the run showed is kept. Resume it, or, if memory was short,"
    " continue it with a smaller size or fewer cutouts."
)
UPSCALING_BROKE_OFF = (
    "The process that upscaled this picture ended without warning: it was killed, or the memory ran"
    " out. Upscale it again, or by a smaller scale."
)

log = logging.getLogger("recovery")


class Watch:
    """Watches the runs that workers compute.

    A run is put back only if it had a heartbeat while this watch lived. A run that is found silent,
    as after a loss of power, waits for a person: it may be what brought the machine down. Silence
    is measured by this process's monotonic clock, which stops while the machine is suspended and
    does not depend on the clocks of other machines.
    """

    def __init__(self, output_dir: Path, queue_url: str | None = None) -> None:
        self._output_dir = output_dir
        self._queue_url = queue_url
        self._heard: dict[str, tuple[object, float]] = {}

    def look(self) -> None:
        """Put the runs whose worker is gone into the queue, or mark them failed."""
        entries = run_queue.entries(self._output_dir)
        runs = [entry for entry in entries if entry.details.get("status") == "running"]
        self._heard = {e.name: self._heard[e.name] for e in runs if e.name in self._heard}
        for entry in runs:
            if self._is_lost(entry):
                self._recover(entry)

    def _is_lost(self, entry: Entry) -> bool:
        beat = entry.details.get("heartbeat")
        heard = self._heard.get(entry.name)
        if not belongs_to_queue(entry.folder.path) or (heard is None and entry.status != "running"):
            return False
        if heard is None or heard[0] != beat:
            heard = self._heard[entry.name] = beat, time.monotonic()
        if is_orphaned(entry.folder.path):
            return True
        is_silent = time.monotonic() - heard[1] > SILENT_SECONDS
        return is_silent and not lives_here(entry.folder.path)

    def _recover(self, entry: Entry) -> None:
        folder = entry.folder
        try:
            with claimed(folder.path, of_silent=True) as claim:
                details = folder.read()
                same = details.get("heartbeat") == entry.details.get("heartbeat")
                if claim is None or details.get("status") != "running" or not same:
                    return
                is_run = not upscalings.is_upscaling(folder)
                reason = BROKE_OFF if is_run else UPSCALING_BROKE_OFF
                status = run_queue.after_crash(folder, reason)
            log.info("the worker of %s died; it is %s", folder.name, status)
            if status == "queued":
                notify(self._output_dir, self._queue_url, folder.name)
        except (BadInput, OSError) as error:
            log.info("%s cannot be put back: %s", folder.name, error)
