"""The queue's order, pause, cancel and resume, and what follows a crash. No processes."""

from datetime import datetime, timedelta

import fake_engine
import pytest
from test_claims import make_claim

from studio.base.errors import BadInput, DiskFull, RunFailed
from studio.making.prepare import Request, prepare
from studio.queue import delivery, recovery, run_queue
from studio.queue.recovery import Watch
from studio.runs import claims, run_index, storage
from studio.runs.claims import claimed
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


def test_runs_wait_in_the_order_in_which_they_came(enqueue, output_dir):
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


def test_a_broken_rank_is_ignored(enqueue, output_dir):
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
def test_a_run_that_runs_waits_or_is_done_is_not_resumed(output_dir, status):
    folder = make_run(output_dir, status=status, heartbeat=now())
    with pytest.raises(BadInput, match=f"is {status}"):
        run_queue.resume(folder)


def test_a_silent_run_whose_worker_lives_is_not_resumed(output_dir):
    folder = make_run(output_dir, status="running", heartbeat="2020-01-01")
    with claimed(folder.path), pytest.raises(BadInput, match="still alive"):
        run_queue.resume(folder)


# --- after a crash ---


def crashed(output_dir, **details):
    """A run whose worker of this machine is dead."""
    details = {"status": "running", "heartbeat": now(), "num_steps": 5} | details
    folder = make_run(output_dir, **details)
    make_claim(folder.path, machine=claims.this_machine())
    return folder


def test_a_run_whose_worker_died_is_put_back_first_in_line_once(enqueue, output_dir):
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


@pytest.mark.parametrize("why", ["silent", "unclaimed", "attended"])
def test_a_run_that_was_found_silent_or_never_queued_waits_for_a_person(output_dir, why):
    beat = "2020-01-01T00:00:00+00:00" if why == "silent" else now()
    folder = make_run(output_dir, status="running", heartbeat=beat, num_steps=5)
    if why != "unclaimed":
        make_claim(folder.path, machine=claims.this_machine(), attended=why == "attended")
    Watch(output_dir).look()
    assert folder.read()["status"] == "running"


def test_a_run_that_a_person_resumed_at_a_terminal_is_not_put_back(output_dir, monkeypatch):
    folder = make_run(output_dir, status="running", heartbeat=now())
    make_claim(folder.path, machine="another")
    clock = [0.0]
    monkeypatch.setattr(recovery.time, "monotonic", lambda: clock[0])
    watch = Watch(output_dir)
    watch.look()
    make_claim(folder.path, number=2, machine=claims.this_machine(), attended=True)
    clock[0] = 100.0
    watch.look()
    assert folder.read()["status"] == "running"


def test_the_run_of_another_machine_is_taken_over_when_its_heartbeat_stops(output_dir, monkeypatch):
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


def test_a_run_whose_worker_is_frozen_on_this_machine_is_left_to_it(output_dir, monkeypatch):
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


def test_the_folders_alone_say_what_waits(enqueue, output_dir):
    folder = enqueue()
    for path in (output_dir / delivery.QUEUE_DIR).iterdir():
        path.unlink()
    assert run_queue.next_run(output_dir).name == folder.name
    assert storage.status_of(folder.read()) == "queued"
