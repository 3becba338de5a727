"""What an error that ends a run means to the person."""

import traceback
from pathlib import Path

from studio.base.errors import RunFailed, StudioError, shortened
from studio.base.files import atomic_write, disk_failure
from studio.runs import storage


def as_failure(error: BaseException | None, folder: Path) -> StudioError | None:
    """The error in words; None for no error, and for Ctrl-C, which is a request to stop.

    A bug leaves its traceback in the run's folder.
    """
    if error is None or isinstance(error, KeyboardInterrupt):
        return None
    if isinstance(error, StudioError):
        return error
    if isinstance(error, OSError):
        return disk_failure(error)
    try:
        text = "".join(traceback.format_exception(error))
        atomic_write(folder / storage.TRACEBACK, text.encode(errors="replace"))
    except OSError:
        pass  # a full disk; the message says the rest
    return RunFailed(
        f"The run broke off: {type(error).__name__}: {shortened(error, 300)}."
        f" {storage.TRACEBACK} in its folder says where; please report it."
    )
