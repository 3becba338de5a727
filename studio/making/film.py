"""The film of a run, with room on the disk kept for what is saved at its end."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from studio.base.errors import RunFailed
from studio.base.files import atomic_write
from studio.media import video
from studio.media.pictures import at_size, tiled
from studio.runs import storage

MAX_SIDE = 4096  # of a frame in pixels; players know no larger ones
RESERVE_BYTES = 300_000  # room for details.json, besides the room for the picture


class Film:
    """The frames of a run, streamed into its folder from the first picture on.

    Several pictures of a step stand side by side in its frame. `frames` counts them. Pictures that
    grow are enlarged to one size.
    """

    def __init__(self, folder: Path, frames_per_second: float) -> None:
        self._folder = folder
        self.frames_per_second = frames_per_second
        self._writer: video.VideoWriter | None = None
        self._shape: tuple[int, ...] = ()
        self.frames = 0

    @property
    def _part(self) -> Path:
        return self._folder / storage.LIVE_VIDEO

    def add(self, pictures: Sequence[np.ndarray], grows_to: tuple[int, int] | None = None) -> None:
        """Append a frame, or nothing for a step without a picture. Raises OSError, RunFailed.

        grows_to: as in `Step`.
        """
        if not len(pictures):
            return
        frame = tiled(at_size(pictures, film_size(pictures, grows_to)))
        self._writer = self._writer or self._begin(frame)
        if frame.shape != self._shape:
            raise RunFailed(
                f"The run's pictures changed their size, from {self._shape[1]}x{self._shape[0]} to"
                f" {frame.shape[1]}x{frame.shape[0]}. This is a fault of the engine; please report"
                " it."
            )
        self._writer.add(frame)
        self.frames += 1

    def resume(
        self,
        pictures: Sequence[np.ndarray],
        frames: int,
        grows_to: tuple[int, int] | None = None,
    ) -> int:
        """Continue a film that had so many frames; returns how many of them are missing.

        pictures: those of its last frame, which may not be in the file; see `VideoWriter.settle`.
        """
        if not frames:
            return 0
        finished = self._folder / storage.VIDEO
        if finished.exists() and not self._part.exists():
            video.unfinish(finished, self._part)
        finished.unlink(missing_ok=True)
        frame = tiled(at_size(pictures, film_size(pictures, grows_to)))
        self._writer = self._begin(frame, keep=frames - 1)
        self._writer.add(frame)
        self.frames = frames
        return frames - 1 - self._writer.kept

    def settle(self) -> None:
        """Wait until all frames but the last are on the disk."""
        if self._writer:
            self._writer.settle()

    def close(self) -> None:
        """Let the encoder write what it has."""
        if self._writer:
            self._writer.close()

    def abandon(self) -> None:
        """Write nothing more, as another process has the film now."""
        if self._writer:
            self._writer.abandon()

    def finish(self, comment: str) -> None:
        """Turn it into an ordinary film with a comment; do nothing if there is no frame."""
        if self.frames:
            video.finish(self._part, self._folder / storage.VIDEO, comment)

    def _begin(self, frame: np.ndarray, keep: int = 0) -> video.VideoWriter:
        room = RESERVE_BYTES + frame.size
        atomic_write(self._folder / storage.RESERVE, os.urandom(room))
        self._shape = height, width, _ = frame.shape
        return video.VideoWriter(self._part, (width, height), keep, self.frames_per_second)


def film_size(pictures: Sequence[np.ndarray], grows_to: tuple[int, int] | None) -> tuple[int, int]:
    """Width and height of each picture in a film: the finished one's, within MAX_SIDE."""
    width, height = grows_to or pictures[0].shape[1::-1]
    scale = min(1.0, MAX_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
