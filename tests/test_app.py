"""The page's form, messages and panels, by Streamlit's own AppTest, without a browser or worker."""

import io
import json
import re
import subprocess
import sys
import time
from datetime import datetime

import numpy as np
import pytest
from pages import (
    ROOT,
    again,
    errors,
    everything,
    labelled,
    make_finished,
    make_run,
    press,
    queued,
    run,
    sidebar,
    switch_stages,
    unescaped,
    write_prompt,
)
from PIL import Image
from pydantic import create_model
from streamlit.testing.v1 import AppTest

from studio.base.errors import BadInput
from studio.base.files import atomic_write, to_json
from studio.engines import registry
from studio.engines.vqgan_clip import estimate
from studio.engines.vqgan_clip.engine import VQGANCLIP
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.making.prepare import Request, prepare
from studio.making.submit import submit
from studio.media.nine_slices import NAMES
from studio.media.pictures import encode_png
from studio.page import actions, space
from studio.page.memory import Memory
from studio.page.stages import edited
from studio.page.text import NOTHING, plain
from studio.queue import run_queue
from studio.queue.slots import WorkerSlot, WorkerState
from studio.runs import checkpoints, run_index, trash
from studio.runs.details import now
from studio.runs.storage import CHECKPOINT, PICTURE, PREVIEW, PROGRESS
from studio.settings.common import MAX_SEED
from studio.settings.declare import meta, setting
from studio.settings.values import read_defaults

ALWAYS = """
Model weights|CLIP model|Num steps|Xdim|ydim|Set seed|Use starting image|Add image prompt(s)
Continue previous run|Use MSE regularization|Use TV loss regularization
Scrolling/zooming transforms|Use cutout augmentations|Step size|Cutouts|Cutout power
"""
BEHIND = {
    "Set seed": "Seed",
    "Use starting image": "Upload starting image",
    "Add image prompt(s)": "Upload image prompt(s)",
    "Continue previous run": "Continued at another size",
    "Nine slices": "Slice prompts: NW|Slice seeds|Keep the slices|Steps of a slice",
    "Use MSE regularization": "MSE weight|Decay MSE weight by ...|... every N steps",
    "Use TV loss regularization": "TV loss weight",
    "Scrolling/zooming transforms": "Translation in X|Translation in y|Rotation angle (degrees)"
    "|Zoom factor|Iterations per frame",
}
SPARKLES = (int, setting(3, "Sparkles", "How many sparkles to add.", ge=0, le=9))
pytest_plugins = "page_fixtures"


class Sparkling(VQGANCLIP):
    """An engine with one more setting."""

    settings = create_model("SparklingSettings", __base__=VQGANCLIPSettings, sparkles=SPARKLES)


def labels(text):
    return set(text.replace("\n", "|").strip("|").split("|"))


def set_defaults(monkeypatch, folder, line):
    path = folder / "defaults.yaml"
    path.write_text(line)
    monkeypatch.setitem(read_defaults.__kwdefaults__, "path", path)


# --- the form ---


def test_the_main_area_has_the_prompt_and_run(page):
    assert not page.exception
    assert [area.label for area in page.main.text_area] == ["Text prompt"]
    assert [button.label for button in page.main.button] == ["Run!"]


def test_the_sidebar_has_every_setting_with_help(page):
    assert sidebar(page).keys() >= labels(ALWAYS) | {"TV loss weight"}
    for switch in BEHIND:
        sidebar(page)[switch].set_value(True)
    page.run()
    there = sidebar(page)
    assert there.keys() >= labels(ALWAYS) | labels("|".join(BEHIND.values()))
    declared = {meta(f)["label"] for f in VQGANCLIPSettings.model_fields.values()}
    assert there.keys() >= declared - {"Text prompt", "Avoid", "Slice prompts"}
    helpless = {label for label, widget in there.items() if not widget.help}
    assert helpless == {f"Slice prompts: {name}" for name in NAMES}, "their table has it"


@pytest.mark.parametrize("switch", BEHIND)
def test_a_group_shows_with_its_switch_alone(page, switch):
    widget = sidebar(page)[switch]
    widget.set_value(True)
    assert labels(BEHIND[switch]) <= sidebar(page.run()).keys()
    sidebar(page)[switch].set_value(False)
    assert not labels(BEHIND[switch]) & sidebar(page.run()).keys()


def test_a_value_outlives_its_switch(page):
    sidebar(page)["Use MSE regularization"].set_value(True)
    sidebar(page.run())["MSE weight"].set_value(3.5)
    for on in (False, True):
        sidebar(page.run())["Use MSE regularization"].set_value(on)
    assert sidebar(page.run())["MSE weight"].value == 3.5


def test_the_form_starts_with_what_the_weights_recommend(page):
    there = sidebar(page)
    assert there["Model weights"].value == "tiny_f8"
    assert there["CLIP model"].value == "tiny_clip"
    assert (there["Cutouts"].value, there["Step size"].value) == (4, 0.1)
    assert there["Num steps"].value == 150


def test_other_weights_bring_what_they_recommend_and_take_theirs_away(page):
    sidebar(page)["Xdim"].set_value(48)
    sidebar(page)["Model weights"].set_value("wide_f8")
    there = sidebar(page.run())
    assert (there["Num steps"].value, there["Cutouts"].value) == (7, 9)
    assert (there["CLIP model"].value, there["Step size"].value) == ("ViT-B/32", 0.05)
    assert there["Xdim"].value == 48, "what a person typed stays"
    there["Model weights"].set_value("tiny_f8")
    there = sidebar(page.run())
    assert (there["Num steps"].value, there["Cutouts"].value) == (150, 4)


