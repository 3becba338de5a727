"""Run folders: their names, their files, what they say about themselves. Never imports torch.

The process that makes a run and those that look at it meet only in its folder. Every file there is
whole or absent at every moment: it is written under another name, then renamed.
"""

import itertools
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput, shortened
from studio.base.files import MAX_PATH, atomic_write, disk_failure, read_json, to_json, unwritable
from studio.runs import claims
from studio.runs import details as run_details
from studio.runs.claims import Claim
from studio.runs.details import DETAILS, now, read_details, status_of

SCHEMA_VERSION = 1
FOLDER_TIME = "%Y%m%dT%H%M%S"  # at the beginning of a run folder's name
ID_LENGTH = 8
ACTIVE = ("queued", "running")
UPSCALINGS = ".upscaling"  # of the output folder; see `upscalings.py`

PICTURE = "output.PNG"
VIDEO = "anim.mp4"
LIVE_VIDEO = "anim.part.mp4"
PROGRESS = "progress.json"
PREVIEW = "preview.JPEG"
STOP = "stop"
LAST = "last"  # marks a run that no other follows, whatever its details say
START = "start.PNG"
INIT_IMAGE = "init-image.JPEG"
MASK = "mask.PNG"
PARTS = "slices"  # the folder with the parts of a picture
TRACEBACK = "traceback.txt"
CHECKPOINT = "checkpoint.safetensors"
START_CHECKPOINT = "start.safetensors"  # of the run that this one continues
CHAIN_VIDEO = "chain.mp4"
RESERVE = ".reserve"
OLD_LOCK = ".lock"  # with which earlier versions marked a run that is being computed
PNG_KEY = "details"  # of the text chunk in output.PNG that holds its settings


def image_prompt_name(number: int | str) -> str:
    """The saved copy of an image prompt, counted from 1; "*" gives a pattern for all of them."""
    return f"image-prompt-{number}.JPEG"


def picture_name(number: int) -> str:
    """The file of one of a run's pictures, counted from 1."""
    return PICTURE if number == 1 else f"output-{number}.PNG"


def part_path(folder: Path, number: int) -> Path:
    """The file of a part of a run's picture, where parts are kept, counted from 0."""
    return folder / PARTS / f"{number}.PNG"


def began_at(name: str) -> datetime | None:
    """When the run with that folder name began, in local time; None for other names."""
    try:
        return datetime.strptime(name[:15], FOLDER_TIME)
    except ValueError:
        return None


class Taken(BadInput):
    """Another process owns that run."""


