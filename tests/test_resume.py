"""Runs that are killed: nothing is lost, and in the end they make what they would have made.

A run is forked off, and kills itself with SIGKILL as it changes its folder for the nth time. A run
of a few steps makes some dozens of changes. Then it is resumed here.
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

from studio.base import files
from studio.base.errors import BadInput, DiskFull, RunFailed
from studio.base.stopping import Stop
from studio.making import recording
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import reopen, submit
from studio.media import video
from studio.queue import run_queue
from studio.runs import claims, storage
from studio.runs.storage import Taken

STEPS = 5
SETTINGS = {"text_input": "a", "num_steps": STEPS, "Xdim": 32, "ydim": 16, "vqgan_ckpt": "small"}
LEFT = {"anim.mp4", "checkpoint.safetensors", "details.json", "output.PNG"}
LIVE = {"progress.json", "preview.JPEG", "anim.part.mp4", ".reserve", "stop"}


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
    """The folder of a run that is ready to begin."""

    def begun(status="running", continue_run=None, **given):
        settings = {} if continue_run else {**SETTINGS, "seed": 3, "checkpoint_seconds": 0}
        request = Request(
            given=settings | given,
            output_dir=tmp_path / "output",
            assets_dir=assets,
            engine=fake_engine.MODEL,
            continue_run=continue_run,
        )
        return submit(prepare(request), status)

    return begun


@pytest.fixture
def straight(begin, assets):
    """A run that was not disturbed."""
    folder = begin()
    execute(folder, assets_dir=assets)
    return folder


def killed_at(moment, folder, assets, monkeypatch):
    """Fork a run that is killed at that change of its folder; returns whether it got there."""
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
    return {path.name for path in folder.path.iterdir()} - {claims.CLAIMS}


def check_same(folder, straight, may_be_left=frozenset()):
    """Picture byte for byte; the film frame for frame, each once.

    may_be_left: what a run that is killed once it is done has not cleared away.
    """
    for name in ("output.PNG", "checkpoint.safetensors"):
        assert (folder.path / name).read_bytes() == (straight.path / name).read_bytes(), name
    assert names(folder) - may_be_left == LEFT
    details = folder.read()
    assert (details["status"], details["num_steps"], details["error"]) == ("done", STEPS, None)
    films = [shown(run.path / "anim.mp4") for run in (folder, straight)]
    assert len(films[0]) == frames(folder.path / "anim.mp4") == STEPS
    apart = np.abs(films[0][:, None] - films[1][None]).mean(axis=2)
    assert apart.argmin(axis=1).tolist() == list(range(STEPS))


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
    """Kill a run at each of the changes and resume it; one in three is killed again then."""
    for moment in moments:
        folder = begin()
        with monkeypatch.context() as patch:
            if not killed_at(moment, folder, assets, patch):
                return
        check_interrupted(folder)
        if folder.read()["status"] != "done" and moment % 3 == 0:
            reopen_killed(folder)
            with monkeypatch.context() as patch:
                killed_at(1 + moment // 2, folder, assets, patch)
        done = folder.read()["status"] == "done"
        if not done:
            reopen_killed(folder)
            execute(folder, assets_dir=assets)
        check_same(folder, straight, LIVE if done else set())
        folder.remove()


def reopen_killed(folder):
    """Reopen a killed run. It is interrupted at once if it had begun; else silence is faked."""
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


# --- other ways to end ---------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3])
def test_a_stopped_run_is_resumed(begin, straight, assets, steps):
    folder, stop = begin(), Stop()

    def stop_there(step):
        if step.index == steps:
            stop.request()

    assert execute(folder, assets_dir=assets, on_step=stop_there, stop=stop) == "stopped"
    assert names(folder) == LEFT and folder.read()["num_steps"] == steps
    reopen(folder)
    assert folder.live_status() == "queued"
    assert execute(folder, assets_dir=assets) == "done"
    check_same(folder, straight)


@pytest.mark.parametrize("prompt", ["memory", "bug", "disk", "ctrl-c"])
def test_a_run_that_failed_is_resumed(begin, assets, prompt):
    """It broke off in step 3, and no trace of that step may be in the state."""
    folder = begin(text_input=prompt)
    if prompt == "ctrl-c":
        assert execute(folder, assets_dir=assets) == "stopped"
    else:
        with pytest.raises(DiskFull if prompt == "disk" else RunFailed):
            execute(folder, assets_dir=assets)
    assert folder.read()["num_steps"] == 2
    reopen(folder)
    folder.update(text_input="a")
    execute(folder, assets_dir=assets)
    assert folder.read()["status"] == "done"
    assert len(shown(folder.path / "anim.mp4")) == STEPS


def test_a_crash_of_a_worker_leaves_no_trace_in_the_picture(begin, straight, assets, monkeypatch):
    folder = begin("queued")
    with monkeypatch.context() as patch:
        assert killed_at(60, folder, assets, patch)
    assert run_queue.after_crash(folder, "It was killed.") == "queued"
    (folder.path / run_queue.RANK).unlink()
    execute(folder, assets_dir=assets)
    assert folder.read()["crashes"] == 1
    check_same(folder, straight)


def test_a_run_resumes_in_a_version_with_more_settings(begin, assets):
    folder, stop = begin(), Stop()
    execute(folder, assets_dir=assets, on_step=lambda step: stop.request(), stop=stop)
    details = folder.read()
    del details["whole_views"]
    folder.write(details)
    reopen(folder)
    assert execute(folder, assets_dir=assets) == "done"
    assert folder.read()["num_steps"] == STEPS


def test_one_process_at_a_time(begin, assets):
    folder = begin(num_steps=-1)
    stop = Stop()
    refusals = []

    def elsewhere(step):
        for attempt in (lambda: execute(folder, assets_dir=assets), lambda: reopen(folder)):
            with pytest.raises(BadInput) as refusal:
                attempt()
            refusals.append(refusal)
        stop.request()

    execute(folder, assets_dir=assets, on_step=elsewhere, stop=stop)
    assert refusals[0].type is Taken and "is running" in str(refusals[1].value)
    assert folder.read()["status"] == "stopped"


def test_another_machines_run_is_left_alone_while_its_heart_beats(begin):
    folder = begin()
    folder.update(host="another", heartbeat=storage.now())
    with pytest.raises(BadInput, match="is running"):
        reopen(folder)
    folder.update(heartbeat="2020-01-01T00:00:00+00:00")
    reopen(folder)


def test_what_is_done_or_has_no_checkpoint_is_not_resumed(straight, begin, assets):
    with pytest.raises(BadInput, match=r"is done.*--continue-run"):
        reopen(straight)
    straight.update(status="stopped")
    (straight.path / storage.CHECKPOINT).unlink()
    with pytest.raises(BadInput, match=r"no checkpoint.*--continue-run"):
        reopen(straight)


def test_an_interrupted_run_without_a_checkpoint_begins_again(begin, straight, assets, monkeypatch):
    folder = begin()
    with monkeypatch.context() as patch:
        assert killed_at(6, folder, assets, patch)
    (folder.path / storage.CHECKPOINT).unlink(missing_ok=True)
    reopen_killed(folder)
    execute(folder, assets_dir=assets)
    check_same(folder, straight)


def test_an_interrupted_run_is_continued_from_its_checkpoint(begin, assets, monkeypatch):
    folder = begin(num_steps=50)
    with monkeypatch.context() as patch:
        assert killed_at(70, folder, assets, patch)
    child = begin(continue_run=folder.name, num_steps=1)
    execute(child, assets_dir=assets)
    assert child.read()["parent"] == folder.name


def test_a_film_that_was_lost_is_reported(begin, assets):
    folder, stop = begin(), Stop()
    execute(folder, assets_dir=assets, on_step=lambda step: stop.request(), stop=stop)
    reopen(folder)
    stop = Stop()

    def stop_at_three(step):
        if step.index == 3:
            stop.request()

    execute(folder, assets_dir=assets, on_step=stop_at_three, stop=stop)
    (folder.path / storage.VIDEO).unlink()
    reopen(folder)
    execute(folder, assets_dir=assets)
    assert any("video lacks the steps" in warning for warning in folder.read()["warnings"])
    assert frames(folder.path / "anim.mp4") == STEPS - 2


# --- a disk that fills ---------------------------------------------------------------------------


@pytest.mark.parametrize("room", [1, 2, 3])
def test_a_disk_that_fills_keeps_the_last_checkpoint(begin, straight, assets, monkeypatch, room):
    """There is room for a few checkpoints only."""
    folder, written = begin(), []
    write = files.atomic_write

    def write_if_room(path, data, **how):
        if path.name == storage.CHECKPOINT:
            written.append(path)
            if len(written) > room:
                path.with_name(".torn.tmp").write_bytes(data[:10])
                raise OSError(28, "No space left on device")
        write(path, data, **how)

    with monkeypatch.context() as patch:
        patch.setattr(recording, "atomic_write", write_if_room)
        with pytest.raises(DiskFull, match=r"disk is full.*resume"):
            execute(folder, assets_dir=assets)
    assert folder.read()["status"] == "failed" and "disk is full" in folder.read()["error"]
    reopen(folder)
    execute(folder, assets_dir=assets)
    check_same(folder, straight)
