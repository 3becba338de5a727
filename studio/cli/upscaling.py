"""Making pictures and films larger.

`python -m studio upscale PATH... [--scale 2|3|4|8] [--model NAME|FILE] [--output FILE|DIR]`
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from studio.base.errors import BadInput, RunFailed, shortened
from studio.base.files import is_full
from studio.base.options import Parser, add_assets_dir, add_output_dir
from studio.base.paths import ASSETS_DIR, OUTPUT_DIR
from studio.base.stopping import Stop
from studio.making.run_upscaling import check_ended, note_upscaled
from studio.making.upscaling import Enlarger, Upscaling, target_for
from studio.media import film_copy, picture_files, pictures
from studio.models import upscalers
from studio.runs.storage import RunFolder, find_run

DONE, FAILED, INTERRUPTED = 0, 1, 130


@dataclass(frozen=True)
class Task:
    """One file to upscale. run: the run whose picture it is."""

    source: Path
    target: Path
    run: RunFolder | None = None

    @property
    def is_film(self) -> bool:
        """Whether the file is a film, by its name."""
        return _has_suffix(self.source, film_copy.SUFFIXES)


@dataclass(frozen=True)
class Job:
    """What one PATH asks for. written: what the last line of the output names.

    goes_on: leaves out what is there already, and goes on after a file that cannot be used.
    """

    tasks: Sequence[Task]
    written: Path
    goes_on: bool = False


def main(argv: Sequence[str], prog: str = "upscale") -> int:
    """Upscale. Returns the exit status; raises BadInput. --help ends the process."""
    args = _parser(prog).parse_args(argv)
    wanted = Upscaling(args.scale, args.model)
    wanted.check(args.assets_dir)
    jobs = list(_jobs(args))
    work, failed = Enlarger(wanted, args.assets_dir, args.gpu), False
    with Stop() as stop:
        for job in jobs:
            try:
                failed |= _carry_out(job, work, stop)
            except KeyboardInterrupt:
                print("Stopped. What was finished is kept.", file=sys.stderr)
                return 128 + (stop.signum or INTERRUPTED - 128)
            except RunFailed as error:
                print(f"Error: {error}", file=sys.stderr)
                return FAILED
            print(job.written, flush=True)
    return FAILED if failed else DONE


def _parser(prog: str) -> Parser:
    parser = Parser(
        prog=prog,
        description="Make pictures and films larger. The last line of the output says what was"
        " written.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="a picture, a folder of pictures, a film, or the RUN_ID of a run",
    )
    parser.add_argument(
        "--scale",
        type=int,
        default=4,
        choices=upscalers.SCALES,
        help="how many times as wide and as high (default: 4)",
    )
    parser.add_argument(
        "--model",
        metavar="NAME|FILE",
        default=upscalers.AUTO,
        help=f"{', '.join(upscalers.PUBLISHED)}, one in assets/{upscalers.FOLDER}/, or a file;"
        f" auto (the default) takes {upscalers.FLAT_ART} for flat art and {upscalers.PHOTOGRAPHS}"
        " for photographs",
    )
    parser.add_argument(
        "--output",
        metavar="FILE|DIR",
        type=Path,
        help="what to write; by default NAME-x4.png beside the picture, for a folder FOLDER-x4/",
    )
    parser.add_argument("--gpu", type=int, metavar="N", help="number of the GPU to use")
    add_output_dir(parser, default=OUTPUT_DIR, help="where the run folders are")
    add_assets_dir(parser, default=ASSETS_DIR, help="where the weights are")
    return parser


def _jobs(args: argparse.Namespace) -> Iterator[Job]:
    """What to do, checked as far as names tell. Raises BadInput."""
    output: Path | None = args.output
    if output and not _is_file_name(output):
        _make_folder(output)
    elif output and (len(args.paths) > 1 or Path(args.paths[0]).is_dir()):
        raise BadInput(f"{output} is the name of one file. Give a folder for several pictures.")
    for text in args.paths:
        path = Path(text)
        if path.is_dir():
            yield _folder_job(path, args.scale, output)
        elif path.exists() or len(path.parts) > 1 or path.suffix:
            yield _file_job(path, args.scale, output)
        else:
            yield _run_job(find_run(args.output_dir, text), args.scale, output)


def _file_job(path: Path, scale: int, output: Path | None) -> Job:
    if not path.is_file():
        raise BadInput(f"{path} does not exist. Give a picture, a folder, a film or a RUN_ID.")
    target = _target(path, scale, output)
    return Job([Task(path, target)], target)


def _folder_job(folder: Path, scale: int, output: Path | None) -> Job:
    sources = sorted(p for p in folder.iterdir() if _is_picture(p))
    if not sources:
        raise BadInput(f"{folder} holds no pictures ({', '.join(pictures.SUFFIXES)}).")
    target = output or folder.resolve().with_name(f"{folder.resolve().name}-x{scale}")
    _make_folder(target)
    return Job([*_named_apart(sources, scale, target)], target, goes_on=True)


def _named_apart(sources: Sequence[Path], scale: int, folder: Path) -> Iterator[Task]:
    """Pictures that differ in their suffixes alone keep these in their new names."""
    stems = [source.stem for source in sources]
    for source in sources:
        name = source.name if stems.count(source.stem) > 1 else source.stem
        yield Task(source, folder / f"{name}-x{scale}.png")


def _run_job(folder: RunFolder, scale: int, output: Path | None) -> Job:
    check_ended(folder)
    paths = folder.picture_paths()
    if not paths:
        raise BadInput(f"The run {folder.name} has no picture.")
    if output and _is_file_name(output) and len(paths) > 1:
        raise BadInput(f"The run {folder.name} has {len(paths)} pictures. Give a folder.")
    tasks = [Task(path, _target(path, scale, output), folder) for path in paths]
    return Job(tasks, tasks[0].target)


def _target(source: Path, scale: int, output: Path | None) -> Path:
    """Where a file goes. Raises BadInput where it would take the place of another file's kind."""
    is_film = _has_suffix(source, film_copy.SUFFIXES)
    suffix = ".mp4" if is_film else ""
    if output is None or not _is_file_name(output):
        return target_for(source, scale, output, suffix)
    picture_files.check_suffix(output, (".mp4",) if is_film else picture_files.SUFFIXES)
    if not output.parent.is_dir():
        raise BadInput(f"There is no folder {output.parent}. Make it first.")
    if output.exists() and output.samefile(source):
        raise BadInput(f"{output} is the picture itself. Give another name.")
    return output