def test_a_new_setting_appears_without_a_change_to_the_page(page, monkeypatch):
    monkeypatch.setitem(registry.ENGINES, "Sparkling", f"{__name__}:Sparkling")
    sidebar(page.run())["Engine"].set_value("Sparkling")
    sparkles = sidebar(page.run())["Sparkles"]
    assert (sparkles.value, sparkles.help) == (3, "How many sparkles to add.")


# --- Run! ---


def test_run_puts_the_settings_into_the_queue(page, output_dir):
    write_prompt(page, "a: b | https://c.d:80 | ❤️")
    sidebar(page)["Set seed"].set_value(True)
    sidebar(page.run())["Seed"].set_value(f" {MAX_SEED} ")
    sidebar(page)["Num steps"].set_value(-1)
    run(page)
    assert not page.error and not page.exception
    (entry,) = queued(output_dir)
    details = entry.details
    assert details["text_input"] == "a: b | https://c.d:80 | ❤️"
    assert (details["seed"], details["planned_num_steps"]) == (MAX_SEED, -1)
    assert (details["cutn"], details["clip_model"]) == (4, "tiny_clip")


def test_a_second_run_waits_visibly_and_can_be_removed(page, output_dir):
    run(write_prompt(page, "first"))
    run(write_prompt(page, "second"))
    assert "second :gray[— waits: 1 before it]" in everything(page)
    [b for b in page.button if b.label == "Remove"][1].click()
    page.run()
    assert [entry.details["text_input"] for entry in queued(output_dir)] == ["first"]
    assert "waits: 1 before it" not in everything(page)


@pytest.mark.parametrize(
    ("label", "value", "message"),
    [
        ("Num steps", 0, "'Num steps' must be 1 or more"),
        ("Num steps", -2, "'Num steps' must be a whole number from -1"),
        ("Xdim", 7, "Xdim"),
        ("Xdim", 100_000, "16384"),
        ("ydim", -5, "ydim"),
        ("Cutouts", 0, "'Cutouts' must be a whole number from 1 to 1024; it was 0."),
        ("Step size", 0.0, "'Step size' must be a number above 0"),
        ("Step size", float("inf"), "'Step size' must be a number"),
        ("TV loss weight", -1e9, "'TV loss weight' must be"),
        ("Use starting image", True, "'Upload starting image'"),
        ("Add image prompt(s)", True, "'Upload image prompt(s)'"),
        ("Continue previous run", True, "There is no finished run"),
    ],
)
def test_a_bad_choice_is_refused_near_run(page, output_dir, label, value, message):
    write_prompt(page)
    sidebar(page)[label].set_value(value)
    run(page)
    assert message in errors(page)
    assert not page.exception
    assert run_index.entries(output_dir) == []


def test_a_missing_clip_is_reported_before_run(page, monkeypatch, tmp_path):
    set_defaults(monkeypatch, tmp_path, "clip_model: no/such.pt")
    fresh = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    assert sidebar(fresh)["CLIP model"].value == "no/such.pt"
    assert "There is no CLIP 'no/such.pt'" in everything(fresh)
    assert "There is no CLIP 'no/such.pt'" in errors(run(write_prompt(fresh)))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("", "No prompt"), ("  ", "No prompt"), ("a ^ b", "Serial prompts"), (":3", "no text")],
)
def test_a_bad_prompt_is_refused_near_run(page, output_dir, prompt, message):
    run(write_prompt(page, prompt))
    assert message in errors(page)
    assert run_index.entries(output_dir) == []


@pytest.mark.parametrize("seed", ["", "-1", "abc", "1.5", str(MAX_SEED + 1)])
def test_a_bad_seed_is_refused_near_run(page, output_dir, seed):
    write_prompt(page)
    sidebar(page)["Set seed"].set_value(True)
    sidebar(page.run())["Seed"].set_value(seed)
    run(page)
    assert "'Seed' must be a whole number" in errors(page)
    assert run_index.entries(output_dir) == []


def test_the_next_run_clears_a_message(page, output_dir):
    run(write_prompt(page, ""))
    assert page.error
    run(write_prompt(page))
    assert not page.error and len(queued(output_dir)) == 1


