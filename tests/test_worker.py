"""The worker with the real engine: it stays warm, has its slot, and ends with its keeper."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import write_tiny_assets
from waiting import PATIENCE, wait_for

from studio.engines import registry
from studio.engines.registry import DEFAULT
from studio.making import chains
from studio.making.prepare import Request, prepare
from studio.queue import keeper, run_queue, slots, worker_process
from studio.queue.keeper import WorkerKeeper
from studio.queue.options import StudioOptions
from studio.queue.slots import WorkerSlot, WorkerState, is_served, read_states, take_slot
from studio.runs import run_index

ROOT = Path(__file__).resolve().parents[1]


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
    request = Request(given=given, output_dir=output_dir, assets_dir=assets)
    return run_queue.enqueue(prepare(request))


def test_a_worker_takes_runs_in_order_and_puts_the_current_one_back_when_it_ends(assets, tmp_path):
    first, second = enqueue(tmp_path, assets), enqueue(tmp_path, assets, num_steps=-1)
    places = ["--output-dir", tmp_path, "--assets-dir", assets]
    worker = subprocess.Popen([sys.executable, ROOT / "worker.py", *places])
    try:
        wait_for_step(second, 2)
        state = read_states(tmp_path)[0]
        assert (state.phase, state.run) == ("ready", second.name)
        assert state.device.startswith(("CPU", "GPU"))
        worker.send_signal(signal.SIGINT)
        assert worker.wait(PATIENCE) == 0
    finally:
        worker.kill()
    assert first.read()["status"] == "done"
    assert first.read()["end_time"] <= second.read()["start_time"]
    assert second.read()["status"] == "queued"
    assert second.picture_path() and second.video_path(), "the results so far"
    assert not is_served(tmp_path)


def test_the_run_of_a_killed_worker_is_put_back_once_and_then_fails(assets, tmp_path):
    keeper = WorkerKeeper(StudioOptions(tmp_path, assets))
    try:
        lost = enqueue(tmp_path, assets, num_steps=-1)
        for crashes in (0, 1):
            wait_for(lambda n=crashes: lost.read().get("crashes", 0) == n, "the crash to be seen")
            wait_for_status(lost, "running")
            wait_for_step(lost, 1)
            os.kill(read_states(tmp_path)[0].pid, signal.SIGKILL)
        wait_for_status(lost, "failed")
        assert "ended without warning" in lost.read()["error"]
        assert lost.picture_path(), "the last picture shown"
        after = enqueue(tmp_path, assets)
        wait_for_status(after, "done")
    finally:
        keeper.close()
    assert not is_served(tmp_path)


def test_the_queue_computes_a_chain(assets, tmp_path):
    rows = [{"prompt": "spring", "steps": 2}, {"prompt": "summer"}, {"prompt": "autumn"}]
    given = {"Xdim": 32, "ydim": 32, "cutn": 1}
    kind = registry.get(DEFAULT).settings
    first = chains.begin(Request(given, tmp_path, assets), chains.parse(rows, kind))
    keeper = WorkerKeeper(StudioOptions(tmp_path, assets))
    try:
        wait_for(lambda: len(run_index.entries(tmp_path)) == 3, "the last stage to be made")
        last = run_index.entries(tmp_path)[0].folder
        wait_for_status(last, "done")
    finally:
        keeper.close()
    assert last.read()["text_input"] == "autumn" and last.read()["ancestors"][0] == first.name


def test_a_folder_that_cannot_be_written_is_reported_once_and_waited_for(
    assets, tmp_path, monkeypatch, caplog
):
    looks = []

    def look(folder, refuse=slots.refuse_unwritable):
        looks.append(folder)
        refuse(folder)

    monkeypatch.setattr(keeper, "refuse_unwritable", look)
    monkeypatch.setattr(keeper, "RESTART_PAUSE", 0.1)
    in_the_way = tmp_path / ".queue"
    in_the_way.touch()
    ours = WorkerKeeper(StudioOptions(tmp_path, assets))
    try:
        wait_for(lambda: len(looks) > 2, "several looks")
        assert "cannot be written" in ours.refusal() and "start the page" in ours.refusal()
        assert [r.getMessage().count("--output-dir") for r in caplog.records] == [1]
        assert not is_served(tmp_path)
        in_the_way.unlink()
        wait_for(lambda: is_served(tmp_path), "a worker")
        assert ours.refusal() is None
    finally:
        ours.close()


def test_a_worker_in_a_folder_that_cannot_be_written_ends_without_a_traceback(assets, tmp_path):
    (tmp_path / ".queue").touch()
    command = [*keeper.WORKER, "--output-dir", tmp_path, "--assets-dir", assets]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stdout, done.stderr) == (worker_process.EXIT_FAILED, "", "")


def test_a_missing_gpu_is_reported_once(assets, tmp_path):
    keeper = WorkerKeeper(StudioOptions(tmp_path, assets, gpus=(99,)))
    try:
        assert "no GPU 99" in wait_for(keeper.refusal, "the refusal")
        (log,) = (tmp_path / ".logs").iterdir()
        assert log.read_text().count("no GPU 99") == 1
        assert "PyTorch" in log.read_text() and "VQGAN-CLIP studio" in log.read_text()
    finally:
        keeper.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus", "0,x"], "0,x"),
        (["--assets-dir", "/nowhere"], "/nowhere"),
        (["--queue-url", "localhost"], "redis://HOST"),
        (["--output-dir", "/dev/null/x"], "--output-dir"),
    ],
)
def test_a_wrong_option_is_refused_at_once(tmp_path, options, message):
    places = ["--output-dir", tmp_path, "--assets-dir", tmp_path]
    command = [sys.executable, ROOT / "worker.py", *places, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr


def test_pages_share_a_worker_and_workers_started_by_hand_add_up(tmp_path):
    slot, lock = take_slot(tmp_path, None, alone=True)
    assert is_served(tmp_path) and not is_served(tmp_path, "gpu1-")
    assert take_slot(tmp_path, None, alone=True) is None
    second, second_lock = take_slot(tmp_path, None, alone=False)
    assert second.name != slot.name
    for taken in (lock, second_lock):
        taken.release()
    assert not is_served(tmp_path)


def test_a_broken_engine_leaves_the_others_to_the_worker(monkeypatch):
    broken = {"Broken": "no_such_module:Engine", "Odd": "json:nothing"}
    monkeypatch.setattr(registry, "ENGINES", registry.ENGINES | broken)
    unavailable = worker_process.load_engines()
    assert unavailable.keys() == broken.keys()
    assert "no_such_module" in unavailable["Broken"] and "nothing" in unavailable["Odd"]


def test_a_worker_tells_which_engines_it_cannot_use(tmp_path):
    slot = WorkerSlot(tmp_path, "somewhere")
    slot.write(WorkerState(1, unavailable={"Broken": "a library is missing"}))
    assert read_states(tmp_path)[0].unavailable == {"Broken": "a library is missing"}


@pytest.mark.parametrize("text", ["", "[]", '{"pid": 1, "unknown": 2}', "{"])
def test_a_state_that_cannot_be_read_is_skipped(tmp_path, text):
    path = WorkerSlot(tmp_path, "somewhere").state_path
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert read_states(tmp_path) == []
