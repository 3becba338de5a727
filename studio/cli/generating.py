"""What generate.py does: options to a request, the run with its progress, the exit status."""

import argparse
import difflib
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic.fields import FieldInfo
from tqdm import tqdm

from studio.base.errors import BadInput, RunFailed, StudioError, shortened
from studio.base.notes import notes_in_words
from studio.base.options import (
    QUEUE_URL,
    Parser,
    add_assets_dir,
    add_output_dir,
    add_queue_url,
    queue_url_default,
)
from studio.base.paths import ASSETS_DIR, OUTPUT_DIR
from studio.base.stopping import Stop
from studio.cli.downloading import download_chosen
from studio.engines import registry
from studio.making import chains, slices
from studio.making.execute import execute
from studio.making.prepare import Request, engine_for, prepare
from studio.making.progress import TOTAL
from studio.making.submit import reopen, submit
from studio.runs.storage import RunFolder, Taken, find_run
from studio.settings.declare import (
    choices,
    default_of,
    default_text,
    meta,
    option_name,
    range_text,
    value_type,
)
from studio.settings.run_settings import RunSettings

if TYPE_CHECKING:
    from studio.engines.contract import Step

# Options other than settings, by where their values end up.
OF_COMMAND = ("gpu", "resume", "remake", "stages", "enqueue", "list", "cancel", "queue_url")
OF_REQUEST = ("settings_file", "continue_run", "continue_frame", "output_dir", "assets_dir")
OF_REMAKE = ("text_input", "seed", "slice_prompts")  # what may differ in a slice made again
HELP_WIDTH = 72
LINES_APART = 10.0  # seconds, where the progress goes to a file


def run(argv: Sequence[str], stop: Stop, prog: str | None = None) -> int:
    """Do what a command line asks for; returns the exit status. Only --help ends the process.

    prog: the program's name on the help page, where it is not the script's.
    """
    try:
        return _run(parse(argv, prog), stop)
    except StudioError as error:
        _say(f"Error: {error}")
        return 2 if isinstance(error, BadInput) else 1
    except Exception as error:
        said = f"{type(error).__name__}: {shortened(error, 300)}"
        _say(f"Error: {said}. This is a bug in the studio; please report it.")
        return 1


@dataclass(frozen=True)
class Command:
    """What a command line asks for.

    request: a new run, or what holds for all of a chain.
    resume, cancel: a run as `storage.find_run` takes it. stages: the file of a chain of runs.
    remake: a slice of the run to resume, to be made again, as `slices.number_of` takes it.
    enqueue: leave the computing to a worker, which `queue_url` helps to wake up.
    list: only tell what runs there are.
    """

    request: Request
    gpu: int | None = None
    resume: str | None = None
    remake: str | None = None
    stages: Path | None = None
    enqueue: bool = False
    queue_url: str | None = None
    list: bool = False
    cancel: str | None = None


def _run(command: Command, stop: Stop) -> int:
    if command.list or command.cancel:
        return _look_after(command.request.output_dir, command.cancel)
    if not command.resume:
        try:
            download_chosen(command.request, stop, _say)
        except KeyboardInterrupt:
            _say("Stopped. The same command goes on with the download.")
            return 128 + (stop.signum or 0)
    if command.enqueue:
        return _enqueue(command)
    if command.resume:
        return _resume(command, command.resume, stop)
    folder = _submit(command, "running")
    if stop.signum:
        folder.remove()
        return 128 + stop.signum
    return _compute_chain(folder, command, stop, is_new=True)


def _look_after(output_dir: Path, cancel: str | None) -> int:
    """--list and --cancel."""
    from studio.cli import listing
    from studio.queue import run_queue

    if cancel:
        folder = find_run(output_dir, cancel)
        ends = {"stopped": "is out of the queue", "running": "stops after this step"}
        print(f"{folder.name} {ends[run_queue.cancel(folder)]}.")
        return 0
    for line in listing.lines(output_dir):
        print(line)
    return 0


def _enqueue(command: Command) -> int:
    """--enqueue, also for the first run of a chain and for a run to resume."""
    from studio.queue import run_queue
    from studio.queue.delivery import check_url, notify
    from studio.queue.slots import is_served

    output_dir, url = command.request.output_dir, command.queue_url
    if url:
        check_url(url)
    if command.resume:
        folder = find_run(output_dir, command.resume)
        _forget_slice(folder, command)
        run_queue.resume(folder, url)
    else:
        folder = _submit(command, "queued")
        notify(output_dir, url, folder.name)
        for warning in folder.read()["warnings"]:
            _say(warning)
    if not is_served(output_dir):
        _say("No worker is running on this machine. `make app` and `make worker` start one.")
    print(folder.name, flush=True)
    return 0


