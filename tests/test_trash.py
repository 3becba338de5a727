"""Removing runs and restoring them, from several windows at once."""

import json
import multiprocessing
import os
import time
from contextlib import suppress

import pytest

from studio.base import files
from studio.base.errors import BadInput
from studio.runs import storage
from studio.runs.trash import TRASH, move_to_trash, restore, trashed

ONE, TWO = "20260101T000000-aaaaaaaa", "20260102T000000-bbbbbbbb"


@pytest.fixture
def output(tmp_path):
    for name in (ONE, TWO):
        (tmp_path / name).mkdir()
        storage.RunFolder(tmp_path / name).write({"status": "done", "text_input": name})
    return tmp_path


def names(path):
    return sorted(p.name for p in path.iterdir() if not p.name.startswith("."))


@pytest.mark.parametrize("run_id", [ONE, "aaaaaaaa"])
def test_a_removed_run_is_restored_unchanged(output, run_id):
    before = storage.find_run(output, ONE).read()
    assert move_to_trash(output, run_id).path == output / TRASH / ONE
    assert names(output) == [TWO] and names(output / TRASH) == [ONE]
    assert restore(output, run_id).read() == before
    assert names(output) == [ONE, TWO] and names(output / TRASH) == []


def test_the_run_removed_last_comes_first(output):
    assert trashed(output) == []
    move_to_trash(output, TWO)
    time.sleep(0.02)  # the clock of a file system ticks every few milliseconds
    move_to_trash(output, ONE)
    assert [folder.name for folder in trashed(output)] == [ONE, TWO]


@pytest.mark.parametrize("details", [None, "{", "[1]"])
def test_a_broken_run_can_be_removed(output, details):
    (output / ONE / "details.json").unlink()
    if details:
        (output / ONE / "details.json").write_text(details)
    move_to_trash(output, ONE)
    assert names(output) == [TWO]


def test_a_run_that_is_being_computed_stays(output):
    storage.RunFolder(output / ONE).update(status="running", heartbeat=storage.now())
    with pytest.raises(BadInput, match="Stop it first"):
        move_to_trash(output, ONE)
    assert names(output) == [ONE, TWO]


def test_removed_twice_and_restored_twice(output):
    move_to_trash(output, ONE)
    with pytest.raises(BadInput, match="in the trash already"):
        move_to_trash(output, ONE)
    restore(output, ONE)
    with pytest.raises(BadInput, match="back already"):
        restore(output, ONE)


@pytest.mark.parametrize("run_id", ["", ".", "..", TRASH, f"{TRASH}/{ONE}", f"../{ONE}", "nobody"])
def test_only_runs_can_be_moved(output, run_id):
    move_to_trash(output, ONE)
    with pytest.raises(BadInput):
        move_to_trash(output, run_id)
    if run_id != ONE:
        with pytest.raises(BadInput):
            restore(output, run_id)
    assert names(output) == [TWO] and names(output / TRASH) == [ONE]


def test_nothing_is_overwritten(output):
    move_to_trash(output, ONE)
    (output / ONE).mkdir()
    (output / ONE / "details.json").write_text('{"text_input": "another of that name"}')
    for move in (restore, move_to_trash):
        with pytest.raises(BadInput, match="cannot be moved"):
            move(output, ONE)
    assert files.read_json(output / TRASH / ONE / "details.json")["text_input"] == ONE
    assert "another" in (output / ONE / "details.json").read_text()


def shuffle(output, seconds):
    """Remove and restore the same run as fast as possible."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for move in (move_to_trash, restore):
            with suppress(BadInput):
                move(output, ONE)


def test_two_processes_and_a_kill_leave_the_run_whole(output):
    (output / ONE / "output.PNG").write_bytes(os.urandom(1000))
    spawn = multiprocessing.get_context("fork")
    windows = [spawn.Process(target=shuffle, args=(output, 30)) for _ in range(2)]
    for window in windows:
        window.start()
    time.sleep(1)
    for window in windows:
        window.kill()
        window.join()
    places = [p / ONE for p in (output, output / TRASH) if (p / ONE).exists()]
    assert len(places) == 1
    assert json.loads((places[0] / "details.json").read_text())["text_input"] == ONE
    assert (places[0] / "output.PNG").stat().st_size == 1000


def test_a_trash_that_is_a_link_is_not_followed(output, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "20260103T000000-cccccccc").mkdir()
    (output / TRASH).symlink_to(elsewhere)
    for act in (move_to_trash, restore):
        with pytest.raises(BadInput, match="is a link"):
            act(output, ONE)
    with pytest.raises(BadInput, match="is a link"):
        restore(output, "20260103T000000-cccccccc")
    assert trashed(output) == []
    assert names(output) == [ONE, TWO] and names(elsewhere) == ["20260103T000000-cccccccc"]


def test_a_link_is_neither_removed_nor_restored(output, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / ONE
    (output / ONE).rename(elsewhere)
    (output / ONE).symlink_to(elsewhere)
    with pytest.raises(BadInput, match="is a link"):
        move_to_trash(output, ONE)
    (output / TRASH).mkdir(exist_ok=True)
    (output / ONE).rename(output / TRASH / ONE)
    with pytest.raises(BadInput, match="is a link"):
        restore(output, ONE)
    assert trashed(output) == []
    assert names(output) == [TWO] and (output / TRASH / ONE).is_symlink() and elsewhere.is_dir()
