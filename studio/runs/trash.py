"""Removed runs: into `.trash/` of the output folder, and back again. Never imports torch.

No link is followed: neither `.trash` itself nor a run may be a link.

A removal is one rename, so a run is always in exactly one of the two places, even if a process is
killed or several windows remove it at once. Nothing is deleted.
"""

import os
from pathlib import Path

from studio.base.errors import BadInput
from studio.runs.storage import RunFolder, find_run, folders

TRASH = ".trash"


def move_to_trash(output_dir: Path, run_id: str) -> RunFolder:
    """Remove a run; returns it in its new place.

    Raises BadInput for a run that is being computed, does not exist or is removed already, and if
    the folder cannot be written.
    """
    if _lies_in(folder_of(output_dir), run_id) and not _lies_in(output_dir, run_id):
        raise BadInput(f"The run '{run_id}' is in the trash already.")
    folder = find_run(output_dir, run_id)
    if _is_running(folder):
        raise BadInput(f"The run '{folder.name}' is being computed. Stop it first, then remove it.")
    return _move(folder, folder_of(output_dir))


def restore(output_dir: Path, run_id: str) -> RunFolder:
    """Undo a removal; returns the run in its old place.

    Raises BadInput for a run that is not in the trash, whose old place is taken, or that cannot be
    moved.
    """
    trash = folder_of(output_dir)
    if _lies_in(output_dir, run_id) and not _lies_in(trash, run_id):
        raise BadInput(f"The run '{run_id}' is not in the trash: it is back already.")
    return _move(find_run(trash, run_id), output_dir)


def folder_of(output_dir: Path) -> Path:
    """The folder of removed runs. Raises BadInput if it is a link, which may lead anywhere."""
    path = output_dir / TRASH
    if path.is_symlink():
        raise BadInput(f"{path.name} in the output folder is a link. Put a folder in its place.")
    return path


def trashed(output_dir: Path) -> list[RunFolder]:
    """The removed runs, the one removed last first; none if the trash is a link."""
    try:
        paths = folders(folder_of(output_dir))
    except BadInput:
        return []
    found = [(_moved_at(path), path) for path in paths if not path.is_symlink()]
    return [RunFolder(path) for _, path in sorted(found, reverse=True)]


def _move(folder: RunFolder, to: Path) -> RunFolder:
    target = to / folder.name
    if folder.path.is_symlink():
        raise BadInput(f"'{folder.name}' is a link, not the folder of a run, so it stays there.")
    try:
        to.mkdir(exist_ok=True)
        # The system refuses to rename onto a folder with contents, so nothing is overwritten.
        folder.path.rename(target)
    except FileNotFoundError:
        raise BadInput(f"The run '{folder.name}' is gone: another window was faster.") from None
    except OSError as error:
        raise BadInput(
            f"The run '{folder.name}' cannot be moved to {to}: {error.strerror or error}."
        ) from None
    return RunFolder(target)


def _lies_in(parent: Path, run_id: str) -> bool:
    try:
        find_run(parent, run_id)
    except BadInput:
        return False
    return True


def _is_running(folder: RunFolder) -> bool:
    try:
        return folder.live_status() == "running"
    except BadInput:
        return False  # nobody computes a run with broken details, and a person may remove it


def _moved_at(path: Path) -> int:
    try:
        return os.lstat(path).st_ctime_ns
    except OSError:
        return 0
