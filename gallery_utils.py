"""Reading run folders: their files, their settings, and what is wrong with them.

Nothing here writes, follows a link out of a folder, or raises for anything that a stranger may have
put there. Never imports torch.
"""

import math
import os
import re
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from studio.base import files
from studio.base.errors import BadInput
from studio.runs import storage
from studio.runs.storage import ACTIVE, ID_LENGTH

STATUSES = ("queued", "running", "done", "stopped", "failed", "interrupted", "broken")
FINISHED = ("done", "stopped")  # as a person wanted
MAX_EXACT = 2**53  # up to here a number in a browser is exact
MAX_TEXT = 20_000
MAX_DEPTH = 8
MAX_ITEMS = 1000

FOLDER_TIME = re.compile(r"(\d{8}T\d{6})(?!\d)")
MEDIA_TYPES = {  # of suffixes for the same type, the layout's own comes first
    "png": "image/png",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "mp4": "video/mp4",
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
    "safetensors": "application/octet-stream",
}
_IMAGE = r"\.(png|jpe?g|webp)"
# The files of a run by what they are, in the order of preference. A run may have several pictures:
# output.PNG, output-2.PNG and so on. Numbered frames are all that some other programs leave.
KINDS = {
    "picture": re.compile(rf"output(-\d{{1,6}})?{_IMAGE}", re.IGNORECASE),
    "larger picture": re.compile(rf"(output(-\d{{1,6}})?|preview)-x[2348]{_IMAGE}", re.IGNORECASE),
    "preview": re.compile(re.escape(storage.PREVIEW), re.IGNORECASE),
    "animation": re.compile(r"(anim|output)\.mp4", re.IGNORECASE),
    "larger animation": re.compile(r"(anim|output)(\.part)?-x[2348]\.mp4", re.IGNORECASE),
    "live animation": re.compile(re.escape(storage.LIVE_VIDEO), re.IGNORECASE),
    "chain animation": re.compile(re.escape(storage.CHAIN_VIDEO), re.IGNORECASE),
    "details": re.compile(r"details\.(json|txt)", re.IGNORECASE),
    "init image": re.compile(rf"init-image{_IMAGE}", re.IGNORECASE),
    "image prompt": re.compile(rf"image-prompt-?\d{{0,6}}{_IMAGE}", re.IGNORECASE),
    "start": re.compile(re.escape(storage.START), re.IGNORECASE),
    "traceback": re.compile(re.escape(storage.TRACEBACK), re.IGNORECASE),
    "checkpoint": re.compile(
        "|".join(map(re.escape, (storage.CHECKPOINT, storage.START_CHECKPOINT))), re.IGNORECASE
    ),
    "frame": re.compile(r"\d{1,9}\.(png|jpe?g)", re.IGNORECASE),
}
PICTURES = ("picture", "preview", "frame")
LARGER = "larger picture"
JUDGED = ("details", *PICTURES)  # the kinds whose content is checked
ANIMATIONS = ("animation", "live animation")


def kind_of(name: str) -> str | None:
    """The kind of a file, by its name: a key of KINDS, or None for files that are not served."""
    return next((kind for kind, pattern in KINDS.items() if pattern.fullmatch(name)), None)


def media_type(name: str) -> str:
    """The content type of a file with a name that `kind_of` knows."""
    return MEDIA_TYPES[name.rpartition(".")[2].lower()]


def is_run_name(name: str) -> bool:
    """Whether a folder with that name could be a run."""
    return bool(name) and not name.startswith(".") and "/" not in name and "\0" not in name


Stamp = tuple[int, int]
NO_STAMP = (0, 0)


def stamp(path: str) -> Stamp:
    """A file's time in nanoseconds and its size, which show changes; zeros without a file."""
    try:
        facts = os.lstat(path)
    except (OSError, ValueError):
        return NO_STAMP
    return facts.st_mtime_ns, facts.st_size


