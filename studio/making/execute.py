"""Computing a run in this process. Here torch is imported."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from studio.base.stopping import Stop
from studio.engines import registry
from studio.making import slices
from studio.making.recipes import image_weights, settings_in
from studio.making.recording import Recording
from studio.making.steering import Steering, settings_at
from studio.making.upscale_result import ResultUpscaler
from studio.media.pictures import load_picture
from studio.runs import checkpoints, storage
from studio.runs.checkpoints import Checkpoint
from studio.runs.claims import Claim
from studio.runs.details_keys import engine_of
from studio.runs.storage import RunFolder
from studio.settings.weighted import with_weight

if TYPE_CHECKING:
    from studio.engines.contract import Run, Step


def execute(
    folder: RunFolder,
    *,
    assets_dir: Path,
    gpu: int | None = None,
    on_step: "Callable[[Step], None] | None" = None,
    stop: Stop | None = None,
    claim: Claim | None = None,
) -> str:
    """Compute the run of that folder in this process; returns "done" or "stopped".

    Where the folder holds a checkpoint, the run continues from there. on_step is called after each
    step. stop: see `stopping.Stop`; the folder's own stop flag counts as well. claim: the caller's
    claim on the folder, if it has one.

    Raises BadInput (weights that cannot be used, a GPU that is not there) and RunFailed, after
    recording them in the folder. Raises Taken if another process computes the run, or took it
    over while this one was frozen; then the folder is left alone.
    """
    stop = stop or Stop()
    with folder.computing(claim) as claim, Recording(folder, claim) as recording:
        recording.resume()
        settings = settings_in(recording.details)
        upscaler = ResultUpscaler(settings, recording, assets_dir, gpu)
        upscaler.show_live()
        run, steering = None, Steering(recording)
        may_lack_parts = slices.are_kept(recording.details)
        while may_lack_parts or not recording.is_complete:
            if stop.requested or folder.stop_requested():
                pictures = run.pictures_now() if run else ()
                recording.note(run.notes if run else {})
                recording.stop(pictures)
                break
            with stop.computing():
                run = run or _load(recording, assets_dir, gpu)
                may_lack_parts = False
                if recording.is_complete:
                    continue
                steering.before_step(run)
                step = run.iterate()
            recording.note(run.notes)
            recording.add(step)
            if on_step:
                on_step(step)
        else:
            steering.refuse_the_rest()
            upscaler.upscale(stop)
    return recording.status


def _load(recording: Recording, assets_dir: Path, gpu: int | None) -> "Run":
    """The run of a folder, ready for its first step."""
    details = recording.folder.read()
    run_class = registry.run_class(engine_of(details))
    from studio.engines import device as devices  # imports torch

    device = devices.pick_device(gpu)
    folder, facts = recording.folder.path, _facts(recording.folder.path, details)
    mask = details.get("mask")
    start = storage.START if details["continue_prev_run"] else details["init_image"]
    run = run_class(
        settings_at(details, recording.steps_done),
        assets_dir=assets_dir,
        device=device,
        start_image=_saved(folder, start) if start and (folder / start).exists() else None,
        mask=_saved(folder, mask) if mask else None,
        image_prompts=[_saved(folder, name) for name in details["image_prompts"]],
        image_weights=image_weights(details),
    )
    run.load_model()
    run.model_init()
    if recording.checkpoint:
        run.load_state_dict(dict(recording.checkpoint.state))
    elif (folder / storage.START_CHECKPOINT).exists():
        _continue(run, checkpoints.read(folder / storage.START_CHECKPOINT), facts)
    if run.keeps_parts:
        there, warnings = slices.there(recording.folder)
        recording.warn(warnings)
        if taken := run.take_parts(there):
            recording.go_on_after(*taken)
            run.change(settings_at(details, recording.steps_done))
    recording.loaded(run, devices.describe(device), facts)
    return run


def _continue(run: "Run", earlier: Checkpoint, facts: Mapping[str, Any]) -> None:
    if earlier.engine != facts["engine"]:
        return  # another engine can only start from the picture
    ours, theirs = facts["settings"], earlier.settings
    named = {name: ours[name] for name in ("image_prompt",) if name in ours}
    how = run.settings.model_copy(update=named).continuing(theirs)
    run.continue_from(dict(earlier.state), how, reseed=ours["seed"] != theirs.get("seed"))


def _facts(folder: Path, details: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of the run: engine and settings, image prompts by their contents."""
    settings = settings_in(details).model_dump()
    prompts = [(folder / name).read_bytes() for name in details["image_prompts"]]
    if "image_prompt" in settings:
        digests = [hashlib.sha256(prompt).hexdigest() for prompt in prompts]
        settings["image_prompt"] = list(map(with_weight, digests, image_weights(details)))
    return {"engine": engine_of(details), "settings": settings}


def _saved(folder: Path, name: str) -> Image.Image:
    return load_picture(folder / name, f"The run's picture {name}")
