"""Weights of the Hugging Face hub: what a repository holds, and its files. Never imports torch.

The network is used only by `look_up`, `read_text` and `fetch`, which a person asks for. What a
repository says is from a stranger: its names of files become paths only where they are plain.
"""

import hashlib
import io
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from studio.base.errors import BadInput, RunFailed, shortened
from studio.base.files import is_full

HUB = "the Hugging Face hub"
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
PLAIN_PATH = re.compile(r"(?:[A-Za-z0-9_-][\w-]*/)?[A-Za-z0-9_-][\w.-]*")
ADDRESS, DEFAULT_ADDRESS = "HF_ENDPOINT", "https://huggingface.co"
SECONDS = 20.0  # that the hub has for an answer
PART, REVISION, LOCK = ".incomplete", ".revision", ".lock"
MAX_TEXT_BYTES = 4_000_000
TRIES, SECONDS_APART = 4, 1.0  # tries that bring no byte, one after the other


@dataclass(frozen=True)
class HubFile:
    """A file of a repository. size: bytes, if it is told. sha256: of its contents, if told."""

    path: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Repository:
    """What the hub tells of a repository. revision: the commit. licence: "" if it is not told."""

    name: str
    revision: str = "main"
    licence: str = ""
    files: Mapping[str, HubFile] = field(default_factory=dict)

    def inside(self, folder: str) -> list[str]:
        """The names of the files in one of its folders; "" for its top."""
        prefix = f"{folder}/" if folder else ""
        names = (path.removeprefix(prefix) for path in self.files if path.startswith(prefix))
        return [name for name in names if "/" not in name]


def is_name(text: str) -> bool:
    """Whether it is `owner/name`, as the hub names repositories."""
    return bool(NAME.fullmatch(text)) and ".." not in text


def look_up(name: str) -> Repository:
    """Ask the hub what a repository holds. Raises BadInput, also where there is no network."""
    from huggingface_hub import HfApi

    with _explained(name):
        told = HfApi(endpoint=_address()).model_info(name, files_metadata=True, timeout=SECONDS)
    files = {}
    for sibling in told.siblings or []:
        if PLAIN_PATH.fullmatch(path := sibling.rfilename) and ".." not in path:
            digest = sibling.lfs.sha256 if sibling.lfs else None
            files[path] = HubFile(path, sibling.size, digest)
    return Repository(name, told.sha or "main", _licence(told), files)


def read_text(repository: Repository, path: str) -> bytes:
    """The contents of a small file. Raises BadInput."""
    size = repository.files[path].size
    if size is not None and size > MAX_TEXT_BYTES:
        raise BadInput(f"{repository.name}: {path} is too large: {size:,} bytes.")
    contents = _Limited()
    _transfer(repository, path, contents)
    return contents.getvalue()


