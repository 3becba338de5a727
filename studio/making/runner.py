"""From a person's choices to a run folder: check, submit, execute.

`prepare` checks all that can be checked without torch, `submit` makes the folder, `execute`
computes it. The command line and the worker share them; between submit and execute everything is on
disk.
"""

import hashlib
import itertools
import secrets
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from studio.base import files
from studio.base.errors import BadInput, Wording, shortened
from studio.base.paths import ROOT
from studio.base.stopping import Stop
from studio.base.version import __version__
from studio.engines import registry
from studio.making import recipes
from studio.making.recipes import Recipe
from studio.making.recording import Recording
from studio.media.pictures import crop_or_cover, encode_png, load_picture, saved_copy, scaled
from studio.runs import checkpoints, storage
from studio.runs.checkpoints import Checkpoint
from studio.runs.storage import RunFolder
from studio.settings.settings import RunSettings, make, read_defaults

if TYPE_CHECKING:
    from studio.engines.contract import Run, Step

DEFAULT_MODEL = next(iter(registry.MODELS))


@dataclass(frozen=True)
class Request:
    """What a person asked for.

    given: what they set this time, by the settings' names; values may be text.
    settings_file: a details.json or output.PNG to take all other settings from.
    continue_run: the run whose picture to go on from, as `storage.find_run` takes it.
    origin: what to begin from as an earlier run did; of its values none is taken.
    uploads: pictures that are no files; `init_image` and `image_prompt` name them.
    """

    given: Mapping[str, Any]
    output_dir: Path
    assets_dir: Path
    model: str = DEFAULT_MODEL
    settings_file: Path | None = None
    continue_run: str | None = None
    origin: Recipe | None = None
    uploads: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A request that was found possible.

    settings: complete; the seed is the one to use, the size is a multiple of f.
    init_image, image_prompts: the JPEG files to keep and to use.
    start: the picture that the run goes on from. checkpoint: the file of the state to go on from.
    ancestors: the folders' names of the runs before it, oldest first; it goes on from the last.
    warnings: for the person.
    """

    model: str
    settings: RunSettings
    output_dir: Path
    init_image: bytes | None
    image_prompts: Sequence[bytes]
    start: Image.Image | None
    checkpoint: bytes | None
    ancestors: Sequence[str]
    warnings: list[str]


def prepare(request: Request) -> Plan:
    """Check everything that needs no torch. Makes nothing. Raises BadInput."""
    kind = registry.get(request.model).settings
    earlier = _earlier(request, kind)
    settings = _settings(request, kind, [recipe.values for recipe in earlier])
    origin = _origin(request, earlier)
    checkpoint = checkpoints.read(origin.checkpoint) if origin and origin.checkpoint else None
    before = _picture_before(origin, checkpoint)
    settings, kept = _of_kept_size(settings, before)
    settings, warnings = settings.fitted(request.assets_dir)
    warnings += kept + ([origin.lacks] if origin and origin.lacks else [])
    if origin and settings.init_image:
        warnings.append("The starting image is not used: the run continues another one.")
        settings = settings.model_copy(update={"init_image": None})
    if not settings.set_seed:
        seed = checkpoint.settings.get("seed", 0) if checkpoint else secrets.randbits(64)
        settings = settings.model_copy(update={"seed": seed})
    return Plan(
        model=request.model,
        settings=settings,
        output_dir=request.output_dir,
        init_image=_copy(request, "starting image", settings.init_image),
        image_prompts=[_copy(request, "image prompt", name) for name in settings.image_prompt],
        start=_start(before, settings),
        checkpoint=origin.checkpoint.read_bytes() if checkpoint else None,
        ancestors=origin.ancestors if origin else (),
        warnings=warnings,
    )


def submit(plan: Plan, status: str = "queued", chain: Mapping[str, Any] | None = None) -> RunFolder:
    """Make the run's folder, with all that `execute` needs. Raises BadInput.

    status: "queued" for the worker to take, "running" to execute it here at once.
    chain: what `stages` wants to know when the run is done.
    """
    folder = storage.create_run_folder(plan.output_dir)
    try:
        inputs = _inputs(plan)
        for name, data in inputs.items():
            files.atomic_write(folder.path / name, data)
        details = _details(plan, folder, status) | {"inputs_sha256": recipes.inputs_digest(inputs)}
        folder.write(details | ({"chain": chain} if chain else {}))
    except OSError as error:
        folder.remove()
        raise files.unwritable(plan.output_dir, error) from None
    return folder


def reopen(folder: RunFolder, status: str = "queued") -> None:
    """Let a run that ended before its time go on in its folder; then `execute` it.

    status: as for `submit`. Raises BadInput for a run that goes, waits or is done, and for one that
    has a result but no checkpoint to go on from.
    """
    before = folder.proven_status()
    if before in storage.ACTIVE:
        raise BadInput(f"The run {folder.name} is {before}: there is nothing to resume.")
    if before == "done":
        raise BadInput(f"The run {folder.name} is done. ", _how_to_continue(folder))
    if not folder.can_resume and folder.read().get("num_steps") and before != "interrupted":
        raise BadInput(f"The run {folder.name} kept no checkpoint. ", _how_to_continue(folder))
    folder.forget_stop()
    folder.update(status=status, error=None, end_time=None, heartbeat=storage.now(), host=None)


def _how_to_continue(folder: RunFolder) -> Wording:
    """In a new run, where the same one cannot be resumed."""
    return Wording(
        "Press 'Continue' to go on from it in a new run.",
        f"Go on from it in a new run: --continue-run {folder.name}.",
    )


def execute(
    folder: RunFolder,
    *,
    assets_dir: Path,
    gpu: int | None = None,
    on_step: "Callable[[Step], None] | None" = None,
    stop: Stop | None = None,
) -> str:
    """Compute the run of that folder in this process; returns "done" or "stopped".

    Where the folder holds a checkpoint, the run goes on from there. on_step is called after each
    step. stop: see `stopping.Stop`; the folder's own stop flag counts as well.

    Raises BadInput (weights that are none, a GPU that is not there) and RunFailed, after having
    recorded them in the folder; and Taken, if another process computes it, having done nothing.
    """
    stop = stop or Stop()
    with folder.computing(), Recording(folder) as recording:
        recording.resume()
        run = None
        for _ in _counted(recording.planned_num_steps, recording.steps_done):
            if stop.requested or folder.stop_requested():
                recording.stop()
                break
            with stop.computing():
                run = run or _load(recording, assets_dir, gpu)
                step = run.iterate()
            recording.note(run.notes)
            recording.add(step)
            if on_step:
                on_step(step)
    return recording.status


def _earlier(request: Request, kind: type[RunSettings]) -> list[Recipe]:
    """The runs that this one builds on, the later in rank last."""
    earlier = []
    given = [name for name, value in request.given.items() if value is not None]
    if request.continue_run is not None:
        parent = storage.find_run(request.output_dir, request.continue_run)
        earlier.append(recipes.continued(parent, kind, given))
    if request.settings_file is not None:
        earlier.append(recipes.from_file(request.settings_file, request.output_dir, kind, given))
    return earlier


def _settings(
    request: Request, kind: type[RunSettings], earlier: Sequence[Mapping[str, Any]]
) -> RunSettings:
    """The values in the order of their rank; see `settings.make`."""
    given = {name: value for name, value in request.given.items() if value is not None}
    layers = [read_defaults(kind), *earlier, given]
    wanted = dict(itertools.chain.from_iterable(layer.items() for layer in layers))
    return make(kind, kind.recommended(wanted, request.assets_dir), *layers)


def _origin(request: Request, earlier: Sequence[Recipe]) -> Recipe | None:
    """The earlier run whose picture this one goes on from."""
    if request.origin:
        return request.origin
    if request.continue_run is None and request.given.get("init_image"):
        return None
    return next((recipe for recipe in earlier if recipe.start or recipe.checkpoint), None)


def _picture_before(origin: Recipe | None, checkpoint: Checkpoint | None) -> Image.Image | None:
    """The last picture of the run that this one continues, at that run's size."""
    if origin is None:
        return None
    if checkpoint:
        return Image.fromarray(checkpoint.picture)
    return load_picture(origin.start, f"The picture to continue, {origin.start},")


