"""Upscaling on the page: the button, what waits, is computed, was stopped or failed, the result."""

import pytest
from pages import (
    component_data,
    errors,
    everything,
    labelled,
    make_finished,
    press,
    queued,
    run,
    write_prompt,
)
from PIL import Image

from studio.page import estimates, pictures
from studio.queue import run_queue
from studio.runs import trash, upscalings
from studio.runs.claims import claimed
from studio.runs.run_index import Entry
from studio.runs.storage import RunFolder, now
from studio.runs.upscalings import Asked, asked_in

NAME = "20260101T000000-aaaaaaaa"
pytest_plugins = "page_fixtures"


@pytest.fixture
def result(page, output_dir):
    """A finished run, whose result the page shows."""
    folder = make_finished(output_dir, NAME, text_input="a tree")
    press(page.run(), "a tree")
    return folder


def make_job(folder, scale=4, **details):
    job = upscalings.folder_of(folder, scale)
    job.path.mkdir(parents=True)
    asked = Asked(folder.name, scale, "auto")
    job.write(upscalings.details_of(asked, "a tree") | details)
    return job


def labels(page):
    return [button.label for button in page.button]


def test_upscale_puts_it_into_the_queue(page, result, output_dir):
    labelled(page.radio, "Scale").set_value(3)
    labelled(page.selectbox, "Model").set_value("x4plus-anime")
    press(page, "Upscale now")
    (job,) = run_queue.line(output_dir)
    assert asked_in(job.details) == Asked(NAME, 3, "x4plus-anime")
    assert "Upscaling ×3 :gray[— starts as soon as it can]" in everything(page)
    assert "Upscale ×3: a tree" in everything(page), "in the queue as well"
    assert queued(output_dir) == [] and result.read()["status"] == "done"
    assert component_data(page, "viewer"), "the result stays in sight"


def test_asking_twice_is_refused_beside_the_result(page, result):
    press(press(page, "Upscale now"), "Upscale now")
    assert "being upscaled 4 times already" in errors(page)


def test_it_waits_for_its_turn_and_for_the_queue(page, result, output_dir):
    run_queue.pause(output_dir)
    press(page, "Upscale now")
    assert "starts when you start the queue" in everything(page)
    run_queue.unpause(output_dir)
    run(write_prompt(page.run()))
    press(page, "a tree")
    (job, later) = run_queue.line(output_dir)
    run_queue.move(output_dir, later.name, 0)
    assert "Upscaling ×4 :gray[— waits: 1 before it]" in everything(page.run())
    assert job.name == f"{NAME}-x4"


@pytest.mark.parametrize("word", ["Cancel", "Remove", "Clear all"])
def test_one_that_waits_is_taken_out(page, result, output_dir, word):
    job = make_job(result)
    page.run()
    key = {"Cancel": f"cancel-{job.name}", "Remove": f"remove-{job.name}", "Clear all": "clear-all"}
    page.button(key=key[word]).click()
    page.run()
    assert not errors(page) and not page.exception
    assert not job.path.exists() and trash.trashed(output_dir) == []
    assert "Undo" not in labels(page) and "Upscaling" not in everything(page)


def test_one_that_is_computed_shows_how_far_it_is_and_stops(page, result):
    job = make_job(result, status="running", heartbeat=now(), host="here")
    (job.path / "progress.json").write_text('{"share": 0.42}')
    with claimed(job.path):
        page.run()
        (bar,) = page.get("progress")
        assert (bar.proto.value, bar.proto.text) == (42, "Upscaling ×4: 42 %")
        press(page, "Stop")
    assert job.stop_requested() and "Stopping …" in labels(page)


