"""Command line options that several programs share, each declared once."""

import argparse
import os
from pathlib import Path
from typing import Any

QUEUE_URL = "STUDIO_QUEUE_URL"  # the environment variable


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
