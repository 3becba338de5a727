"""Start the page: `python -m studio app [options of app.py]`.

Streamlit by itself silently takes another port where its own is in use; this says so.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from studio.base.paths import ROOT
from studio.base.ports import free_port
from studio.queue.options import add_studio_options

PORT = 8501
APP = ROOT / "app.py"


def main(options: Sequence[str], prog: str | None = None) -> int:
    """Become Streamlit, so that its signals and exit status are ours; returns after --help only."""
    if {"-h", "--help"} & set(options):
        _parser(prog).print_help()
        return 0
    streamlit = [sys.executable, "-m", "streamlit", "run", str(APP)]
    os.execv(sys.executable, [*streamlit, f"--server.port={free_port(PORT)}", "--", *options])


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Open the page in the browser.")
    add_studio_options(parser)
    return parser
