"""Runs that are killed: nothing is lost, and what they make in the end is what they would have made.

A run is forked off, and kills itself by SIGKILL at one of the moments in which it changes its
folder; there are some dozens in a run of a few steps. Then it is resumed here.
"""

import os
import random
import signal
import subprocess
import threading
from pathlib import Path

import fake_engine
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

import recording
import runner
import storage
import video
from errors import BadInput, DiskFull
from runner import Request, execute, prepare, reopen, submit
from storage import RunFolder

STEPS = 5
SETTINGS = {"text_input": "a", "num_steps": STEPS, "Xdim": 32, "ydim": 16, "vqgan_ckpt": "small"}
LEFT = {"anim.mp4", "checkpoint.safetensors", "details.json", "output.PNG"}
LIVE = {"progress.json", "preview.JPEG", "anim.part.mp4", ".reserve", ".lock", "stop"}


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    """A quick engine, without torch, and a checkpoint after each step."""
    fake_engine.use(monkeypatch)
    fake_engine.use_no_torch(monkeypatch)
    monkeypatch.setattr(recording, "CHECKPOINT_SHARE", 1e9)


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    return fake_engine.write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture
def begin(tmp_path, assets):
    """The folder of a run that may begin."""

    def begun(status="running", continue_run=None, **given):
        settings = {} if continue_run else {**SETTINGS, "seed": 3, "checkpoint_seconds": 0}
        request = Request(
            given=settings | given,
            output_dir=tmp_path / "output",
            assets_dir=assets,
            model=fake_engine.MODEL,
            continue_run=continue_run,
        )
        return submit(prepare(request), status)

    return begun


@pytest.fixture
def straight(begin, assets):
    """A run that nothing happened to."""
    folder = begin()
    execute(folder, assets_dir=assets)
    return folder


def killed_at(moment, folder, assets, monkeypatch):
    """Fork a run that is killed at its `moment`-th change of the folder; whether it came to that."""
    child = os.fork()
    if child == 0:
        _kill_at(moment, monkeypatch)
        try:
            execute(folder, assets_dir=assets)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _kill_at(moment, monkeypatch):
    seen = 0

    def counting(change):
        def counted(*args, **how):
            nonlocal seen
            if threading.current_thread() is threading.main_thread():
                seen += 1
                if seen == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
            return change(*args, **how)

        return counted

    for owner, name in [
        (os, "fsync"),
        (Path, "replace"),
        (Path, "unlink"),
        (Path, "open"),
        (subprocess, "Popen"),
        (video.VideoWriter, "add"),
        (video.VideoWriter, "settle"),
    ]:
        monkeypatch.setattr(owner, name, counting(getattr(owner, name)))


def frames(path):
    return imageio_ffmpeg.count_frames_and_secs(str(path))[0]


def names(folder):
    return {path.name for path in folder.path.iterdir()}


def check_same(folder, straight, left=LEFT):
    """Picture byte for byte; the film frame for frame, each once."""
    for name in ("output.PNG", "checkpoint.safetensors"):
        assert (folder.path / name).read_bytes() == (straight.path / name).read_bytes(), name
    assert names(folder) == left
    details = folder.read()
    assert (details["status"], details["num_steps"], details["error"]) == ("done", STEPS, None)
    films = [shown(run.path / "anim.mp4") for run in (folder, straight)]
    assert len(films[0]) == frames(folder.path / "anim.mp4") == STEPS
    assert np.abs(np.subtract(*films)).mean() < 6  # the encoder began anew


def shown(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    next(reader)
    return np.stack([np.frombuffer(frame, np.uint8) for frame in reader]).astype(float)


def check_interrupted(folder):
    """What a person sees after a kill."""
    details = folder.read() | {"heartbeat": None}
    assert storage.status_of(details) in ("interrupted", "done")
    picture = folder.picture_path()
    if picture:
        with Image.open(picture) as image:
            image.load()
    if (folder.path / storage.CHECKPOINT).exists():
        assert picture
        film = folder.video_path()
        assert film is None or shown(film).size >= 0


# --- kills ---------------------------------------------------------------------------------------


def kill_and_resume(moments, begin, straight, assets, monkeypatch):
    """Kill at each of the moments; the run and, by one chance in three, its resuming too."""
    for moment in moments:
        folder = begin()
        with monkeypatch.context() as patch:
            if not killed_at(moment, folder, assets, patch):
                return
        check_interrupted(folder)
        if folder.read()["status"] == "done":
            continue
        if moment % 3 == 0:
            reopen_killed(folder)
            with monkeypatch.context() as patch:
                killed_at(1 + moment // 2, folder, assets, patch)
        if folder.read()["status"] != "done":
            reopen_killed(folder)
            execute(folder, assets_dir=assets)
        check_same(folder, straight)
        folder.remove()


def reopen_killed(folder):
    """At once, although its heartbeat is young. Before it began it is no run of this machine."""
    if folder.read()["host"] is None:
        folder.update(heartbeat=None)
    assert folder.proven_status() == "interrupted"
    reopen(folder, "running")


def test_killed_at_any_moment(begin, straight, assets, monkeypatch):
    moments = sorted(random.sample(range(1, 150), 12))
    print("killed at", moments)
    kill_and_resume(moments, begin, straight, assets, monkeypatch)


@pytest.mark.slow
def test_killed_at_every_moment(begin, straight, assets, monkeypatch):
    kill_and_resume(range(1, 10_000), begin, straight, assets, monkeypatch)
