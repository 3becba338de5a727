"""Command line options that several programs share, each declared once."""

import argparse
import os
from pathlib import Path
from typing import Any, NoReturn

from studio.base.errors import BadInput, shortened

QUEUE_URL = "STUDIO_QUEUE_URL"  # the environment variable


class Parser(argparse.ArgumentParser):
    """Raises BadInput for a wrong command line, in one line that ends with `advice`."""

    advice = "--help lists the options."

    def error(self, message: str) -> NoReturn:
        said = shortened(f"{message[:1].upper()}{message[1:]}", 200)
        raise BadInput(f"{said}. {self.advice}")


def add_output_dir(parser: argparse.ArgumentParser, **how: Any) -> argparse.Action:
    """Add --output-dir. how: as for `add_argument`, such as default, required or help."""
    return parser.add_argument("--output-dir", type=Path, metavar="DIR", **how)


def add_assets_dir(parser: argparse.ArgumentParser, **how: Any) -> argparse.Action:
    """Add --assets-dir. how: as for `add_output_dir`."""
    return parser.add_argument("--assets-dir", type=Path, metavar="DIR", **how)


def add_queue_url(parser: argparse.ArgumentParser, **how: Any) -> argparse.Action:
    """Add --queue-url. how: as for `add_output_dir`."""
    return parser.add_argument("--queue-url", metavar="URL", **how)


def queue_url_default() -> str | None:
    """The queue's address in the environment, if there is one."""
    return os.environ.get(QUEUE_URL) or None
