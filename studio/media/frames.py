"""Single frames of a film, counted from 1 as people do. Never imports torch."""

import re
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from studio.base.errors import BadInput, RunFailed
from studio.media.pictures import load_picture
from studio.media.video import ffmpeg

RATE = re.compile(r"([\d.]+) fps\b")
COUNT = re.compile(r"^frame=(\d+)$", re.MULTILINE)


class Length(NamedTuple):
    """How long a film is: its frames, and how many of them make a second."""

    frames: int
    frames_per_second: float


def length(film: Path) -> Length:
    """The length of a film. Raises BadInput for a file that is no film, or is gone."""
    return _length(film, _changed(film))


def frame(film: Path, number: int) -> Image.Image:
    """A frame as RGB. Raises BadInput for a broken film, and for a number that it does not have."""
    count, rate = length(film)
    if not 1 <= number <= count:
        raise BadInput(
            f"There is no frame {number}: the video {film.name} has frames 1 to {count}."
        )
    return _frame(film, _changed(film), number, rate)


def keep_first(film: Path, number: int, path: Path) -> None:
    """The film up to that frame, as another film, not encoded again. Raises BadInput."""
    how = ["-c", "copy", "-frames:v", str(number), "-movflags", "+faststart", str(path)]
    if _ffmpeg(film, how).returncode:
        raise _broken(film)


def _changed(film: Path) -> int:
    try:
        return film.stat().st_mtime_ns
    except OSError:
        raise BadInput(f"The video {film} is not there any more.") from None


@lru_cache(maxsize=64)
def _length(film: Path, mtime_ns: int) -> Length:
    """mtime_ns: of the file, so that a changed film is measured again."""
    done = _ffmpeg(film, ["-c", "copy", "-f", "null", "-progress", "-", "-nostats", "-"])
    told, counted = (text.decode(errors="replace") for text in (done.stderr, done.stdout))
    rate, counts = RATE.search(told), COUNT.findall(counted)
    if done.returncode or not rate or not counts or not float(rate[1]):
        raise _broken(film)
    return Length(int(counts[-1]), float(rate[1]))


@lru_cache(maxsize=8)
def _frame(film: Path, mtime_ns: int, number: int, rate: float) -> Image.Image:
    """ffmpeg shows the first frame that begins at or after a time; see also `_length`."""
    begins = max(0.0, (number - 1.5) / rate)
    how = ["-frames:v", "1", "-f", "image2pipe", "-c:v", "png", "-"]
    done = _ffmpeg(film, how, ["-ss", f"{begins:.6f}"])
    if done.returncode or not done.stdout:
        raise _broken(film)
    return load_picture(done.stdout, f"Frame {number} of the video {film.name}")


def _ffmpeg(
    film: Path, how: list[str], where: list[str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """where: options for reading the film. how: what to do with it. Raises BadInput."""
    try:
        command = [*ffmpeg("info"), *(where or []), "-i", str(film), "-map", "0:v:0", *how]
    except RunFailed as error:
        raise BadInput(*error.parts) from None
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _broken(film: Path) -> BadInput:
    return BadInput(f"The video {film} is broken, so no frame can be taken from it.")
