"""What stands around the page's prompt: weights, tokens, styles, what to avoid, examples."""

import os

import pytest
from pages import (
    again,
    errors,
    everything,
    labelled,
    make_finished,
    press,
    queued,
    run,
    set_at_once,
    sidebar,
    unescaped,
    write_prompt,
)
from PIL import Image
from tiles_engine import NAME

from studio.engines import registry
from studio.engines.contract import Engine
from studio.page import styles
from studio.page.styles import add_style, has_style, read_styles, remove_style

pytest_plugins = "page_fixtures"
ENGINE = registry.get("VQGAN-CLIP")
PLAIN = Engine()  # its prompts know no weights
STYLES = """
VQGAN-CLIP:
  Blue: on a blue background
  Watercolour: ", watercolour"
  Calm: "| calm colours:0.5"
"""


@pytest.fixture
def style_file(tmp_path, monkeypatch):
    path = tmp_path / "styles.yaml"
    path.write_text(STYLES)
    monkeypatch.setattr(styles, "STYLES_FILE", path)
    return path


def prompt(page):
    return page.text_area[0].value


def avoid(page):
    return labelled(page.text_input, "Avoid")


def weights(page):
    return {slider.label.removeprefix("Weight of "): slider.value for slider in page.slider}


def chips(page):
    return next((group for group in page.get("button_group") if group.label == "Styles"), None)


# --- parts and weights ---


def test_sliders_and_text_are_in_step_both_ways(page):
    assert not weights(page)
    write_prompt(page, "a red apple").run()
    assert not weights(page) and "3 of 14 tokens" in everything(page)
    write_prompt(page, "a red apple:1:0.8 | fog:-5").run()
    assert weights(page) == {"a red apple": 1, "fog": -5}
    assert (page.slider[0].min, page.slider[1].min, page.slider[1].max) == (-2, -5, 2)
    page.slider[1].set_value(-0.25).run()
    assert prompt(page) == "a red apple:1:0.8 | fog:-0.25"
    page.slider[0].set_value(2.0).run()
    assert prompt(page) == "a red apple:2:0.8 | fog:-0.25"
    write_prompt(page, "fog:-0.5 | sea").run()
    assert weights(page) == {"fog": -0.5, "sea": 1}
    page.slider[0].set_value(1.0).run()
    assert prompt(page) == "fog | sea"
    run(page)
    write_prompt(page, "a red apple").run()
    assert not weights(page)


def test_sliders_leave_a_prompt_that_is_typed_quickly(page):
    text = write_prompt(page, "a | b").run().text_area[0]
    set_at_once(page, (text, "a:2 | b"), (text, "a:2 | b:3"))
    assert prompt(page) == "a:2 | b:3"
    assert weights(page) == {"a": 2, "b": 3}


def test_the_page_says_what_is_cut_off_and_where(page):
    write_prompt(
        page, "one two three four five six seven eight nine ten eleven twelve ABC def ghi"
    ).run()
    assert "⚠ 15 of 14 tokens; left out: “ghi”" in everything(page)


def test_a_prompt_that_a_run_refuses_has_no_sliders(page):
    write_prompt(page, "spring ^ summer | rain").run()
    assert not weights(page) and not page.exception
    run(page)
    assert "Serial prompts" in errors(page)


def test_very_many_parts_get_no_endless_list(page):
    write_prompt(page, "a | " * 300).run()
    assert len(page.slider) == 12 and "and 288 more" in everything(page)


# --- what to avoid ---


def test_what_to_avoid_is_a_setting_beside_the_prompt(page, output_dir):
    assert "Avoid" not in sidebar(page)
    write_prompt(page)
    avoid(page).set_value("fog | rain:1")
    run(page)
    assert queued(output_dir)[0].details["avoid"] == "fog | rain:1"
    assert avoid(again(page)).value == "fog | rain:1", "it is remembered"


