"""Where the files are and what computes: the options that the page and worker.py share."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from studio.base.errors import BadInput, shortened
from studio.base.files import MAX_PATH, unwritable
from studio.base.options import (
    QUEUE_URL,
    add_assets_dir,
    add_output_dir,
    add_queue_url,
    queue_url_default,
)
from studio.base.paths import ASSETS_DIR, OUTPUT_DIR
from studio.queue.delivery import check_url


@dataclass(frozen=True)
class StudioOptions:
    """Absolute folders. gpus: one worker for each; if empty, one worker on the best device.

    queue_url: of the Redis that carries messages between machines, if there is one.
    """

    output_dir: Path
    assets_dir: Path
    gpus: tuple[int, ...] = ()
    queue_url: str | None = None


def add_studio_options(parser: argparse.ArgumentParser) -> None:
    """Add --output-dir, --assets-dir, --gpus, --gpu and --queue-url."""
    add_output_dir(parser, default=OUTPUT_DIR)
    add_assets_dir(parser, default=ASSETS_DIR)
    gpus = parser.add_mutually_exclusive_group()
    gpus.add_argument(
        "--gpus", type=_numbers, default=(), metavar="N,N", help="a worker for each of these GPUs"
    )
    gpus.add_argument("--gpu", type=_numbers, dest="gpus", metavar="N", help="the same, for one")
    text = f"redis://HOST:6379/0, for several machines; without it {QUEUE_URL} may say so"
    add_queue_url(parser, default=queue_url_default(), help=text)


def options_from(args: argparse.Namespace) -> StudioOptions:
    """The parsed options, checked. Makes the output folder. Raises BadInput."""
    if not args.assets_dir.is_dir():
        folder = shortened(args.assets_dir.absolute(), MAX_PATH)
        raise BadInput(
            f"--assets-dir names {folder}, which is not a folder. Name the folder of the weights."
        )
    if args.queue_url:
        check_url(args.queue_url)
    try:
        args.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(args.output_dir, error) from None
    folders = args.output_dir.absolute(), args.assets_dir.absolute()
    return StudioOptions(*folders, args.gpus, args.queue_url)


def _numbers(text: str) -> tuple[int, ...]:
    if not all(number.strip().isdecimal() for number in text.split(",")):
        raise argparse.ArgumentTypeError(f"'{shortened(text)}' is not a list of GPUs such as 0,1")
    return tuple(dict.fromkeys(map(int, text.split(","))))
