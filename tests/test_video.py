"""Films: every frame once, at any size, whole whatever happens."""

import json
import os
import re
import resource
import signal
import subprocess
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

import video
from errors import RunFailed


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


def test_frames_are_those_given_and_in_order(tmp_path):
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
    with pytest.raises(RunFailed, match="No such file"):
        write(tmp_path / "none" / "a.mp4", 200, (64, 64))


def test_finish_without_room_keeps_the_fragmented_film(tmp_path, monkeypatch):
    part, path = tmp_path / "anim.part.mp4", tmp_path / "anim.mp4"
    write(part, 30, (16, 16))
    monkeypatch.setattr(video, "_ffmpeg", lambda: ["false"])
    video.finish(part, path, "")
    assert [p.name for p in tmp_path.iterdir()] == ["anim.mp4"]
    assert len(decoded(path)) == 30


@pytest.mark.parametrize("cut", [4, 10, 60, 110])
def test_finish_mends_a_torn_end(tmp_path, monkeypatch, cut):
    part, path = tmp_path / "anim.part.mp4", tmp_path / "anim.mp4"
    write(part, 96, (32, 32))
    data = part.read_bytes()
    part.write_bytes(data[: data.rindex(b"moof") + cut])
    monkeypatch.setattr(video, "_ffmpeg", lambda: ["false"])
    video.finish(part, path, "")
    monkeypatch.undo()
    assert len(decoded(path)) == imageio_ffmpeg.count_frames_and_secs(str(path))[0] == 95


@pytest.mark.parametrize("data", [b"", b"\0\0\0\x10ftyp", b"nonsense" * 9])
def test_finish_of_nothing_leaves_no_film(tmp_path, data):
    part = tmp_path / "anim.part.mp4"
    part.write_bytes(data)
    video.finish(part, tmp_path / "anim.mp4", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_disk_is_told_apart():
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
