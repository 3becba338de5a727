"""What stands open in the form, what is folded away, and what is found. See pages.py."""

import pytest
import tiles_engine
from pages import (
    KINDS,
    labelled,
    make_finished,
    press,
    queued,
    run,
    set_at_once,
    sidebar,
    write_prompt,
)
from pydantic import create_model

from studio.engines import registry
from studio.page.shapes import RATIOS, reshaped
from studio.settings.declare import setting

pytest_plugins = "page_fixtures"
OPEN = {
    *("Find a setting", "Model weights", "Num steps", "Xdim", "ydim", "Set seed"),
    *("Use starting image", "Add image prompt(s)", "Continue previous run"),
}
FOLDED = {
    "Look": {
        *("Start from a sketch", "Use MSE regularization", "Use TV loss regularization"),
        *("TV loss weight", "Keep the ground", "Grow from", "Steps to full size", "Nine slices"),
    },
    "Guidance": {
        *("CLIP model", "Step size", "Cutouts", "Cutout power", "Whole views"),
    },
    "Motion": {"Scrolling/zooming transforms"},
    "Saving": {"Checkpoint every ... seconds", "Deterministic", "Upscale", "Upscale always"},
    "More": {
        *("Optimiser", "Cutout method", "Use cutout augmentations", "Augmentations"),
        *("Start from noise", "Noise prompts"),
    },
}


def labels(block):
    return {widget.label for kind in KINDS for widget in block.get(kind)}


def folded(page):
    return {fold.label: labels(fold) for fold in page.sidebar.expander}


def shown(page):
    """While something is searched."""
    return (
        labels(page.sidebar)
        - labels(page.sidebar.container("unseen"))
        - {"Find a setting", "Engine"}
    )


def find(page, words):
    sidebar(page)["Find a setting"].set_value(words)
    return page.run()


def resets(page):
    return [button.label for button in page.sidebar.button if "reset" in button.label]


# --- headings ---


def test_what_matters_stands_open_and_the_rest_is_folded(page):
    assert folded(page) == FOLDED
    assert labels(page.sidebar) - set().union(*FOLDED.values()) == OPEN | {"Engine"}
    assert resets(page) == []


def test_a_heading_counts_what_is_changed_and_resets_it(page, output_dir):
    sidebar(page)["Cutouts"].set_value(7)
    sidebar(page)["Step size"].set_value(0.2)
    sidebar(page)["Xdim"].set_value(48)
    assert resets(page.run()) == ["2 changed · reset"]
    run(write_prompt(page))
    press(page, "2 changed · reset")
    there = sidebar(page)
    assert (there["Cutouts"].value, there["Step size"].value) == (4, 0.1), "as recommended"
    assert there["Xdim"].value == 48 and resets(page) == []
    (entry,) = queued(output_dir)
    assert (entry.details["cutn"], entry.details["step_size"]) == (7, 0.2), "though folded away"


def test_members_count_with_their_switch_alone(page):
    sidebar(page)["Use MSE regularization"].set_value(True)
    sidebar(page.run())["MSE weight"].set_value(3.5)
    assert resets(page.run()) == ["2 changed · reset"]
    sidebar(page)["Use MSE regularization"].set_value(False)
    assert resets(page.run()) == []


def test_usual_is_what_the_weights_recommend(page):
    sidebar(page)["Model weights"].set_value("wide_f8")
    assert resets(page.run()) == []
    sidebar(page)["Cutouts"].set_value(4)
    press(page.run(), "1 changed · reset")
    assert sidebar(page)["Cutouts"].value == 9


class Folding(tiles_engine.Tiles):
    """Tiles, whose choice of a palette is folded away."""

    settings = create_model(
        "FoldingSettings",
        __base__=tiles_engine.TilesSettings,
        palette=(str, setting("warm", "Palette", "The colours.", heading="Look")),
    )


def test_a_reset_choice_brings_what_it_recommends(page, monkeypatch):
    monkeypatch.setitem(registry.ENGINES, "Folding", f"{__name__}:Folding")
    sidebar(page.run())["Engine"].set_value("Folding")
    assert folded(page.run()).keys() == {"Look", "Saving"}, "an engine's own headings alone"
    sidebar(page)["Palette"].set_value("cold")
    assert sidebar(page.run())["Tiles"].value == 5
    press(page, "1 changed · reset")
    assert (sidebar(page)["Palette"].value, sidebar(page)["Tiles"].value) == ("warm", 2)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"heading": "Odds"}, "headings are Look, Guidance, Motion, Saving, More"),
        ({"heading": "Look", "group": "set_seed"}, "under the heading of its switch"),
    ],
)
def test_a_heading_is_one_of_the_list_and_a_members_is_its_switchs(facts, message):
    odd = (bool, setting(False, "Odd", "Odd.", **facts))
    with pytest.raises(TypeError, match=message):
        create_model("Odd", __base__=tiles_engine.TilesSettings, odd=odd)