def test_one_of_another_run_is_shown_as_well(page, result, output_dir):
    other = make_finished(output_dir, "20260102T000000-bbbbbbbb", text_input="a house")
    make_job(other, 2, status="running", heartbeat=now(), host="here")
    page.run()
    assert [bar.proto.text for bar in page.get("progress")] == ["Upscaling ×2: loading the model …"]
    press(page, "a house")
    assert len(page.get("progress")) == 1, "beside its result, and nowhere else"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("stopped", "Upscaling ×4 was stopped."),
        ("failed", "Upscaling ×4 failed. The disk is full."),
        ("running", "Upscaling ×4 failed. It was interrupted."),
    ],
)
def test_one_that_ended_says_how_and_is_begun_again_or_dismissed(page, result, status, words):
    error = "The disk is full." if status == "failed" else None
    job = make_job(result, status=status, error=error, heartbeat="2020-01-01", host="here")
    assert words in everything(page.run())
    press(page, "Upscale again")
    assert job.read()["status"] == "queued" and words not in everything(page)
    job.update(status="stopped")
    press(page.run(), "Dismiss")
    assert not job.path.exists() and "Upscaling" not in everything(page)


def test_the_larger_pictures_are_shown_first_the_newest_before_the_others(page, result):
    for scale in (2, 4):
        size = (32 * scale, 32 * scale)
        Image.new("RGB", size).save(result.path / f"output-x{scale}.PNG")
    told = [
        {"file": f"output-x{scale}.PNG", "scale": scale, "model": "x4plus", "of": "output.PNG"}
        for scale in (2, 4, 8)
    ]
    result.update(upscaled=told)
    press(page.run(), "a tree")
    (picture,) = component_data(page, "viewer")[0]["pictures"]
    assert picture["width"] == 32
    larger = [(one["called"], one["width"]) for one in picture["larger"]]
    assert larger == [("×4 x4plus", 128), ("×2 x4plus", 64)], "those that are there"
    downloads = [button.label for button in page.get("download_button")]
    assert downloads == ["Picture", "Picture ×4", "Picture ×2", "Details"]


def test_one_that_ends_while_the_page_is_drawn_is_shown(page, result, monkeypatch):
    job = make_job(result, 2, status="running", heartbeat=now(), host="here")
    seconds_to_come = estimates.seconds_to_come

    def end(options, runs):
        if job.path.exists():
            Image.new("RGB", (64, 64)).save(result.path / "output-x2.PNG")
            about = {"file": "output-x2.PNG", "scale": 2, "model": "x4plus", "of": "output.PNG"}
            result.update(upscaled=[about])
            job.remove()
        return seconds_to_come(options, runs)

    monkeypatch.setattr(estimates, "seconds_to_come", end)
    page.run()
    assert not page.exception and not job.path.exists()
    (picture,) = component_data(page, "viewer")[0]["pictures"]
    assert [one["width"] for one in picture["larger"]] == [64]


def test_one_too_large_for_a_browser_is_only_downloaded(page, result, monkeypatch):
    (result.path / "output-x8.PNG").write_bytes(b"more than a browser shows")
    about = {"file": "output-x8.PNG", "scale": 8, "model": "x4plus", "of": "output.PNG"}
    result.update(upscaled=[about])
    press(page.run(), "a tree")
    assert component_data(page, "viewer")[0]["pictures"][0]["larger"] == []
    assert "Picture ×8" in [button.label for button in page.get("download_button")]


def test_a_run_without_a_picture_offers_no_upscaling(page, output_dir):
    folder = make_finished(output_dir, NAME, text_input="a tree")
    (folder.path / "output.PNG").unlink()
    press(page.run(), "a tree")
    assert "Upscale now" not in labels(page)


def test_the_setting_is_a_list(page, output_dir):
    box = labelled(page.sidebar.selectbox, "Upscale")
    assert list(box.options) == ["off", "2", "3", "4", "8"] and box.value == 0
    box.set_value(4)
    run(write_prompt(page))
    assert not errors(page) and queued(output_dir)[0].details["upscale"] == 4


def test_thumbnails_show_the_larger_picture_if_it_can_be_read(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(pictures, "show_small", lambda path, alt: shown.append(path.name))
    Image.new("RGB", (8, 8)).save(tmp_path / "output.PNG")
    (tmp_path / "output-x2.PNG").write_bytes(b"none")
    told = [{"file": f"output-x{n}.PNG", "scale": n, "of": "output.PNG"} for n in (4, 2)]
    entry = Entry(RunFolder(tmp_path), {"upscaled": told})
    pictures.show_thumbnail(entry)
    Image.new("RGB", (32, 32)).save(tmp_path / "output-x4.PNG")
    pictures.show_thumbnail(entry)
    assert shown == ["output.PNG", "output-x4.PNG"]
