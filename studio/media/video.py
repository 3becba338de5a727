"""Frames to an mp4 as they come: H.264, yuv420p, at even size, playable in browsers.

While frames come, the file is a fragmented mp4, which stays playable if its writer dies. `finish`
turns it into an ordinary mp4.
"""

import errno
import fcntl
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import imageio_ffmpeg
import numpy as np

from studio.base.errors import RunFailed

FPS = 24  # frames per second, unless a run says otherwise
BOX_HEADER = struct.Struct(">I4s")  # size and kind; an mp4 is a row of boxes
BOX_SIZE = struct.Struct(">I")
HEADERS, FRAME, DECODER_BOX = (b"ftyp", b"moov"), b"mdat", b"avcC"
SETTLE_SECONDS = 0.001
# One fragment per frame and no look-ahead: a frame is playable as soon as another follows. The
# first fragment may begin at any time, because a film that is resumed continues at its own end.
FRAGMENTED = ["-movflags", "+frag_every_frame+empty_moov+default_base_moof+frag_discont"]
FRAGMENTED += ["-avoid_negative_ts", "disabled", "-flush_packets", "1", "-f", "mp4"]
ORDINARY = ["-movflags", "+faststart", "-f", "mp4"]
ENCODER = ["-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-crf", "18"]
# Where a film does not say what its yuv means, players guess.
COLOURS = ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709"]
COLOURS += ["-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]


class VideoWriter:
    """Streams frames [H, W, 3] uint8 of one size into `path` through ffmpeg.

    Memory does not grow with the number of frames. All methods raise OSError for a full disk or a
    place that cannot be written, and RunFailed where the film cannot be continued otherwise.

    keep: how many frames of the film at `path` to keep; later frames are dropped. `kept` says how
    many there were, which are fewer only where the film was tampered with.
    fps: frames per second.
    """

    def __init__(self, path: Path, size: tuple[int, int], keep: int = 0, fps: float = FPS) -> None:
        self.path = path
        self._film = path.open("a+b")
        with suppress(OSError):  # where a file system knows no locks
            # ffmpeg holds the lock too: until the ffmpeg of a killed writer has written its last.
            fcntl.flock(self._film, fcntl.LOCK_EX)
        self.kept = self._added = self._settled = _cut(path, keep)
        self._looked_at = path.stat().st_size
        width, height = (side + side % 2 for side in size)  # yuv420p halves the sides
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        command = [*ffmpeg(), "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
        command += ["-r", str(fps), "-i", "-", "-an", *ENCODER, *COLOURS, "-threads", "1"]
        command += ["-pix_fmt", "yuv420p", "-g", str(max(1, round(fps)))]
        command += ["-output_ts_offset", f"{self.kept / fps:.6f}", *FRAGMENTED, "pipe:1"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self._film,
            stderr=self._messages,
            process_group=0,  # Ctrl-C in the terminal is for us, and ffmpeg ends the film properly
        )
        assert self._process.stdin  # a pipe
        self._frames = self._process.stdin

    def add(self, frame: np.ndarray) -> None:
        """Append one frame; odd sides get their last row or column twice."""
        height, width, _ = frame.shape
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            self._frames.write(np.ascontiguousarray(frame).data)
            self._frames.flush()
        except OSError:
            raise self._failure() from None
        self._added += 1

    def settle(self) -> None:
        """Wait until all frames but the last are on the disk, whatever happens next.

        The last frame is written when another follows, as only then is its duration known.
        """
        while not self._all_written():
            if self._process.poll() is not None and not self._all_written():
                raise self._failure()
            time.sleep(SETTLE_SECONDS)
        os.fsync(self._film)

    def _all_written(self) -> bool:
        with self.path.open("r+b") as file:
            for box in _boxes(file, self._looked_at):
                if box.kind in HEADERS and self._settled:
                    _hide(file, box)
                self._settled += box.kind == FRAME
                self._looked_at = box.end
        return self._settled >= self._added - 1

    def close(self) -> None:
        """Let ffmpeg write what it has, and wait for it."""
        with suppress(OSError):  # ffmpeg has ended already; its exit status tells why
            self._frames.close()
        if self._process.wait() != 0:
            raise self._failure()
        self._film.close()
        self._messages.close()

    def abandon(self) -> None:
        """Write nothing more, not even what ffmpeg still has."""
        self._process.kill()
        self._process.wait()
        self._film.close()

    def _failure(self) -> Exception:
        self.abandon()
        self._messages.seek(0)
        return explained(self._messages.read().decode(errors="replace"))


def finish(part: Path, path: Path, comment: str) -> None:
    """Make an ordinary mp4 at `path`, with a comment, from the fragmented mp4 at `part`.

    `path` appears when it is whole; then `part` is deleted. Where that fails, for instance on a
    disk without room for both, `part` itself becomes `path`: it plays as well, but has no comment.
    A part without frames leaves no film.
    """
    if not _cut(part, sys.maxsize):
        part.unlink()
        return
    try:
        _write_beside(path, ["-i", str(part), "-c", "copy", *ORDINARY, *_comment(comment)])
        part.unlink()
    except (OSError, RunFailed):
        part.replace(path)


def unfinish(path: Path, part: Path) -> None:
    """Undo `finish`, to continue the film. Raises OSError or RunFailed."""
    _write_beside(part, ["-i", str(path), "-map", "0:v", "-c", "copy", *FRAGMENTED])
    path.unlink()


def join(films: Sequence[Path], path: Path, comment: str = "") -> None:
    """One film of several, at the size of the last. Raises OSError or RunFailed.

    Films that are encoded alike are joined as they are. Others are scaled to fit and encoded again,
    at the highest of their frame rates: each takes as long as before, and no frame is lost.
    """
    looks = [_look(film) for film in films]
    inputs = [word for film in films for word in ("-i", str(film))]
    with tempfile.TemporaryDirectory() as folder:
        if len({_encoding(film) for film in films}) == 1:
            playlist = Path(folder) / "films"
            playlist.write_text("".join(f"file '{_quoted(film)}'\n" for film in films))
            how = ["-f", "concat", "-safe", "0", "-i", str(playlist), "-c", "copy"]
        else:
            how = [*inputs, "-filter_complex", _fitted(looks), "-map", "[out]"]
            how += [*ENCODER, "-pix_fmt", "yuv420p", *COLOURS[2:]]
        _write_beside(path, [*how, *ORDINARY, *_comment(comment)])


def _write_beside(path: Path, words: Sequence[str]) -> None:
    """Let ffmpeg write a film. It appears at `path` when it is whole."""
    beside = path.with_name(f".{path.stem}.tmp.mp4")
    done = subprocess.run(
        [*ffmpeg(), *words, str(beside)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        process_group=0,
    )
    if done.returncode == 0:
        beside.replace(path)
        return
    beside.unlink(missing_ok=True)
    raise explained(done.stderr)


def _comment(comment: str) -> list[str]:
    return ["-metadata", f"comment={comment}"]


def _quoted(film: Path) -> str:
    return str(film.resolve()).replace("'", r"'\''")


class _Look(NamedTuple):
    """What a film looks like: width and height in pixels, frames per second."""

    width: int
    height: int
    fps: float


def _look(film: Path) -> _Look:
    reader = imageio_ffmpeg.read_frames(str(film))
    try:
        found = next(reader)
        width, height = found["source_size"]
        return _Look(width, height, found["fps"])
    except OSError:
        raise RunFailed(f"The film {film} cannot be read.") from None
    finally:
        reader.close()


def _encoding(film: Path) -> bytes:
    """What a decoder must know of an H.264 film, its size included; the path of other films."""
    with film.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(DECODER_BOX)
        if start < BOX_SIZE.size:
            return bytes(film)
        (size,) = BOX_SIZE.unpack(data[start - BOX_SIZE.size : start])
        return data[start : start - BOX_SIZE.size + size]


def _fitted(looks: Sequence[_Look]) -> str:
    """A filter that scales each input to fit the last one, pads it, and joins them all."""
    width, height, _ = looks[-1]
    fps, count = max(look.fps for look in looks), len(looks)
    fit = (
        f"scale={width}:{height}:force_original_aspect_ratio=decrease:out_color_matrix=bt709"
        f":out_range=tv,pad={width}:{height}:-1:-1,setsar=1,fps={fps}"
    )
    parts = "".join(f"[{n}:v]{fit}[v{n}];" for n in range(count))
    return parts + "".join(f"[v{n}]" for n in range(count)) + f"concat=n={count}[out]"


class _Box(NamedTuple):
    kind: bytes
    start: int
    end: int


def _boxes(file: BinaryIO, start: int = 0) -> Iterator[_Box]:
    """The boxes from there on, except for one that its writer did not finish."""
    end = file.seek(0, os.SEEK_END)
    while start + BOX_HEADER.size <= end:
        file.seek(start)
        size, kind = BOX_HEADER.unpack(file.read(BOX_HEADER.size))
        if size < BOX_HEADER.size or start + size > end:
            return
        yield _Box(kind, start, start + size)
        start += size


def _cut(path: Path, frames: int) -> int:
    """Cut a fragmented film after that many whole frames. Returns how many it has."""
    found = end = 0
    with path.open("r+b") as file:
        for box in _boxes(file):
            if found == frames:
                break
            if box.kind == FRAME:
                found, end = found + 1, box.end
            elif box.kind in HEADERS and found:
                _hide(file, box)
        file.truncate(end)
    return found


def _hide(file: BinaryIO, box: _Box) -> None:
    """Make players skip the header of a film that continues another one in the same file."""
    file.seek(box.start)
    file.write(BOX_HEADER.pack(box.end - box.start, b"free"))


def explained(messages: str) -> Exception:
    """The error for what ffmpeg said as it failed: OSError for a full disk, else RunFailed."""
    if os.strerror(errno.ENOSPC) in messages:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    reason = messages.strip().partition("\n")[0] or "ffmpeg has ended"
    return RunFailed(f"The video cannot be written: {reason}.")


def ffmpeg(tells: str = "error") -> list[str]:
    """The beginning of a command for ffmpeg. Raises RunFailed where there is none.

    tells: how much it tells on stderr, in ffmpeg's words.
    """
    try:
        return [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", tells, "-y"]
    except RuntimeError as error:
        raise RunFailed(f"There is no ffmpeg for the video: {error}") from None
