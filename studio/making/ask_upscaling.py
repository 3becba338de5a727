"""Asking for a result to be upscaled: the folder that a worker takes. Never imports torch."""

from pathlib import Path

from studio.base.errors import BadInput, shortened
from studio.base.files import unwritable
from studio.making.run_upscaling import check_ended
from studio.making.upscaling import Upscaling
from studio.models import upscalers
from studio.runs import upscalings
from studio.runs.claims import claimed
from studio.runs.storage import ACTIVE, RunFolder
from studio.runs.upscalings import Asked


def ask(folder: RunFolder, wanted: Upscaling, assets_dir: Path) -> RunFolder:
    """Put an upscaling of a run's pictures into the queue; returns its folder.

    It takes the place of one by the same scale that ended without a picture. Raises BadInput for a
    run that goes on or has no picture, an upscaler that is none, and one that was asked for before.
    """
    check_ended(folder)
    if not folder.picture_paths():
        raise BadInput(f"The run {folder.name} has no picture.")
    _check_name(wanted.model, assets_dir)
    wanted.check(assets_dir)
    asked = Asked(folder.name, wanted.scale, wanted.model)
    prompt = str(folder.read().get("text_input") or "")
    job = upscalings.folder_of(folder, wanted.scale)
    try:
        job.path.mkdir(parents=True, exist_ok=True)
        with claimed(job.path) as claim:
            if claim is None or _is_asked_for(job):
                raise BadInput(
                    f"The run {folder.name} is being upscaled {wanted.scale} times already."
                )
            job.forget_stop()
            job.write(upscalings.details_of(asked, prompt))
    except OSError as error:
        raise unwritable(folder.output_dir, error) from None
    return job


def _check_name(model: str, assets_dir: Path) -> None:
    """A face offers names alone: a path could be that of any file on this machine."""
    names = upscalers.names(assets_dir)
    if model not in names:
        raise BadInput(f"There is no upscaler '{shortened(model)}'. There are: {', '.join(names)}.")


def _is_asked_for(job: RunFolder) -> bool:
    try:
        return job.live_status() in ACTIVE
    except BadInput:
        return False  # it was made this moment