# --- the search ---


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("CUTOUT power", {"Cutout power", "Cutout method"}),
        ("clip_model", {"CLIP model"}),
        ("optimiser", {"Step size", "Optimiser"}),
        ("wide_f8", {"Model weights"}),
        ("--ydim", {"Xdim", "ydim"}),
        ("pick a run", {"Continue previous run"}),
        ("own picture start", {"Use starting image", "Start from noise"}),
        ("calmer", {"Use TV loss regularization", "TV loss weight"}),
        ("rotation angle", {"Scrolling/zooming transforms"}),
        ("no such words", set()),
    ],
)
def test_the_search_shows_what_has_all_the_words(page, words, found):
    assert shown(find(page, words)) == found
    assert not page.sidebar.expander


def test_the_search_says_what_it_found_behind_a_switch(page):
    find(page, "rotation")
    assert "Switch it on for: Rotation angle" in page.sidebar.caption[0].value.replace("\\", "")
    sidebar(page)["Scrolling/zooming transforms"].set_value(True)
    assert "Rotation angle (degrees)" in shown(page.run())
    find(page, "no such words")
    assert "No setting has these words" in page.sidebar.caption[0].value


def test_no_value_is_lost_while_something_is_searched(page, output_dir):
    sidebar(page)["Model weights"].set_value("wide_f8")
    sidebar(page.run())["Xdim"].set_value(48)
    sidebar(page)["Cutouts"].set_value(3)
    sidebar(page)["Continue previous run"].set_value(True)
    there = sidebar(find(page, "whole views"))
    there["Whole views"].set_value(0.5)
    there["Continue previous run"].set_value(False)
    run(write_prompt(page))
    (entry,) = queued(output_dir)
    wanted = {"vqgan_ckpt": "wide_f8", "Xdim": 48, "cutn": 3, "whole_views": 0.5}
    assert {name: entry.details[name] for name in wanted} == wanted
    find(page, "")
    assert folded(page).keys() == FOLDED.keys()
    assert (sidebar(page)["Cutouts"].value, resets(page)) == (3, ["2 changed · reset"])


# --- size ---


@pytest.mark.parametrize("multiple", [8, 16])
@pytest.mark.parametrize(("width", "height"), [(128, 128), (640, 480), (512, 768), (1920, 1080)])
@pytest.mark.parametrize("shape", RATIOS)
def test_a_shape_keeps_the_pixels_and_the_multiples(multiple, width, height, shape):
    def fits(*size):
        return all(side % multiple == 0 for side in size)

    wide, high = reshaped(width, height, RATIOS[shape], fits)
    assert fits(wide, high)
    assert wide * high == pytest.approx(width * height, rel=0.3)
    assert {"Square": wide == high, "Portrait": wide < high, "Landscape": wide > high}[shape]
    assert reshaped(wide, high, RATIOS[shape], fits) == (wide, high), (
        "a second time changes nothing"
    )


@pytest.mark.parametrize(("width", "height"), [(0, 0), (-5, 8), (10**9, 1)])
def test_an_odd_size_has_shapes_too(width, height):
    assert min(reshaped(width, height, RATIOS["Portrait"], lambda *_: False)) >= 8


def size(page):
    return sidebar(page)["Xdim"].value, sidebar(page)["ydim"].value


def test_chips_and_swap_change_the_numbers_and_follow_them(page):
    (chips,) = page.sidebar.segmented_control
    assert chips.value == "Square"
    chips.set_value("Landscape")
    assert size(page.run()) == (144, 112)
    press(page, "Swap width and height")
    assert size(page) == (112, 144)
    assert page.sidebar.segmented_control[0].value == "Portrait"
    sidebar(page)["Xdim"].set_value(200)
    assert page.run().sidebar.segmented_control[0].value == "Landscape"


def test_chips_leave_numbers_that_are_typed_quickly(page):
    sidebar(page)["Xdim"].set_value(32)
    fields = sidebar(page.run())
    set_at_once(page, (fields["ydim"], 32), (fields["Num steps"], 5))
    assert size(page) == (32, 32)
    assert page.sidebar.segmented_control[0].value == "Square"


# --- the seed ---


def test_the_die_draws_a_seed_and_the_arrow_takes_the_last_runs(page, output_dir, monkeypatch):
    assert labelled(page.button, "Seed of the last run").disabled
    monkeypatch.setattr("secrets.randbelow", lambda _: 77)
    press(page, "New seed")
    assert (sidebar(page)["Set seed"].value, sidebar(page)["Seed"].value) == (True, "77")
    make_finished(output_dir, "20260101T000000-aaaaaaaa", seed=2**63 + 1)
    make_finished(output_dir, "20260102T000000-bbbbbbbb", seed=5, model="Tiles")
    press(page.run(), "Seed of the last run")
    assert sidebar(page)["Seed"].value == str(2**63 + 1)
    run(write_prompt(page))
    assert [entry.details["seed"] for entry in queued(output_dir)] == [2**63 + 1]


def test_an_engine_without_size_has_no_chips_but_a_die(page, monkeypatch):
    monkeypatch.setitem(registry.ENGINES, tiles_engine.NAME, "tiles_engine:Tiles")
    sidebar(page.run())["Engine"].set_value(tiles_engine.NAME)
    page.run()
    assert not page.exception and not page.sidebar.segmented_control
    press(page, "New seed")
    assert sidebar(page)["Seed"].value.isdecimal()
