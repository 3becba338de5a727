"""Start the page: `python -m studio app [options of app.py]`.

Streamlit by itself moves on from a port in use without a word; this names it.
"""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from studio.base.paths import ROOT
from studio.base.ports import free_port

PORT = 8501
APP = ROOT / "app.py"


def main(options: Sequence[str]) -> NoReturn:
    """Become Streamlit, so that its signals and exit status are ours."""
    streamlit = [sys.executable, "-m", "streamlit", "run", str(APP)]
    os.execv(sys.executable, [*streamlit, f"--server.port={free_port(PORT)}", "--", *options])
