"""The worker takes queued runs, and no way of ending it or the app loses one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import write_tiny_assets
from waiting import PATIENCE, wait_for

from keeper import WorkerKeeper
from runner import Request, prepare, submit
from storage import RunFolder, atomic_write, to_json
from worker import INTERRUPTED, WorkerState, is_served, log_path, read_state, state_path

WORKER = Path(__file__).resolve().parents[1] / "worker.py"


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    write_tiny_assets(folder)
    return folder


def wait_for_status(folder, status):
    wait_for(lambda: folder.read()["status"] == status, f"{folder.name} to be {status}")


def wait_for_step(folder, step):
    wait_for(lambda: folder.read_progress().get("step", 0) >= step, f"step {step}")


def enqueue(output_dir, assets, **given):
    given = {"text_input": "a red heart", "Xdim": 32, "ydim": 32, "num_steps": 2} | given
    return submit(prepare(Request(given=given, output_dir=output_dir, assets_dir=assets)))


def start_worker(output_dir, assets):
    places = ["--output-dir", output_dir, "--assets-dir", assets]
    return subprocess.Popen([sys.executable, WORKER, *places], stdin=subprocess.PIPE)


def test_a_worker_takes_runs_in_order_and_saves_the_last_when_the_app_is_gone(assets, tmp_path):
    first, second = enqueue(tmp_path, assets), enqueue(tmp_path, assets, num_steps=-1)
    worker = start_worker(tmp_path, assets)
    try:
        wait_for(lambda: is_served(tmp_path), "the worker's lock")
        another = start_worker(tmp_path, assets)
        wait_for_step(second, 2)
        assert read_state(tmp_path).run == second.name
        assert another.wait(PATIENCE) == 0, "one worker an output folder"
        worker.stdin.close()  # as the end of the app does, whatever ended it
        assert worker.wait(PATIENCE) == 0
    finally:
        worker.kill()
    assert first.read()["end_time"] <= second.read()["start_time"]
    assert [folder.read()["status"] for folder in (first, second)] == ["done", "stopped"]
    assert second.read()["num_steps"] >= 2
    assert second.picture_path().name == "output.PNG"
    assert second.video_path().name == "anim.mp4"
    assert not is_served(tmp_path)


def test_a_killed_worker_is_replaced_and_its_run_is_told_apart(assets, tmp_path):
    keeper = WorkerKeeper(tmp_path, assets)
    try:
        lost = enqueue(tmp_path, assets, num_steps=-1)
        wait_for_step(lost, 1)
        os.kill(read_state(tmp_path).pid, signal.SIGKILL)
        after = enqueue(tmp_path, assets)
        wait_for_status(after, "done")
        assert lost.read()["status"] == "failed"
        assert lost.read()["error"] == INTERRUPTED
        assert lost.picture_path(), "what it had shown last"
        going = enqueue(tmp_path, assets, num_steps=-1)
        wait_for_step(going, 1)
    finally:
        keeper.close()
    assert going.read()["status"] == "stopped", "saved before close() returned"
    assert not is_served(tmp_path)


def test_a_run_that_breaks_leaves_a_worker_for_the_next(assets, tmp_path):
    keeper = WorkerKeeper(tmp_path, assets)
    try:
        broken = enqueue(tmp_path, assets)
        details = broken.read()
        broken.write(details | {"step_size": 1e30})  # as no form lets through
        after = enqueue(tmp_path, assets)
        wait_for_status(after, "done")
    finally:
        keeper.close()
    assert broken.read()["status"] == "failed"
    assert "Traceback" not in broken.read()["error"]


def test_a_gpu_that_is_not_there_is_told_once(assets, tmp_path):
    keeper = WorkerKeeper(tmp_path, assets, gpu=99)
    try:
        assert "no GPU 99" in wait_for(keeper.refusal, "the refusal")
        assert log_path(tmp_path).read_text().count("no GPU 99") == 1
    finally:
        keeper.close()


@pytest.mark.parametrize("text", [None, "", "[]", '{"pid": 1, "unknown": 2}', "{"])
def test_a_state_that_cannot_be_read_is_none(tmp_path, text):
    if text is not None:
        state_path(tmp_path).parent.mkdir()
        state_path(tmp_path).write_text(text)
    assert read_state(tmp_path) is None


def make_run(output_dir, name, **details):
    folder = RunFolder(output_dir / name)
    folder.path.mkdir()
    folder.write(details)
    return folder


def test_a_worker_that_died_between_runs_leaves_them_alone(assets, tmp_path):
    done = make_run(tmp_path, "20260101T000000-aaaaaaaa", status="done", num_steps=3)
    state_path(tmp_path).parent.mkdir()
    atomic_write(state_path(tmp_path), to_json({"pid": 1, "run": done.name}))
    from worker import _close_interrupted

    _close_interrupted(tmp_path)
    assert done.read() == {"status": "done", "num_steps": 3}
    assert read_state(tmp_path) == WorkerState(pid=1, run=done.name)