def _submit(command: Command, status: str) -> RunFolder:
    """The folder of a new run, or of the first run of a chain."""
    if command.stages is None:
        return submit(prepare(command.request), status)
    listed = chains.read(
        command.stages, registry.get(command.request.engine or registry.DEFAULT).settings
    )
    return chains.begin(command.request, listed, status)


def _resume(command: Command, run_id: str, stop: Stop) -> int:
    """Resume a run, or continue with the chain after it."""
    folder = find_run(command.request.output_dir, run_id)
    if command.remake:
        _forget_slice(folder, command)
        reopen(folder, "running")
        return _compute(folder, command, stop, is_new=False)
    following = chains.follow(folder, command.request.assets_dir, "running")
    if following is None:
        reopen(folder, "running")
    return _compute_chain(following or folder, command, stop, is_new=following is not None)


def _forget_slice(folder: RunFolder, command: Command) -> None:
    """--remake, with what is to be different in the slice."""
    if command.remake is None:
        return
    number, given = slices.number_of(command.remake), command.request.given
    prompt = given.get("text_input")
    if lines := given.get("slice_prompts"):
        prompt = slices.line_of(lines, number)
    slices.forget(folder, number, prompt, given.get("seed"))


def _compute_chain(folder: RunFolder, command: Command, stop: Stop, is_new: bool) -> int:
    """A run and the stages that follow it. Stages that are done stay, whatever happens next."""
    exit_status = _compute(folder, command, stop, is_new)
    while exit_status == 0:
        following = chains.follow(folder, command.request.assets_dir, "running")
        if following is None:
            break
        folder, exit_status = following, _compute(following, command, stop, is_new=True)
    if folder.read().get("chain"):
        _make_film(folder)
    return exit_status


def _make_film(folder: RunFolder) -> None:
    """Make the film of all stages. If that fails, the stages are done all the same."""
    try:
        if film := chains.make_video(folder):
            _say(f"The video of all stages: {film}")
    except (OSError, RunFailed) as error:
        _say(f"The video of all stages could not be made: {error}")


def _compute(folder: RunFolder, command: Command, stop: Stop, is_new: bool) -> int:
    """One run. If the input of a new one turns out to be bad, nothing of it stays."""
    planned = folder.read()["planned_num_steps"]
    try:
        with closing(Progress(folder, planned)) as progress:
            status = execute(
                folder,
                assets_dir=command.request.assets_dir,
                gpu=command.gpu,
                on_step=progress.show,
                stop=stop,
            )
    except BadInput as error:
        if is_new and not isinstance(error, Taken):
            folder.remove()
        raise
    finally:
        if folder.path.exists():
            with suppress(OSError, UnicodeEncodeError):
                print(folder.path, flush=True)
    if status == "done":
        return 0
    return 128 + stop.signum if stop.signum else 1


class Progress:
    """A bar with the loss on stderr, below the warnings.

    If nobody reads stderr any more, the run continues without it.
    """

    def __init__(self, folder: RunFolder, planned: int) -> None:
        self._folder = folder
        self._planned = planned if planned > 0 else None
        self._bar: tqdm | None = None

    def close(self) -> None:
        """Leave the bar as it stands, and say what the run noted."""
        with suppress(OSError):
            if self._bar is not None:
                self._bar.close()
                for line in notes_in_words(self._folder.read()):
                    _say(line)

    def show(self, step: "Step") -> None:
        """Move on to this step."""
        with suppress(OSError):
            if self._bar is None:
                self._bar = self._begin(step.index - 1)
            if TOTAL in step.losses:
                self._bar.set_postfix_str(f"loss {step.losses[TOTAL]:.4f}", refresh=False)
            self._bar.update()

    def _begin(self, done: int) -> tqdm:
        details = self._folder.read()
        for line in (*details["warnings"], f"Running on {details['device']}."):
            _say(line)
        pause = 0.1 if sys.stderr.isatty() else LINES_APART
        count = {"total": self._planned, "initial": done, "unit": "step"}
        return tqdm(**count, mininterval=pause, file=sys.stderr)


