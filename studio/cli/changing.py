"""Changing a run while it is being made.

`python -m studio change RUN_ID [PROMPT] [--step-size X ...]`
"""

import argparse
from collections.abc import Sequence

from studio.base.errors import BadInput
from studio.base.options import Parser, add_output_dir
from studio.base.paths import OUTPUT_DIR
from studio.engines import registry
from studio.making.steering import ask
from studio.runs.details_keys import engine_of
from studio.runs.storage import find_run
from studio.settings.declare import label_of, option_name
from studio.settings.run_settings import RunSettings


def main(argv: Sequence[str], prog: str = "change") -> int:
    """Ask for the changes. Returns the exit status 0; raises BadInput. --help ends the process."""
    given = vars(_parser(prog, _settings_of(argv)).parse_intermixed_args(argv))
    folder = find_run(given.pop("output_dir"), given.pop("run_id"))
    if not given:
        raise BadInput("Say what to change, such as a new prompt. --help lists the options.")
    ask(folder, given)
    print(f"{folder.name} changes from its next step on.")
    return 0


def _parser(prog: str, kind: type[RunSettings]) -> Parser:
    """The options of those settings that may change."""
    parser = Parser(
        prog=prog,
        description="Change a run while it is being made: the values count from its next step on.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("run_id", metavar="RUN_ID", help="a run folder's name, or its end")
    for name in kind.CHANGEABLE:
        option, text = option_name(name), f"a new {label_of(kind, name)}".replace("%", "%%")
        if option.startswith("--"):
            parser.add_argument(option, dest=name, metavar="X", help=text)
        else:
            parser.add_argument(name, metavar=option, nargs="?", help=text)
    add_output_dir(parser, default=OUTPUT_DIR, help="where the run folders are")
    return parser


def _settings_of(argv: Sequence[str]) -> type[RunSettings]:
    """The settings of the run that is named, else of the first engine. Raises BadInput."""
    first = Parser(add_help=False, allow_abbrev=False)
    first.add_argument("run_id")
    add_output_dir(first, default=OUTPUT_DIR)
    try:
        said, _ = first.parse_known_args(argv)
    except BadInput:
        return registry.get(registry.DEFAULT).settings  # the whole parser says what is wrong
    return registry.get(engine_of(find_run(said.output_dir, said.run_id).read())).settings