@pytest.mark.parametrize(
    "prompt, avoided, expected",
    [("", "", "fog"), ("", "rain", "rain"), ("another", "", ""), ("another", "rain", "rain")],
)
def test_a_continued_run_keeps_what_it_avoids_unless_its_prompts_change(
    page, output_dir, prompt, avoided, expected
):
    make_finished(output_dir, avoid="fog")
    page.run()
    sidebar(page)["Continue previous run"].set_value(True).run()
    write_prompt(page, prompt)
    avoid(page).set_value(avoided)
    run(page)
    assert queued(output_dir)[0].details["avoid"] == expected


def test_an_engine_without_prompt_shows_nothing_of_it(page, monkeypatch):
    monkeypatch.setitem(registry.ENGINES, NAME, "tiles_engine:Tiles")
    page = again(page)
    page.selectbox[0].set_value(NAME).run()
    assert not page.text_area and not chips(page) and not page.exception
    assert not any(field.label == "Avoid" for field in page.text_input)


# --- styles ---


@pytest.mark.parametrize(
    "prompt, style, after",
    [
        ("", "on a blue background", "on a blue background"),
        ("", ", watercolour", "watercolour"),
        ("a cat", "on a blue background", "a cat on a blue background"),
        ("a cat", ", watercolour", "a cat, watercolour"),
        ("a cat", "| calm:0.5", "a cat | calm:0.5"),
        ("a cat:2:0.5 | fog:-1", "at night", "a cat at night:2:0.5 | fog:-1"),
    ],
)
def test_a_style_is_added_and_taken_out(prompt, style, after):
    assert not has_style(prompt, style, ENGINE)
    assert add_style(prompt, style, ENGINE) == after
    assert has_style(after, style, ENGINE)
    assert remove_style(after, style, ENGINE) == prompt


@pytest.mark.parametrize(
    "prompt, style, after",
    [
        ("a cat", "a painting of {prompt}, oil", "a painting of a cat, oil"),
        ("", "a painting of {prompt}", "a painting of"),
        ("a cat :0.5 AND fog", "an emoji of {prompt}", "an emoji of a cat :0.5 AND fog"),
        ("a cat <lora:ink:1>", "(best), {prompt}", "(best), a cat <lora:ink:1>"),
        ("a cat", "| fog", "a cat AND fog"),
    ],
)
def test_a_style_of_diffusion_may_stand_around_the_prompt(prompt, style, after):
    engine = registry.get("Diffusion")
    assert not has_style(prompt, style, engine)
    assert add_style(prompt, style, engine) == after
    assert has_style(after, style, engine)
    assert remove_style(after, style, engine) == prompt


def test_styles_with_what_to_avoid_change_both_fields(page, style_file):
    style_file.write_text(
        STYLES + "  Oil:\n    prompt: '{prompt}, oil'\n    negative: photo\n"
        "  Calm sea:\n    negative: waves\n"
    )
    write_prompt(page, "a cat").run()
    avoid(page).set_value("fog").run()
    chips(page).set_value(["Oil", "Calm sea"]).run()
    assert (prompt(page), avoid(page).value) == ("a cat, oil", "fog | photo | waves")
    assert chips(page).value == ["Oil", "Calm sea"]
    chips(page).set_value(["Calm sea"]).run()
    assert (prompt(page), avoid(page).value) == ("a cat", "fog | waves")
    avoid(page).set_value("fog").run()
    assert chips(page).value == []


def test_styles_are_taken_out_from_between_others():
    assert remove_style("a cat in snow at night", "in snow", ENGINE) == "a cat at night"
    assert remove_style("a cat | calm:0.9 | fog", "| calm:0.5", ENGINE) == "a cat | fog"
    assert remove_style("a cat, watercolour, at sea", ", watercolour", ENGINE) == "a cat, at sea"
    assert not has_style("a cat at nightfall", "at night", ENGINE)


def test_prompts_without_parts_have_styles_too():
    assert add_style("a cat | b", "at night", PLAIN) == "a cat | b at night"
    assert remove_style("a cat | b at night", "at night", PLAIN) == "a cat | b"


