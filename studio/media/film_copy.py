"""A film again with other frames: at the same rate, with its sound. Never imports torch."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from studio.base.errors import BadInput
from studio.media.frames import length
from studio.media.video import COLOURS, ENCODER, ORDINARY, explained, ffmpeg

# ffmpeg rounds the rates of NTSC to two places.
NTSC = {"23.98": "24000/1001", "29.97": "30000/1001", "59.94": "60000/1001"}
NTSC |= {"119.88": "120000/1001", "47.95": "48000/1001"}
SUFFIXES = ("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ogv", "wmv", "flv", "ts")


def rate_of(film: Path) -> str:
    """Frames per second, as ffmpeg takes it. Raises BadInput for a file that is no film."""
    found = f"{length(film).frames_per_second:g}"
    return NTSC.get(found, found)


def frames_of(film: Path) -> Iterator[np.ndarray]:
    """The frames of a film one by one, as RGB [H, W, 3]. Raises BadInput."""
    command = [*ffmpeg(), "-i", str(film), "-map", "0:v:0", "-fps_mode", "passthrough"]
    command += ["-f", "image2pipe", "-c:v", "ppm", "-"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout  # a pipe
    try:
        while (frame := _next_ppm(process.stdout)) is not None:
            yield frame
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _next_ppm(stream: IO[bytes]) -> np.ndarray | None:
    """The next picture of a row of PPMs: "P6", its width and height, 255, then its bytes."""
    if not stream.readline():
        return None
    width, height = map(int, stream.readline().split())
    stream.readline()
    data = stream.read(width * height * 3)
    if len(data) < width * height * 3:
        return None
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


class FilmCopy:
    """Writes frames [H, W, 3] of one size to `path`, with sound and details of `film`.

    A context manager: the film appears when all went well. Raises OSError for a full disk, and
    RunFailed.
    """

    def __init__(self, film: Path, path: Path) -> None:
        self.film, self.path = film, path
        self._beside = path.with_name(f".{path.stem}.tmp.mp4")
        self._rate = rate_of(film)
        self._process: subprocess.Popen[bytes] | None = None
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)

    def add(self, frame: np.ndarray) -> None:
        """Append a frame; odd sides get their last row or column twice."""
        height, width, _ = frame.shape
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._process = self._process or self._begin((frame.shape[1], frame.shape[0]))
        assert self._process.stdin  # a pipe
        try:
            self._process.stdin.write(np.ascontiguousarray(frame).data)
        except OSError:
            self._process.wait()
            raise self._failure() from None

    def _begin(self, size: tuple[int, int]) -> "subprocess.Popen[bytes]":
        command = [*ffmpeg(), "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}"]
        command += ["-r", self._rate, "-i", "-", "-i", str(self.film), "-map", "0:v"]
        command += ["-map", "1:a?", "-map_metadata", "1", *_sound(self.film), *ENCODER, *COLOURS]
        command += ["-pix_fmt", "yuv420p", *ORDINARY, str(self._beside)]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._messages
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._end()
            self._beside.unlink(missing_ok=True)
            self._messages.close()

    def _finish(self) -> None:
        if self._process is None:
            raise BadInput(f"The video {self.film} has no frames that can be read.")
        assert self._process.stdin  # a pipe
        with suppress(OSError):  # ffmpeg has ended already; its exit status tells why
            self._process.stdin.close()
        if self._process.wait() != 0:
            raise self._failure()
        self._beside.replace(self.path)

    def _end(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def _failure(self) -> Exception:
        self._messages.seek(0)
        return explained(self._messages.read().decode(errors="replace"))


def _sound(film: Path) -> list[str]:
    """How to keep the sound: as it is where an mp4 can hold it, else as AAC."""
    with tempfile.TemporaryDirectory() as folder:
        probe = ["-i", str(film), "-map", "0:a?", "-map", "0:v:0", "-t", "0.1", "-c:a", "copy"]
        probe += ["-c:v", "libx264", "-f", "mp4", str(Path(folder) / "probe.mp4")]
        done = subprocess.run(
            [*ffmpeg(), *probe], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    return ["-c:a", "copy"] if done.returncode == 0 else ["-c:a", "aac"]
