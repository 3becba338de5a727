"""Favourites and tags, as the page reads and writes them. The gallery's tests show the rest."""

import sqlite3

import pytest

from studio.base.errors import BadInput
from studio.runs import marks

ONE, TWO = "20260101T000000-aaaaaaaa", "20260102T000000-bbbbbbbb"


def test_what_is_marked_is_read(tmp_path):
    assert marks.read(tmp_path) == marks.Marks() and marks.stamp(tmp_path) == ()
    marks.set_favourite(tmp_path, ONE, True)
    marks.set_favourite(tmp_path, TWO, True)
    before = marks.stamp(tmp_path)
    marks.set_favourite(tmp_path, TWO, False)
    assert marks.read(tmp_path).favourites == {ONE} and marks.stamp(tmp_path) != before


def test_a_favourite_keeps_its_note_and_its_tags(tmp_path):
    marks.set_favourite(tmp_path, ONE, True)
    with sqlite3.connect(tmp_path / ".gallery" / "curation.sqlite") as connection:
        connection.execute("UPDATE marks SET note = 'mine'")
        connection.executemany("INSERT INTO tags VALUES (?, ?)", [(ONE, "sea"), (ONE, "Blue")])
    marks.set_favourite(tmp_path, ONE, False)
    rows = marks.rows(tmp_path / ".gallery" / "curation.sqlite")
    assert rows["marks"] == [(ONE, 0, "mine")]
    assert marks.read(tmp_path).tags == {ONE: ["Blue", "sea"]}


def test_marks_are_read_while_somebody_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(marks, "SHORTLY", 0.01)
    monkeypatch.setattr(marks, "BUSY_SECONDS", 0.01)
    marks.set_favourite(tmp_path, ONE, True)
    with sqlite3.connect(tmp_path / ".gallery" / "curation.sqlite") as other:
        other.execute("BEGIN EXCLUSIVE")
        marks._marks.cache_clear()
        assert marks.read(tmp_path).favourites == {ONE}
        with pytest.raises(BadInput, match="could not be saved"):
            marks.set_favourite(tmp_path, TWO, True)


def test_a_broken_file_has_no_marks_and_is_put_aside_by_the_next(tmp_path, capsys):
    marks.set_favourite(tmp_path, ONE, True)
    path = tmp_path / ".gallery" / "curation.sqlite"
    path.write_bytes(b"no database" * 100)
    assert marks.read(tmp_path) == marks.Marks()
    marks.set_favourite(tmp_path, TWO, True)
    assert marks.read(tmp_path).favourites == {TWO}
    assert path.with_name("curation.sqlite.broken").exists()
    assert "was broken" in capsys.readouterr().err
