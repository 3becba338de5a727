"""The page's own options, as Streamlit leaves them."""

from collections.abc import Sequence
from pathlib import Path

from studio.base.options import Parser
from studio.queue.options import StudioOptions, add_studio_options, options_from

SCRIPT = "app.py"


class _Parser(Parser):
    advice = (
        "After `streamlit run app.py --` the page takes --output-dir DIR, --assets-dir DIR, --gpu N"
        " or --gpus N,N, and --queue-url URL."
    )


def read_options(argv: Sequence[str]) -> StudioOptions:
    """Read `sys.argv`. Raises BadInput.

    A program that embeds the page has a command line of its own, which is left alone.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    add_studio_options(parser)
    return options_from(parser.parse_args(argv[1:] if Path(argv[0]).name == SCRIPT else []))
