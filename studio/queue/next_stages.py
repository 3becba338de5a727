"""The next stages of chains, put into the queue when the runs before them are done. No torch."""

import logging

from studio.base.errors import BadInput, RunFailed
from studio.making import chains
from studio.queue.delivery import notify
from studio.queue.options import StudioOptions
from studio.runs import run_index
from studio.runs.claims import claimed
from studio.runs.storage import RunFolder

log = logging.getLogger("worker")


def enqueue_missing_stages(options: StudioOptions) -> None:
    """Queue the next stages of chains whose worker died between two runs."""
    for entry in chains.unfollowed(run_index.entries(options.output_dir)):
        with claimed(entry.folder.path) as claim:
            if claim:
                enqueue_next_stage(entry.folder, options)


def enqueue_next_stage(folder: RunFolder, options: StudioOptions) -> None:
    """Put the stage after a run into the queue, if there is one; make the film after the last.

    The caller holds the run's claim.
    """
    try:
        following = chains.follow(folder, options.assets_dir)
        chain = folder.read().get("chain")
        if chain and not chain["next"]:
            chains.make_video(folder)
    except (BadInput, RunFailed) as error:
        log.info("%s has no next stage: %s", folder.name, error)
        return
    if following:
        notify(options.output_dir, options.queue_url, following.name)
