"""Carrying out an upscaling that a person asked for. It imports torch when it computes."""

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput, DiskFull, RunFailed, StudioError
from studio.base.files import atomic_write, is_full, to_json
from studio.base.stopping import Stop
from studio.making.failures import as_failure
from studio.making.run_upscaling import EitherStop, check_ended, note_upscaled
from studio.making.upscaling import Enlarger, Upscaling, target_for
from studio.runs import storage, upscalings
from studio.runs.claims import Claim, claimed
from studio.runs.storage import RunFolder, Taken
from studio.runs.upscalings import SHARE, Asked

TOLD_SECONDS = 0.25  # between two writes of the progress
WENT_ON = "The run went on meanwhile. Upscale it again once it has ended."
Made = Mapping[Path, Mapping[str, Any]]  # the origins of large pictures, by their files


def execute(
    job: RunFolder,
    *,
    assets_dir: Path,
    gpu: int | None = None,
    on_step: Callable[[None], None] | None = None,
    stop: Stop | None = None,
    claim: Claim | None = None,
) -> str:
    """Carry out the upscaling of that folder; returns "done" or "stopped".

    The arguments are those of `execute.execute`; on_step is called after each tile. The pictures
    appear in the run's folder all at once. Then the upscaling's own folder goes, as it does where
    the run is gone. Raises BadInput and RunFailed after recording them, and Taken.
    """
    with job.computing(claim) as claim:
        try:
            _begin(job)
            with job.heartbeat(claim):
                _Upscaling(job, claim, on_step).carry_out(assets_dir, gpu, stop or Stop())
        except KeyboardInterrupt:
            _end(job, status="stopped")
            return "stopped"
        except Taken:
            raise
        except Exception as error:
            if not _is_run_gone(job):
                failure = _failure(error, job)
                _end(job, status="failed", error=failure.on_page)
                raise failure from None
        job.remove()
        return "done"


def _begin(job: RunFolder) -> None:
    job.sweep()
    beat = {"start_time": storage.now(), "heartbeat": storage.now(), "host": socket.gethostname()}
    job.update(status="running", error=None, **beat)


def _end(job: RunFolder, **how: Any) -> None:
    """Say how it ended without a large picture, and leave nothing of one."""
    for path in (job.path / storage.PROGRESS, *job.path.glob("*-x*")):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # a disk that is still full: then it counts as interrupted
        job.update(**how, end_time=storage.now())


class _Upscaling:
    """One upscaling while it is computed."""

    def __init__(
        self, job: RunFolder, claim: Claim, on_step: Callable[[None], None] | None
    ) -> None:
        self._job, self._claim, self._on_step = job, claim, on_step
        self._asked = _asked(job)
        self._run = RunFolder(job.output_dir / self._asked.run)
        self._told = 0.0

    def carry_out(self, assets_dir: Path, gpu: int | None, stop: Stop) -> None:
        check_ended(self._run)
        sources = self._run.picture_paths()
        before = [_stamp(path) for path in sources]
        work = Enlarger(Upscaling(self._asked.scale, self._asked.model), assets_dir, gpu)
        stop, made = EitherStop(stop, self._job), {}
        for number, source in enumerate(sources):
            target = target_for(source, self._asked.scale, self._job.path)

            def tell(share: float, number: int = number) -> None:
                self._tell((number + share) / len(sources))

            made[target] = work.picture(source, target, tell, stop)
        if not self._claim.is_newest:
            raise Taken(f"Another process took over {self._job.name}.")
        self._publish(made, is_same=lambda: [_stamp(path) for path in sources] == before)

    def _tell(self, share: float) -> None:
        if self._on_step:
            self._on_step(None)
        if time.monotonic() >= self._told + TOLD_SECONDS:
            progress = to_json({SHARE: round(share, 4)})
            atomic_write(self._job.path / storage.PROGRESS, progress, durable=False)
            self._told = time.monotonic()

    def _publish(self, made: Made, is_same: Callable[[], bool]) -> None:
        """Move the pictures into the run's folder. Nobody else may change the run meanwhile."""
        with claimed(self._run.path, attended=True) as claim:
            if claim is None or not is_same():
                raise BadInput(WENT_ON)
            check_ended(self._run)
            for path, origin in made.items():
                path.replace(self._run.path / path.name)
                note_upscaled(self._run, self._run.path / path.name, origin)


def _asked(job: RunFolder) -> Asked:
    asked = upscalings.asked_in(job.read())
    if asked is None:
        raise BadInput(f"{job.name} does not say what to upscale.")
    return asked


def _is_run_gone(job: RunFolder) -> bool:
    """Whether the run was removed: then there is nothing to upscale, and nobody to tell."""
    asked = upscalings.asked_in(job.read())
    return asked is not None and not (job.output_dir / asked.run).is_dir()


def _failure(error: Exception, job: RunFolder) -> StudioError:
    if isinstance(error, OSError):
        if is_full(error):
            return DiskFull(
                "The disk is full, so the picture was not upscaled. Free some space, then upscale"
                " it again."
            )
        return RunFailed(f"The large picture cannot be written: {error.strerror or error}.")
    return as_failure(error, job.path) or RunFailed(str(error))


def _stamp(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_size