def _of_kept_size(
    settings: RunSettings, before: Image.Image | None
) -> tuple[RunSettings, list[str]]:
    """With the size of the picture before, where it is to be kept, and what the person is told."""
    size = (settings.Xdim, settings.ydim)
    if before is None or settings.continue_resize != "keep" or before.size == size:
        return settings, []
    width, height = before.size
    kept = make(type(settings), settings.model_dump() | {"Xdim": width, "ydim": height})
    return kept, [f"The size stays {width}x{height}, that of the run that is continued."]


def _start(before: Image.Image | None, settings: RunSettings) -> Image.Image | None:
    """The picture that a run begins with that continues another, at its own size."""
    if before is None:
        return None
    fit = crop_or_cover if settings.continue_resize == "crop" else scaled
    return fit(before, (settings.Xdim, settings.ydim))


def _copy(request: Request, what: str, name: str | None) -> bytes | None:
    if name is None:
        return None
    source = request.uploads[name] if name in request.uploads else Path(name)
    return saved_copy(source, f"The {what} '{shortened(name)}'")


def _inputs(plan: Plan) -> dict[str, bytes]:
    """The pictures that the run starts from or aims at, by their names in its folder."""
    inputs = {storage.INIT_IMAGE: plan.init_image} if plan.init_image else {}
    for number, data in enumerate(plan.image_prompts, start=1):
        inputs[storage.image_prompt_name(number)] = data
    if plan.start:
        inputs[storage.START] = encode_png(plan.start)
    if plan.checkpoint:
        inputs[storage.START_CHECKPOINT] = plan.checkpoint
    return inputs


