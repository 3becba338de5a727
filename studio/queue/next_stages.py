"""What follows a run that has ended: the next stage of its chain, or of a series without an end.

Whoever computed the run puts that into the queue. Never imports torch.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from studio.base.errors import BadInput, RunFailed
from studio.making import chains, forever
from studio.queue.delivery import notify
from studio.queue.options import StudioOptions
from studio.runs import run_index
from studio.runs.claims import claimed
from studio.runs.storage import RunFolder

log = logging.getLogger("worker")


def enqueue_missing(options: StudioOptions) -> None:
    """Queue what follows the runs whose worker died before it had done so."""
    runs = run_index.entries(options.output_dir)
    for entry in (*chains.unfollowed(runs), *forever.unfollowed(runs)):
        with claimed(entry.folder.path) as claim:
            if claim:
                enqueue_next(entry.folder, options)


def enqueue_next(folder: RunFolder, options: StudioOptions) -> None:
    """Queue what follows a run that has ended, if anything; make the film after the last stage.

    The caller holds the run's claim.
    """
    for follow in (_next_stage, forever.follow):
        _enqueue(folder, follow, options)


def _enqueue(
    folder: RunFolder, follow: Callable[[RunFolder, Path], RunFolder | None], options: StudioOptions
) -> None:
    try:
        following = follow(folder, options.assets_dir)
    except (BadInput, RunFailed) as error:
        log.info("nothing follows %s: %s", folder.name, error)
        return
    if following:
        notify(options.output_dir, options.queue_url, following.name)


def _next_stage(folder: RunFolder, assets_dir: Path) -> RunFolder | None:
    following = chains.follow(folder, assets_dir)
    chain = folder.read().get("chain")
    if chain and not chain["next"]:
        chains.make_video(folder)
    return following
