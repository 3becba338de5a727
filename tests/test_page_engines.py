"""The page with several engines, by Streamlit's own AppTest, without a browser or worker."""

import json

import pytest
import tiles_engine
from pages import (
    again,
    component_data,
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
    write_prompt,
)
from PIL import Image

from studio.base.files import atomic_write, to_json
from studio.engines import registry
from studio.page.memory import Memory
from studio.queue.slots import WorkerSlot, WorkerState
from studio.runs.details import now
from studio.runs.storage import PROGRESS
from studio.settings.values import read_defaults

pytest_plugins = "page_fixtures"
FIRST, TILES = registry.DEFAULT, tiles_engine.NAME
SPARKLING = "Sparkling"


@pytest.fixture
def engines(monkeypatch):
    """VQGAN-CLIP, Tiles, and one like VQGAN-CLIP."""
    monkeypatch.setitem(registry.ENGINES, TILES, "tiles_engine:Tiles")
    monkeypatch.setitem(registry.ENGINES, SPARKLING, "test_app:Sparkling")


def choose(page, engine):
    sidebar(page)["Engine"].set_value(engine)
    return page.run()


def make_tiles_run(output_dir, name="20260102T000000-tttttttt", **details):
    """A finished run of Tiles with three pictures."""
    settings = {"palette": "cold", "tiles": 3, "cutn": "plain", "num_steps": 4}
    details = {"status": "done", "planned_num_steps": 4, "schema_version": 1} | details
    folder = make_run(output_dir, name, **settings | details)
    folder.write({"model": TILES} | settings | details)
    for number in ("", "-2", "-3"):
        Image.new("RGB", (96, 96), "blue").save(folder.path / f"output{number}.PNG", "PNG")
    return folder


# --- choosing ---


def test_one_engine_is_no_choice(monkeypatch, page):
    for name in registry.names()[1:]:
        monkeypatch.delitem(registry.ENGINES, name)
    assert "Engine" not in sidebar(page.run())


def test_each_engine_shows_its_settings_with_the_values_typed_for_it(engines, page):
    write_prompt(page, "a red heart")
    sidebar(page)["Cutouts"].set_value(7)
    there = sidebar(choose(page, TILES))
    assert {"Palette", "Tiles", "Cut", "Num steps", "Set seed"} <= there.keys()
    assert not {"Xdim", "Cutouts", "Use starting image", "Continued at another size"} & there.keys()
    assert not page.text_area and not page.exception and not page.error
    assert (there["Num steps"].value, there["Cut"].value) == (4, "plain")
    there["Num steps"].set_value(9)
    there = sidebar(choose(page, FIRST))
    assert page.text_area[0].value == "a red heart"
    assert (there["Cutouts"].value, there["Num steps"].value) == (7, 150)
    assert sidebar(choose(page, TILES))["Num steps"].value == 9


def test_the_prompt_stays_where_both_engines_have_one(engines, page):
    choose(page, SPARKLING)
    write_prompt(page, "an old prompt")
    sidebar(page)["Xdim"].set_value(64)
    write_prompt(choose(page, FIRST), "what I just typed")
    there = sidebar(choose(page, SPARKLING))
    assert page.text_area[0].value == "what I just typed"
    assert (there["Xdim"].value, there["Sparkles"].value) == (64, 3)


def test_the_engine_is_remembered(engines, page):
    sidebar(choose(page, TILES))["Tiles"].set_value(6)
    page.run()
    there = sidebar(again(page))
    assert (there["Engine"].value, there["Tiles"].value) == (TILES, 6)


def test_a_choice_brings_what_it_recommends_in_any_engine(engines, page):
    there = sidebar(choose(page, TILES))
    assert there["Tiles"].value == 2
    there["Palette"].set_value("cold")
    assert sidebar(page.run())["Tiles"].value == 5


def test_an_engine_has_its_section_of_the_defaults(engines, page, monkeypatch, tmp_path):
    path = tmp_path / "defaults.yaml"
    path.write_text(f"{TILES}:\n  num_steps: 3\n{FIRST}:\n  num_steps: 8\n")
    monkeypatch.setitem(read_defaults.__kwdefaults__, "path", path)
    fresh = again(page)
    assert sidebar(fresh)["Num steps"].value == 8
    assert sidebar(choose(fresh, TILES))["Num steps"].value == 3


# --- running ---