@dataclass(frozen=True)
class FoundRun:
    """What a folder says about its run.

    details: cleaned, see `clean`. problem: why it counts as broken, for people; "" if it does not.
    width and height: of the picture in pixels, 0 if unknown. began: seconds since 1970.
    stamps: by name, of the files whose content was checked, from before they were read.
    """

    name: str
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    status: str = "broken"
    problem: str = ""
    width: int = 0
    height: int = 0
    began: float = 0.0
    stamps: Mapping[str, Stamp] = field(default_factory=dict)

    @property
    def picture(self) -> str | None:
        """The file of the first picture: of an active run the preview, else the result."""
        kinds = ("preview", "picture") if self.status in ACTIVE else PICTURES
        return next((name for kind in kinds for name in self.files.get(kind, ())), None)

    @property
    def pictures(self) -> list[str]:
        """The files of all pictures, `picture` first; of a picture in several formats the best."""
        results = self.files.get("picture", ())
        if self.picture not in results:
            return [self.picture] if self.picture else []
        by_number: dict[int, str] = {}
        for name in results:
            by_number.setdefault(_number(name), name)
        return list(by_number.values())

    @property
    def animation(self) -> str | None:
        """The file of the video, or of the part of it that exists."""
        return next((name for kind in ANIMATIONS for name in self.files.get(kind, ())), None)

    @property
    def prompt(self) -> str:
        """The prompt, on one line."""
        return " ".join(as_text(self.details.get("text_input")).split())

    @property
    def id8(self) -> str:
        """The 8 characters by which the `prev_run_id` of other runs names it."""
        return as_text(self.details.get("run_id")) or self.name[-ID_LENGTH:]