def png(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_uploads_travel_into_the_run_folder(page, output_dir):
    sidebar(page)["Use starting image"].set_value(True)
    sidebar(page)["Add image prompt(s)"].set_value(True)
    there = sidebar(page.run())
    there["Upload starting image"].upload("start.png", png("red"), "image/png")
    pictures = [("same.png", png("blue"), "image/png"), ("same.png", png("lime"), "image/png")]
    there["Upload image prompt(s)"].set_value(pictures)
    run(page.run())
    (entry,) = queued(output_dir)
    assert not page.error
    kept = ("init-image.JPEG", "image-prompt-1.JPEG", "image-prompt-2.JPEG")
    colours = [Image.open(entry.folder.path / name).getpixel((5, 5)) for name in kept]
    assert [max(range(3), key=colour.__getitem__) for colour in colours] == [0, 2, 1]


def test_a_broken_upload_is_refused(page, output_dir):
    write_prompt(page)
    sidebar(page)["Use starting image"].set_value(True)
    sidebar(page.run())["Upload starting image"].upload("x.png", b"<html>", "image/png")
    assert "The picture 'x.png' is not an image" in errors(page.run())
    run(page)
    assert "give 'Upload starting image' a file of at most 10 MB" in errors(page)
    assert run_index.entries(output_dir) == []


def test_continuing_takes_the_last_run_unless_another_is_picked(page, output_dir):
    make_finished(output_dir, "20260101T000000-aaaaaaaa", text_input="an old tree")
    make_finished(output_dir, "20260102T000000-bbbbbbbb", text_input="a new tree")
    press(page.run(), "an old tree")
    sidebar(page)["Continue previous run"].set_value(True)
    assert "Continues “a new tree”" in everything(page.run())
    press(page, "Continue")
    assert "Continues “an old tree”" in everything(page)
    run(page)
    (entry,) = queued(output_dir)
    assert entry.details["prev_run_id"] == "aaaaaaaa"
    assert entry.details["text_input"] == "an old tree"


def test_after_a_run_that_continues_the_next_continues_that_one(page, output_dir):
    make_finished(output_dir, text_input="a tree")
    sidebar(page.run())["Continue previous run"].set_value(True)
    run(write_prompt(page.run(), "a larger tree"))
    (entry,) = queued(output_dir)
    assert f"Continues “a larger tree” ({entry.name}). It is queued" in everything(page)
    run(page)
    assert "still queued" in errors(page) and len(queued(output_dir)) == 1
    entry.folder.update(status="done")
    Image.new("RGB", (32, 32)).save(entry.folder.path / PICTURE, "PNG")
    run(page.run())
    (entry, parent) = (queued(output_dir)[0], entry)
    assert entry.details["parent"] == parent.name


def test_what_is_continued_can_be_left(page, output_dir):
    make_finished(output_dir, text_input="a tree")
    page.query_params["continue"] = "aaaaaaaa"
    press(page.run(), "Do not continue")
    assert "Continues" not in everything(page)
    assert not sidebar(page)["Continue previous run"].value
    run(page)
    assert [e.details["parent"] for e in queued(output_dir)] == [None]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("scale", "Its picture is scaled from 32x32 to 64x32."),
        ("crop", "Its picture is cropped from 32x32 to 64x32."),
        ("keep", "The size stays 32x32."),
    ],
)
def test_it_is_said_what_happens_to_a_picture_of_another_size(page, output_dir, how, says):
    make_finished(output_dir, text_input="a tree")
    page.query_params["continue"] = "aaaaaaaa"
    sidebar(page.run())["Xdim"].set_value(64)
    sidebar(page)["Continued at another size"].set_value(how)
    assert says in everything(page.run())
    run(page)
    (entry,) = queued(output_dir)
    assert Image.open(entry.folder.path / "start.PNG").size == (32 if how == "keep" else 64, 32)
    assert entry.details["continue_resize"] == how


@pytest.fixture
def child(output_dir, assets):
    """A run that is done and that continued another one, with its state."""
    parent = make_finished(output_dir, text_input="a tree", vqgan_ckpt="tiny_f8")
    picture = np.zeros((32, 32, 3), np.uint8)
    state = checkpoints.encode(
        checkpoints.Checkpoint(
            index=3,
            pictures=[picture],
            losses={"total": 1.0},
            state={"frames": 3},
            engine=registry.DEFAULT,
            settings={"seed": 5},
            history={},
            frames=3,
            frames_per_second=24.0,
        )
    )
    atomic_write(parent.path / "checkpoint.safetensors", state)
    given = {"text_input": "a larger tree", "Xdim": 48, "use_mse_regularization": True}
    request = Request(given, output_dir, assets, continue_run=parent.name)
    folder = submit(prepare(request))
    folder.update(status="done", num_steps=150)
    details = json.dumps(folder.read())
    atomic_write(folder.path / PICTURE, encode_png(Image.fromarray(picture), {"details": details}))
    return folder


def settings_in(details):
    kind = VQGANCLIPSettings.model_fields
    wanted = {name: details[name] for name in kind} | {"set_seed": True}
    return wanted | {"num_steps": details["planned_num_steps"]}


def test_settings_of_a_run_bring_all_that_made_it(page, output_dir, child):
    sidebar(page.run())["Continue previous run"].set_value(True)
    page.run()
    page.query_params["use"] = child.name
    page.run()
    assert not sidebar(page)["Continue previous run"].value
    assert "Begins where the run with these settings began" in everything(page)
    run(page)
    (entry,) = queued(output_dir)
    assert not errors(page)
    before = child.read()
    names = ("inputs_sha256", "parent", "ancestors", "continue_prev_run")
    assert [entry.details[n] for n in names] == [before[n] for n in names]
    assert settings_in(entry.details) == settings_in(before)
    assert (entry.folder.path / "start.safetensors").is_file()


def test_settings_of_a_run_say_what_is_missing(page, child):
    (child.path / "start.safetensors").unlink()
    page.query_params["use"] = child.name
    assert "start.safetensors, is not there any more" in everything(page.run())
    (child.path / "start.PNG").unlink()
    page.query_params["use"] = child.name
    page.run()
    assert "the picture that it continued" in errors(page)


def test_settings_bring_their_engine_along(page, output_dir, monkeypatch):
    monkeypatch.setitem(registry.ENGINES, "Sparkling", f"{__name__}:Sparkling")
    make_finished(output_dir, text_input="a tree", model="Sparkling", sparkles=7)
    page.query_params["use"] = "aaaaaaaa"
    there = sidebar(page.run())
    assert (there["Engine"].value, there["Sparkles"].value) == ("Sparkling", 7)


