"""Run folders: names, whole files, heartbeats, and readers that survive broken files."""

import json
import threading
from datetime import datetime, timedelta

import pytest
from waiting import wait_for

from studio.base import files
from studio.base.errors import BadInput
from studio.base.files import atomic_write, read_json
from studio.runs import details, storage
from studio.runs.claims import claimed
from studio.runs.storage import RunFolder, create_run_folder, find_run


def make_run(output, name, **details):
    (output / name).mkdir(parents=True)
    folder = RunFolder(output / name)
    folder.write({"status": "done"} | details)
    return folder


def test_names(tmp_path):
    folders = [create_run_folder(tmp_path / "new" / "output") for _ in range(50)]
    assert len({folder.run_id for folder in folders}) == 50
    for folder in folders:
        time, run_id = folder.name[:15], folder.name[16:]
        datetime.strptime(time, "%Y%m%dT%H%M%S")
        assert folder.name[15] == "-" and len(run_id) == 8 and run_id == folder.run_id
        assert run_id.replace("-", "a").replace("_", "a").isalnum() and run_id[0] != "-"


def test_no_name_is_used_twice(tmp_path, monkeypatch):
    names = iter(["same_one", "same_one", "same_one", "same_one", "otherone"])
    monkeypatch.setattr(storage, "_new_id", lambda: next(names))
    ids = [create_run_folder(tmp_path).run_id for _ in range(2)]
    assert len(set(ids)) == 2 or len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_an_output_folder_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be written"):
        create_run_folder(tmp_path / place)


def test_atomic_write_is_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    atomic_write(path, b"first")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError):
        atomic_write(path, b"second")
    assert path.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": ' + b"9" * 100_000 + b"}",
        b" " * (files.MAX_JSON_BYTES + 1),
    ],
)
def test_hostile_json(tmp_path, data):
    path = tmp_path / "details.json"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"details\.json"):
        read_json(path)


def test_read_json_of_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(BadInput):
            read_json(path)


def test_update_keeps_the_rest(tmp_path):
    folder = make_run(tmp_path, "a", seed=2**64 - 1, text_input="grüße \U0001f43b")
    folder.update(status="failed")
    assert folder.read() == {
        "status": "failed",
        "seed": 2**64 - 1,
        "text_input": "grüße \U0001f43b",
    }


def test_updates_from_two_threads_lose_nothing(tmp_path):
    folder = make_run(tmp_path, "a")

    def write(letter):
        for n in range(15):
            folder.update(**{f"{letter}{n}": n})

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "xy"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folder.read()) == 31


def test_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(details, "HEARTBEAT_SECONDS", 0.01)
    folder = make_run(tmp_path, "a", status="running", heartbeat=None)
    with claimed(folder.path) as claim, folder.heartbeat(claim):
        beat = wait_for(lambda: folder.read()["heartbeat"], "a heartbeat")
    assert datetime.fromisoformat(beat).tzinfo
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())


@pytest.mark.parametrize(
    "said, status",
    [
        ({"status": "queued"}, "queued"),
        ({"status": "done"}, "done"),
        ({"status": "running", "heartbeat": 5}, "running"),
        ({"status": "running", "heartbeat": 31}, "interrupted"),
        ({"status": "running"}, "interrupted"),
        ({"status": "running", "heartbeat": "nonsense"}, "interrupted"),
        ({"status": "running", "heartbeat": "2026-01-01T00:00:00"}, "interrupted"),
        ({"status": "done", "heartbeat": 1000}, "done"),
        ({"num_steps": 5}, "done"),
    ],
)
def test_live_status(said, status):
    if isinstance(seconds := said.get("heartbeat"), int):
        ago = datetime.now().astimezone() - timedelta(seconds=seconds)
        said = said | {"heartbeat": ago.isoformat()}
    assert details.status_of(said) == status


def test_stop_flag(tmp_path):
    folder = make_run(tmp_path, "a")
    assert not folder.stop_requested()
    folder.request_stop()
    assert folder.stop_requested()


def test_progress_of_a_run_that_is_over(tmp_path):
    assert make_run(tmp_path, "a").read_progress() == {}


@pytest.mark.parametrize(
    "files, found",
    [
        ([], None),
        (["output.PNG", "preview.JPEG"], "output.PNG"),
        (["output.png"], "output.png"),
        (["preview.JPEG"], "preview.JPEG"),
    ],
)
def test_picture_path(tmp_path, files, found):
    folder = make_run(tmp_path, "a")
    for name in files:
        (folder.path / name).touch()
    assert folder.picture_path() == (folder.path / found if found else None)


def test_video_path(tmp_path):
    folder = make_run(tmp_path, "a")
    assert folder.video_path() is None
    (folder.path / "anim.part.mp4").touch()
    assert folder.video_path().name == "anim.part.mp4"
    (folder.path / "anim.mp4").touch()
    assert folder.video_path().name == "anim.mp4"


def test_find_run(tmp_path):
    make_run(tmp_path, "20260101T000000-aaaaaaaa")
    make_run(tmp_path, "20260102T000000-aaaaaaaa")
    make_run(tmp_path, "20260103T000000--b_bbbbb")
    assert find_run(tmp_path, "20260101T000000-aaaaaaaa").name == "20260101T000000-aaaaaaaa"
    assert find_run(tmp_path, "-b_bbbbb").name == "20260103T000000--b_bbbbb"
    with pytest.raises(BadInput, match=r"several.*20260101.*20260102"):
        find_run(tmp_path, "aaaaaaaa")


@pytest.mark.parametrize(
    "run_id", ["", "x", "aaaa", "../aaaaaaaa", ".", "..", "/etc", ".queue", "*"]
)
def test_find_run_lists_what_there_is(tmp_path, run_id):
    make_run(tmp_path, "20260101T000000-aaaaaaaa")
    make_run(tmp_path, ".queue")
    with pytest.raises(BadInput, match="20260101T000000-aaaaaaaa"):
        find_run(tmp_path, run_id)


def test_remove(tmp_path):
    folder = make_run(tmp_path, "a")
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_details_are_readable_text(tmp_path):
    folder = make_run(tmp_path, "a", text_input="grüße")
    text = (folder.path / "details.json").read_text(encoding="utf-8")
    assert "grüße" in text and json.loads(text) == folder.read()
