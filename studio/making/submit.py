"""Run folders: made for a plan, and opened again for a run that ended before its time."""

import subprocess
from collections.abc import Mapping
from typing import Any

from studio.base.errors import BadInput, Wording
from studio.base.files import atomic_write, unwritable
from studio.base.paths import ROOT
from studio.base.version import __version__
from studio.making import recipes, slices
from studio.making.changes import as_details
from studio.making.prepare import Plan
from studio.media.pictures import encode_png
from studio.runs import storage
from studio.runs.claims import Claim
from studio.runs.details_keys import CHANGES, ENGINE, INIT_IMAGE_FROM, PARENT_FRAME
from studio.runs.storage import RunFolder
from studio.settings.weighted import with_weight


def submit(
    plan: Plan, status: str = "queued", belongs: Mapping[str, Any] | None = None
) -> RunFolder:
    """Make the run's folder, with all that `execute` needs. Raises BadInput.

    status: "queued" for the worker to take, "running" to execute it here at once.
    belongs: what details.json is to say of the batch, the chain and the series that it belongs to.
    """
    folder = storage.create_run_folder(plan.output_dir)
    try:
        inputs = _inputs(plan)
        for name, data in inputs.items():
            atomic_write(folder.path / name, data)
        details = _details(plan, folder, status) | {"inputs_sha256": recipes.inputs_digest(inputs)}
        belongs = {CHANGES: as_details(plan.changes), **(belongs or {})}
        folder.write(details | {name: what for name, what in belongs.items() if what})
    except OSError as error:
        folder.remove()
        raise unwritable(plan.output_dir, error) from None
    return folder


def reopen(folder: RunFolder, status: str = "queued", claim: Claim | None = None) -> None:
    """Let a run that ended before its time be resumed; then `execute` it.

    status: as for `submit`. claim: the caller's claim on the folder, if it has one. Raises BadInput
    for a run that is running, waiting or done, unless slices of it are missing, and for one that
    has a result but no checkpoint.
    """
    before = folder.proven_status(claim)
    if before in storage.ACTIVE:
        raise BadInput(f"The run {folder.name} is {before}: there is nothing to resume.")
    has_missing_slices = slices.are_missing(folder)
    if before == "done" and not has_missing_slices:
        raise BadInput(f"The run {folder.name} is done. ", _how_to_continue(folder))
    has_nothing = not folder.can_resume and not has_missing_slices
    if has_nothing and folder.read().get("num_steps") and before != "interrupted":
        raise BadInput(f"The run {folder.name} kept no checkpoint. ", _how_to_continue(folder))
    folder.forget_stop()
    folder.update(status=status, error=None, end_time=None, heartbeat=storage.now(), host=None)


def _how_to_continue(folder: RunFolder) -> Wording:
    """How to continue in a new run what cannot be resumed."""
    return Wording(
        "Press 'Continue' to continue it in a new run.",
        f"Continue it in a new run: --continue-run {folder.name}.",
    )


def _inputs(plan: Plan) -> dict[str, bytes]:
    """The files that the run starts from or aims at, by their names in its folder."""
    inputs = {storage.INIT_IMAGE: plan.init_image} if plan.init_image else {}
    for number, data in enumerate(plan.image_prompts, start=1):
        inputs[storage.image_prompt_name(number)] = data
    if plan.mask:
        inputs[storage.MASK] = plan.mask
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
        "continue_prev_run": parent is not None,
        "prev_run_id": parent and parent[-storage.ID_LENGTH :],
        "parent": parent,
        "stage": len(plan.ancestors) + 1,
        "ancestors": list(plan.ancestors),
        **_frames(plan),
        "status": status,
        "error": None,
        "warnings": plan.warnings,
        "queued_at": storage.now(),
        "start_time": None,
        "end_time": None,
        "heartbeat": storage.now(),
        "host": None,
        ENGINE: plan.engine,
        **plan.settings.model_dump(),
        "num_steps": 0,  # steps done; the planned number is below
        "planned_num_steps": plan.settings.num_steps,
        "init_image": storage.INIT_IMAGE if plan.init_image else None,
        "image_prompt": list(map(with_weight, image_prompts, plan.image_weights)),
        "image_prompts": image_prompts,
        **({"mask": storage.MASK} if plan.mask else {}),
        "device": None,
        "torch_version": None,
        "steps_per_second": None,
        "losses": {},
    }


def _frames(plan: Plan) -> dict[str, Any]:
    """Which frame of which film the run begins with, if it begins with one."""
    mark = plan.init_image_from
    frames = {PARENT_FRAME: plan.parent_frame, INIT_IMAGE_FROM: mark and mark._asdict()}
    return {key: value for key, value in frames.items() if value}


def _commit() -> dict[str, str]:
    """The commit of this project, where it is run from a repository and git is there."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit_sha": done.stdout.strip()}
