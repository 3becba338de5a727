"""Chains of runs: stages, each continuing the one before with other words or settings.

For the page, the worker and the command line alike:

    rows = chains.parse(rows, kind)             # what a person wrote; or chains.read(file, kind)
    folder = chains.begin(request, rows)        # the first run; all stages have been checked
    folder = chains.follow(folder, assets_dir)  # once it is done: the next run, or None
    path = chains.make_video(folder)            # one film of the runs that led here, this included

The stages to come lie in the run's details, so that nothing of a chain is lost with a process. Each
run is made when the one before it is done: a chain that is stopped keeps the stages that it has,
and continues once its run is resumed and done. `unfollowed` finds chains whose process died in
between. Never imports torch.
"""

import difflib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput, Wording, shortened
from studio.base.yaml_files import read_yaml
from studio.making.prepare import Request, prepare
from studio.making.submit import submit
from studio.media import frames, video
from studio.media.pictures import load_picture
from studio.runs import run_index, storage
from studio.runs.batches import BATCH, batch_of, new_batch
from studio.runs.details_keys import PARENT_FRAME, as_frame, engine_of
from studio.runs.run_index import Entry
from studio.runs.storage import RunFolder
from studio.settings.run_settings import RunSettings
from studio.settings.values import make
from studio.settings.weighted import picture_and_weight

MAX_STAGES = 1000
SHORT = {"prompt": "text_input", "steps": "num_steps"}
PICTURES = ("init_image", "mask", "image_prompt")
FILL_A_ROW = "Fill in a row, or switch 'Several stages' off."
EXAMPLE = "Write one like this: - {prompt: a garden in spring, steps: 150}"

Stage = dict[str, Any]


def read(path: Path, kind: type[RunSettings]) -> list[Stage]:
    """The stages in a yaml file, a list of mappings: prompt, steps, and any setting that changes.

    Pictures are looked for from the file's folder. Raises BadInput, naming the stage.
    """
    stages = parse(read_yaml(path), kind, where=str(path))
    for stage in stages:
        for name in PICTURES:
            if name in stage:
                stage[name] = _from_folder(path.parent, stage[name])
    return stages


def parse(rows: object, kind: type[RunSettings], where: str = "The list of stages") -> list[Stage]:
    """Stages as settings by their names. Empty cells are left out. Raises BadInput.

    rows: a list of mappings whose keys are "prompt", "steps" or names of settings.
    """
    if not isinstance(rows, list) or not rows:
        raise BadInput(f"{where} holds no stages. ", Wording(FILL_A_ROW, EXAMPLE))
    if len(rows) > MAX_STAGES:
        raise BadInput(f"{where} holds {len(rows)} stages; at most {MAX_STAGES} make a chain.")
    return [_stage(row, number, kind) for number, row in enumerate(rows, start=1)]


def settings_of(before: RunSettings, stages: Sequence[Stage], first: int = 1) -> list[RunSettings]:
    """The settings of each stage, which inherits those of the stage before. Raises BadInput.

    A prompt may be missing, so that an estimate can do without one.
    first: the number of the first of these stages, for messages.
    """
    settings = []
    for number, stage in enumerate(stages, start=first):
        with _naming(number):
            before = make(type(before), before.model_dump(), stage, partial=True)
        settings.append(before)
    return settings


def begin(
    request: Request, stages: Sequence[Stage], status: str = "queued", batch: str | None = None
) -> RunFolder:
    """Check all stages, and make the folder of the first run. Raises BadInput.

    request: the folders, the engine, and the settings of every stage that sets no others.
    status: as for `submit.submit`. batch: that of all its runs; None for one of its own.
    """
    first, *rest = stages
    with _naming(1):
        plan = prepare(replace(request, given={**request.given, **first}))
    _check_later(plan.settings, rest, request.assets_dir)
    chain = {"number": 1, "count": len(stages), "next": rest}
    return submit(plan, status, {"chain": chain, BATCH: batch or new_batch()})


def follow(folder: RunFolder, assets_dir: Path, status: str = "queued") -> RunFolder | None:
    """Make the folder of the stage after a run; None if there is none, or if it was made before.

    Raises BadInput where it cannot be made.
    """
    details = folder.read()
    runs = run_index.entries(folder.path.parent)
    if not _waits_for_next(details) or _next_runs(folder.name, runs):
        return None
    chain = details["chain"]
    stage, *rest = chain["next"]
    with _naming(chain["number"] + 1):
        plan = prepare(
            Request(
                given=stage,
                output_dir=folder.path.parent,
                assets_dir=assets_dir,
                engine=engine_of(details),
                continue_run=folder.name,
            )
        )
    later = chain | {"number": chain["number"] + 1, "next": rest}
    following = submit(plan, status, {"chain": later, BATCH: batch_of(details)})
    folder.update(chain=chain | {"followed_by": following.name})  # known even if that is removed
    return following