class Shelf:
    """A folder of run folders, opened for reading only.

    Every path is walked without following links, so that nothing outside can be reached.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """The folders that may be runs, in no particular order. Raises OSError."""
        with os.scandir(self.root) as entries:
            return [
                e.name
                for e in entries
                if not e.name.startswith(".") and e.is_dir(follow_symlinks=False)
            ]

    def has(self, name: str) -> bool:
        """Whether there is a folder with that name."""
        try:
            with self._folder(name):
                return True
        except OSError:
            return False

    def files(self, name: str) -> dict[str, tuple[str, ...]]:
        """The known files of a run by kind, the best of each kind first.

        Raises OSError.
        """
        found: dict[str, list[str]] = {}
        with self._folder(name) as folder, os.scandir(folder) as entries:
            for entry in entries:
                kind = kind_of(entry.name)
                if kind and entry.is_file(follow_symlinks=False):
                    found.setdefault(kind, []).append(entry.name)
        return {kind: tuple(sorted(names, key=_rank)) for kind, names in found.items()}

    def open(self, name: str, file: str) -> BinaryIO:
        """Open a regular file of a run, if its name is known. Raises OSError."""
        if kind_of(file) is None and file != storage.PROGRESS:
            raise FileNotFoundError(file)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with self._folder(name) as folder:
            descriptor = os.open(file, flags, dir_fd=folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileNotFoundError(file)
        return os.fdopen(descriptor, "rb")

    def read_json(self, name: str, file: str) -> dict[str, Any]:
        """The object in a JSON file of a run. Raises BadInput."""
        try:
            with self.open(name, file) as opened:
                data = opened.read(files.MAX_JSON_BYTES + 1)
        except OSError as error:
            raise BadInput(f"{file} cannot be read: {error.strerror or 'it is gone'}.") from None
        if len(data) > files.MAX_JSON_BYTES:
            raise BadInput(f"{file} is too large: over {files.MAX_JSON_BYTES // 1_000_000} MB.")
        return files.parse_json(data, file)

    def progress(self, name: str) -> dict[str, Any]:
        """How far a running run is, see `RunFolder.read_progress`; empty if unknown."""
        try:
            return clean(self.read_json(name, storage.PROGRESS))
        except BadInput:
            return {}

    def read(self, name: str) -> FoundRun:
        """A run, broken or not. Raises FileNotFoundError without such a folder."""
        try:
            files = self.files(name)
        except FileNotFoundError:
            raise
        except OSError as error:
            return FoundRun(name, problem=f"The folder cannot be read: {error.strerror or error}.")
        judged = [names[0] for kind, names in files.items() if kind in JUDGED]
        stamps = {file: stamp(f"{self.root}/{name}/{file}") for file in judged}
        details, problem = self._details(name, files)
        status = _status(details) if details else "broken"
        if status not in STATUSES:
            status, problem = "broken", f"details.json names an unknown status: {status[:40]}."
        run = FoundRun(name, files, details, status)
        size, flaw = self._picture_size(name, run.picture)
        # Some engines make no picture, and then no film either.
        if not run.picture and (status == "broken" or (status == "done" and run.animation)):
            flaw = "It has no picture."
        problem = " ".join(filter(None, [problem, flaw]))
        if problem and status not in ACTIVE:
            status = "broken"
        when = began(name, details, self.root)
        return FoundRun(name, files, details, status, problem, *size, began=when, stamps=stamps)

    @contextmanager
    def _folder(self, name: str) -> Iterator[int]:
        """A descriptor of a run's folder. Raises OSError."""
        if not is_run_name(name):
            raise FileNotFoundError(name)
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self.root / name, flags)
        except NotADirectoryError:
            raise FileNotFoundError(name) from None
        except (OSError, UnicodeError) as error:
            if isinstance(error, PermissionError):
                raise
            raise FileNotFoundError(name) from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _details(self, name: str, files: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """The cleaned details, and what is wrong with them or ""."""
        if "details" not in files:
            details = self._embedded(name, files)
            return details, "" if details else "It has no details.json: its settings are unknown."
        try:
            return clean(self.read_json(name, files["details"][0])), ""
        except BadInput as error:
            return self._embedded(name, files), str(error)

    def _embedded(self, name: str, files: Mapping[str, Any]) -> dict[str, Any]:
        """The settings inside a picture, where some other programs keep all of theirs."""
        file = next((names[0] for kind, names in files.items() if kind in PICTURES), None)
        if file is None:
            return {}
        from studio.gallery.pictures import (
            embedded_details,  # Pillow takes its time, and is rarely needed
        )

        try:
            with self.open(name, file) as opened:
                return clean(embedded_details(opened))
        except OSError:
            return {}

    def _picture_size(self, name: str, file: str | None) -> tuple[tuple[int, int], str]:
        """Width and height from the header, and what is wrong with the file, or ""."""
        if file is None:
            return (0, 0), ""
        try:
            with self.open(name, file) as opened:
                return _measure(opened, file)
        except OSError as error:
            return (0, 0), f"{file} cannot be read: {error.strerror or 'it is gone'}."


def clean(value: Any, depth: int = 0) -> Any:
    """JSON from strangers, made safe for every reader.

    Integers beyond 2^53 (such as seeds), NaN and infinity become strings. Text is cut, and lone
    surrogates in it are replaced. What is nested too deeply becomes "…".
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, int):
        return value if abs(value) <= MAX_EXACT else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth == MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        items = list(value.items())[:MAX_ITEMS]
        return {_clean_key(key): clean(item, depth + 1) for key, item in items}
    return [clean(item, depth + 1) for item in list(value)[:MAX_ITEMS]]


@lru_cache(maxsize=2000)
def _clean_key(key: str) -> str:
    return as_text(key)[:200]


def as_text(value: Any) -> str:
    """Any value as text that can be encoded, cut to MAX_TEXT characters; "" for None."""
    if isinstance(value, str) and value.isascii() and value.isprintable() and len(value) < MAX_TEXT:
        return value
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value)
    text = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
    return text.encode("utf-8", "replace").decode().replace("\0", "�")


def as_count(value: Any) -> int | None:
    """A whole number from 0 to 2^53, or None for anything else."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_EXACT
    return value if is_count else None


def began(name: str, details: Mapping[str, Any], root: Path) -> float:
    """When a run began, in seconds since 1970.

    The folder's name gives the second, and the details the fraction of that second. Without a time
    in the name the details count, and without one there the folder's own time.
    """
    named = FOLDER_TIME.match(name)
    by_name = _seconds(named[1]) if named else None
    by_details = _seconds(details.get("queued_at") or details.get("start_time"))
    if by_name is not None:
        is_close = by_details is not None and 0 <= by_details - by_name < 1
        return by_details if by_details is not None and is_close else by_name
    if by_details is not None:
        return by_details
    try:
        return (root / name).lstat().st_mtime
    except (OSError, UnicodeError):
        return 0.0


def _seconds(time: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(time)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _status(details: Mapping[str, Any]) -> str:
    return as_text(storage.status_of(details))


def _rank(name: str) -> tuple[int, int, str]:
    """By number, the latest frame first; within a number the layout's own suffix first."""
    stem, _, suffix = name.lower().rpartition(".")
    number = _number(name)
    return (-number if stem.isdigit() else number, list(MEDIA_TYPES).index(suffix), name)


def _number(name: str) -> int:
    """The number in a file's name, 0 without one."""
    return int(re.sub(r"\D", "", name.rpartition(".")[0]) or 0)


def _measure(file: BinaryIO, name: str) -> tuple[tuple[int, int], str]:
    """As `Shelf._picture_size`. PNGs, the usual case, are measured without the slow Pillow."""
    head = file.read(24)
    if not head:
        return (0, 0), f"{name} is empty."
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) == 24:
        size = struct.unpack(">II", head[16:24])
        file.seek(-min(12, file.seek(0, os.SEEK_END)), os.SEEK_END)
        whole = b"IEND" in file.read()
        return size, "" if whole else f"{name} is cut off: its end is missing."
    from studio.gallery.pictures import measure

    file.seek(0)
    return measure(file, name)
