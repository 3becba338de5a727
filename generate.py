"""The command line: make a picture from a prompt, in a run folder, without a browser.

    python generate.py "a red heart"

Every setting of an engine is an option; --help lists them. Exit status: 0 done, 2 bad input, 130 or
143 stopped by Ctrl-C or SIGTERM, 1 anything else.
"""

import sys
from collections.abc import Sequence

from studio.base.stopping import Stop


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the command line; returns the exit status. prog: its name on the help page."""
    with Stop() as stop:
        from studio.cli import generating  # slow to import; Ctrl-C is handled meanwhile

        return generating.run(sys.argv[1:] if argv is None else argv, stop, prog)


if __name__ == "__main__":
    sys.exit(main())
