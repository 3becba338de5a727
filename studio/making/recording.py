"""What a run leaves in its folder, live and at its end, whichever way it ends."""

import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

from studio.base.errors import RunFailed, StudioError
from studio.base.files import atomic_write, disk_failure
from studio.engines import registry
from studio.making import slices
from studio.making.changes import changes_in, in_force
from studio.making.failures import as_failure
from studio.making.film import Film
from studio.making.progress import Progress, finite
from studio.making.run_upscaling import forget_upscaled
from studio.media.pictures import at_size, encode_png
from studio.runs import checkpoints, storage
from studio.runs.checkpoints import Checkpoint
from studio.runs.claims import Claim
from studio.runs.details_keys import OF_THIS_RUN, engine_of
from studio.runs.storage import RunFolder, Taken

if TYPE_CHECKING:
    from studio.engines.contract import Run, Step

CHECKPOINT_SHARE = 0.02  # the largest share of the run's time that checkpoints may take
FILM_LACKS = (
    "The video lacks the steps before step {}, where this run was resumed: its file was changed."
)


class Recording:
    """A context manager around the loop of a run: one save path for done, stopped and failed.

    Use it only inside the folder's `computing`. After `resume`, `checkpoint` is what the engine is
    to continue from. A KeyboardInterrupt inside counts as a request to stop, and is not passed on.
    Other errors are recorded, and passed on as BadInput or RunFailed. Afterwards `status` says how
    the run ended.

    claim: the right to write into the folder. Once another process has taken the run over, nothing
    more is written, and all methods raise Taken.
    """

    def __init__(self, folder: RunFolder, claim: Claim) -> None:
        self.folder = folder
        self._claim = claim
        self.status = "running"
        self.checkpoint: Checkpoint | None = None
        self._details = folder.read()
        self._progress = Progress(folder.path, self.planned_num_steps)
        self._last = LastStep()
        self._run: Run | None = None
        self._facts: dict[str, Any] = {}
        self._film: Film | None = None
        self._next_checkpoint = 0.0
        self._beating = ExitStack()

    @property
    def planned_num_steps(self) -> int:
        """How many steps (with scrolling: frames) to make; -1 to run until stopped."""
        return self._details["planned_num_steps"]

    @property
    def details(self) -> Mapping[str, Any]:
        """details.json as this process wrote it last."""
        return self._details

    @property
    def steps_done(self) -> int:
        """How many steps (with scrolling: frames) are recorded."""
        return self._last.index

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
        self._beating.enter_context(self.folder.heartbeat(self._claim))
        return self

    def resume(self) -> None:
        """Continue from the run's checkpoint, if there is one."""
        path = self.folder.path / storage.CHECKPOINT
        if not path.exists():
            return
        self.checkpoint = checkpoint = checkpoints.read(path)
        self._last.restore(checkpoint)
        self._progress.history.restore(checkpoint.history)
        self._tell()
        forget_upscaled(self.folder)
        self._details = self.folder.read()
        for number in range(len(checkpoint.pictures)):
            (self.folder.path / storage.picture_name(number + 1)).unlink(missing_ok=True)
        self._film = Film(self.folder.path, checkpoint.frames_per_second)
        if self._film.resume(checkpoint.pictures, checkpoint.frames, checkpoint.grows_to):
            self.warn([FILM_LACKS.format(checkpoint.index)])

    def loaded(self, run: "Run", device: str, facts: Mapping[str, Any]) -> None:
        """Note what the run computes on, and the engine's warnings about its input.

        facts: engine and settings, for `Checkpoint`.
        """
        self._run, self._facts = run, dict(facts)
        self._film = self._film or Film(self.folder.path, run.frames_per_second)
        self.warn(run.warnings, device=device, torch_version=_version("torch"))
        self._progress.clock.start()

    def go_on_after(self, index: int, picture: np.ndarray | None) -> None:
        """Let the next step follow that one, as parts are made again, or need not be made.

        picture: as it is without the one, or with the other.
        """
        self._last.go_on_after(index, picture)
        self._progress.history.forget_after(index)
        self._update(num_steps=index)

    @property
    def is_complete(self) -> bool:
        """Whether all steps are made."""
        return 0 <= self.planned_num_steps <= self.steps_done

    def note(self, notes: Mapping[str, Any]) -> None:
        """Keep the run's notes in details.json; see `contract.Run`."""
        if any(self._details.get(name) != value for name, value in notes.items()):
            self._update(**notes)

    def warn(self, warnings: Sequence[str], **changes: Any) -> None:
        """Say it once, however often the run is resumed. changes: of further details."""
        said = self._details["warnings"]
        new = [warning for warning in warnings if warning not in said]
        if new or changes:
            self._update(warnings=[*said, *new], **changes)

    def add(self, step: "Step") -> None:
        """Keep a step: into the film, and now and then into the live files and a checkpoint."""
        self._check_claim()
        assert self._film  # since `loaded`
        slices.keep(self.folder, step.parts)
        self._film.add(step.pictures, step.grows_to)
        self._last.take(step)
        self._progress.add(step.index, step.losses)
        if self._progress.is_due:
            self._tell()
        if step.parts or time.monotonic() >= self._next_checkpoint:
            self._save_checkpoint()

    def show_live(self, enlarge: Callable[[np.ndarray], np.ndarray]) -> None:
        """Show each live picture as `enlarge` makes it."""
        self._progress.enlarge = enlarge

    @property
    def pictures(self) -> Sequence[np.ndarray]:
        """The pictures of the last step that had any, at the size of the finished ones."""
        return at_size(self._last.pictures, self._last.grows_to)

    def text_at_the_end(self, number: int) -> dict[str, str]:
        """The text chunks of one of the run's pictures, if the run ends now because it is done.

        number: of the picture, from 0.
        """
        return self._texts(self._final([]) | {"status": "done"}, number)

    def _texts(self, details: dict[str, Any], number: int) -> dict[str, str]:
        engine = registry.find(engine_of(details))
        beside = engine.texts(details, number) if engine else {}
        return {storage.PNG_KEY: json.dumps(_lasting(details)), **beside}

    def end_film(self) -> None:
        """Let the film be whole in its file, before the run ends. No step may follow."""
        self._save_checkpoint()
        self._close_film()

    def stop(self, pictures: Sequence[np.ndarray] = ()) -> None:
        """Note that the loop ends early because somebody asked for it.

        pictures: to leave behind in place of the last step's. A run that is resumed knows those of
        the step, as its film does.
        """
        self.status = "stopped"
        if len(pictures):
            self._save_checkpoint()
            self._last.pictures = pictures

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._beating.close()
        if not self._claim.is_newest and self._film:
            self._film.abandon()
        self._check_claim()
        if isinstance(error, KeyboardInterrupt):
            self.status = "stopped"
        elif error is None and self.status == "running":
            self.status = "done"
        failures = [as_failure(error, self.folder.path)]
        failures += [_attempt(save) for save in (self._save_checkpoint, self._close_film)]
        final = self._final(failures)
        for save in (self._free_reserve, self._save_pictures, self._save_film):
            failures.append(_attempt(save, final))
        if self.status != "failed" and any(failures):
            final = self._final(failures)
        failures.append(_attempt(self._save_details, final))
        if failure := _first(failures):
            raise failure from None
        return isinstance(error, KeyboardInterrupt)

    def _save_checkpoint(self) -> None:
        """Save the state after the last step, once the film holds the frames before it."""
        began, last = time.monotonic(), self._last
        if self._run is None or last.index == last.saved_index or self._film is None:
            return
        data = self._checkpoint_data(self._run.state_dict, self._film)
        if data is None:
            return
        self._film.settle()
        atomic_write(self.folder.path / storage.CHECKPOINT, data)
        last.saved_index = last.index
        spent = time.monotonic() - began
        pause = self._facts["settings"]["checkpoint_seconds"]
        self._next_checkpoint = began + max(pause, spent / CHECKPOINT_SHARE)

    def _checkpoint_data(
        self, tell_state: Callable[[], Mapping[str, Any]], film: Film
    ) -> bytes | None:
        """None if a signal came between the step and its recording."""
        last = self._last
        try:
            state = tell_state()
            if state.get("frames", last.index) != last.index:
                return None
            checkpoint = Checkpoint(
                index=last.index,
                pictures=last.pictures,
                grows_to=last.grows_to,
                losses=last.losses,
                frames=film.frames,
                frames_per_second=film.frames_per_second,
                state=state,
                history=self._progress.history.as_dict(),
                engine=self._facts["engine"],
                settings=in_force(self._facts["settings"], changes_in(self._details), last.index),
            )
            return checkpoints.encode(checkpoint)
        except Exception as error:  # such as one from a GPU that has failed
            raise RunFailed(f"The run's state cannot be saved: {error}.") from None

    def _tell(self) -> None:
        last = self._last
        self._progress.tell(last.index, last.losses, last.pictures)
        self._update(num_steps=last.index)

    def _check_claim(self) -> None:
        if not self._claim.is_newest:
            raise Taken(f"Another process took over the run {self.folder.name}.")

    def _update(self, **changes: Any) -> None:
        self._check_claim()
        self._details = self.folder.update(**changes)

    def _close_film(self) -> None:
        if self._film:
            self._film.close()

    def _final(self, failures: Sequence[StudioError | None]) -> dict[str, Any]:
        """The details as they stand at the end."""
        failure = _first(failures)
        if failure:
            self.status = "failed"
        return self._details | {
            "status": self.status,
            "error": failure.on_page if failure else None,
            "num_steps": self.steps_done,
            "end_time": storage.now(),
            "heartbeat": storage.now(),
            "steps_per_second": self._progress.clock.steps_per_second,
            "losses": finite(self._last.losses),
            "loss_history": self._progress.history.points,
        }

    def _free_reserve(self, details: dict[str, Any]) -> None:
        (self.folder.path / storage.RESERVE).unlink(missing_ok=True)

    def _save_pictures(self, details: dict[str, Any]) -> None:
        for number, picture in enumerate(self.pictures):
            data = encode_png(Image.fromarray(picture), self._texts(details, number))
            atomic_write(self.folder.path / storage.picture_name(number + 1), data)

    def _save_film(self, details: dict[str, Any]) -> None:
        if self._film:
            self._film.finish(json.dumps(_lasting(details), ensure_ascii=False))

    def _save_details(self, details: dict[str, Any]) -> None:
        """Last, since the details say that the rest is there; then the live files go."""
        self.folder.write(details)
        for name in (storage.PROGRESS, storage.PREVIEW, storage.STOP):
            (self.folder.path / name).unlink(missing_ok=True)