PRESSED_BY_EIGHT = """
import sys, threading
import app
from studio.engines import registry
from streamlit.runtime.scriptrunner import add_script_run_ctx

app.main()
options = app.read_options(sys.argv)
form = app.Form(registry.DEFAULT, options.assets_dir, app.Memory(options.output_dir))
press = ("the same press", options, form)
threads = [threading.Thread(target=app.press_run, args=press) for _ in range(8)]
for thread in threads:
    add_script_run_ctx(thread)
    thread.start()
for thread in threads:
    thread.join()
"""


def test_a_press_makes_one_run_even_if_it_causes_eight_callbacks(page, output_dir):
    script = AppTest.from_string(PRESSED_BY_EIGHT, default_timeout=60)
    script.session_state["text_input"] = "a red heart"
    assert not script.run().exception
    assert len(queued(output_dir)) == 1
    run(write_prompt(page))
    run(page)
    assert len(queued(output_dir)) == 3, "each press that a person makes counts"


def test_a_press_counts_even_if_the_button_was_not_drawn_again():
    """As if the page was interrupted in the meantime."""
    presses, heeded = actions.Presses(), []
    for pause in (0, 0, 2 * actions.ECHO_SECONDS, 0):
        time.sleep(pause)
        with presses.heeding("a drawing") as is_heeded:
            heeded.append(is_heeded)
    assert heeded == [True, False, True, False]


@pytest.mark.parametrize(("prompt", "kept"), [("", ["image-prompt-1.JPEG"]), ("a cat", [])])
def test_continuing_keeps_image_prompts_with_the_prompt_only(page, output_dir, prompt, kept):
    parent = make_finished(output_dir, image_prompts=["image-prompt-1.JPEG"])
    Image.new("RGB", (32, 32)).save(parent.path / "image-prompt-1.JPEG", "JPEG")
    sidebar(page.run())["Continue previous run"].set_value(True)
    run(write_prompt(page, prompt))
    assert [entry.details["image_prompt"] for entry in queued(output_dir)] == [kept]


# --- estimates and warnings before Run! ---


def test_it_says_roughly_how_long_and_how_much_memory(page):
    said = everything(page)
    assert "Roughly: about" in said and "GB of memory" in said and "a first guess" in said
    sidebar(page)["Num steps"].set_value(-1)
    assert "until you stop it" in everything(page.run())


def test_a_size_that_is_not_a_multiple_says_what_it_becomes(page):
    sidebar(page)["Xdim"].set_value(100)
    assert "100x128 became 96x128" in everything(page.run())


def said_seconds(page):
    """The first number of seconds in the estimate."""
    said = next(c.value for c in page.caption if c.value.startswith("Roughly"))
    return float(re.search(r"about ([\d.]+) s", said.replace("\\", ""))[1])


def test_how_many_stages_and_the_queue_count(page, output_dir, monkeypatch):
    monkeypatch.setattr(estimate, "_guessed_step", lambda *_: 0.1)
    sidebar(page)["Num steps"].set_value(100)
    one = said_seconds(page.run())
    assert 10 <= one < 20
    labelled(page.number_input, "How many").set_value(3)
    assert said_seconds(page.run()) == pytest.approx(3 * one, abs=2)
    labelled(page.number_input, "How many").set_value(1)
    page.session_state["stage_rows"] = [{"text_input": "in spring"}, {"num_steps": "300"}]
    switch_stages(page)
    assert said_seconds(page) == pytest.approx(one + 20 + one, abs=2)
    run(write_prompt(page))
    assert re.search(r"after about \d+ s for the runs before it", everything(page))


# --- runs on the page ---


def test_a_running_run_shows_its_progress_and_stops_on_request(page, output_dir):
    details = {"status": "running", "heartbeat": now(), "planned_num_steps": 40}
    folder = make_run(output_dir, "20260101T000000-aaaaaaaa", **details)
    progress = {
        "step": 10,
        "planned_num_steps": 40,
        "steps_per_second": 2.5,
        "seconds_left": 12.0,
        "losses": {"text": 0.5, "total": 0.75},
        "history": [[1, 2.0], [5, None], [10, 0.75]],
    }
    atomic_write(folder.path / PROGRESS, to_json(progress))
    Image.new("RGB", (32, 32)).save(folder.path / PREVIEW, "JPEG")
    said = everything(page.run())
    assert "step 10 of 40" in [bar.proto.text for bar in page.get("progress")]
    assert "2.5 steps/s · 12 s left" in said
    assert "total 0.75" in said and "Total loss, from 2 to 0.75" in said
    assert "data:image/jpeg;base64," in said
    labelled(page.button, "Stop").click()
    page.run()
    assert folder.stop_requested()
    assert "Stopping …" in [button.label for button in page.button]


def test_a_result_appears_when_the_run_ends(page, output_dir):
    details = {"status": "running", "heartbeat": now(), "num_steps": 0}
    folder = make_finished(output_dir, **details, seed=11)
    page.run()
    folder.update(status="done", steps_per_second=3.25, vqgan_ckpt="tiny_f8", num_steps=5)
    said = everything(page.run())
    assert f"Run folder: `{folder.name}`" in said
    assert "✓ Done · 5 steps · 3.25 steps/s" in said
    assert "<dt>Seed</dt><dd>11</dd>" in said
    assert [b.label for b in page.get("download_button")] == ["Picture", "Details"]


def test_a_result_appears_even_if_the_run_ended_before_the_page_looked(page, monkeypatch):
    def submit_and_compute(plan, **belongs):
        folder = submit(plan, **belongs)
        folder.update(status="done", num_steps=1)
        return folder

    monkeypatch.setattr("studio.queue.run_queue.submit", submit_and_compute)
    assert "✓ Done · 1 step " in everything(run(write_prompt(page.run())))


