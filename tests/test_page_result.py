"""A result on the page: its pictures, its video, and frames to continue or to start from."""

import numpy as np
import pytest
from pages import (
    component_data,
    errors,
    everything,
    make_finished,
    press,
    queued,
    run,
    unescaped,
    write_prompt,
)
from PIL import Image

from studio.making.frames import marked_frame
from studio.media import video
from studio.page.kept import keep_picture
from studio.page.picker import BEGINS_AT, CONTINUE, PICKED, BeginsAt
from studio.runs.storage import INIT_IMAGE, PICTURE, START

NAME, CHILD = "20260101T000000-aaaaaaaa", "20260102T000000-bbbbbbbb"
FRAMES = 5
pytest_plugins = "page_fixtures"


@pytest.fixture
def filmed(output_dir):
    """A finished run with a video, whose frames grow lighter."""
    folder = make_finished(output_dir, NAME, text_input="a tree")
    part = folder.path / "anim.part.mp4"
    writer = video.VideoWriter(part, (32, 32))
    for number in range(FRAMES):
        writer.add(np.full((32, 32, 3), 40 * number, np.uint8))
    writer.close()
    video.finish(part, folder.path / "anim.mp4", "")
    return folder


def test_a_result_shows_its_picture_and_its_video(page, filmed):
    press(page.run(), "a tree")
    (viewer,), (film,) = component_data(page, "viewer"), component_data(page, "film")
    assert (viewer["pictures"][0]["width"], viewer["before"], viewer["alt"]) == (32, None, "a tree")
    assert (film["frames"], film["frames_per_second"]) == (FRAMES, 24)
    assert film["uses"] == ["Continue from this frame", "Use this frame as starting image"]


def test_before_is_what_the_run_began_with(page, filmed, output_dir):
    child = make_finished(output_dir, CHILD, text_input="a house", parent=NAME, parent_frame=3)
    press(page.run(), "a house")
    assert f"Continues frame 3 of {NAME}." in everything(page)
    assert component_data(page, "viewer")[0]["before"]["called"] == "what it continues"
    (filmed.path / PICTURE).unlink()
    assert component_data(page.run(), "viewer")[0]["before"] is None
    Image.new("RGB", (32, 32)).save(child.path / START, "PNG")
    assert component_data(page.run(), "viewer")[0]["before"]["called"] == "what it continues"
    child.update(parent=None)
    (child.path / START).unlink()
    Image.new("RGB", (32, 32)).save(child.path / INIT_IMAGE, "JPEG")
    assert component_data(page.run(), "viewer")[0]["before"]["called"] == "its starting image"


@pytest.mark.parametrize("name", [PICTURE, START])
def test_a_broken_picture_is_named(page, output_dir, name):
    folder = make_finished(output_dir, NAME, text_input="a tree")
    (folder.path / name).write_bytes(b"no picture")
    press(page.run(), "a tree")
    assert not page.exception
    assert (f"{name} is not an image" in everything(page)) == (name == PICTURE)


def test_a_frame_is_continued_once(page, filmed, output_dir):
    kept = keep_picture(output_dir, marked_frame(filmed, 4))
    page.session_state[CONTINUE], page.session_state[PICKED] = True, NAME
    page.session_state[BEGINS_AT] = BeginsAt(NAME, 4, kept)
    assert f"Continues frame 4 of “a tree” ({NAME})." in everything(page.run())
    run(page)
    assert not errors(page)
    (entry,) = queued(output_dir)
    assert (entry.details["parent"], entry.details["parent_frame"]) == (NAME, 4)
    grey = np.asarray(Image.open(entry.folder.path / START)).mean()
    assert grey == pytest.approx(120, abs=3)
    assert f"Continues “a tree” ({entry.name})" in everything(page), "no frame of the new run"


def test_a_frame_that_is_gone_is_refused(page, filmed, output_dir):
    page.session_state[CONTINUE], page.session_state[PICKED] = True, NAME
    page.session_state[BEGINS_AT] = BeginsAt(NAME, 4, output_dir / "gone.png")
    (filmed.path / "anim.mp4").unlink()
    run(page.run())
    assert "has no video to take a frame from" in errors(page) and not queued(output_dir)


def test_do_not_continue_forgets_the_frame(page, filmed, output_dir):
    page.session_state[CONTINUE], page.session_state[PICKED] = True, NAME
    page.session_state[BEGINS_AT] = BeginsAt(NAME, 4, output_dir / "gone.png")
    press(page.run(), "Do not continue")
    assert "Continues" not in everything(page) and page.session_state[BEGINS_AT] is None


def test_a_frame_as_starting_image_is_named(page, filmed, output_dir):
    kept = keep_picture(output_dir, marked_frame(filmed, 2))
    page.session_state["use_init_image"], page.session_state["kept_init_image"] = True, [str(kept)]
    run(write_prompt(page.run()))
    assert not errors(page)
    (entry,) = queued(output_dir)
    assert entry.details["init_image_from"] == {"run": NAME, "frame": 2}
    entry.folder.update(status="done")
    Image.new("RGB", (32, 32)).save(entry.folder.path / PICTURE, "PNG")
    press(page.run(), unescaped("a red heart"))
    assert f"Starting image: frame 2 of {NAME}." in everything(page)
