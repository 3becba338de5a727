"""Files that are whole or absent, JSON from strangers, and errors of the disk in words."""

import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from studio.base.errors import BadInput, DiskFull, RunFailed, Wording, shortened

MAX_JSON_BYTES = 4_000_000
MAX_PATH = 200  # characters of a path that messages quote


@contextmanager
def whole_or_absent(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A file to write in; it appears at `path` when all is written. durable: and on the disk.

    What is raised inside leaves nothing behind. Raises OSError.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def atomic_write(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write `data` to `path`, whole or not at all. durable: also wait for the disk.

    Raises OSError, and then leaves nothing behind.
    """
    with whole_or_absent(path, durable=durable) as file:
        file.write(data)


def read_json(path: Path, called: str | None = None) -> dict[str, Any]:
    """The object in a JSON file. Raises BadInput for any other contents, even hostile ones.

    called: what messages call the file, if not by its path.
    """
    called = called or shortened(path, MAX_PATH)
    try:
        if not path.is_file():
            raise BadInput(f"There is no file {called}.")
        if path.stat().st_size > MAX_JSON_BYTES:
            raise BadInput(f"{called} is too large: over {MAX_JSON_BYTES // 1_000_000} MB.")
        return parse_json(path.read_bytes(), called)
    except OSError as error:
        raise BadInput(f"{called} cannot be read: {error.strerror or error}.") from None


def parse_json(data: bytes | str, what: str) -> dict[str, Any]:
    """An object from JSON text. Raises BadInput."""
    if not data.strip():
        raise BadInput(f"{what} is empty.")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadInput(f"{what} is broken, or holds something other than a run's details.")
    return value


def to_json(value: Mapping[str, Any]) -> bytes:
    """JSON in the format of the files in run folders."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def is_full(error: OSError) -> bool:
    """Whether the file system said that there is no room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_failure(error: OSError) -> RunFailed:
    """An error of the file system, in words for the person."""
    if is_full(error):
        return DiskFull(
            "The disk is full, so the run stopped; what was done is kept."
            " Free some space, then resume the run."
        )
    return RunFailed(
        f"The run's folder cannot be written: {error.strerror or error}."
        " Make the output folder writable, then resume the run."
    )


def unwritable(output_dir: Path, error: OSError) -> BadInput:
    """The error for an output folder that cannot be written."""
    return BadInput(
        f"The output folder {shortened(output_dir, MAX_PATH)} cannot be written:"
        f" {error.strerror or error}. Make it writable, or ",
        Wording("start the page with another (--output-dir).", "choose another with --output-dir."),
    )