def test_the_last_stage_shows_even_if_no_stage_after_the_first_was_seen(page, output_dir):
    running = {"status": "running", "heartbeat": now(), "num_steps": 0}
    chain = {"number": 1, "count": 3, "next": [{}, {}]}
    names = [f"20260101T00000{n}-aaaaaaa{n}" for n in range(3)]
    first = make_finished(output_dir, names[0], **running, chain=chain)
    page.run()
    first.update(status="done")
    assert f"Run folder: `{names[0]}`" in everything(page.run())
    later = {"number": 3, "count": 3, "next": []}
    make_finished(output_dir, names[2], chain=later)
    make_finished(output_dir, names[1], chain=chain | {"number": 2, "followed_by": names[2]})
    first.update(chain=chain | {"followed_by": names[1]})
    assert f"Run folder: `{names[2]}`" in everything(page.run())
    assert f"Run folder: `{names[2]}`" in everything(page.run())


def test_a_failed_run_says_what_to_change(page, output_dir):
    make_finished(output_dir, status="failed", error="Out of memory. Lower Xdim *now*.")
    page.run()
    next(b for b in page.button if b.label.startswith("20260101")).click()
    assert "Out of memory. Lower Xdim *now*." in errors(page.run())


@pytest.mark.parametrize("status", ["done", "stopped", "failed", "interrupted"])
def test_the_last_runs_show_with_prompt_and_date(page, output_dir, status):
    make_finished(output_dir, status=status, text_input="# a *bold* :red[tree]")
    said = everything(page.run())
    assert "1 Jan 2026, 00:00" in said
    assert r"\# a \*bold\* \:red\[tree\]" in [button.label for button in page.button]


def test_eight_of_the_last_runs_show(page, output_dir):
    for number in range(10):
        make_finished(output_dir, f"2026010{number}T000000-aaaaaaa{number}")
    page.run()
    shown = [b.label.replace("\\", "")[:8] for b in page.button if b.label.startswith("2026")]
    assert shown == [f"2026010{number}" for number in range(9, 1, -1)]


@pytest.mark.parametrize("data", [b"", b"<html>", b"\x89PNG\r\n\x1a\n"])
def test_a_broken_picture_does_not_break_the_page(page, output_dir, data):
    folder = make_finished(output_dir)
    (folder.path / PICTURE).write_bytes(data)
    page.run()
    next(b for b in page.button if b.label.startswith("20260101")).click()
    assert not page.run().exception


def test_a_run_of_the_older_layout_shows(page, output_dir):
    folder = make_finished(output_dir)
    folder.write({"run_id": "aaaaaaaa", "text_input": "a collie", "num_steps": 500, "seed": 5})
    labelled(page.run().button, "a collie").click()
    assert "✓ Done · 500 steps" in everything(page.run())


# --- the page's own options and documents ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpu", "first"], "--gpu"),
        (["--colour"], "--output-dir DIR"),
        (["--assets-dir", "/nowhere"], "/nowhere"),
        (["--output-dir", "/dev/null/x"], "--output-dir"),
    ],
)
def test_a_wrong_option_is_a_message_on_the_page(page, monkeypatch, options, message):
    monkeypatch.setattr(sys, "argv", ["app.py", *options])
    page.run()
    assert message in errors(page)
    assert not page.exception


def test_a_broken_defaults_file_is_a_message_on_the_page(page, monkeypatch, tmp_path):
    set_defaults(monkeypatch, tmp_path, "num_stepz: 3")
    page.run()
    assert "num_stepz" in errors(page)
    assert not page.exception


def test_without_weights_the_page_says_what_to_get(page, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["app.py", "--assets-dir", str(tmp_path)])
    fresh = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    assert "download-weights.sh" in everything(fresh)
    assert not fresh.exception


def test_readme_and_changelog_are_there(page):
    assert [expander.label for expander in page.main.expander] == ["README", "CHANGELOG"]
    for name in ("README", "CHANGELOG"):
        page.session_state[f"document-{name}"] = True
    page.run()
    (heading,) = (m.value for m in page.main.expander[0].markdown[:1])
    assert heading.startswith("#")
    assert "](docs/" not in everything(page), "links into the folder lead nowhere from the page"


def test_drawing_the_page_needs_no_torch(assets, tmp_path):
    script = (
        "import sys; from streamlit.testing.v1 import AppTest\n"
        "from studio.queue import keeper\n"
        "nobody = {'__init__': lambda *_: None, 'refusal': lambda _: None}\n"
        "keeper.WorkerKeeper = type('NoWorker', (), nobody)\n"
        f"options = ['--output-dir', {str(tmp_path)!r}, '--assets-dir', {str(assets)!r}]\n"
        "sys.argv = ['app.py', *options]\n"
        "page = AppTest.from_file('app.py', default_timeout=60).run()\n"
        "assert page.button and not page.exception and not page.error\n"
        "assert 'torch' not in sys.modules, 'torch is imported'\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_worker_that_serves_names_its_device(page, output_dir):
    state = WorkerState(pid=1, phase="ready", device="GPU 0 (Some card)")
    path = WorkerSlot(output_dir, "somewhere").state_path
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, to_json(vars(state)))
    assert "on GPU 0 (Some card)" in everything(page.run())


# --- the queue ---


def line(output_dir):
    waiting = run_queue.waiting(run_index.entries(output_dir))
    return [entry.details["text_input"] for entry in waiting]


