"""Run folders: their names, their files, what they say about themselves. Never imports torch.

Whoever makes a run and whoever looks at it meet in its folder only. Every file there is whole or
absent at every moment: it is written beside its place and renamed.
"""

import itertools
import secrets
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from studio.base.errors import BadInput, shortened
from studio.base.files import MAX_PATH, atomic_write, disk_failure, read_json, to_json, unwritable

SCHEMA_VERSION = 1
HEARTBEAT_SECONDS = 5.0
SILENT_SECONDS = 30.0
FOLDER_TIME = "%Y%m%dT%H%M%S"  # with which a run folder's name begins
ID_LENGTH = 8
ACTIVE = ("queued", "running")

PICTURE = "output.PNG"
VIDEO = "anim.mp4"
LIVE_VIDEO = "anim.part.mp4"
DETAILS = "details.json"
PROGRESS = "progress.json"
PREVIEW = "preview.JPEG"
STOP = "stop"
START = "start.PNG"
INIT_IMAGE = "init-image.JPEG"
TRACEBACK = "traceback.txt"
CHECKPOINT = "checkpoint.safetensors"
START_CHECKPOINT = "start.safetensors"  # of the run that this one goes on from
CHAIN_VIDEO = "chain.mp4"
RESERVE = ".reserve"
LOCK = ".lock"
PNG_KEY = "details"  # of the text chunk in which output.PNG carries its settings


def image_prompt_name(number: int | str) -> str:
    """The saved copy of an image prompt, counted from 1; "*" for a pattern of all."""
    return f"image-prompt-{number}.JPEG"


def picture_name(number: int) -> str:
    """The file of one of a run's pictures, counted from 1."""
    return PICTURE if number == 1 else f"output-{number}.PNG"


def began_at(name: str) -> datetime | None:
    """When the run of that folder name began, in local time; None for other names."""
    try:
        return datetime.strptime(name[:15], FOLDER_TIME)
    except ValueError:
        return None


def now() -> str:
    """The time as ISO 8601 with the zone, to the millisecond."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


class Taken(BadInput):
    """Another process computes that run right now."""


class RunFolder:
    """One folder of a run. Writers share one object, whose lock keeps the details in step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()

    @property
    def name(self) -> str:
        """What RUN_ID means in options, links and addresses."""
        return self.path.name

    @property
    def run_id(self) -> str:
        """The last 8 characters of the name."""
        return self.name[-ID_LENGTH:]

    def read(self) -> dict[str, Any]:
        """details.json. Raises BadInput where it is missing or broken."""
        return read_json(self.path / DETAILS)

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
        """queued, running, done, stopped, failed, or interrupted: running, but long silent.

        Folders of the older layout have no status: they are done. Raises BadInput as `read` does.
        """
        return status_of(self.read())

    def proven_status(self) -> str:
        """As `live_status`, but a run whose process is gone is interrupted at once.

        The run's lock proves it on the machine that computes it; elsewhere its silence must.
        """
        details = self.read()
        status = status_of(details)
        if status != "running" or details.get("host") != socket.gethostname():
            return status
        try:
            with self.computing():
                return status_of(self.read() | {"heartbeat": None})
        except Taken:
            return status

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Be the only one who computes this run, be it from the queue or not.

        Ends with the process at the latest.

        Raises Taken where somebody else does, RunFailed where the folder cannot be written.
        """
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise Taken(f"The run {self.name} is being computed already.") from None
        except OSError as error:
            raise disk_failure(error) from None
        try:
            yield
        finally:
            (self.path / LOCK).unlink(missing_ok=True)
            lock.release()

    def sweep(self) -> None:
        """Clear away what a writer that was killed left half-written. Only under `computing`."""
        for leftover in (*self.path.glob(".*.tmp"), *self.path.glob(".*.tmp.mp4")):
            leftover.unlink(missing_ok=True)

    def read_progress(self) -> dict[str, Any]:
        """progress.json while the run goes on, else an empty dict.

        Keys: step, planned_num_steps, steps_per_second, seconds_left (None if endless), losses
        (now, by name), history (up to 200 pairs of step and total loss).
        """
        try:
            return read_json(self.path / PROGRESS)
        except BadInput:
            return {}

    def request_stop(self) -> None:
        """Ask whoever makes this run to stop and keep what is there."""
        (self.path / STOP).touch()

    def forget_stop(self) -> None:
        """Take back what `request_stop` asked."""
        (self.path / STOP).unlink(missing_ok=True)

    def stop_requested(self) -> bool:
        """Whether somebody asked."""
        return (self.path / STOP).exists()

    @property
    def can_resume(self) -> bool:
        """Whether it kept a checkpoint, from which it can go on."""
        return (self.path / CHECKPOINT).is_file()

    def picture_path(self) -> Path | None:
        """The result, under whichever name the layout gives it; else the last live preview."""
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
    def heartbeat(self) -> Iterator[None]:
        """Refresh details.json's `heartbeat` from a thread."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(HEARTBEAT_SECONDS):
                try:
                    self.update(heartbeat=now())
                except (OSError, BadInput):
                    pass  # a full disk is the loop's to report, at its next write

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


def status_of(details: Mapping[str, Any]) -> str:
    """`RunFolder.live_status` for details that are read already."""
    status = str(details.get("status", "done"))
    return "interrupted" if status == "running" and _is_silent(details) else status


def _is_silent(details: Mapping[str, Any]) -> bool:
    try:
        last = datetime.fromisoformat(str(details.get("heartbeat")))
        return (datetime.now().astimezone() - last).total_seconds() > SILENT_SECONDS
    except (ValueError, TypeError):
        return True


def create_run_folder(output_dir: Path) -> RunFolder:
    """Make a folder `<YYYYmmddTHHMMSS>-<8 URL-safe characters>` that nobody else has.

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
        pass  # a leading dash would read as an option on a command line
    return run_id


def find_run(output_dir: Path, run_id: str) -> RunFolder:
    """The run of that folder name, or of those last 8 characters where only one has them.

    Raises BadInput that lists the latest runs.
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
    """What may be a run in an output folder: every folder that is not hidden, in no order."""
    try:
        return [p for p in output_dir.iterdir() if not p.name.startswith(".") and p.is_dir()]
    except OSError:
        return []
