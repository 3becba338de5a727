"""Pictures that come into the form: dropped and pasted ones, uploads, and what becomes of them."""

import base64
import io
import json

import pytest
import tiles_engine
from pages import (
    TELL,
    again,
    errors,
    everything,
    fake_listener,
    labelled,
    make_finished,
    press,
    queued,
    run,
    sidebar,
    unescaped,
)
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.engines import registry
from studio.page import dropped
from studio.runs.storage import PNG_KEY

pytest_plugins = "page_fixtures"


def png(colour="red", size=(40, 30), settings=None, parameters=None):
    buffer, chunks = io.BytesIO(), PngInfo()
    if parameters:
        chunks.add_text("parameters", parameters)
    if settings:
        chunks.add_text(PNG_KEY, json.dumps(settings))
    Image.new("RGB", size, colour).save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


@pytest.fixture
def drop(page, monkeypatch):
    """Drops a file, as the browser passes it."""

    def fall(name, data):
        address = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        page.session_state[dropped.DROP] = {"file": {"name": name, "data": address}}
        return press(page, TELL)

    monkeypatch.setattr(dropped, "listener", fake_listener)
    page.run()
    return fall


def uses(page):
    shown = ("Use its settings", "Starting image", "Image prompt", "Cancel")
    return [button.label for button in page.button if button.label in shown]


def colours(folder):
    """The strongest channel of each picture that a run was given."""
    kept = {p.name: Image.open(p).getpixel((5, 5)) for p in folder.path.glob("i*.JPEG")}
    return {name: "rgb"[max(range(3), key=pixel.__getitem__)] for name, pixel in kept.items()}


def test_a_dropped_picture_may_become_an_image_prompt_or_the_starting_image(page, output_dir, drop):
    drop("holiday.png", png("lime"))
    assert "What is **holiday.png** for? :gray[· 40x30]" in everything(page)
    assert uses(page) == ["Starting image", "Image prompt", "Cancel"]
    press(page, "Image prompt")
    assert uses(page) == []
    drop("more.png", png("red", (64, 48)))
    press(page, "Image prompt")
    drop("start.png", png("blue"))
    press(page, "Starting image")
    there = sidebar(page)
    assert there["Use starting image"].value and there["Add image prompt(s)"].value
    assert "64x48" in everything(page)
    there["Weight of picture 2"].set_value(-0.5)
    run(page)
    (entry,) = queued(output_dir)
    names = ("image-prompt-1.JPEG", "image-prompt-2.JPEG")
    assert colours(entry.folder) == {names[0]: "g", names[1]: "r", "init-image.JPEG": "b"}
    assert entry.details["image_prompt"] == [names[0], f"{names[1]}:-0.5"]


def test_cancel_changes_nothing(page, drop):
    drop("holiday.png", png())
    press(page, "Cancel")
    assert uses(page) == [] and not sidebar(page)["Use starting image"].value


def test_a_picture_that_carries_settings_asks_first(page, output_dir, drop):
    folder = make_finished(output_dir, text_input="a tree", Xdim=48, schema_version=1)
    drop("output.PNG", png(settings=folder.read()))
    assert uses(page) == ["Use its settings", "Starting image", "Image prompt", "Cancel"]
    assert page.text_area[0].value == ""
    press(page, "Use its settings")
    assert (page.text_area[0].value, sidebar(page)["Xdim"].value) == ("a tree", 48)
    assert uses(page) == []


def test_a_picture_of_another_web_ui_fills_the_form_and_says_what_it_left(page, drop):
    told = "a (red) cat\nNegative prompt: fog\nSteps: 9, CFG scale: 5.5, Size: 96x64, Mask blur: 4"
    drop("theirs.png", png(parameters=told))
    press(page, "Use its settings")
    assert page.session_state["engine"] == "Diffusion" and not errors(page)
    assert page.text_area[0].value == "a (red) cat"
    assert labelled(page.text_input, "Negative prompt").value == "fog"
    shown = sidebar(page)
    assert (shown["Num steps"].value, shown["Guidance scale"].value) == (9, 5.5)
    assert (shown["Xdim"].value, shown["ydim"].value) == (96, 64)
    said = [unescaped(toast.value) for toast in page.toast]
    assert "Left out: Mask blur." in said


def test_settings_that_cannot_be_used_are_said(page, output_dir, drop):
    folder = make_finished(output_dir, text_input="a tree", model="Marbling", schema_version=1)
    drop("output.PNG", png(settings=folder.read()))
    press(page, "Use its settings")
    assert "There is no engine 'Marbling'" in errors(page)