def test_the_queue_can_be_reordered_and_paused(page, output_dir):
    for prompt in ("first", "second", "third"):
        run(write_prompt(page, prompt))
    later = [button for button in page.button if (button.key or "").startswith("Later-")]
    assert [button.disabled for button in later] == [False, False, True]
    later[0].click()
    assert line(output_dir) == ["first", "second", "third"]
    page.run()
    assert line(output_dir) == ["second", "first", "third"]
    assert "second :gray[— starts as soon as it can]" in everything(page)
    press(page, "Pause")
    assert run_queue.paused(output_dir)
    assert "The queue is paused" in " ".join(info.value for info in page.info)
    press(page, "Start the queue")
    assert run_queue.paused(output_dir) is None


def test_a_pause_for_a_reason_tells_it(page, output_dir):
    run_queue.pause(output_dir, "The disk is full.")
    page.run()
    assert "The disk is full" in " ".join(info.value for info in page.info).replace("\\", "")


def test_what_is_removed_from_the_queue_waits_again_after_undo(page, output_dir):
    run(write_prompt(page, "first"))
    press(page, "Remove")
    assert line(output_dir) == []
    press(page, "Undo")
    assert line(output_dir) == ["first"]
    assert "Undo" not in [button.label for button in page.button]


@pytest.mark.parametrize(("seed", "expected"), [(None, None), ("7", [7, 8, 9])])
def test_several_seeds_in_one_click(page, output_dir, seed, expected):
    write_prompt(page)
    if seed:
        sidebar(page)["Set seed"].set_value(True)
        sidebar(page.run())["Seed"].set_value(seed)
    labelled(page.number_input, "How many").set_value(3)
    run(page)
    seeds = [entry.details["seed"] for entry in queued(output_dir)]
    assert len(set(seeds)) == 3
    assert expected in (None, seeds)


def test_run_with_an_empty_table_of_stages_is_refused(page):
    labelled(page.toggle, "Several stages").set_value(True)
    assert "holds no stages" in errors(run(page))


def test_stages_become_a_chain(page, output_dir):
    write_prompt(page, "a garden")
    run(switch_stages(page))
    assert "holds no stages" in errors(page)
    switch_stages(page)
    rows = [{"text_input": "in spring", "num_steps": "2"}, {}, {"text_input": "in winter"}]
    page.session_state["stage_rows"] = rows
    run(switch_stages(page))
    (entry,) = queued(output_dir)
    assert (entry.details["text_input"], entry.details["planned_num_steps"]) == ("in spring", 2)
    assert entry.details["chain"]["next"] == [{"text_input": "in winter"}]


def test_text_in_a_stages_number_is_refused_not_taken_for_0(page, output_dir):
    page.session_state["stage_rows"] = [{"text_input": "in spring", "num_steps": "many"}]
    run(switch_stages(page))
    assert "Stage 1" in errors(page) and "many" in errors(page)
    assert run_index.entries(output_dir) == []


EDITS = {"edited_rows": {}, "deleted_rows": [], "added_rows": []}


@pytest.mark.parametrize(
    ("edits", "rows"),
    [
        ({}, [{"text_input": "a", "num_steps": "2"}, {}]),
        ({"added_rows": [{"cutn": 3}]}, [{"text_input": "a", "num_steps": "2"}, {}, {"cutn": "3"}]),
        ({"edited_rows": {0: {"num_steps": None, "text_input": " "}}}, [{}, {}]),
        ({"edited_rows": {1: {"text_input": "b"}}, "deleted_rows": [0]}, [{"text_input": "b"}]),
        ({"deleted_rows": [0, 1]}, []),
    ],
)
def test_a_table_after_edits(edits, rows):
    first = [{"text_input": "a", "num_steps": "2"}, {}]
    assert edited(first, EDITS | edits) == rows


def test_stages_are_there_after_a_reload(page):
    page.session_state["stage_rows"] = rows = [{"text_input": "in spring", "cutn": "3"}]
    switch_stages(page)
    page.multiselect[0].set_value(["cutn"])
    labelled(page.number_input, "How many").set_value(3)
    page.run()
    later = again(page)
    assert later.toggle[0].value and later.multiselect[0].value == ["cutn"]
    assert later.session_state["stage_rows"] == rows
    assert later.session_state["how_many"] == 3


@pytest.mark.parametrize(
    "odd",
    [{"stage_rows": 3}, {"stage_rows": [[1]]}, {"stage_columns": ["seed", "no"]}, {"how_many": 0}],
)
def test_odd_stages_in_the_memory_do_no_harm(page, output_dir, odd):
    Memory(output_dir).remember(registry.DEFAULT, {}, {"use_stages": True} | odd)
    later = again(page)
    assert not later.exception and later.toggle[0].value


# --- runs that ended ---


def test_an_interrupted_run_can_be_resumed(page, output_dir):
    folder = make_run(output_dir, "20260101T000000-aaaaaaaa", status="running", heartbeat="2020")
    Image.new("RGB", (32, 32)).save(folder.path / PREVIEW, "JPEG")
    (folder.path / CHECKPOINT).write_bytes(b"state")
    press(page.run(), folder.name.replace("-", r"\-"))
    assert "Interrupted" in everything(page)
    press(page, "Resume")
    assert line(output_dir) == [folder.name]


