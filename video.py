"""Frames to an mp4 as they come: H.264, yuv420p, at even size, playable in browsers.

While frames come the file is a fragmented mp4, which stays playable if its writer dies; `finish`
turns it into an ordinary one.
"""

import errno
import os
import struct
import subprocess
import tempfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from errors import RunFailed

FPS = 24
BOX_HEADER = struct.Struct(">I4s")  # size and kind, of which an mp4 is a row
# A fragment a frame and no look-ahead: what was added is there at once, and playable.
FRAGMENTED = ["-movflags", "+frag_every_frame+empty_moov+default_base_moof", "-flush_packets", "1"]
ENCODER = ["-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-crf", "18"]
# Players guess what yuv means where a film does not say.
COLOURS = ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709"]
COLOURS += ["-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]


class VideoWriter:
    """Streams frames [H, W, 3] uint8 of one size into `path` through ffmpeg.

    Memory does not grow with the number of frames. Where ffmpeg cannot go on, methods raise OSError
    for a full disk and RunFailed for anything else.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: int = FPS) -> None:
        self.path = path
        width, height = (side + side % 2 for side in size)  # yuv420p halves the sides
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        command = [*_ffmpeg(), "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
        command += ["-r", str(fps), "-i", "-", "-an", *ENCODER, *COLOURS, "-threads", "1"]
        command += ["-pix_fmt", "yuv420p", "-g", str(fps), *FRAGMENTED, "-f", "mp4", str(path)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._messages,
            process_group=0,  # Ctrl-C in the terminal is for us; the film is to be ended properly
        )

    def add(self, frame: np.ndarray) -> None:
        """Append one frame; odd sides get their last row or column twice."""
        height, width, _ = frame.shape
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            self._process.stdin.write(np.ascontiguousarray(frame).data)
            self._process.stdin.flush()
        except OSError:
            raise self._failure() from None

    def close(self) -> None:
        """Let ffmpeg write what it has, and wait for it."""
        try:
            self._process.stdin.close()
        except OSError:
            pass  # ffmpeg has gone already; its exit status tells
        if self._process.wait() != 0:
            raise self._failure()
        self._messages.close()

    def _failure(self) -> Exception:
        self._process.kill()
        self._process.wait()
        self._messages.seek(0)
        text = self._messages.read().decode(errors="replace").strip()
        if os.strerror(errno.ENOSPC) in text:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reason = text.partition("\n")[0] or "ffmpeg has ended"
        return RunFailed(f"The video cannot be written: {reason}.")


def finish(part: Path, path: Path, comment: str) -> None:
    """Make an ordinary mp4 at `path`, with a comment, of the fragmented one at `part`.

    `path` appears when it is whole; then `part` goes. Where that fails, a disk without room for
    both above all, `part` itself becomes `path`: it plays as well, only without the comment. A part
    without a frame leaves no film.
    """
    _drop_torn_end(part)
    if part.stat().st_size == 0:
        part.unlink()
        return
    beside = path.with_name(f".{path.stem}.tmp.mp4")
    command = [*_ffmpeg(), "-i", str(part), "-c", "copy", "-movflags", "+faststart"]
    command += ["-metadata", f"comment={comment}", str(beside)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, process_group=0
    )
    if done.returncode == 0:
        beside.replace(path)
        part.unlink()
    else:
        beside.unlink(missing_ok=True)
        part.replace(path)


def _drop_torn_end(part: Path) -> None:
    """Cut off a fragment (a box `moof`, then `mdat`) that its writer could not finish."""
    with part.open("r+b") as file:
        end, position, whole = file.seek(0, os.SEEK_END), 0, 0
        while position + BOX_HEADER.size <= end:
            file.seek(position)
            size, kind = BOX_HEADER.unpack(file.read(BOX_HEADER.size))
            position += max(size, BOX_HEADER.size)
            if position <= end and kind in (b"mdat", b"mfra"):
                whole = position
        file.truncate(whole)


def _ffmpeg() -> list[str]:
    try:
        return [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y"]
    except RuntimeError as error:
        raise RunFailed(f"There is no ffmpeg for the video: {error}") from None
