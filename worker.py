"""Compute the runs that wait in an output folder: `python worker.py [--gpus 0,1] [...]`.

The page starts its own workers. This command is for machines without the page: any number of them
may share an output folder, with a Redis for their messages. Ctrl-C puts the current runs back into
the queue. Never imports torch.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence

from studio.base.errors import BadInput
from studio.base.stopping import Stop
from studio.queue.keeper import WorkerKeeper
from studio.queue.options import StudioOptions, add_studio_options, options_from
from studio.queue.slots import LOGS_DIR, refuse_unwritable
from studio.queue.worker_process import EXIT_BAD_INPUT, EXIT_DONE

LOOK_SECONDS = 0.2


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Keep workers until told to stop. Returns the exit status. prog: the name on the help page."""
    what = "Compute the runs that wait in an output folder."
    parser = argparse.ArgumentParser(prog=prog, description=what)
    add_studio_options(parser)
    try:
        options = options_from(parser.parse_args(argv))
        refuse_unwritable(options.output_dir)
    except BadInput as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with Stop() as stop:
        refusal = keep_workers(options, stop)
    if refusal:
        print(refusal, file=sys.stderr)
    return EXIT_BAD_INPUT if refusal else EXIT_DONE


def keep_workers(options: StudioOptions, stop: Stop) -> str | None:
    """Keep workers until told to stop, or until all gave up for good: then returns why."""
    keeper = WorkerKeeper(options, alone=False)
    logs = options.output_dir / LOGS_DIR
    print(f"Serving {options.output_dir}. Logs are in {logs}. Ctrl-C ends it.", flush=True)
    while not stop.requested and not keeper.is_idle:
        time.sleep(LOOK_SECONDS)
    refusal = keeper.refusal()
    keeper.close()
    return refusal


if __name__ == "__main__":
    sys.exit(main())
