"""Who owns a run folder: one process at a time, on one machine or on several."""

import errno
import json
import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor

import fake_engine
import pytest

from studio.base.errors import BadInput, DiskFull
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import reopen, submit
from studio.runs import claims, details
from studio.runs.claims import (
    belongs_to_queue,
    claimed,
    is_abandoned,
    is_claimed,
    is_orphaned,
    lives_here,
)
from studio.runs.storage import RunFolder, Taken, now

LONG_AGO = "2020-01-01T00:00:00+00:00"


def make_claim(folder, age=0.0, number=1, **said):
    """The claim of a process that is gone, or of another machine."""
    path = folder / claims.CLAIMS / str(number)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(said) if said else "")
    os.utime(path, (time.time() - age,) * 2)


def make_run(path, **said):
    path.mkdir(exist_ok=True)
    folder = RunFolder(path)
    folder.write({"status": "running", "heartbeat": now(), "host": "here"} | said)
    return folder


@pytest.fixture
def folder(tmp_path):
    return make_run(tmp_path / "20260101T000000-aaaaaaaa")


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(claims.fcntl, "flock", refuse)


def _claim_and_wait(path, attended, ready):
    with claimed(path, attended=attended):
        ready.set()
        time.sleep(60)


def claim_and_die(path, attended=False):
    """Let another process claim a run, and kill it."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_claim_and_wait, args=(path, attended, ready))
    process.start()
    assert ready.wait(60) and is_claimed(path)
    with claimed(path) as claim:
        assert claim is None
    process.kill()
    process.join()


# --- claims ---


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
        assert lives_here(tmp_path) and not is_abandoned(tmp_path)
    assert not is_claimed(tmp_path) and not lives_here(tmp_path) and is_abandoned(tmp_path)
    claim_and_die(tmp_path)
    assert is_orphaned(tmp_path) and is_abandoned(tmp_path) and not is_claimed(tmp_path)
    with claimed(tmp_path) as claim:
        assert claim


@pytest.mark.parametrize(
    ("age", "said", "held"),
    [
        (0, {}, True),  # just made: it may not be locked yet
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


def test_another_machine_keeps_its_run_as_long_as_the_heart_beats(folder):
    make_claim(folder.path, age=1000, machine="another")
    assert is_claimed(folder.path)
    folder.update(heartbeat=LONG_AGO)
    assert not is_claimed(folder.path)


def test_a_silent_holder_is_followed_and_can_see_it(tmp_path):
    with claimed(tmp_path) as first, claimed(tmp_path, of_silent=True) as second:
        assert second and second.is_newest and not first.is_newest


def test_a_folder_that_is_gone_is_claimed_by_nobody(tmp_path):
    with claimed(tmp_path / "gone") as claim:
        assert claim is None


@pytest.mark.parametrize("attended", [True, False])
def test_a_dead_process_leaves_its_run_to_the_queue_unless_a_person_attended(tmp_path, attended):
    assert not belongs_to_queue(tmp_path)
    claim_and_die(tmp_path, attended)
    assert belongs_to_queue(tmp_path) != attended


def test_without_locks_the_heartbeat_tells(folder, no_locks):
    with claimed(folder.path) as claim:
        assert claim and is_claimed(folder.path)
        assert not lives_here(folder.path) and not is_orphaned(folder.path)
    assert not is_claimed(folder.path)
    make_claim(folder.path, age=100, number=2, machine=claims.this_machine())
    assert is_claimed(folder.path)
    folder.update(heartbeat=LONG_AGO)
    assert not is_claimed(folder.path)


# --- status ---


def test_a_run_that_its_process_left_is_interrupted_at_once(folder):
    with claimed(folder.path):
        assert folder.proven_status() == "running"
    claim_and_die(folder.path)
    assert folder.live_status() == "running"
    assert folder.proven_status() == "interrupted"


def test_the_own_claim_proves_that_nobody_else_computes_a_run(folder):
    with claimed(folder.path) as claim:
        assert folder.proven_status(claim) == "interrupted"


@pytest.mark.parametrize("claim", [{}, {"machine": "another"}])
def test_what_another_machine_or_an_earlier_version_computes_runs_until_silent(folder, claim):
    (folder.path / ".lock").touch()
    if claim:
        make_claim(folder.path, **claim)
    assert folder.proven_status() == "running"
    folder.update(heartbeat=LONG_AGO)
    assert folder.proven_status() == "interrupted"


def test_a_run_that_is_opened_again_is_not_interrupted_before_it_begins(folder):
    with claimed(folder.path):
        pass
    folder.update(host=None)
    assert folder.proven_status() == "running"


# --- computing ---


def test_what_one_process_computes_no_other_does(folder):
    with folder.computing() as claim:
        assert is_claimed(folder.path)
        with pytest.raises(Taken, match="being computed"), RunFolder(folder.path).computing():
            pytest.fail("computed twice")
        with folder.computing(claim) as same:
            assert same is claim
        assert claim.is_newest
    assert not is_claimed(folder.path)


def test_a_folder_that_is_gone_is_not_computed(tmp_path):
    with pytest.raises(BadInput, match="no file"), RunFolder(tmp_path / "gone").computing():
        pytest.fail("computed")
    assert not (tmp_path / "gone").exists()


def test_a_full_disk_lets_no_run_begin(folder, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(claims.os, "open", refuse)
    with pytest.raises(DiskFull), folder.computing():
        pytest.fail("computed")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run that may begin, and how to compute it."""
    fake_engine.use(monkeypatch)
    fake_engine.use_no_torch(monkeypatch)
    assets = fake_engine.write_assets(tmp_path / "assets")
    given = {"text_input": "a", "num_steps": 9, "Xdim": 32, "ydim": 16, "vqgan_ckpt": "small"}
    plan = prepare(Request(given, tmp_path / "output", assets, fake_engine.MODEL))
    folder = submit(plan, "running")
    return folder, lambda **how: execute(folder, assets_dir=assets, **how)


