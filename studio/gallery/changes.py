"""What people change in the gallery: marks, the queue and the trash. Never imports torch.

Each change is the POST of a form, checked in `guard`. Scripts ask for JSON and get it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Blueprint, jsonify, redirect, request, url_for

from studio.base.errors import BadInput
from studio.gallery import curation
from studio.gallery.pages import library, local_address, need_tile
from studio.runs import trash, upscalings
from studio.runs.storage import RunFolder

MAX_DIGITS = 4  # of a scale

changes = Blueprint("changes", __name__)


@changes.post("/runs/<run_id>/favourite")
def favourite(run_id: str) -> Any:
    """Make a run a favourite (on=1), or take that back (on=0)."""
    tile = need_tile(run_id)
    curation.set_favourite(library().store, tile.name, request.form.get("on") == "1")
    return _done(tile.name)


@changes.post("/runs/<run_id>/tags")
def add_tags(run_id: str) -> Any:
    """Add tags (tags=one, another)."""
    tile = need_tile(run_id)
    tags = request.form.get("tags", "").split(",")
    curation.add_tags(library().store, tile.name, tags)
    return _done(tile.name)


@changes.post("/runs/<run_id>/tags/remove")
def remove_tag(run_id: str) -> Any:
    """Remove a tag (tag=one)."""
    tile = need_tile(run_id)
    curation.remove_tag(library().store, tile.name, request.form.get("tag", ""))
    return _done(tile.name)


@changes.post("/runs/<run_id>/note")
def note(run_id: str) -> Any:
    """Replace the note (note=text, before=the text that was shown)."""
    tile = need_tile(run_id)
    text, before = (request.form.get(name, "") for name in ("note", "before"))
    curation.set_note(library().store, tile.name, text, before)
    return _done(tile.name)


@changes.post("/runs/<run_id>/cancel")
def cancel(run_id: str) -> Any:
    """Take a run out of the queue. Its folder stays, with what is in it."""
    from studio.queue import run_queue  # pydantic, behind it, would slow the start

    name = need_tile(run_id).name
    with _told():
        run_queue.cancel(RunFolder(library().output_dir / name))
    return _done(name)


@changes.post("/runs/<run_id>/up")
def move_up(run_id: str) -> Any:
    """Move a run one place up in the queue."""
    from studio.queue import run_queue

    name = need_tile(run_id).name
    with _told():
        run_queue.move_up(library().output_dir, name)
    return _done(name)


@changes.post("/runs/<run_id>/upscale")
def upscale(run_id: str) -> Any:
    """Put an upscaling of a run's pictures into the queue (scale=4, model=auto)."""
    from studio.making.upscaling import Upscaling
    from studio.queue import run_queue

    folder, own = _folder(run_id), library()
    wanted = Upscaling(_scale(), request.form.get("model", "auto"))
    with _told():
        run_queue.enqueue_upscaling(folder, wanted, own.options.assets_dir)
    return _done(folder.name)


@changes.post("/runs/<run_id>/upscale/stop")
def stop_upscaling(run_id: str) -> Any:
    """Stop an upscaling after its current tile, or take it out of the queue (scale=4)."""
    from studio.queue import run_queue

    folder = _folder(run_id)
    with _told():
        run_queue.withdraw_upscaling(upscalings.folder_of(folder, _scale()))
    return _done(folder.name)


@changes.post("/runs/<run_id>/upscale/forget")
def forget_upscalings(run_id: str) -> Any:
    """Forget the upscalings of a run that ended without a picture."""
    folder = _folder(run_id)
    upscalings.forget(library().output_dir, folder.name)
    return _done(folder.name)


@changes.post("/runs/<run_id>/trash")
def remove(run_id: str) -> Any:
    """Move a run to the trash."""
    tile = need_tile(run_id)
    if tile.status == "queued":
        raise BadInput("The run is waiting in the queue. Cancel it first, then remove it.")
    trash.move_to_trash(library().output_dir, tile.name)
    library().catch_up()
    if _wants_json():
        return jsonify(removed=tile.name, undo=url_for("changes.restore", run_id=tile.name))
    return redirect(url_for("pages.wall", removed=tile.name))


@changes.post("/trash/<run_id>/restore")
def restore(run_id: str) -> Any:
    """Take a run out of the trash again."""
    trash.restore(library().output_dir, run_id)
    library().catch_up()
    return _done(run_id)


def _folder(run_id: str) -> RunFolder:
    return RunFolder(library().output_dir / need_tile(run_id).name)


def _scale() -> int:
    """The scale that was asked for. Raises BadInput for what is no number."""
    text = request.form.get("scale", "")
    if not text.isdecimal() or len(text) > MAX_DIGITS:
        raise BadInput("Say the scale: 2, 3, 4 or 8.")
    return int(text)


@contextmanager
def _told() -> Iterator[None]:
    """Errors of the file system become messages."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise BadInput(f"The run's folder cannot be written: {why}.") from None


def _wants_json() -> bool:
    return request.accept_mimetypes.best == "application/json"


def _done(name: str) -> Any:
    if not _wants_json():
        return redirect(local_address(request.form.get("back", "")))
    tile = need_tile(name)
    return jsonify(run_id=tile.name, favourite=tile.favourite, tags=tile.tags, note=tile.note)