def test_run_queues_what_the_engine_is_asked_for(engines, page, output_dir):
    run(choose(page, TILES))
    assert not errors(page)
    (entry,) = queued(output_dir)
    assert (entry.details["model"], entry.details["tiles"]) == (TILES, 2)
    assert f"{TILES} :gray[— starts as soon as it can]" in everything(page)


def test_stages_have_the_columns_of_the_engine(engines, page, output_dir):
    write_prompt(page, "a garden")
    switch_stages(page)
    page.multiselect[0].set_value(["cut_pow", "cutn"])
    choose(page.run(), TILES)
    assert not page.exception
    assert page.multiselect[0].value == ["cutn"]
    switch_stages(page)
    page.session_state["stage_rows"] = [{"num_steps": "2"}, {"tiles": "3", "cutn": "fine"}]
    run(switch_stages(page))
    assert not errors(page)
    (entry,) = queued(output_dir)
    assert (entry.details["planned_num_steps"], entry.details["chain"]["next"]) == (
        2,
        [{"cutn": "fine"}],
    )


def test_an_estimate_is_by_the_engine_where_it_can_tell(engines, page, output_dir):
    assert "Roughly: about" in everything(page)
    assert "There is no estimate yet" in everything(choose(page, TILES))
    state = WorkerState(pid=1, phase="ready", device="CPU")
    path = WorkerSlot(output_dir, "somewhere").state_path
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, to_json(vars(state)))
    make_tiles_run(output_dir, num_steps=20, steps_per_second=2.0, device="CPU")
    assert "Roughly: about 2 s on CPU (based on your earlier runs)" in everything(page.run())


# --- engines that cannot be used ---


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("tiles_engine:Unavailable", "a_library_that_is_not_there"),
        ("no_such_module:Engine", "No module named 'no_such_module'"),
    ],
)
def test_an_unavailable_engine_is_listed_with_its_reason(
    engines, page, output_dir, monkeypatch, address, reason
):
    monkeypatch.setitem(registry.ENGINES, TILES, address)
    page.run()
    assert f"{TILES} (unavailable)" in sidebar(page)["Engine"].options
    assert reason in everything(page) and not page.error
    choose(page, TILES)
    assert not page.exception
    assert f"{TILES} cannot be used here." in errors(page) and reason in errors(page)
    assert all(button.disabled for button in page.button if button.label == "Run!")
    assert ("Palette" in sidebar(page)) == (address == "tiles_engine:Unavailable")
    run(write_prompt(choose(page, FIRST)))
    assert [entry.details["model"] for entry in queued(output_dir)] == [FIRST]


def test_an_engine_that_every_worker_reports_is_unavailable(engines, page, output_dir):
    def say(number, unavailable):
        state = WorkerState(pid=number, phase="ready", unavailable=unavailable)
        path = WorkerSlot(output_dir, f"worker-{number}").state_path
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, to_json(vars(state)))

    for number in (1, 2):
        say(number, {TILES: "Its library is broken."})
    assert f"{TILES} is unavailable: Its library is broken." in everything(page.run())
    say(2, {})
    assert "is unavailable" not in everything(page.run())


# --- settings that come along ---


@pytest.mark.parametrize("link", ["use", "continue"])
def test_a_link_brings_the_engine_along(engines, page, output_dir, link):
    folder = make_tiles_run(output_dir)
    page.query_params[link] = folder.name
    there = sidebar(page.run())
    assert not errors(page)
    assert (there["Engine"].value, there["Palette"].value, there["Tiles"].value) == (
        TILES,
        "cold",
        3,
    )


@pytest.mark.parametrize("link", ["use", "continue"])
def test_a_run_of_an_unknown_engine_changes_nothing(page, output_dir, link):
    make_finished(output_dir, text_input="a tree", model="Marbling", num_steps=77, schema_version=1)
    write_prompt(page, "what I just typed")
    page.query_params[link] = "aaaaaaaa"
    page.run()
    assert f"There is no engine 'Marbling'. There are: {', '.join(registry.names())}." in errors(
        page
    )
    assert page.text_area[0].value == "what I just typed"
    there = sidebar(page)
    assert (there["Num steps"].value, there["Continue previous run"].value) == (150, False)