def test_details_that_are_dropped_take_their_settings_at_once(page, output_dir, drop):
    folder = make_finished(output_dir, text_input="a tree", schema_version=1)
    drop("details.json", json.dumps(folder.read()).encode())
    assert page.text_area[0].value == "a tree" and uses(page) == []


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("odd.png", b"no picture", "'odd.png' is not an image that can be read"),
        ("half.png", png(size=(400, 300))[:-100], "'half.png' is broken"),
        ("empty.png", b"", "'empty.png' is empty"),
        ("odd.json", b"no json", "odd.json"),
    ],
)
def test_what_cannot_be_read_is_said_and_not_kept(page, output_dir, drop, name, data, said):
    drop(name, data)
    assert said in errors(page) and uses(page) == []
    assert any(said in unescaped(toast.value) for toast in page.toast)
    assert not (output_dir / ".page" / "pictures").exists()


def test_an_engine_offers_the_uses_that_it_has(page, output_dir, drop, monkeypatch):
    monkeypatch.setitem(registry.ENGINES, tiles_engine.NAME, "tiles_engine:Tiles")
    page.run()
    sidebar(page)["Engine"].select(tiles_engine.NAME)
    page.run()
    drop("holiday.png", png())
    assert uses(page) == ["Cancel"]
    assert "Tiles takes no pictures" in everything(page)


def test_a_starting_image_ends_what_would_be_continued(page, output_dir, drop):
    make_finished(output_dir, text_input="a tree")
    sidebar(page.run())["Continue previous run"].set_value(True)
    page.run()
    drop("start.png", png("blue"))
    press(page, "Starting image")
    assert not sidebar(page)["Continue previous run"].value
    page.text_area[0].set_value("a heart")
    run(page)
    (entry,) = queued(output_dir)
    assert entry.details["init_image"] and not entry.details["continue_prev_run"]


# --- uploads -------------------------------------------------------------------------------------


def test_an_upload_shows_its_size_and_can_be_removed(page, output_dir):
    sidebar(page)["Add image prompt(s)"].set_value(True)
    upload = sidebar(page.run())["Upload image prompt(s)"]
    files = {"a.png": png("red"), "b.png": png("blue", (7, 9))}
    upload.set_value([(name, data, "image/png") for name, data in files.items()])
    page.run()
    assert "40x30" in everything(page) and "7x9" in everything(page)
    press(page, "Remove picture 1")
    assert "40x30" not in everything(page)
    run(page)
    (entry,) = queued(output_dir)
    assert colours(entry.folder) == {"image-prompt-1.JPEG": "b"}


def test_another_starting_image_replaces_the_first(page, output_dir):
    sidebar(page)["Use starting image"].set_value(True)
    page.text_area[0].set_value("a heart")
    for name, colour in (("a.png", "red"), ("b.png", "lime")):
        sidebar(page.run())["Upload starting image"].upload(name, png(colour), "image/png")
    run(page.run())
    (entry,) = queued(output_dir)
    assert colours(entry.folder) == {"init-image.JPEG": "g"}


def test_a_picture_that_is_gone_is_said(page, output_dir, drop):
    drop("holiday.png", png())
    press(page, "Image prompt")
    for path in (output_dir / ".page" / "pictures").iterdir():
        path.unlink()
    assert "not there any more" in everything(page.run())
    run(page)
    assert "A picture of 'Add image prompt(s)' is not there any more. Remove it." in errors(page)


def test_a_weight_that_cannot_be_used_is_refused(page, output_dir, drop):
    drop("holiday.png", png())
    press(page, "Image prompt")
    sidebar(page)["Weight of picture 1"].set_value(20_000.0)
    run(page)
    assert "has the weight 20000. Use a number from -10000 to 10000." in errors(page)
    assert not queued(output_dir)


def test_pictures_outlast_the_tab(page, output_dir, drop):
    for name, use in (("a.png", "Image prompt"), ("b.png", "Starting image")):
        drop(name, png())
        press(page, use)
    sidebar(page)["Weight of picture 1"].set_value(-0.5)
    page.run()
    later = again(page)
    assert sidebar(later)["Weight of picture 1"].value == -0.5
    assert sidebar(later)["Use starting image"].value
    (output_dir / ".page" / "pictures").rename(output_dir / "elsewhere")
    assert not sidebar(again(page))["Use starting image"].value


def test_settings_of_a_run_bring_its_weights(page, output_dir, drop):
    drop("holiday.png", png())
    press(page, "Image prompt")
    sidebar(page)["Weight of picture 1"].set_value(2.5)
    run(page)
    (entry,) = queued(output_dir)
    sidebar(page)["Weight of picture 1"].set_value(1.0)
    page.query_params["use"] = entry.name
    page.run()
    assert sidebar(page)["Weight of picture 1"].value == 2.5
    run(page)
    assert queued(output_dir)[-1].details["image_prompt"] == ["image-prompt-1.JPEG:2.5"]