def test_chips_and_text_are_in_step_both_ways(page, style_file):
    write_prompt(page, "a cat").run()
    assert chips(page).options == ["Blue", "Watercolour", "Calm"]
    assert chips(page).value == []
    chips(page).set_value(["Blue", "Calm"]).run()
    assert prompt(page) == "a cat on a blue background | calm colours:0.5"
    chips(page).set_value(["Calm"]).run()
    assert prompt(page) == "a cat | calm colours:0.5"
    write_prompt(page, "a dog, watercolour").run()
    assert chips(page).value == ["Watercolour"]
    text = page.text_area[0]
    set_at_once(page, (text, "a dog"), (text, "a dog and a cat"))
    assert prompt(page) == "a dog and a cat"
    style_file.write_text(STYLES + "  New: in the new style\n")
    os.utime(style_file, (1, 1))
    page.run()
    assert chips(page).options[-1] == "New"


@pytest.mark.parametrize(
    "text, says",
    [
        ("VQGAN-CLIP: [a", "cannot be read"),
        ("- a", "section for each engine"),
        ("VQGAN-CLIP: a", "section for each engine"),
        ("VQGAN-CLIP:\n  Year: 1980", "'Year' has no words, but '1980'"),
        ("VQGAN-CLIP:\n  Bar: '|'", "'Bar' has no words"),
        ("VQGAN-CLIP:\n  Bar: '{prompt}'", "'Bar' has no words"),
        ("VQGAN-CLIP:\n  Bar:\n    words: a", "'Bar' has no words"),
        ("VQGAN-CLIP:\n  Bar:\n    negative: 3", "'Bar' has no words"),
    ],
)
def test_a_bad_file_of_styles_says_so_and_disturbs_nothing(
    page, style_file, output_dir, text, says
):
    style_file.write_text(text)
    run(write_prompt(page))
    (warning,) = page.warning
    assert says in unescaped(warning.value) and "styles.yaml" in unescaped(warning.value)
    assert len(queued(output_dir)) == 1


@pytest.mark.parametrize("text", ["", "VQGAN-CLIP:", "Other:\n  A: b"])
def test_without_styles_there_are_no_chips(page, style_file, text):
    style_file.write_text(text)
    page.run()
    assert not chips(page) and not page.warning
    style_file.unlink()
    page.run()
    assert not chips(page) and not page.warning


def test_the_shipped_styles_suit_their_engines():
    shipped = read_styles(styles.STYLES_FILE, registry.DEFAULT)
    assert 6 <= len(shipped) <= 8
    for name in (registry.DEFAULT, "Diffusion"):
        engine = registry.get(name)
        for style in read_styles(styles.STYLES_FILE, name).values():
            added = add_style("a red heart :2", style.prompt, engine)
            assert has_style(added, style.prompt, engine)


# --- examples ---


@pytest.fixture
def examples(assets):
    """Examples of the tiny weights: one of the bundled ones, and what is no example."""
    folder = assets / "tiny_f8.examples"
    folder.mkdir(exist_ok=True)
    shown = ENGINE.examples({"vqgan_ckpt": "emoji_f8"}, styles.STYLES_FILE.parent / "assets")
    (folder / "1.png").write_bytes(shown[2].read_bytes())
    Image.new("RGB", (8, 8)).save(folder / "2.png")
    (folder / "3.png").write_bytes(b"no picture")


def test_an_example_fills_the_prompt_and_the_seed_and_nothing_else(examples, page, output_dir):
    page = again(page)
    sidebar(page)["Num steps"].set_value(9)
    avoid(page).set_value("fog")
    page.run()
    press(page, "a cactus in the desert")
    assert prompt(page) == "a cactus in the desert"
    assert (sidebar(page)["Set seed"].value, sidebar(page)["Seed"].value) == (True, "1")
    sidebar(page)["Seed"].set_value("77").run()
    press(page, "a cactus in the desert")
    run(page)
    details = queued(output_dir)[0].details
    assert (details["seed"], details["planned_num_steps"], details["avoid"]) == (77, 9, "fog")
    assert not any(button.label == "a cactus in the desert" for button in page.button)


def test_a_page_with_runs_shows_no_examples(examples, page, output_dir):
    make_finished(output_dir)
    page = again(page)
    assert not any(button.label == "a cactus in the desert" for button in page.button)


def test_weights_without_examples_show_none(page):
    assert not page.exception and not page.get("imgs")