class RunFolder:
    """The folder of one run. Threads that write share one object, whose lock orders the updates."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()

    @property
    def name(self) -> str:
        """The folder's name: RUN_ID in options, links and addresses."""
        return self.path.name

    @property
    def output_dir(self) -> Path:
        """The output folder that it belongs to."""
        home = self.path.parent
        return home.parent if home.name == UPSCALINGS else home

    @property
    def run_id(self) -> str:
        """The last 8 characters of the name."""
        return self.name[-ID_LENGTH:]

    def read(self) -> dict[str, Any]:
        """details.json. Raises BadInput where it is missing or broken."""
        return read_details(self.path)

    def write(self, details: Mapping[str, Any]) -> None:
        """Replace details.json. Raises OSError."""
        with self._lock:
            atomic_write(self.path / DETAILS, to_json(details))

    def update(self, **changes: Any) -> dict[str, Any]:
        """Change some keys of details.json and return them all. Raises BadInput, OSError."""
        with self._lock:
            details = self.read() | changes
            self.write(details)
        return details

    def live_status(self) -> str:
        """The status as `details.status_of` tells it. Raises BadInput as `read` does."""
        return status_of(self.read())

    def proven_status(self, claim: Claim | None = None) -> str:
        """As `live_status`, but a run that its process left is interrupted at once.

        The run's claims prove that on the machine that computed it; on others silence must.
        claim: the caller's claim, which proves it too.
        """
        details = self.read()
        status = status_of(details)
        began = status == "running" and details.get("host")
        if began and (claim or claims.is_abandoned(self.path)):
            return status_of(self.read() | {"heartbeat": None})
        return status

    @contextmanager
    def computing(self, claim: Claim | None = None) -> Iterator[Claim]:
        """Be the only process that computes this run, on all machines that share its folder.

        It ends with the process at the latest. claim: the caller's claim, if it has one already.

        Raises Taken if another process computes it, BadInput if the folder is gone, and RunFailed
        if it cannot be written.
        """
        with ExitStack() as stack:
            try:
                claim = claim or stack.enter_context(claims.claimed(self.path, attended=True))
            except OSError as error:
                raise disk_failure(error) from None
            if claim is None:
                self.read()
                raise Taken(f"The run {self.name} is being computed already.")
            yield claim

    def sweep(self) -> None:
        """Delete what a process that was killed left half-written. Only inside `computing`."""
        for pattern in (".*.tmp", ".*.tmp.mp4", OLD_LOCK):
            for leftover in self.path.glob(pattern):
                leftover.unlink(missing_ok=True)

    def read_progress(self) -> dict[str, Any]:
        """progress.json while the run is being computed, else an empty dict.

        Keys: step, planned_num_steps, steps_per_second, seconds_left (None if endless), losses
        (now, by name), history (up to 200 pairs of step and total loss).
        """
        try:
            return read_json(self.path / PROGRESS)
        except BadInput:
            return {}

    def request_stop(self) -> None:
        """Ask the process that computes this run to stop and keep what is there."""
        (self.path / STOP).touch()

    def forget_stop(self) -> None:
        """Undo `request_stop`."""
        (self.path / STOP).unlink(missing_ok=True)

    def stop_requested(self) -> bool:
        """Whether a stop was requested."""
        return (self.path / STOP).exists()

    def end_series(self) -> None:
        """Let no run follow this one when it ends."""
        (self.path / LAST).touch()

    @property
    def is_last(self) -> bool:
        """Whether `end_series` was called, by any process."""
        return (self.path / LAST).exists()

    @property
    def can_resume(self) -> bool:
        """Whether the run kept a checkpoint from which it can be resumed."""
        return (self.path / CHECKPOINT).is_file()

    def picture_path(self) -> Path | None:
        """The result, under any of the names that layouts gave it; else the last live preview."""
        names = (PICTURE, "output.png", "output.jpg", "output.jpeg", PREVIEW)
        return next((self.path / name for name in names if (self.path / name).is_file()), None)

    def picture_paths(self) -> list[Path]:
        """All pictures of a run that made several; else `picture_path`, if there is one."""
        first = self.picture_path()
        numbers = itertools.count(2)
        further = (self.path / picture_name(number) for number in numbers)
        return ([first] if first else []) + list(itertools.takewhile(Path.is_file, further))

    def video_path(self) -> Path | None:
        """The video, or as much of it as there is."""
        names = (VIDEO, LIVE_VIDEO)
        return next((self.path / name for name in names if (self.path / name).is_file()), None)

    @contextmanager
    def heartbeat(self, claim: Claim) -> Iterator[None]:
        """Refresh details.json's `heartbeat` from a thread, as long as the run is the claim's."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(run_details.HEARTBEAT_SECONDS) and claim.is_newest:
                # The loop of the run reports a full disk at its next write.
                with suppress(OSError, BadInput):
                    self.update(heartbeat=now())

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)


def create_run_folder(output_dir: Path) -> RunFolder:
    """Make a new folder `<YYYYmmddTHHMMSS>-<8 URL-safe characters>`.

    Raises BadInput where the output folder cannot be written.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        while True:
            path = output_dir / f"{datetime.now():{FOLDER_TIME}}-{_new_id()}"
            try:
                path.mkdir()
                return RunFolder(path)
            except FileExistsError:
                continue
    except OSError as error:
        raise unwritable(output_dir, error) from None


def _new_id() -> str:
    while (run_id := secrets.token_urlsafe(6)).startswith("-"):
        pass  # a command line would take a leading dash for an option
    return run_id


def find_run(output_dir: Path, run_id: str) -> RunFolder:
    """The run with that folder name, or the only one whose name ends in those 8 characters.

    Raises BadInput, which lists the latest runs.
    """
    names = [path.name for path in folders(output_dir)]
    matches = [n for n in names if n == run_id] or [
        n for n in names if len(run_id) == ID_LENGTH and n[-ID_LENGTH:] == run_id
    ]
    if len(matches) == 1:
        return RunFolder(output_dir / matches[0])
    if matches:
        raise BadInput(f"'{run_id}' names several runs: {', '.join(sorted(matches))}. Name one.")
    asked, folder = shortened(run_id), shortened(output_dir, MAX_PATH)
    latest = ", ".join(sorted(names, reverse=True)[:5]) or "none"
    raise BadInput(f"There is no run '{asked}' in {folder}. The latest are: {latest}.")


def folders(output_dir: Path) -> list[Path]:
    """The folders in an output folder that may be runs: all that are not hidden, in no order."""
    try:
        return [p for p in output_dir.iterdir() if not p.name.startswith(".") and p.is_dir()]
    except OSError:
        return []