class LastStep:
    """What the last step made, with the pictures of the last step that had any."""

    def __init__(self) -> None:
        self.index = self.saved_index = 0  # saved: the one in the checkpoint file
        self.losses: Mapping[str, float] = {}
        self.pictures: Sequence[Any] = ()
        self.grows_to: tuple[int, int] | None = None

    def take(self, step: "Step") -> None:
        """Replace it by this step."""
        self.index, self.losses = step.index, step.losses
        if len(step.pictures):
            self.pictures, self.grows_to = step.pictures, step.grows_to

    def go_on_after(self, index: int, picture: np.ndarray | None) -> None:
        """Let that be the step, whose losses are not known. It needs no checkpoint."""
        self.index = self.saved_index = index
        if picture is not None:
            self.pictures, self.grows_to = (picture,), None

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up the step that a checkpoint was saved after."""
        self.index = self.saved_index = checkpoint.index
        self.losses, self.pictures = checkpoint.losses, checkpoint.pictures
        self.grows_to = checkpoint.grows_to


def _attempt(save: Callable[..., None], *args: Any) -> StudioError | None:
    """One failure must not keep the rest from being saved."""
    try:
        save(*args)
    except OSError as error:
        return disk_failure(error)
    except StudioError as failure:
        return failure
    return None


def _first(failures: Sequence[StudioError | None]) -> StudioError | None:
    return next(filter(None, failures), None)


def _lasting(details: dict[str, Any]) -> dict[str, Any]:
    """The details that travel in picture and film: the same for the same settings and seed."""
    return {key: value for key, value in details.items() if key not in OF_THIS_RUN}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
