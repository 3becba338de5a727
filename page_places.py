"""The page's own options: where runs and weights are, and which GPU computes."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from errors import BadInput
from worker import add_place_options

SCRIPT = "app.py"


@dataclass(frozen=True)
class Places:
    """Absolute folders; gpu is None for the best device there is."""

    output_dir: Path
    assets_dir: Path
    gpu: int | None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(
            f"{message[:1].upper()}{message[1:]}. After `streamlit run app.py --` the page takes"
            " --output-dir DIR, --assets-dir DIR and --gpu N."
        )


def read_places(argv: Sequence[str]) -> Places:
    """Read `sys.argv` as Streamlit leaves it. Raises BadInput.

    A program that embeds the page has a command line of its own, which is left alone.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    add_place_options(parser)
    args = parser.parse_args(argv[1:] if Path(argv[0]).name == SCRIPT else [])
    places = Places(args.output_dir.absolute(), args.assets_dir.absolute(), args.gpu)
    _check(places)
    return places


def _check(places: Places) -> None:
    if not places.assets_dir.is_dir():
        raise BadInput(f"--assets-dir names {places.assets_dir}, which is no folder.")
    try:
        places.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"The output folder {places.output_dir} cannot be made: {error.strerror or error}."
            " Choose another with --output-dir."
        ) from None