def contents(folder):
    return {
        path.name: path.read_bytes()
        for path in folder.path.iterdir()
        if path.is_file() and path.name != "anim.part.mp4"
    }


def test_a_process_that_was_overtaken_writes_nothing_more(run, monkeypatch):
    folder, compute = run
    monkeypatch.setattr(details, "HEARTBEAT_SECONDS", 0.01)
    left = {}

    def overtake(step):
        if step.index == 3:
            with claimed(folder.path, of_silent=True):
                folder.update(status="queued", heartbeat=LONG_AGO)
            time.sleep(0.1)  # in which the heartbeat would beat
            left.update(contents(folder))

    with pytest.raises(Taken, match="took"):
        compute(on_step=overtake)
    assert contents(folder) == left
    assert folder.read()["status"] == "queued" and folder.read()["heartbeat"] == LONG_AGO


@pytest.mark.parametrize("moment", ["loading", "a failure"])
def test_nor_does_one_that_was_overtaken_before_it_failed(run, monkeypatch, moment):
    folder, compute = run

    def overtake_and_fail(self):
        with claimed(folder.path, of_silent=True):
            folder.update(status="queued")
        raise ZeroDivisionError

    method = "load_model" if moment == "loading" else "iterate"
    monkeypatch.setattr(fake_engine.FakeRun, method, overtake_and_fail)
    with pytest.raises(Taken):
        compute()
    assert folder.read()["status"] == "queued" and not (folder.path / "traceback.txt").exists()


def test_a_lock_of_an_earlier_version_disturbs_nothing(run):
    folder, compute = run
    (folder.path / ".lock").touch()
    compute()
    assert folder.read()["status"] == "done" and not (folder.path / ".lock").exists()


def test_a_killed_run_is_opened_again_under_a_claim(folder):
    (folder.path / "checkpoint.safetensors").touch()
    claim_and_die(folder.path)
    with claimed(folder.path) as claim:
        with pytest.raises(BadInput, match="is running"):
            reopen(folder)
        reopen(folder, claim=claim)
    assert folder.read()["status"] == "queued"