@pytest.mark.parametrize("status", ["done", "stopped", "failed"])
def test_resuming_is_not_offered_without_a_checkpoint_or_of_what_is_done(page, output_dir, status):
    folder = make_finished(output_dir, status=status)
    if status == "done":
        (folder.path / CHECKPOINT).write_bytes(b"state")
    press(page.run(), folder.name.replace("-", r"\-"))
    labels_there = [button.label for button in page.button]
    assert {"Continue", "Use these settings", "Remove"} <= set(labels_there)
    assert "Resume" not in labels_there


def test_a_run_is_moved_to_the_trash_and_back(page, output_dir):
    folder = make_finished(output_dir, text_input="a tree")
    press(page.run(), "a tree")
    press(page, "Remove")
    assert run_index.entries(output_dir) == []
    assert [gone.name for gone in trash.trashed(output_dir)] == [folder.name]
    press(page, "Undo")
    assert [entry.name for entry in run_index.entries(output_dir)] == [folder.name]


@pytest.mark.parametrize("link", ["use", "continue"])
def test_a_link_takes_a_runs_settings(page, output_dir, link):
    make_finished(output_dir, "20260102T000000-bbbbbbbb", text_input="the last")
    folder = make_finished(
        output_dir, text_input="a tree", cutn=7, seed=9, Xdim=48, schema_version=1, set_seed=False
    )
    page.query_params[link] = folder.name[-8:]
    page.run()
    assert not errors(page) and link not in page.query_params
    there = sidebar(page)
    assert (page.text_area[0].value, there["Cutouts"].value, there["Xdim"].value) == (
        "a tree",
        7,
        48,
    )
    assert there["Continue previous run"].value == (link == "continue")
    if link == "use":
        assert there["Seed"].value == "9", "as the same picture needs it"
    else:
        assert "Continues “a tree”" in everything(page)


def test_a_link_to_no_run_says_so(page):
    page.query_params["use"] = "../../etc"
    page.run()
    assert "There is no run '../../etc'" in errors(page)


def test_pictures_come_with_the_settings(page, output_dir):
    parent = make_finished(output_dir, image_prompts=["image-prompt-1.JPEG"], schema_version=1)
    Image.new("RGB", (32, 32), "lime").save(parent.path / "image-prompt-1.JPEG", "JPEG")
    page.query_params["use"] = parent.name
    run(page.run())
    assert not errors(page)
    (entry,) = queued(output_dir)
    kept = Image.open(entry.folder.path / "image-prompt-1.JPEG").getpixel((5, 5))
    assert max(range(3), key=kept.__getitem__) == 1


def test_one_film_of_a_chain_is_offered(page, output_dir):
    folder = make_finished(output_dir, text_input="a tree", ancestors=["20250101T000000-bbbbbbbb"])
    press(page.run(), "a tree")
    press(page, "Make one film of all stages")
    assert "no other video" in errors(page)
    (folder.path / "chain.mp4").write_bytes(b"a film")
    page.run()
    offered = [button.label for button in page.get("download_button")]
    assert "Film of all stages" in offered


@pytest.mark.parametrize("link", ["use", "continue"])
def test_a_run_of_the_older_layout_gives_its_settings(page, output_dir, link):
    folder = make_finished(output_dir, text_input="ignored")
    folder.write(
        {"run_id": "aaaaaaaa", "text_input": "a collie", "num_steps": 12, "seed": 5, "Xdim": 64}
        | {"ydim": 32, "init_image": False, "image_prompts": False, "vqgan_ckpt": "tiny_f8"}
        | {"mse_weight": 0.5, "mse_weight_decay": 0.1, "mse_weight_decay_steps": 50}
        | {"tv_loss_weight": None, "continue_prev_run": False, "prev_run_id": None}
    )
    page.query_params[link] = "aaaaaaaa"
    run(page.run())
    assert not errors(page)
    (entry,) = queued(output_dir)
    details = entry.details
    assert (details["text_input"], details["Xdim"], details["mse_weight"]) == ("a collie", 64, 0.5)
    assert details["prev_run_id"] == ("aaaaaaaa" if link == "continue" else None)


# --- what is remembered ---


def test_the_form_remembers_its_last_values(page):
    write_prompt(page, "a lighthouse")
    sidebar(page)["Xdim"].set_value(56)
    sidebar(page)["Model weights"].set_value("wide_f8")
    sidebar(page.run())["Set seed"].set_value(True)
    sidebar(page.run())["Seed"].set_value(str(MAX_SEED))
    page.run()
    later = again(page)
    there = sidebar(later)
    assert later.text_area[0].value == "a lighthouse"
    assert (there["Xdim"].value, there["Seed"].value) == (56, str(MAX_SEED))
    assert (there["Model weights"].value, there["Cutouts"].value) == ("wide_f8", 9)


@pytest.mark.parametrize("text", ["", "[]", '{"Xdim": "wide", "vqgan_ckpt": "gone", "odd": 1}'])
def test_a_broken_memory_counts_as_no_memory(page, output_dir, text):
    (output_dir / ".page" / "form.json").parent.mkdir(exist_ok=True, parents=True)
    (output_dir / ".page" / "form.json").write_text(text)
    later = again(page)
    assert not later.exception and not later.error
    assert (sidebar(later)["Xdim"].value, sidebar(later)["Model weights"].value) == (128, "tiny_f8")


def test_presets_are_saved_and_deleted_by_name(output_dir):
    memory = Memory(output_dir)
    memory.save_preset("A", " large ", {"Xdim": 512})
    memory.save_preset("A", "Fast", {"num_steps": 9})
    memory.save_preset("B", "Fast", {"num_steps": 2})
    assert Memory(output_dir).presets("A") == {"Fast": {"num_steps": 9}, "large": {"Xdim": 512}}
    memory.delete_preset("A", "large")
    assert (list(memory.presets("A")), list(memory.presets("B"))) == (["Fast"], ["Fast"])
    with pytest.raises(BadInput, match="name"):
        memory.save_preset("A", "  ", {})


