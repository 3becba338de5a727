"""Downloading the weights that a person names on the command line, with progress on stderr."""

import sys
from collections.abc import Callable

from tqdm import tqdm

from studio.base.stopping import Stop
from studio.engines import registry
from studio.engines.contract import Download
from studio.making.prepare import Request, engine_for

PAUSE, LINES_APART = 0.1, 10.0  # seconds between two looks of the bar; where it goes to a file


def download_chosen(request: Request, stop: Stop, say: Callable[[str], None]) -> None:
    """Get the weights that the request names, if they are not here but may be elsewhere.

    Only names that were given this time count: one that is in another run's settings comes from
    whoever wrote them. say: prints a line. Raises BadInput, RunFailed and KeyboardInterrupt.
    """
    engine = registry.get(engine_for(request))
    name = engine.lacks(request.given, request.assets_dir)
    if not name:
        return
    with stop.computing():
        found = engine.look_up(name, request.assets_dir)
        say(f"Downloading {found.in_words()}.")
        _fetch(found)
    say(f"{name} is in {request.assets_dir} now.")


def _fetch(found: Download) -> None:
    pause = PAUSE if sys.stderr.isatty() else LINES_APART
    how = {"total": found.size, "unit": "B", "unit_scale": True, "mininterval": pause}
    with tqdm(**how, file=sys.stderr) as bar:

        def show(count: int) -> None:
            bar.update(count - bar.n)

        found.fetch(show)
