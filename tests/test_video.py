"""Films: every frame once, at any size, whole whatever happens."""

import json
import os
import re
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from studio.base.errors import RunFailed
from studio.media import video


def frames(count, size, seed=0):
    width, height = size
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    for n in range(count):
        yield np.roll(picture, n, axis=0)


def write(path, count, size):
    writer = video.VideoWriter(path, size)
    for frame in frames(count, size):
        writer.add(frame)
    writer.close()


def facts(path):
    """What ffmpeg says of a file."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def decoded(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    try:
        width, height = next(reader)["source_size"]
    except OSError:
        return []  # there is nothing yet
    return [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader]


@pytest.mark.parametrize("size", [(32, 32), (33, 17), (1, 1), (64, 8)])
def test_every_frame_once_at_any_size(tmp_path, size):
    part, path = tmp_path / "anim.part.mp4", tmp_path / "anim.mp4"
    write(part, 50, size)
    video.finish(part, path, "")
    assert [p.name for p in tmp_path.iterdir()] == ["anim.mp4"]
    width, height = (side + side % 2 for side in size)
    text = facts(path)
    assert "h264" in text and "yuv420p" in text and "24 fps" in text and f"{width}x{height}" in text
    assert len(decoded(path)) == imageio_ffmpeg.count_frames_and_secs(str(path))[0] == 50


def test_one_frame_is_a_film(tmp_path):
    write(tmp_path / "a.mp4", 1, (16, 16))
    video.finish(tmp_path / "a.mp4", tmp_path / "b.mp4", "")
    assert len(decoded(tmp_path / "b.mp4")) == 1


def test_frames_come_as_given_and_in_order(tmp_path):
    greys = [np.full((32, 32, 3), 20 + 4 * n, np.uint8) for n in range(50)]
    writer = video.VideoWriter(tmp_path / "a.mp4", (32, 32))
    for frame in greys:
        writer.add(frame)
    writer.close()
    means = [frame.mean() for frame in decoded(tmp_path / "a.mp4")]
    assert np.abs(np.array(means) - [frame.mean() for frame in greys]).max() < 3


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)])
def test_colours_are_kept(tmp_path, colour):
    writer = video.VideoWriter(tmp_path / "a.mp4", (32, 32))
    writer.add(np.full((32, 32, 3), colour, np.uint8))
    writer.close()
    (frame,) = decoded(tmp_path / "a.mp4")
    assert np.abs(frame.astype(int) - colour).max() <= 6
    assert "bt709" in facts(tmp_path / "a.mp4")


def test_index_comes_first_for_browsers(tmp_path):
    write(tmp_path / "a.mp4", 5, (16, 16))
    video.finish(tmp_path / "a.mp4", tmp_path / "b.mp4", "")
    data = (tmp_path / "b.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat") and b"moof" not in data


def test_comment_is_kept_as_it_is(tmp_path):
    comment = json.dumps(
        {"text_input": "a = b; c # d \\ 'e' \" 🐻" + "ü" * 10_000}, ensure_ascii=False
    )
    write(tmp_path / "a.mp4", 2, (16, 16))
    video.finish(tmp_path / "a.mp4", tmp_path / "b.mp4", comment)
    assert comment.encode() in (tmp_path / "b.mp4").read_bytes()


def test_playable_while_it_is_written_and_after_a_kill(tmp_path):
    path = tmp_path / "anim.part.mp4"
    writer = video.VideoWriter(path, (32, 32))
    for frame in frames(100, (32, 32)):
        writer.add(frame)
    deadline = time.monotonic() + 60
    while (there := len(decoded(path))) < 50 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(writer._process.pid, signal.SIGKILL)
    with pytest.raises(RunFailed, match="video"):
        writer.close()
    assert 50 <= there <= len(decoded(path)) <= 100


def test_ffmpeg_gone_in_the_middle(tmp_path):
    writer = video.VideoWriter(tmp_path / "a.mp4", (64, 64))
    writer.add(np.zeros((64, 64, 3), np.uint8))
    os.kill(writer._process.pid, signal.SIGKILL)
    with pytest.raises(RunFailed, match="video cannot be written"):
        for frame in frames(50, (64, 64)):
            writer.add(frame)


def test_unwritable_place(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        write(tmp_path / "none" / "a.mp4", 200, (64, 64))


def test_finish_without_room_keeps_the_fragmented_film(tmp_path, monkeypatch):
    part, path = tmp_path / "anim.part.mp4", tmp_path / "anim.mp4"
    write(part, 30, (16, 16))
    monkeypatch.setattr(video, "ffmpeg", lambda: ["false"])
    video.finish(part, path, "")
    assert [p.name for p in tmp_path.iterdir()] == ["anim.mp4"]
    assert len(decoded(path)) == 30


@pytest.mark.parametrize("cut", [4, 10, 60, 110])
def test_finish_mends_a_torn_end(tmp_path, monkeypatch, cut):
    part, path = tmp_path / "anim.part.mp4", tmp_path / "anim.mp4"
    write(part, 96, (32, 32))
    data = part.read_bytes()
    part.write_bytes(data[: data.rindex(b"moof") + cut])
    monkeypatch.setattr(video, "ffmpeg", lambda: ["false"])
    video.finish(part, path, "")
    monkeypatch.undo()
    assert len(decoded(path)) == imageio_ffmpeg.count_frames_and_secs(str(path))[0] == 95


# --- resuming a film ------------------------------------------------------------------------------


def greys(first, last, size=(32, 32)):
    for n in range(first, last):
        yield np.full((size[1], size[0], 3), 20 + 4 * n, np.uint8)


def film(path, first, last, keep=0, size=(32, 32), fps=video.FPS):
    writer = video.VideoWriter(path, size, keep, fps)
    for frame in greys(first, last, size):
        writer.add(frame)
    writer.settle()
    return writer


def shown(path):
    """The numbers of the greys that a film shows."""
    return [round((frame.mean() - 20) / 4) for frame in decoded(path)]


def times(path):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-vf", "showinfo"]
    command += ["-f", "null", "-"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return [float(found) for found in re.findall(r"pts_time:(\S+)", text)]


@pytest.mark.parametrize("killed", [True, False])
def test_a_film_continues_from_any_frame_as_often_as_needed(tmp_path, killed):
    part, path = tmp_path / "anim.part.mp4", tmp_path / "anim.mp4"
    for first, last, keep in [(0, 12, 0), (7, 20, 7), (18, 22, 18), (20, 21, 20), (5, 40, 5)]:
        writer = film(part, first, last, keep)
        assert writer.kept == keep
        assert shown(part) == list(range(last - 1))
        if killed and last < 40:
            writer._process.kill()
            writer._process.wait()
            writer._film.close()
        else:
            writer.close()
    video.finish(part, path, "")
    assert shown(path) == list(range(40))
    assert times(path) == pytest.approx([n / video.FPS for n in range(40)], abs=1e-3)
    headers = path.read_bytes()
    assert headers.count(b"ftyp") == headers.count(b"moov") == 1


def test_a_film_with_a_torn_end_continues(tmp_path):
    part = tmp_path / "anim.part.mp4"
    film(part, 0, 10).close()
    data = part.read_bytes()
    part.write_bytes(data[: data.rindex(b"moof") + 60])
    writer = film(part, 8, 12, keep=8)
    writer.close()
    assert writer.kept == 8 and shown(part) == list(range(12))


def test_a_broken_film_is_begun_again(tmp_path):
    part = tmp_path / "anim.part.mp4"
    part.write_bytes(b"nonsense" * 9)
    writer = film(part, 0, 3, keep=5)
    writer.close()
    assert writer.kept == 0 and shown(part) == [0, 1, 2]


def test_a_finished_film_continues(tmp_path):
    part, path = tmp_path / "anim.part.mp4", tmp_path / "anim.mp4"
    film(part, 0, 12).close()
    video.finish(part, path, "as it was")
    video.unfinish(path, part)
    assert not path.exists()
    film(part, 10, 20, keep=10).close()
    video.finish(part, path, "")
    assert shown(path) == list(range(20))


def test_a_writer_waits_for_the_one_before_it(tmp_path):
    """The earlier process was killed while its ffmpeg still had frames to write."""
    part = tmp_path / "anim.part.mp4"
    before = film(part, 0, 5)
    os.kill(before._process.pid, signal.SIGSTOP)
    before._film.close()
    before._process.stdin.close()
    threading.Timer(0.5, os.kill, [before._process.pid, signal.SIGCONT]).start()
    film(part, 3, 6, keep=3).close()
    assert before._process.poll() is not None or before._process.wait() == 0
    assert shown(part) == list(range(6))


@pytest.mark.parametrize("sizes", [[(32, 32)] * 3, [(32, 32), (64, 32), (48, 40)]])
def test_films_become_one(tmp_path, sizes):
    folder = tmp_path / "it's 100% odd"
    folder.mkdir()
    paths = [folder / f"{n}.mp4" for n in range(3)]
    for n, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        film(folder / "part", 4 * n, 4 * n + 4, size=size).close()
        video.finish(folder / "part", path, "")
    video.join(paths, folder / "all.mp4", "a comment")
    found = decoded(folder / "all.mp4")
    assert len(found) == 12 and found[0].shape[:2] == sizes[-1][::-1]
    middles = [frame[frame.shape[0] // 2, frame.shape[1] // 2].mean() for frame in found]
    assert middles == pytest.approx([20 + 4 * n for n in range(12)], abs=3)
    assert b"a comment" in (folder / "all.mp4").read_bytes()


@pytest.mark.parametrize("size", [(32, 32), (48, 40)])
@pytest.mark.parametrize(("rates", "rate"), [((12, 48), 48), ((48, 12), 48), ((12, 12), 12)])
def test_films_of_several_frame_rates_keep_their_pace(tmp_path, rates, rate, size):
    """Every frame is in the joined film, and is seen for as long as before."""
    paths = [tmp_path / "first.mp4", tmp_path / "second.mp4"]
    for n, (path, fps) in enumerate(zip(paths, rates, strict=True)):
        film(tmp_path / "part", 4 * n, 4 * n + 4, size=(32, 32) if n else size, fps=fps).close()
        video.finish(tmp_path / "part", path, "")
    video.join(paths, tmp_path / "all.mp4")
    expected = [
        4 * n + k for n, fps in enumerate(rates) for k in range(4) for _ in range(rate // fps)
    ]
    middles = [(frame[16, 16].mean() - 20) / 4 for frame in decoded(tmp_path / "all.mp4")]
    assert middles == pytest.approx(expected, abs=0.8)
    assert times(tmp_path / "all.mp4") == pytest.approx(
        [n / rate for n in range(len(expected))], abs=2e-3
    )


def test_films_of_other_encoders_become_one_too(tmp_path):
    """Such as those of older runs, which other programs wrote."""
    film(tmp_path / "part", 0, 4).close()
    video.finish(tmp_path / "part", tmp_path / "a.mp4", "")
    other = ["-i", str(tmp_path / "a.mp4"), "-c:v", "mpeg4", "-q:v", "1", str(tmp_path / "b.mp4")]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *other], check=True, capture_output=True)
    video.join([tmp_path / "b.mp4", tmp_path / "a.mp4"], tmp_path / "all.mp4")
    assert shown(tmp_path / "all.mp4") == pytest.approx([0, 1, 2, 3, 0, 1, 2, 3], abs=1)


def test_broken_films_are_reported(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"nonsense")
    with pytest.raises(RunFailed, match=r"a\.mp4 cannot be read"):
        video.join([tmp_path / "a.mp4"], tmp_path / "all.mp4")
    assert not (tmp_path / "all.mp4").exists()


@pytest.mark.parametrize("data", [b"", b"\0\0\0\x10ftyp", b"nonsense" * 9])
def test_finish_without_frames_leaves_no_film(tmp_path, data):
    part = tmp_path / "anim.part.mp4"
    part.write_bytes(data)
    video.finish(part, tmp_path / "anim.mp4", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_disk_is_told_apart(monkeypatch):
    monkeypatch.setattr(video, "_cut", lambda *_: 0)  # a device cannot be cut
    with pytest.raises(OSError, match="No space left"):
        write(Path("/dev/full"), 100, (64, 64))


def test_ctrl_c_in_the_terminal_is_not_for_ffmpeg(tmp_path):
    writer = video.VideoWriter(tmp_path / "a.mp4", (16, 16))
    assert os.getpgid(writer._process.pid) != os.getpgid(0)
    writer.add(np.zeros((16, 16, 3), np.uint8))
    writer.close()


def test_memory_is_flat_over_ten_thousand_frames(tmp_path):
    writer = video.VideoWriter(tmp_path / "a.mp4", (32, 32))
    frame = np.zeros((32, 32, 3), np.uint8)
    for n in range(10_000):
        writer.add(frame)
        if n == 1000:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            ffmpeg_before = resident(writer._process.pid)
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    ffmpeg_growth = resident(writer._process.pid) - ffmpeg_before
    writer.close()
    assert growth < 2_000 and ffmpeg_growth < 10_000  # KiB


def resident(pid):
    """KiB of a process; 0 where the system does not say."""
    done = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=False)
    found = re.search(rb"\d+", done.stdout)
    return int(found[0]) if found else 0
