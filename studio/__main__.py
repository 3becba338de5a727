"""The studio's commands: `python -m studio COMMAND [options]`."""

import sys

from studio.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