# --- space ---


def test_old_checkpoints_can_be_freed(output_dir):
    old = make_finished(output_dir, "20200101T000000-aaaaaaaa")
    broken = make_run(output_dir, "20200101T000000-bbbbbbbb", status="running", heartbeat="2020")
    new = make_finished(output_dir, f"{datetime.now():%Y%m%dT%H%M%S}-cccccccc")
    for folder in (old, broken, new):
        (folder.path / "checkpoint.safetensors").write_bytes(bytes(1000))
    assert space.measure(output_dir).checkpoints == 3000
    runs = run_index.entries(output_dir)
    assert space.free_checkpoints(space.old_runs(runs, days=30)) == 1000
    assert [(f.path / "checkpoint.safetensors").exists() for f in (old, broken, new)] == [
        False,
        True,
        True,
    ]


def test_deleting_checkpoints_is_asked_first(page, output_dir):
    path = make_finished(output_dir, "20200101T000000-aaaaaaaa").path / CHECKPOINT
    path.write_bytes(bytes(2_000_000))
    page.session_state["space"] = True
    page.run()
    press(page, "Delete their checkpoints (2.0 MB) …")
    assert "Delete the checkpoints of 1 run?" in everything(page) and path.exists()
    press(page, "Keep")
    assert path.exists()
    press(page, "Delete their checkpoints (2.0 MB) …")
    press(page, "Delete")
    assert not path.exists()


# --- messages ---


def test_a_problem_is_shown_where_it_was_caused(page):
    page.session_state["presets"] = True
    press(page.run(), "Save")
    (problem,) = page.error
    assert problem.value == r"A preset needs a name\."
    assert problem in page.get("popover")[0].error


@pytest.mark.parametrize(
    "text",
    ["see https://a.b", "www.a.b", "me@a.b", "a -- b", "a -> b", ":streamlit:", "x <= y"],
)
def test_what_markdown_would_still_change_is_divided(text):
    assert NOTHING in plain(text)
    assert unescaped(plain(text)) == text


def test_a_long_value_is_cut_in_messages(page, output_dir):
    warning = "The prompt 'x' is longer. " * 1000
    make_finished(output_dir, text_input="word " * 2000, warnings=[warning], status="done")
    page.run()
    next(b for b in page.button if b.label.startswith("word")).click()
    page.run()
    assert all(len(unescaped(element.value)) <= 600 for element in page.warning)
    assert len(everything(page)) < 60_000, "README and CHANGELOG included"


def test_a_stopped_run_says_of_how_many_steps_and_a_chain_which_stage(page, output_dir):
    chain = {"number": 1, "count": 3, "next": []}
    details = {"num_steps": 65, "planned_num_steps": 400, "chain": chain, "text_input": "a tree"}
    history = {"loss_history": [[1, 2.0], [2, None], [3, 0.5]], "losses": {"total": 0.5}}
    make_finished(output_dir, status="stopped", **details | history)
    press(page.run(), "a tree")
    said = everything(page)
    assert "■ Stopped · 65 of 400 steps · stage 1 of 3" in said
    assert "Total loss, from 2 to 0.5" in said


def test_the_film_of_a_chain_plays_on_the_page(page, output_dir):
    folder = make_finished(output_dir, text_input="a tree", ancestors=["20250101T000000-bbbbbbbb"])
    for name in ("anim.mp4", "chain.mp4"):
        (folder.path / name).write_bytes(b"a film")
    press(page.run(), "a tree")
    assert len(page.get("video")) == 1
    assert "anim.mp4 is broken, so no frame can be taken from it" in everything(page)


def test_a_paused_queue_promises_nothing_and_counts_the_running_run(page, output_dir, monkeypatch):
    details = {"status": "running", "heartbeat": now(), "planned_num_steps": 40}
    folder = make_run(output_dir, "20260101T000000-aaaaaaaa", **details)
    run(write_prompt(page, "first"))
    alone = everything(page)
    atomic_write(folder.path / PROGRESS, to_json({"step": 1, "seconds_left": 36_000.0}))
    assert "(in 10.0 h)" in everything(page.run()) and "(in 10.0 h)" not in alone
    folder.update(status="done")
    press(page.run(), "Pause")
    assert "starts as soon as it can" not in everything(page)
    assert "starts when you start the queue" in everything(page)


def test_undo_puts_a_run_back_where_it_was(page, output_dir):
    for prompt in ("first", "second", "third"):
        run(write_prompt(page, prompt))
    [b for b in page.button if b.label == "Remove"][1].click()
    page.run()
    assert line(output_dir) == ["first", "third"]
    press(page, "Undo")
    assert line(output_dir) == ["first", "second", "third"]


def test_an_empty_upload_is_no_file_of_that_name(page, output_dir, tmp_path, monkeypatch):
    Image.new("RGB", (40, 30)).save(tmp_path / "secret.png")
    monkeypatch.chdir(tmp_path)
    write_prompt(page)
    sidebar(page)["Use starting image"].set_value(True)
    sidebar(page.run())["Upload starting image"].upload("secret.png", b"", "image/png")
    assert "'secret.png' is empty: it has 0 bytes" in errors(page.run())
    run(page)
    assert run_index.entries(output_dir) == []
