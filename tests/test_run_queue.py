"""The queue's order, pause, cancel and resume; claims; what follows a crash. No processes."""

import json
import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import fake_engine
import pytest

from studio.base.errors import BadInput, DiskFull, RunFailed
from studio.making.prepare import Request, prepare
from studio.queue import delivery, recovery, run_queue
from studio.queue.recovery import Watch
from studio.runs import claims, run_index, storage
from studio.runs.claims import claimed, is_claimed, is_orphaned, lives_here
from studio.runs.storage import RunFolder, now


@pytest.fixture
def output_dir(tmp_path):
    return tmp_path / "output"


@pytest.fixture
def enqueue(tmp_path, output_dir):
    assets = fake_engine.write_assets(tmp_path / "assets")

    def one(prompt="a heart"):
        given = {"text_input": prompt, "num_steps": 3}
        return run_queue.enqueue(prepare(Request(given, output_dir, assets)))

    return one


def make_run(output_dir, name="20260101T000000-aaaaaaaa", **details):
    folder = RunFolder(output_dir / name)
    folder.path.mkdir(parents=True)
    folder.write({"text_input": name} | details)
    return folder


def line(output_dir):
    return [e.details["text_input"] for e in run_queue.waiting(run_index.entries(output_dir))]


# --- order, pause ---


def test_runs_wait_in_the_order_of_their_coming(enqueue, output_dir):
    for prompt in "abc":
        enqueue(prompt)
    assert line(output_dir) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("moved", "place", "after"),
    [("c", 0, "cab"), ("a", 1, "bac"), ("a", 9, "bca"), ("b", -1, "bac"), ("a", 0, "abc")],
)
def test_moving_puts_a_run_there_and_later_ones_come_last(enqueue, output_dir, moved, place, after):
    folders = {prompt: enqueue(prompt) for prompt in "abc"}
    run_queue.move(output_dir, folders[moved].name, place)
    enqueue("d")
    assert line(output_dir) == [*after, "d"]
    run_queue.move(output_dir, "not there", 0)
    assert line(output_dir) == [*after, "d"]


def test_a_pause_starts_nothing_until_it_ends(enqueue, output_dir):
    folder = enqueue()
    run_queue.pause(output_dir, "The disk is full.")
    assert run_queue.paused(output_dir).reason == "The disk is full."
    assert run_queue.next_run(output_dir) is None
    run_queue.unpause(output_dir)
    assert run_queue.paused(output_dir) is None
    assert run_queue.next_run(output_dir).name == folder.name


def test_a_rank_that_is_none_does_no_harm(enqueue, output_dir):
    (enqueue("a").path / run_queue.RANK).write_bytes(b"\xff")
    enqueue("b")
    assert line(output_dir) == ["a", "b"]


# --- cancel, resume ---


def test_cancelling_takes_a_waiting_run_out(enqueue, output_dir):
    folder = enqueue()
    assert run_queue.cancel(folder) == "stopped"
    assert folder.read()["status"] == "stopped"
    assert run_queue.next_run(output_dir) is None
    with pytest.raises(BadInput, match="stopped already"):
        run_queue.cancel(folder)


@pytest.mark.parametrize("taken", [True, False])
def test_cancelling_a_run_that_a_worker_has_asks_it_to_stop(output_dir, taken):
    folder = make_run(output_dir, status="queued" if taken else "running", heartbeat=now())
    with claimed(folder.path):
        assert run_queue.cancel(folder) == "running"
    assert folder.stop_requested()


@pytest.mark.parametrize("status", ["stopped", "failed", "interrupted", "running"])
def test_resuming_puts_a_run_last_in_line(enqueue, output_dir, status):
    enqueue("first")
    folder = make_run(output_dir, status=status, crashes=2, error="x", heartbeat="2020-01-01")
    folder.request_stop()
    run_queue.resume(folder)
    assert line(output_dir) == ["first", folder.name]
    details = folder.read()
    assert (details["status"], details["crashes"], details["error"]) == ("queued", 0, None)
    assert not folder.stop_requested()


@pytest.mark.parametrize("status", ["running", "queued", "done"])
def test_what_goes_waits_or_is_done_is_not_resumed(output_dir, status):
    folder = make_run(output_dir, status=status, heartbeat=now())
    with pytest.raises(BadInput, match=f"is {status}"):
        run_queue.resume(folder)


def test_a_silent_run_whose_worker_lives_is_not_resumed(output_dir):
    folder = make_run(output_dir, status="running", heartbeat="2020-01-01")
    with claimed(folder.path), pytest.raises(BadInput, match="still alive"):
        run_queue.resume(folder)


# --- claims ---


def _claim_and_die(path, ready):
    with claimed(path):
        ready.set()
        time.sleep(60)


def test_one_of_many_gets_a_claim(tmp_path):
    def attempt(_):
        with claimed(tmp_path) as claim:
            time.sleep(0.2)
            return claim is not None

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(attempt, range(16))) == 1


def test_a_claim_ends_with_its_holder_or_with_its_process(tmp_path):
    with claimed(tmp_path) as claim:
        assert claim and is_claimed(tmp_path) and not is_orphaned(tmp_path)
        assert lives_here(tmp_path)
    assert not is_claimed(tmp_path) and not lives_here(tmp_path)
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_claim_and_die, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60) and is_claimed(tmp_path)
    with claimed(tmp_path) as claim:
        assert claim is None
    process.kill()
    process.join()
    assert is_orphaned(tmp_path) and not is_claimed(tmp_path)
    with claimed(tmp_path) as claim:
        assert claim