def parse(argv: Sequence[str], prog: str | None = None) -> Command:
    """What was asked for. Raises BadInput; ends the process for --help."""
    engine = _engine(argv)
    given = _Parser(engine, prog).parse(argv)
    del given["engine"]
    of_command = {name: given.pop(name) for name in OF_COMMAND}
    of_request = {name: given.pop(name) for name in OF_REQUEST}
    for name, field in registry.get(engine).settings.model_fields.items():
        if meta(field)["lines"] and name in given:
            given[name] = _lines_of(Path(given[name]))
    if of_command["remake"] and not of_command["resume"]:
        raise BadInput("--remake needs --resume RUN_ID: the run whose slice is to be made again.")
    if of_command["resume"]:
        other = OF_REMAKE if of_command["remake"] else ()
        changed = {name: value for name, value in given.items() if name not in other}
        _refuse_changes(changed, of_request, of_command["stages"])
    elif of_request["continue_frame"] is not None and not of_request["continue_run"]:
        raise BadInput(
            "--continue-frame needs --continue-run RUN_ID: the run whose video has that frame."
        )
    return Command(Request(given=given, engine=engine, **of_request), **of_command)


def _refuse_changes(
    given: Mapping[str, Any], of_request: Mapping[str, Any], chain: Path | None
) -> None:
    """A resumed run keeps its settings."""
    others = {
        "--continue-run": of_request["continue_run"],
        "--continue-frame": of_request["continue_frame"],
        "--settings": of_request["settings_file"],
        "--stages": chain,
    }
    wrong = [*map(option_name, given), *(n for n, value in others.items() if value is not None)]
    if wrong:
        raise BadInput(
            f"--resume goes on with a run as it was, so it takes no {wrong[0]}."
            " To change something, use --continue-run instead."
        )


class _Parser(Parser):
    """An engine's options."""

    def __init__(self, engine: str, prog: str | None) -> None:
        super().__init__(
            prog=prog,
            description="Make a picture, with its video, in a run folder.",
            formatter_class=argparse.RawTextHelpFormatter,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        self._named: dict[str, argparse.Action] = {}
        kind = registry.get(engine).settings
        self._takes_prompt = "text_input" in kind.model_fields
        self._add_settings(kind, registry.defaults(engine))
        self._add_engine(engine)
        self._add_earlier_runs()
        self._add_places()
        self._add_queue()

    def parse(self, argv: Sequence[str]) -> dict[str, Any]:
        """Values by name; settings that were not given are left out."""
        values, unknown = self.parse_known_args(self._join_values(argv))
        if unknown:
            self._refuse(unknown[0])
        return vars(values)

    def _add_settings(self, kind: type[RunSettings], defaults: Mapping[str, Any]) -> None:
        for name, field in kind.model_fields.items():
            text = _help(field, defaults.get(name, default_of(field)))
            if option_name(name) == "PROMPT":
                self.add_argument(name, metavar="PROMPT", nargs="?", help=text)
                continue
            how: dict[str, Any] = {"metavar": _metavar(name, field)}
            if value_type(field) is bool:
                how = {"action": argparse.BooleanOptionalAction}
            elif meta(field)["lines"]:
                how["metavar"] = "FILE"
            elif value_type(field) is list:
                how["action"] = "append"
            self._add_option(option_name(name), dest=name, help=text, **how)

    def _add_engine(self, engine: str) -> None:
        text = (
            f"The engine that makes the picture: {' or '.join(registry.names())}. Each has settings"
            " of its own, which --help lists for the one that is named. [default: that of the run"
            f" whose settings are taken, else {registry.DEFAULT}]"
        )
        lines = "\n".join(textwrap.wrap(text, HELP_WIDTH))
        self._add_option("--engine", metavar="NAME", default=engine, help=lines)

    def _add_earlier_runs(self) -> None:
        self._add_option(
            "--continue-run",
            metavar="RUN_ID",
            default=None,
            help="Continue this run from its end in a new run. Settings that you do not give\n"
            "stay the same. RUN_ID: a run folder's name, or its last 8 characters.",
        )
        self._add_option(
            "--continue-frame",
            metavar="N",
            type=int,
            default=None,
            help="With --continue-run: begin with this frame of that run's video, in place\n"
            "of its end. The first frame is 1.",
        )
        self._add_option(
            "--resume",
            metavar="RUN_ID",
            default=None,
            help="Resume a run that was interrupted, stopped or failed, in its folder.",
        )
        self._add_option(
            "--remake",
            metavar="SLICE",
            default=None,
            help="With --resume: make one of nine slices again, 0 to 8 or NW, N, ... SE. PROMPT\n"
            "and --seed are then the slice's own.",
        )
        self._add_option(
            "--stages",
            metavar="FILE",
            type=Path,
            default=None,
            help="Make a chain of runs, each continuing the one before: a yaml list,\n"
            "each with prompt, steps and any setting that changes.",
        )
        self._add_option(
            "--settings",
            dest="settings_file",
            metavar="FILE",
            type=Path,
            default=None,
            help="Take the settings of an earlier run: its details.json or output.PNG.\n"
            "XibQGAN-CLIP's config.yaml is read as well, and pictures of web UIs.",
        )

    def _add_places(self) -> None:
        self._add_folder(add_output_dir, OUTPUT_DIR, "Where the run folders go.")
        self._add_folder(add_assets_dir, ASSETS_DIR, "Where the weights are.")
        self._add_option(
            "--gpu",
            metavar="N",
            type=int,
            default=None,
            help="Number of the GPU. [default: the first; without one the CPU]",
        )

    def _add_queue(self) -> None:
        switch = {"action": "store_true", "default": False}
        self._add_option(
            "--enqueue",
            help="Put the run into the queue instead of computing it here, and print its\nRUN_ID.",
            **switch,
        )
        self._add_option("--list", help="List all runs and the queue.", **switch)
        self._add_option(
            "--cancel",
            metavar="RUN_ID",
            default=None,
            help="Take this run out of the queue, or stop it; it keeps what it has.",
        )
        text = f"[default: {QUEUE_URL} of the environment, else none]"
        text = f"With --enqueue: the Redis that workers listen to.\n{text}"
        self._know(add_queue_url(self, default=queue_url_default(), help=text))

    def _add_folder(self, add: Callable[..., argparse.Action], folder: Path, text: str) -> None:
        self._know(add(self, default=folder, help=f"{text} [default: {folder}]"))

    def _add_option(self, name: str, **how: Any) -> None:
        self._know(self.add_argument(name, **how))

    def _know(self, action: argparse.Action) -> None:
        self._named |= dict.fromkeys(action.option_strings, action)

    def _join_values(self, argv: Sequence[str]) -> list[str]:
        """`--seed -1` as `--seed=-1`: argparse takes some values with a dash for options."""
        joined, rest = [], list(argv)
        while rest:
            word = rest.pop(0)
            if word == "--":
                return [*joined, word, *rest]
            action = self._named.get(word)
            takes_value = action is not None and action.nargs != 0
            if takes_value and rest and not rest[0].startswith("--"):
                word = f"{word}={rest.pop(0)}"
            joined.append(word)
        return joined

    def _refuse(self, word: str) -> NoReturn:
        if not word.startswith("-") and not self._takes_prompt:
            raise BadInput(f"'{shortened(word)}' is one word too many: this engine has no prompt.")
        if not word.startswith("-"):
            raise BadInput(
                f"'{shortened(word)}' is one word too many. Put the whole prompt in quotes."
            )
        name = word.partition("=")[0]
        close = difflib.get_close_matches(name, self._named, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]}?" if close else " --help lists the options."
        raise BadInput(f"There is no option {shortened(name)}.{hint}")


