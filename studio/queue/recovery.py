"""Runs whose worker died: seen by whoever keeps workers, on whichever machine, and put back once.

Never imports torch.
"""

import logging
import time
from pathlib import Path

from studio.base.errors import BadInput
from studio.queue import run_queue
from studio.queue.delivery import notify
from studio.runs import run_index
from studio.runs.claims import claimed, is_orphaned, lives_here, was_claimed
from studio.runs.run_index import Entry
from studio.runs.storage import SILENT_SECONDS

BROKE_OFF = (
    "The process that computed this run ended without warning: it was killed, or the memory ran"
    " out. What the run had shown last is kept. Resume it, or continue it with a smaller size or"
    " fewer cutouts if memory was short."
)

log = logging.getLogger("recovery")


class Watch:
    """Watches the runs that workers compute.

    Only a run that was heard of while this watch lived is put back by itself. One that is found
    silent, as after a loss of power, waits for a person: it may be what brought the machine down.
    Silence is measured by this process's own clock, which a suspended machine stops and no other
    machine's clock touches.
    """

    def __init__(self, output_dir: Path, queue_url: str | None = None) -> None:
        self._output_dir = output_dir
        self._queue_url = queue_url
        self._heard: dict[str, tuple[object, float]] = {}

    def look(self) -> None:
        """Put back, or give up, the runs whose worker is gone."""
        entries = run_index.entries(self._output_dir)
        runs = [entry for entry in entries if entry.details.get("status") == "running"]
        self._heard = {e.name: self._heard[e.name] for e in runs if e.name in self._heard}
        for entry in runs:
            if self._is_lost(entry):
                self._recover(entry)

    def _is_lost(self, entry: Entry) -> bool:
        beat = entry.details.get("heartbeat")
        heard = self._heard.get(entry.name)
        if heard is None and (entry.status != "running" or not was_claimed(entry.folder.path)):
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
                status = run_queue.after_crash(folder, BROKE_OFF)
            log.info("the worker of %s died; it is %s", folder.name, status)
            if status == "queued":
                notify(self._output_dir, self._queue_url, folder.name)
        except (BadInput, OSError) as error:
            log.info("%s cannot be put back: %s", folder.name, error)