def make_claim(folder, age=0.0, number=1, **said):
    path = folder / claims.CLAIMS / str(number)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(said) if said else "")
    os.utime(path, (time.time() - age,) * 2)


@pytest.mark.parametrize(
    ("age", "said", "held"),
    [
        (0, {}, True),  # just made: it may not yet be locked
        (10, {}, False),
        (0, {"machine": "another"}, True),
        (100, {"machine": "another"}, False),
        (0, {"machine": "another", "over": True}, False),
        (0, {"machine": claims.this_machine()}, False),
    ],
)
def test_a_claim_that_nobody_locks_holds_by_its_machine_and_age(tmp_path, age, said, held):
    make_claim(tmp_path, age, **said)
    assert is_claimed(tmp_path) == held
    with claimed(tmp_path) as claim:
        assert (claim is None) == held


def test_a_silent_holder_is_followed_and_can_see_it(tmp_path):
    with claimed(tmp_path) as first, claimed(tmp_path, of_silent=True) as second:
        assert second and second.is_newest and not first.is_newest


def test_a_folder_that_is_gone_is_claimed_by_nobody(tmp_path):
    with claimed(tmp_path / "gone") as claim:
        assert claim is None


# --- after a crash ---


def crashed(output_dir, **details):
    """A run whose worker of this machine is dead."""
    details = {"status": "running", "heartbeat": now(), "num_steps": 5} | details
    folder = make_run(output_dir, **details)
    make_claim(folder.path, machine=claims.this_machine())
    return folder


def test_a_run_whose_worker_died_goes_on_first_in_line_once(enqueue, output_dir):
    enqueue("waits already")
    folder = crashed(output_dir)
    Watch(output_dir).look()
    assert line(output_dir) == [folder.name, "waits already"]
    assert (folder.read()["crashes"], folder.read()["last_crash"]) == (1, recovery.BROKE_OFF)
    folder.update(status="running", heartbeat=now())
    make_claim(folder.path, number=9, machine=claims.this_machine())
    Watch(output_dir).look()
    details = folder.read()
    assert (details["status"], details["error"]) == ("failed", recovery.BROKE_OFF)
    assert details["num_steps"] == 5


@pytest.mark.parametrize("silent", [True, False])
def test_what_was_never_heard_of_or_never_queued_waits_for_a_person(output_dir, silent):
    if silent:
        folder = crashed(output_dir, heartbeat="2020-01-01T00:00:00+00:00")
    else:
        folder = make_run(output_dir, status="running", heartbeat=now())
    Watch(output_dir).look()
    assert folder.read()["status"] == "running"


def test_another_machines_run_is_taken_over_when_its_heart_stands_still(output_dir, monkeypatch):
    folder = make_run(output_dir, status="running", heartbeat=now())
    make_claim(folder.path, machine="another")
    clock = [0.0]
    monkeypatch.setattr(recovery.time, "monotonic", lambda: clock[0])
    watch = Watch(output_dir)
    for clock[0], beats in ((0, False), (29, True), (58, False)):
        if beats:
            later = datetime.now().astimezone() + timedelta(seconds=29)
            folder.update(heartbeat=later.isoformat(timespec="milliseconds"))
        watch.look()
        assert folder.read()["status"] == "running"
    clock[0] = 60
    watch.look()
    assert folder.read()["status"] == "queued"


def test_a_run_whose_worker_here_is_frozen_is_left_to_it(output_dir, monkeypatch):
    folder = make_run(output_dir, status="running", heartbeat=now())
    clock = [0.0]
    monkeypatch.setattr(recovery.time, "monotonic", lambda: clock[0])
    watch = Watch(output_dir)
    with claimed(folder.path):
        for clock[0] in (0, 100):
            watch.look()
            assert folder.read()["status"] == "running"


def test_a_failed_run_is_tried_again_unless_the_disk_is_full(output_dir):
    folder = make_run(output_dir, status="failed", error="CUDA error")
    run_queue.after_failure(folder, RunFailed("CUDA error"))
    assert folder.read()["status"] == "queued"
    folder.update(status="failed")
    run_queue.after_failure(folder, DiskFull("The disk is full."))
    assert folder.read()["status"] == "failed"
    assert run_queue.paused(output_dir).reason == "The disk is full."


# --- messages ---


@pytest.fixture
def messages(output_dir):
    end = delivery.Delivery(output_dir)
    yield end
    end.close()


def test_a_message_arrives_once(output_dir, messages):
    assert not messages.receive()
    delivery.notify(output_dir, None, "a run")
    assert messages.receive() and not messages.receive()


def test_a_message_is_data_and_never_code(output_dir, messages, tmp_path):
    messages.send("a run")
    (hostile := tmp_path / "hostile").mkdir()
    pickled = b"cos\nrmdir\n(V" + str(hostile).encode() + b"\ntR."
    messages._huey.storage.enqueue(pickled)
    for _ in range(3):
        messages.receive()
    assert hostile.exists()


def test_the_folders_are_all_that_counts(enqueue, output_dir):
    folder = enqueue()
    for path in (output_dir / delivery.QUEUE_DIR).iterdir():
        path.unlink()
    assert run_queue.next_run(output_dir).name == folder.name
    assert storage.status_of(folder.read()) == "queued"
