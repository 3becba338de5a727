"""Pictures that the page keeps for the form: uploads, dropped and pasted ones, frames of films.

They lie in `.page/pictures/` of the output folder, by their content. A run copies what it uses, so
only the newest stay.
"""

import hashlib
from pathlib import Path

from studio.base.errors import BadInput
from studio.base.files import atomic_write

MOST = 100


def keep_picture(output_dir: Path, data: bytes, suffix: str = ".png") -> Path:
    """The file that holds this picture from now on. Raises BadInput if it cannot be written.

    data: the bytes of a picture file, as they are. suffix: of its kind, such as ".png".
    """
    folder = output_dir / ".page" / "pictures"
    path = folder / f"{hashlib.sha256(data).hexdigest()[:16]}{suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(path, data)
        _remove_oldest(folder)
    except OSError as error:
        raise BadInput(f"The picture cannot be kept: {error.strerror or error}.") from None
    return path


def _remove_oldest(folder: Path) -> None:
    newest_first = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in newest_first[MOST:]:
        path.unlink(missing_ok=True)
