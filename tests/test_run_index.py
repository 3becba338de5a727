"""The runs of an output folder."""

import pytest
from test_storage import make_run

from studio.queue import run_queue
from studio.runs import run_index
from studio.runs.storage import RunFolder


def test_runs_come_newest_first_and_everything_else_is_skipped(tmp_path):
    output = tmp_path / "output"
    assert run_index.entries(output) == []
    make_run(output, "20260101T000000-aaaaaaaa")
    make_run(output, "20260301T000000-bbbbbbbb", status="queued", queued_at="2026-03-01T00:00:00.5")
    make_run(output, "20260301T000000-cccccccc", status="queued", queued_at="2026-03-01T00:00:00.1")
    make_run(output, ".queue")
    (output / "empty").mkdir()
    (output / "file").touch()
    (output / "loop").symlink_to("loop")
    (output / "broken").mkdir()
    (output / "broken" / "details.json").write_text("[" * 100_000)
    (output / "strange" / "details.json").mkdir(parents=True)
    runs = run_index.entries(output)
    assert [entry.name[-1] for entry in runs] == ["b", "c", "a"]
    assert [entry.status for entry in runs] == ["queued", "queued", "done"]
    assert [entry.name[-1] for entry in run_queue.waiting(runs)] == ["c", "b"]


def test_the_index_notices_a_change_and_reads_nothing_twice(tmp_path, monkeypatch):
    folder = make_run(tmp_path, "20260101T000000-aaaaaaaa", status="queued")
    assert run_index.entries(tmp_path)[0].status == "queued"
    folder.update(status="done")
    assert run_index.entries(tmp_path)[0].status == "done"
    monkeypatch.setattr(RunFolder, "read", lambda self: pytest.fail("read again"))
    assert run_index.entries(tmp_path)[0].status == "done"