def fetch(
    repository: Repository,
    paths: list[str],
    into: Path,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> None:
    """Download files into a folder; what is there already is kept, and a part is added to.

    on_bytes: called with the number of bytes that are there, as they come; what it raises ends the
    download, and the next one goes on from there. A file gets its name when it is whole and its
    checksum is right. Raises BadInput and RunFailed.
    """
    with disk_explained(repository.name, into):
        into.mkdir(parents=True, exist_ok=True)
        with _only_one(into, repository.name):
            _forget_others(into, repository.revision)
            done = 0
            for path in paths:
                done += _fetch_one(repository, path, into / path, _counting(on_bytes, done))


@contextmanager
def disk_explained(name: str, folder: Path) -> Iterator[None]:
    """What the disk raises, in words: RunFailed."""
    try:
        yield
    except OSError as error:
        why = "the disk is full" if is_full(error) else error.strerror or str(error)
        raise RunFailed(
            f"{name} cannot be kept in {folder.parent}: {why}. Make room, or make it writable;"
            " then the download goes on from where it is."
        ) from None


def _counting(on_bytes: Callable[[int], None], before: int) -> Callable[[int], None]:
    return lambda count: on_bytes(before + count)


def _fetch_one(repository: Repository, path: str, to: Path, on_bytes: Callable[[int], None]) -> int:
    """Returns the number of its bytes."""
    if not to.is_file():
        to.parent.mkdir(parents=True, exist_ok=True)
        part = to.with_name(to.name + PART)
        with part.open("ab", buffering=0) as file:  # a kill loses nothing that has arrived
            _transfer(repository, path, file, on_bytes)
            os.fsync(file.fileno())
        _check(repository, path, part)
        part.replace(to)
    size = to.stat().st_size
    on_bytes(size)
    return size


def _check(repository: Repository, path: str, part: Path) -> None:
    """Raises RunFailed for a file that is not what the hub told of; it is not kept."""
    told, size = repository.files[path], part.stat().st_size
    wrong = told.size is not None and told.size != size
    if not wrong and told.sha256:
        with part.open("rb") as file:
            wrong = hashlib.file_digest(file, "sha256").hexdigest() != told.sha256
    if wrong:
        part.unlink()
        raise RunFailed(
            f"{repository.name}: {path} arrived damaged, {size:,} bytes that are not those that the"
            " hub told of. It is not kept. Start the download again."
        )


def _transfer(
    repository: Repository,
    path: str,
    to: BinaryIO,
    on_bytes: Callable[[int], None] = lambda n: None,
) -> None:
    """Add to an open file what it lacks. An answer that breaks off is asked for again."""
    size, in_vain = repository.files[path].size, 0
    if size is None or to.tell() > size:  # a part of unknown length may be the whole
        to.seek(0)
        to.truncate()
    while (before := to.tell()) != size:
        try:
            _append(repository, path, to, on_bytes)
            return
        except Unreached:
            in_vain = 0 if to.tell() > before else in_vain + 1
            if in_vain == TRIES:
                raise
            time.sleep(SECONDS_APART)


def _append(
    repository: Repository, path: str, to: BinaryIO, on_bytes: Callable[[int], None]
) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(repository.name, path, revision=repository.revision, endpoint=_address())
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if had := to.tell():
        headers["Range"] = f"bytes={had}-"
    answer = get_session().stream("GET", url, headers=headers, timeout=SECONDS)
    with _explained(repository.name), answer as response:
        hf_raise_for_status(response)
        if response.status_code != 206 and had:  # the server knows no ranges: all comes again
            to.seek(0)
            to.truncate()
        for chunk in response.iter_bytes():
            to.write(chunk)
            with _passed_on():
                on_bytes(to.tell())


class Unreached(BadInput):
    """The hub cannot be reached, or its answer broke off."""


class _Limited(io.BytesIO):
    """Contents that a stranger cannot make as large as the memory."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > MAX_TEXT_BYTES:
            raise BadInput(f"The hub sent more than {MAX_TEXT_BYTES // 1_000_000} MB of settings.")
        return super().write(data)


class _Passed(BaseException):
    """Carries what a caller raised through the library, which would retry after some errors."""


@contextmanager
def _passed_on() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _Passed from error


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """What the hub and the network raise, in words."""
    try:
        yield
    except _Passed as passed:
        assert isinstance(passed.__cause__, Exception)
        raise passed.__cause__ from None
    except BadInput:
        raise
    except Exception as error:  # the library and its client have errors of many kinds
        if said := _answered(name, error):
            raise BadInput(said) from None
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        raise Unreached(_unreached(name, error)) from None


def _answered(name: str, error: Exception) -> str:
    """What the hub's answer means; "" if there was none."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return (
            f"{name} is given only to people who have agreed to its licence: do so at"
            f" {_address()}/{name}, and run `hf auth login`."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"There is no {name} on {HUB}, or it is private."
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{name} cannot be downloaded: HF_HUB_OFFLINE is set, which forbids it. Unset it."
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(getattr(error, "response", None), "status_code", "an error")
        return f"{name} cannot be downloaded now: {HUB} answered {status}. Try again later."
    return ""


def _unreached(name: str, error: Exception) -> str:
    return (
        f"{name} could not be downloaded: {HUB} at {_address()} cannot be reached, or broke off"
        f" ({type(error).__name__} {shortened(error, 120)}). Connect to the network and try again;"
        " a download goes on from where it broke off."
    )


def _address() -> str:
    return (os.environ.get(ADDRESS) or DEFAULT_ADDRESS).rstrip("/")


def _licence(told: Any) -> str:
    card = told.card_data or {}
    for key in ("license_name", "license"):
        if isinstance(value := card.get(key), str) and value:
            return shortened(value)
    tags = (tag for tag in told.tags or [] if isinstance(tag, str))
    return shortened(next((t.partition(":")[2] for t in tags if t.startswith("license:")), ""))


@contextmanager
def _only_one(folder: Path, name: str) -> Iterator[None]:
    """Raises BadInput if another process downloads into the folder."""
    import fcntl

    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"{name} is being downloaded already.") from None
        yield


def _forget_others(folder: Path, revision: str) -> None:
    """Delete what came from another revision: parts of two make no whole."""
    mark = folder / REVISION
    with suppress(OSError):
        if mark.read_text() == revision:
            return
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_symlink() or path.is_file():
            if path.name != LOCK:
                path.unlink()
        else:
            path.rmdir()
    mark.write_text(revision)