def test_a_settings_file_brings_the_engine_along(engines, page, output_dir):
    folder = make_tiles_run(output_dir)
    page.session_state["presets"] = True
    page.run()
    upload = next(u for u in page.file_uploader if u.label.startswith("Take the settings"))
    unknown = json.dumps(folder.read() | {"model": "Marbling"}).encode()
    upload.upload("details.json", unknown, "application/json")
    page.run()
    assert "There is no engine 'Marbling'" in errors(page) and TILES in errors(page)
    assert sidebar(page)["Engine"].value == FIRST
    upload = next(u for u in page.file_uploader if u.label.startswith("Take the settings"))
    data = (folder.path / "details.json").read_bytes()
    upload.upload("details-2.json", data, "application/json")
    page.run()
    assert not errors(page)
    assert (sidebar(page)["Engine"].value, sidebar(page)["Tiles"].value) == (TILES, 3)


def test_files_of_the_format_for_one_engine_count_for_the_first(engines, page, output_dir):
    folder = output_dir / ".page"
    folder.mkdir(parents=True, exist_ok=True)
    last = {"text_input": "a lighthouse", "Xdim": 56, "how_many": 3}
    (folder / "form.json").write_text(json.dumps(last))
    (folder / "presets.json").write_text(json.dumps({"large": {"Xdim": 512}}))
    later = again(page)
    assert later.text_area[0].value == "a lighthouse"
    assert sidebar(later)["Xdim"].value == 56
    assert later.session_state["how_many"] == 3
    memory = Memory(output_dir)
    assert (memory.presets(FIRST), memory.presets(TILES)) == ({"large": {"Xdim": 512}}, {})
    memory.save_preset(TILES, "many", {"tiles": 9})
    assert list(memory.presets(FIRST)) == ["large"]


def test_presets_are_those_of_the_engine(engines, page, output_dir):
    Memory(output_dir).save_preset(TILES, "many", {"tiles": 9})
    page.session_state["presets"] = True
    page.run()
    assert "Saved settings" not in [box.label for box in page.main.selectbox]
    choose(page, TILES)
    assert [box.options for box in page.main.selectbox] == [["many"]]
    press(page, "Apply")
    assert sidebar(page)["Tiles"].value == 9


def test_a_run_of_another_engine_is_continued_from_its_picture(engines, page, output_dir):
    folder = make_tiles_run(output_dir)
    sidebar(page.run())["Continue previous run"].set_value(True)
    said = everything(page.run())
    assert f"Continues “{TILES}” ({folder.name})." in said and "picture is scaled from" not in said
    run(write_prompt(page))
    assert not errors(page)
    (entry,) = queued(output_dir)
    assert (entry.details["model"], entry.details["parent"]) == (FIRST, folder.name)
    assert Image.open(entry.folder.path / "start.PNG").size == (128, 128)


# --- results ---


def test_several_pictures_show_each_with_its_download(engines, page, output_dir):
    folder = make_tiles_run(output_dir)
    press(page.run(), TILES)
    (viewer,) = component_data(page, "viewer")
    assert [picture["width"] for picture in viewer["pictures"]] == [96, 96, 96]
    offered = [button.label for button in page.get("download_button")]
    assert offered == ["Picture 1", "Picture 2", "Picture 3", "Details"]
    said = everything(page)
    assert "<dt>Engine</dt><dd>Tiles</dd>" in said and "<dt>Palette</dt><dd>cold</dd>" in said
    assert 'class="losses"' not in said
    assert f"Run folder: `{folder.name}`" in said


def test_a_result_of_an_unknown_engine_shows(page, output_dir):
    make_tiles_run(output_dir)
    press(page.run(), TILES)
    assert not page.exception
    assert "Tiles, which cannot be used here" in everything(page)


def test_a_run_without_picture_shows_its_progress_alone(engines, page, output_dir):
    details = {"status": "running", "heartbeat": now(), "planned_num_steps": 40, "model": TILES}
    folder = make_run(output_dir, "20260101T000000-aaaaaaaa")
    folder.write(details)
    progress = {"step": 10, "planned_num_steps": 40, "losses": {}, "history": []}
    atomic_write(folder.path / PROGRESS, to_json(progress))
    said = everything(page.run())
    assert "step 10 of 40" in [bar.proto.text for bar in page.get("progress")]
    assert 'class="run-picture' not in said and 'class="losses"' not in said
    assert f"**{TILES}**" in said
    assert labelled(page.button, "Stop")


def test_a_run_with_image_prompts_alone_is_called_so(engines, page, output_dir):
    make_finished(output_dir, text_input="", image_prompts=["image-prompt-1.JPEG"])
    assert "Image prompt" in [button.label for button in page.run().button]