def _carry_out(job: Job, work: Enlarger, stop: Stop) -> bool:
    """Returns whether a file was left out. Raises RunFailed, BadInput, KeyboardInterrupt."""
    failed = False
    for number, task in enumerate(job.tasks, start=1):
        if job.goes_on and task.target.exists():
            continue
        label = f"{number}/{len(job.tasks)} {shortened(task.source.name, 40)}"
        try:
            _upscale(task, work, stop, label)
        except BadInput as error:
            if not job.goes_on:
                raise
            print(f"Error: {error}", file=sys.stderr)
            failed = True
    return failed


def _upscale(task: Task, work: Enlarger, stop: Stop, label: str) -> None:
    do = work.film if task.is_film else work.picture
    form = "{desc} {percentage:3.0f}%"
    with tqdm(total=1.0, desc=label, leave=False, bar_format=form, disable=None) as bar:
        try:
            origin = do(task.source, task.target, lambda share: _show(bar, share), stop)
        except OSError as error:
            raise _not_written(task.target, error) from None
    if task.run:
        note_upscaled(task.run, task.target, origin)
    print(f"{task.source} x{origin['scale']} by {origin['model']}", file=sys.stderr, flush=True)


def _show(bar: Any, share: float) -> None:
    bar.update(share - bar.n)


def _not_written(target: Path, error: OSError) -> RunFailed:
    if is_full(error):
        return RunFailed(
            f"The disk is full, so {target} was not written. What was finished is kept. Free some"
            " space, then give the command again."
        )
    return RunFailed(f"{target} cannot be written: {error.strerror or error}.")


def _is_file_name(path: Path) -> bool:
    return not path.is_dir() and path.suffix.lower() in (*picture_files.SUFFIXES, ".mp4")


def _is_picture(path: Path) -> bool:
    return not path.name.startswith(".") and _has_suffix(path, pictures.SUFFIXES) and path.is_file()


def _has_suffix(path: Path, suffixes: Sequence[str]) -> bool:
    return path.suffix.lower().lstrip(".") in suffixes


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"The folder {path} cannot be made: {error.strerror or error}.") from None
