"""The commands of `python -m studio`, and the help page that lists them."""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from studio.base.errors import BadInput, shortened


@dataclass(frozen=True)
class Command:
    """One command. main: `module:function`, which takes the options and returns the exit status."""

    help: str
    main: str

    def run(self, options: Sequence[str]) -> int:
        """Import the command's module, and hand over the options."""
        module, _, function = self.main.partition(":")
        return getattr(importlib.import_module(module), function)(options)


COMMANDS = {
    "generate": Command("make a picture from a prompt", "generate:main"),
    "app": Command("open the page in the browser", "studio.page.launch:main"),
    "gallery": Command("show all runs in the browser", "gallery:main"),
    "worker": Command("compute queued runs without the page", "worker:main"),
}
USAGE = "Usage: python -m studio COMMAND [options]"


def main(argv: Sequence[str]) -> int:
    """Run a command. Returns the exit status: the command's own, or 2 for an unknown one."""
    if not argv or argv[0] in ("-h", "--help"):
        print(help_page())
        return 0 if argv else 2
    name, *options = argv
    try:
        return _command(name).run(options)
    except BadInput as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


def help_page() -> str:
    """What there is to run."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()]
    more = "python -m studio COMMAND --help lists the options of a command."
    return "\n".join([USAGE, "", *lines, "", more])


def _command(name: str) -> Command:
    if name not in COMMANDS:
        there = ", ".join(COMMANDS)
        raise BadInput(f"There is no command '{shortened(name)}'. There are: {there}.")
    return COMMANDS[name]
