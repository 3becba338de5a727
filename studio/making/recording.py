"""What a run leaves in its folder, live and at its end, whichever way it ends."""

import json
import math
import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from studio.base import files
from studio.base.errors import RunFailed, StudioError, shortened
from studio.base.files import atomic_write, disk_failure
from studio.media import video
from studio.media.pictures import encode_jpeg, encode_png
from studio.runs import checkpoints, storage
from studio.runs.checkpoints import Checkpoint
from studio.runs.storage import RunFolder

if TYPE_CHECKING:
    from studio.engines.contract import Step

OF_THIS_RUN = (
    *("run_id", "run_folder"),
    *("queued_at", "start_time", "end_time", "heartbeat", "steps_per_second", "host"),
    *("crashes", "last_crash", "loss_history"),
)
LIVE_SECONDS = 0.25
LIVE_SHARE = 0.02  # of the run's time, at most, may go into its live picture
LIVE_QUALITY = 85
CHECKPOINT_SHARE = 0.02  # of the run's time, at most, may go into its checkpoints
HISTORY_POINTS = 200
RESERVE_BYTES = 300_000  # room for details, beside the room for the picture
FILM_LACKS = (
    "The video does not hold the steps before this run was resumed at step {}: it had been changed."
)


class Recording:
    """A context manager around the loop of a run: one save path for done, stopped and failed.

    Only under the folder's `computing`. After `resume`, `checkpoint` is what the engine is to go on
    from. KeyboardInterrupt inside counts as a wish to stop, and ends here. Other errors are
    recorded and go on as BadInput or RunFailed. `status` then says what became of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.status = "running"
        self._details = folder.read()
        self._step: Step | Checkpoint | None = None
        self.checkpoint: Checkpoint | None = None
        self._saved_step = 0  # the one in the checkpoint file
        self._tell_state: Callable[[], Mapping[str, Any]] | None = None
        self._facts: dict[str, Any] = {}
        self._film: video.VideoWriter | None = None
        self._history = History(HISTORY_POINTS)
        self._clock = Clock()
        self._next_look = self._next_checkpoint = 0.0
        self._beating = ExitStack()

    @property
    def planned_num_steps(self) -> int:
        """How many steps (with scrolling: frames) to make; -1 for as many as there is time."""
        return self._details["planned_num_steps"]

    @property
    def steps_done(self) -> int:
        """How many steps (with scrolling: frames) are in the film."""
        return self._step.index if self._step else 0

    def __enter__(self) -> Self:
        began = self._details.get("start_time") or storage.now()
        try:
            self._update(
                status="running",
                start_time=began,
                heartbeat=storage.now(),
                host=socket.gethostname(),
            )
            self.folder.sweep()
        except OSError as error:
            raise disk_failure(error) from None
        self._beating.enter_context(self.folder.heartbeat())
        return self

    def loaded(
        self,
        device: str,
        warnings: list[str],
        tell_state: Callable[[], Mapping[str, Any]],
        facts: Mapping[str, Any],
    ) -> None:
        """Note what the run computes on, and what the engine has to say about its input.

        tell_state: the engine's `state_dict`. facts: model and settings, for `Checkpoint`.
        """
        self._tell_state, self._facts = tell_state, dict(facts)
        self._warn(warnings, device=device, torch_version=_version("torch"))
        self._clock.start()

    def note(self, notes: Mapping[str, Any]) -> None:
        """Keep in details.json what came up on the way; see `logic.Run`."""
        if any(self._details.get(name) != value for name, value in notes.items()):
            self._update(**notes)

    def add(self, step: "Step") -> None:
        """Keep a step: into the film, and now and then into the live files and a checkpoint."""
        film = self._film or self._begin_film(step)
        film.add(step.picture)
        self._step = step
        self._clock.tick()
        self._history.add(step.index, step.losses["total"])
        if time.monotonic() >= self._next_look:
            self._show(step)
        if time.monotonic() >= self._next_checkpoint:
            self._save_checkpoint()

    def resume(self) -> None:
        """Take up what a checkpoint holds, if there is one, and the film as far as that."""
        path = self.folder.path / storage.CHECKPOINT
        if not path.exists():
            return
        self._step = self.checkpoint = checkpoint = checkpoints.read(path)
        self._saved_step = checkpoint.index
        self._history.restore(checkpoint.history)
        self._show(checkpoint)
        part, film = (self.folder.path / name for name in (storage.LIVE_VIDEO, storage.VIDEO))
        if film.exists() and not part.exists():
            video.unfinish(film, part)
        for name in (storage.VIDEO, storage.PICTURE):
            self._remove(name)
        # The last frame is in the checkpoint, and maybe not in the film; see `VideoWriter.settle`.
        writer = self._begin_film(checkpoint, keep=checkpoint.index - 1)
        writer.add(checkpoint.picture)
        if writer.kept < checkpoint.index - 1:
            self._warn([FILM_LACKS.format(checkpoint.index)])

    def _begin_film(self, step: "Step | Checkpoint", keep: int = 0) -> video.VideoWriter:
        height, width, _ = step.picture.shape
        room = RESERVE_BYTES + height * width * 3
        atomic_write(self.folder.path / storage.RESERVE, os.urandom(room))
        part = self.folder.path / storage.LIVE_VIDEO
        self._film = video.VideoWriter(part, (width, height), keep)
        return self._film

    def _save_checkpoint(self) -> None:
        """Save the state after the last step, once the film holds the frames before it."""
        began, step = time.monotonic(), self._step
        if step is None or self._tell_state is None or step.index == self._saved_step:
            return
        data = self._checkpoint_of(step)
        if data is None:
            return
        self._film.settle()
        atomic_write(self.folder.path / storage.CHECKPOINT, data)
        self._saved_step = step.index
        spent = time.monotonic() - began
        pause = self._facts["settings"]["checkpoint_seconds"]
        self._next_checkpoint = began + max(pause, spent / CHECKPOINT_SHARE)

    def _checkpoint_of(self, step: "Step | Checkpoint") -> bytes | None:
        """None where a signal came between the step and its recording."""
        facts = {"index": step.index, "picture": step.picture, "losses": step.losses}
        try:
            state = self._tell_state()
            if state.get("frames", step.index) != step.index:
                return None
            history = self._history.as_dict()
            return checkpoints.encode(
                Checkpoint(**facts, state=state, history=history, **self._facts)
            )
        except Exception as error:  # such as of a GPU that has failed
            raise RunFailed(f"The run's state cannot be saved: {error}.") from None

    def stop(self) -> None:
        """Note that the loop ends before its time because somebody wished it."""
        self.status = "stopped"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._beating.close()
        if isinstance(error, KeyboardInterrupt):
            self.status = "stopped"
        elif error is None and self.status == "running":
            self.status = "done"
        failures = [self._as_failure(error)]
        failures += [self._attempt(save) for save in (self._save_checkpoint, self._close_film)]
        final = self._final(failures)
        for save in (self._free_reserve, self._save_picture, self._save_film):
            failures.append(self._attempt(save, final))
        if self.status != "failed" and any(failures):
            final = self._final(failures)
        failures.append(self._attempt(self._save_details, final))
        if failure := _first(failures):
            raise failure from None
        return isinstance(error, KeyboardInterrupt)

    def _show(self, step: "Step") -> None:
        began = time.monotonic()
        picture = encode_jpeg(Image.fromarray(step.picture), LIVE_QUALITY)
        atomic_write(self.folder.path / storage.PREVIEW, picture, durable=False)
        progress = files.to_json(self._progress(step))
        atomic_write(self.folder.path / storage.PROGRESS, progress, durable=False)
        self._update(num_steps=step.index)
        spent = time.monotonic() - began
        self._next_look = began + max(LIVE_SECONDS, spent / LIVE_SHARE)

    def _progress(self, step: "Step") -> dict[str, Any]:
        planned, rate = self.planned_num_steps, self._clock.steps_per_second
        return {
            "step": step.index,
            "planned_num_steps": planned,
            "steps_per_second": rate,
            "seconds_left": (planned - step.index) / rate if planned > 0 and rate else None,
            "losses": _finite(step.losses),
            "history": self._history.points,
        }

    def _warn(self, warnings: Sequence[str], **changes: Any) -> None:
        """Say it once, however often the run is resumed."""
        said = self._details["warnings"]
        self._update(warnings=[*said, *(w for w in warnings if w not in said)], **changes)

    def _update(self, **changes: Any) -> None:
        self._details = self.folder.update(**changes)

    def _as_failure(self, error: BaseException | None) -> StudioError | None:
        if error is None or isinstance(error, KeyboardInterrupt):
            return None
        if isinstance(error, StudioError):
            return error
        if isinstance(error, OSError):
            return disk_failure(error)
        try:
            text = "".join(traceback.format_exception(error))
            atomic_write(self.folder.path / storage.TRACEBACK, text.encode(errors="replace"))
        except OSError:
            pass
        return RunFailed(
            f"The run broke off: {type(error).__name__}: {shortened(error, 300)}."
            f" {storage.TRACEBACK} in its folder says where; please report it."
        )

    def _attempt(self, save: Callable[..., None], *args: Any) -> StudioError | None:
        """One failure must not keep the rest from being saved."""
        try:
            save(*args)
        except OSError as error:
            return disk_failure(error)
        except StudioError as failure:
            return failure
        return None

    def _close_film(self) -> None:
        if self._film:
            self._film.close()

    def _final(self, failures: Sequence[StudioError | None]) -> dict[str, Any]:
        """The details as they stay."""
        failure = _first(failures)
        if failure:
            self.status = "failed"
        return self._details | {
            "status": self.status,
            "error": failure.on_page if failure else None,
            "num_steps": self.steps_done,
            "end_time": storage.now(),
            "heartbeat": storage.now(),
            "steps_per_second": self._clock.steps_per_second,
            "losses": _finite(self._step.losses) if self._step else {},
            "loss_history": self._history.points,
        }

    def _free_reserve(self, details: dict[str, Any]) -> None:
        self._remove(storage.RESERVE)

    def _save_picture(self, details: dict[str, Any]) -> None:
        if not self._step:
            return
        text = {storage.PNG_KEY: json.dumps(_lasting(details))}
        data = encode_png(Image.fromarray(self._step.picture), text)
        atomic_write(self.folder.path / storage.PICTURE, data)

    def _save_film(self, details: dict[str, Any]) -> None:
        if not self._step:
            return
        comment = json.dumps(_lasting(details), ensure_ascii=False)
        part = self.folder.path / storage.LIVE_VIDEO
        video.finish(part, self.folder.path / storage.VIDEO, comment)

    def _save_details(self, details: dict[str, Any]) -> None:
        """Last, since they say that the rest is there; then what was for the meantime goes."""
        self.folder.write(details)
        for name in (storage.PROGRESS, storage.PREVIEW, storage.STOP):
            self._remove(name)

    def _remove(self, name: str) -> None:
        (self.folder.path / name).unlink(missing_ok=True)


class History:
    """The course of a number in at most `limit` evenly spread points [step, value]."""

    def __init__(self, limit: int) -> None:
        self.points: list[tuple[int, float | None]] = []
        self._limit = limit
        self._stride = 1

    def add(self, step: int, value: float) -> None:
        """Take in the value of a step, counted from 1."""
        if (step - 1) % self._stride:
            return
        self.points.append((step, value if math.isfinite(value) else None))
        if len(self.points) > self._limit:
            self.points = self.points[::2]
            self._stride *= 2

    def as_dict(self) -> dict[str, Any]:
        """All that `restore` needs, for JSON."""
        return {"points": self.points, "stride": self._stride}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on with what `as_dict` gave."""
        self.points = [(step, value) for step, value in saved["points"]]
        self._stride = saved["stride"]


class Clock:
    """Steps per second; the first step, which warms up, does not count beside others."""

    def __init__(self) -> None:
        self._began = self._first = self._last = time.monotonic()
        self._steps = 0

    def start(self) -> None:
        """The first step begins now."""
        self._began = time.monotonic()

    def tick(self) -> None:
        """A step is done."""
        self._last = time.monotonic()
        self._steps += 1
        if self._steps == 1:
            self._first = self._last

    @property
    def steps_per_second(self) -> float | None:
        """The rate so far; None before the first step."""
        steps, since = (self._steps - 1, self._first) if self._steps > 1 else (1, self._began)
        seconds = self._last - since
        return round(steps / seconds, 4) if self._steps and seconds > 0 else None


def _first(failures: Sequence[StudioError | None]) -> StudioError | None:
    return next(filter(None, failures), None)


def _lasting(details: dict[str, Any]) -> dict[str, Any]:
    """The details that travel in picture and film: the same for the same settings and seed."""
    return {key: value for key, value in details.items() if key not in OF_THIS_RUN}


def _finite(losses: dict[str, float]) -> dict[str, float | None]:
    """JSON knows no nan."""
    return {name: value if math.isfinite(value) else None for name, value in losses.items()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
