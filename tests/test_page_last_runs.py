"""The thumbnails of the last runs: finding them, opening them, and their buttons."""

import re
import sqlite3

import pytest
from pages import (
    TELL,
    errors,
    everything,
    fake_listener,
    labelled,
    make_finished,
    press,
    queued,
    run,
    sidebar,
)

from studio.page import last_runs
from studio.runs import marks, storage

FORM_IN_VIEW = 'querySelector(".st-key-origin")?.scrollIntoView'
pytest_plugins = "page_fixtures"


@pytest.fixture
def act(page, monkeypatch):
    """Presses a button on a thumbnail, as the browser passes it."""

    def do(act, folder, on="1"):
        page.run()
        asked = {"act": act, "run": getattr(folder, "name", folder), "on": on}
        page.session_state[last_runs.ACTS] = {"act": asked}
        return press(page, TELL)

    monkeypatch.setattr(last_runs, "listener", fake_listener)
    return do


@pytest.fixture
def runs(output_dir):
    """Two runs, the newer one first."""
    names = ("20260102T000000-bbbbbbbb", "20260101T000000-aaaaaaaa")
    prompts = ("a TALL tree <b>", "a red heart")
    return [make_finished(output_dir, n, text_input=p) for n, p in zip(names, prompts, strict=True)]


def shown(page):
    """The prompts of the thumbnails, as they are escaped."""
    found = re.findall(r'aria-label="Use settings: ([^"]*)"', everything(page))
    return list(found)


def search(page, words):
    field = next(field for field in page.text_input if field.label.startswith("Search by words"))
    field.set_value(words)
    return page.run()


def test_words_of_the_prompt_find_runs(page, runs):
    page.run()
    tree, heart = "a TALL tree &lt;b&gt;", "a red heart"
    for words, found in {
        "tree tall": [tree],
        "HEART a": [heart],
        "tree heart": [],
        "  ": [tree, heart],
    }.items():
        search(page, words)
        assert shown(page) == found
        assert (f"{len(found)} of 2 runs" in everything(page)) == (len(found) < 2)


def test_a_thumbnail_offers_what_its_run_can_do(page, runs, output_dir):
    (runs[0].path / "output.PNG").unlink()
    acts = re.findall(r'data-run="(\S+)" data-act="(\w+)"', everything(page.run()))
    usual = ["continue", "use", "start", "favourite", "remove"]
    assert [act for name, act in acts if name == runs[1].name] == usual
    assert [act for name, act in acts if name == runs[0].name] == ["use", "favourite", "remove"]


def test_favourites_and_tags_are_those_of_the_gallery(page, runs, output_dir, act):
    act("favourite", runs[1])
    assert marks.read(output_dir).favourites == {runs[1].name}
    assert everything(page).count("run-star") > everything(page).count(".run-star")
    with sqlite3.connect(output_dir / ".gallery" / "curation.sqlite") as connection:
        connection.execute("INSERT INTO tags VALUES (?, '<sea>')", (runs[0].name,))
    assert '<ul class="run-tags" aria-label="Tags"><li>&lt;sea&gt;</li></ul>' in everything(
        page.run()
    )
    labelled(page.toggle, "Favourites").set_value(True)
    assert shown(page.run()) == ["a red heart"]
    act("favourite", runs[1], on="0")
    assert shown(page) == [] and "0 of 2 runs" in everything(page)
    assert marks.read(output_dir).favourites == frozenset()


def test_the_other_buttons_do_as_their_namesakes(page, runs, output_dir, act):
    act("use", runs[0])
    assert page.text_area[0].value == "a TALL tree <b>"
    act("continue", runs[1])
    assert "Continues “a red heart”" in everything(page)
    act("start", runs[0])
    assert FORM_IN_VIEW in everything(page)
    assert "Continues “" not in everything(page) and sidebar(page)["Use starting image"].value
    run(page)
    (entry,) = queued(output_dir)
    assert entry.details["init_image"] and entry.details["text_input"] == "a red heart"
    act("remove", runs[0])
    assert shown(page) == ["a red heart"]
    press(page, "Undo")
    assert shown(page) == ["a TALL tree &lt;b&gt;", "a red heart"]


def test_a_run_that_is_gone_is_said(page, runs, act):
    for what in ("continue", "use", "start", "favourite", "remove"):
        act(what, gone := "20260103T000000-cccccccc")
        assert gone in errors(page) and page.toast


def test_marks_that_cannot_be_written_are_said(page, runs, output_dir, act):
    (output_dir / ".gallery").write_text("in the way")
    act("favourite", runs[0])
    assert "This could not be saved in" in errors(page)
    assert storage.find_run(output_dir, runs[0].name)