def _details(plan: Plan, folder: RunFolder, status: str) -> dict[str, Any]:
    """details.json as a run begins with it: its settings, where it comes from, and no results."""
    image_prompts = [storage.image_prompt_name(n + 1) for n in range(len(plan.image_prompts))]
    parent = plan.ancestors[-1] if plan.ancestors else None
    return {
        "schema_version": storage.SCHEMA_VERSION,
        "project_version": __version__,
        **_commit(),
        "run_id": folder.run_id,
        "run_folder": folder.name,
        "continue_prev_run": plan.start is not None,
        "prev_run_id": parent and parent[-storage.ID_LENGTH :],
        "parent": parent,
        "stage": len(plan.ancestors) + 1,
        "ancestors": list(plan.ancestors),
        "status": status,
        "error": None,
        "warnings": plan.warnings,
        "queued_at": storage.now(),
        "start_time": None,
        "end_time": None,
        "heartbeat": storage.now(),
        "host": None,
        "model": plan.model,
        **plan.settings.model_dump(),
        "num_steps": 0,
        "planned_num_steps": plan.settings.num_steps,
        "init_image": storage.INIT_IMAGE if plan.init_image else None,
        "image_prompt": image_prompts,
        "image_prompts": image_prompts,
        "device": None,
        "torch_version": None,
        "steps_per_second": None,
        "losses": {},
    }


def _commit() -> dict[str, str]:
    """The commit of this project, where it is run from a repository and git is there."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit_sha": done.stdout.strip()}


def _counted(planned: int, done: int) -> Iterable[object]:
    """Once for each step that is left."""
    return range(done, planned) if planned >= 0 else itertools.repeat(None)


def _load(recording: Recording, assets_dir: Path, gpu: int | None) -> "Run":
    """The run of a folder, ready for its first step. Here torch is imported."""
    from studio.engines import device as devices

    folder, details = recording.folder.path, recording.folder.read()
    device = devices.pick_device(gpu)
    start = storage.START if details["continue_prev_run"] else details["init_image"]
    facts = _facts(folder, details)
    run = registry.run_class(details["model"])(
        _settings_in(details),
        assets_dir=assets_dir,
        device=device,
        start_image=_saved(folder, start) if start else None,
        image_prompts=[_saved(folder, name) for name in details["image_prompts"]],
    )
    run.load_model()
    run.model_init()
    if recording.checkpoint:
        run.load_state_dict(recording.checkpoint.state)
    elif (folder / storage.START_CHECKPOINT).exists():
        _continue(run, checkpoints.read(folder / storage.START_CHECKPOINT), facts)
    recording.loaded(devices.describe(device), run.warnings, run.state_dict, facts)
    return run


def _continue(run: "Run", earlier: Checkpoint, facts: Mapping[str, Any]) -> None:
    if earlier.model != facts["model"]:
        return  # then its picture is all that this one can start from
    ours, theirs = facts["settings"], earlier.settings
    how = run.settings.model_copy(update={"image_prompt": ours["image_prompt"]}).continuing(theirs)
    run.continue_from(earlier.state, how, reseed=ours["seed"] != theirs.get("seed"))


def _facts(folder: Path, details: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of the run: model and settings, image prompts by their contents."""
    settings = _settings_in(details).model_dump()
    prompts = [(folder / name).read_bytes() for name in details["image_prompts"]]
    settings["image_prompt"] = [hashlib.sha256(prompt).hexdigest() for prompt in prompts]
    return {"model": details["model"], "settings": settings}


def _settings_in(details: Mapping[str, Any]) -> RunSettings:
    kind = registry.get(details["model"]).settings
    values = {name: details[name] for name in kind.model_fields if name in details}
    return make(kind, values | {"num_steps": details["planned_num_steps"]})


def _saved(folder: Path, name: str) -> Image.Image:
    return load_picture(folder / name, f"The run's picture {name}")