def unfollowed(runs: Sequence[Entry]) -> list[Entry]:
    """The runs that are done and whose next stage has not been made."""
    return [e for e in runs if _waits_for_next(e.details) and not _next_runs(e.name, runs)]


def newest_after(name: str, runs: Sequence[Entry]) -> str:
    """The newest stage that has been made after the run of that name; else the run itself."""
    following = {entry.name: _followed_by(entry.details) for entry in runs}
    while (later := following.pop(name, None)) in following:
        name = later
    return name


def make_video(folder: RunFolder) -> Path | None:
    """One film of this run and those that led to it, in this run's folder.

    Of a run that was continued from a frame, the film goes up to that frame.
    None if fewer than two of them have a film. Raises OSError, RunFailed and BadInput.
    """
    names = [*folder.read().get("ancestors", []), folder.name]
    runs = [RunFolder(folder.path.parent / Path(str(name)).name) for name in names]
    ends = [*map(_parent_frame, runs[1:]), None]
    path = folder.path / storage.CHAIN_VIDEO
    with tempfile.TemporaryDirectory() as scratch:
        films = [
            _up_to(run.path / storage.VIDEO, end, Path(scratch) / f"{number}.mp4")
            for number, (run, end) in enumerate(zip(runs, ends, strict=True))
            if (run.path / storage.VIDEO).is_file()
        ]
        if len(films) < 2:
            return None
        video.join(films, path, json.dumps({"runs": names}))
    return path


def _parent_frame(run: RunFolder) -> int | None:
    """The frame of its parent's film that a run began with; None for another or a lost run."""
    try:
        return as_frame(run.read().get(PARENT_FRAME))
    except BadInput:
        return None


def _up_to(film: Path, frame: int | None, scratch: Path) -> Path:
    """The film up to a frame, in a file of its own; the film itself for all of it."""
    if frame is None:
        return film
    frames.keep_first(film, frame, scratch)
    return scratch


def _stage(row: object, number: int, kind: type[RunSettings]) -> Stage:
    if not isinstance(row, Mapping):
        raise BadInput(
            f"Stage {number} is not a list of settings but '{shortened(row)}'. {EXAMPLE}"
        )
    stage: Stage = {}
    for key, value in row.items():
        name = _setting(key, number, kind)
        if name in stage:
            raise BadInput(f"Stage {number} sets {shortened(key)} twice.")
        if value is not None and value != "":
            stage[name] = value
    return stage


def _setting(key: object, number: int, kind: type[RunSettings]) -> str:
    """The name of a setting, however it is spelt: `num_steps`, `num-steps`, `steps`."""
    names = {name.lower(): name for name in kind.model_fields}
    names |= {short: name for short, name in SHORT.items() if name in kind.model_fields}
    spelt = str(key).strip().lower().replace("-", "_").strip("_")
    if spelt in names:
        return names[spelt]
    close = difflib.get_close_matches(spelt, names, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(names)}."
    raise BadInput(f"Stage {number} sets '{shortened(key)}', which is not a setting. {hint}")


def _check_later(before: RunSettings, stages: Sequence[Stage], assets_dir: Path) -> None:
    """Check all stages but the first. Raises BadInput."""
    for number, stage in enumerate(stages, start=2):
        if before.num_steps < 0:
            raise BadInput(
                f"Stage {number - 1} never ends, so stage {number} never begins. Give it steps."
            )
        with _naming(number):
            before, _ = make(type(before), before.model_dump(), stage).fitted(assets_dir)
            for text in stage.get("image_prompt", []):
                path, _ = picture_and_weight(text)
                load_picture(Path(path), f"The image prompt '{shortened(path)}'")


@contextmanager
def _naming(number: int) -> Iterator[None]:
    """Name the stage in any BadInput raised inside."""
    try:
        yield
    except BadInput as error:
        raise error.prefixed(f"Stage {number}: ") from None


def _from_folder(folder: Path, names: object) -> Any:
    """Paths as seen from a folder. Other values stay as they are, for the settings to refuse."""
    if isinstance(names, str):
        return str(folder / names)
    return [_from_folder(folder, name) for name in names] if isinstance(names, list) else names


def _waits_for_next(details: Mapping[str, Any]) -> bool:
    chain = details.get("chain")
    if details.get("status") != "done" or not isinstance(chain, dict):
        return False
    return bool(chain.get("next")) and not _followed_by(details)


def _followed_by(details: Mapping[str, Any]) -> str | None:
    chain = details.get("chain")
    name = chain.get("followed_by") if isinstance(chain, dict) else None
    return name if isinstance(name, str) else None


def _next_runs(name: str, runs: Sequence[Entry]) -> list[Entry]:
    return [e for e in runs if e.details.get("parent") == name and e.details.get("chain")]
