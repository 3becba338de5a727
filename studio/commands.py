"""The commands of `python -m studio`, and the help page that lists them."""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from studio.base.errors import BadInput, shortened


@dataclass(frozen=True)
class Command:
    """One command.

    main: `module:function`. It takes the options and prog, the command's name for its help page,
    and returns the exit status.
    """

    help: str
    main: str

    def run(self, options: Sequence[str], prog: str) -> int:
        """Import the command's module, and hand over the options."""
        module, _, function = self.main.partition(":")
        return getattr(importlib.import_module(module), function)(options, prog=prog)


PROGRAM = "python -m studio"
COMMANDS = {
    "generate": Command("make a picture from a prompt", "generate:main"),
    "change": Command("change a run while it is being made", "studio.cli.changing:main"),
    "upscale": Command("make pictures and films larger", "studio.cli.upscaling:main"),
    "app": Command("open the page in the browser", "studio.page.launch:main"),
    "gallery": Command("show all runs in the browser", "gallery:main"),
    "worker": Command("compute queued runs without the page", "worker:main"),
}


def main(argv: Sequence[str]) -> int:
    """Run a command. Returns the exit status: the command's own, or 2 for an unknown one."""
    if not argv or argv[0] in ("-h", "--help"):
        print(help_page())
        return 0 if argv else 2
    name, *options = argv
    try:
        return _command(name).run(options, f"{PROGRAM} {name}")
    except BadInput as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


def help_page() -> str:
    """The list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()]
    usage = f"usage: {PROGRAM} COMMAND [options]"
    more = f"{PROGRAM} COMMAND --help lists the options of a command."
    return "\n".join([usage, "", *lines, "", more])


def _command(name: str) -> Command:
    if name not in COMMANDS:
        there = ", ".join(COMMANDS)
        raise BadInput(f"There is no command '{shortened(name)}'. There are: {there}.")
    return COMMANDS[name]