def _lines_of(path: Path) -> list[str]:
    """The lines of a text file. Raises BadInput."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{shortened(path)} is no text file.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "a file cannot have that name"
        raise BadInput(f"{shortened(path)} cannot be read: {reason}.") from None
    return text.removesuffix("\n").split("\n")


def _engine(argv: Sequence[str]) -> str:
    """The engine whose options these are. Raises BadInput."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--engine")
    first.add_argument("--settings", type=Path)
    first.add_argument("--continue-run")
    first.add_argument("--resume")
    first.add_argument("--output-dir", type=Path, default=OUTPUT_DIR)
    try:
        said, _ = first.parse_known_args(argv)
    except (argparse.ArgumentError, SystemExit):
        return registry.DEFAULT  # the whole parser says what is wrong
    if said.resume:
        return registry.DEFAULT  # a run that is resumed takes no settings
    return engine_for(
        Request(
            given={},
            output_dir=said.output_dir,
            assets_dir=ASSETS_DIR,
            engine=said.engine,
            settings_file=said.settings,
            continue_run=said.continue_run,
        )
    )


def _metavar(name: str, field: FieldInfo) -> str:
    if "image" in name or name == "mask":
        return "FILE"
    if words := choices(field):
        return f"{{{','.join(map(str, words))}}}"
    return {int: "N", float: "X", list: "TEXT"}.get(value_type(field), "NAME")


def _help(field: FieldInfo, default: Any) -> str:
    facts = filter(None, [range_text(field), f"default: {default_text(field, default)}"])
    lines = textwrap.wrap(f"{field.description} [{'; '.join(facts)}]", HELP_WIDTH)
    return "\n".join(lines).replace("%", "%%")


def _say(line: str) -> None:
    """One line for the person. If nobody can read it any more, the run continues."""
    with suppress(OSError):
        print(" ".join(line.split()), file=sys.stderr, flush=True)
