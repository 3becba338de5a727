"""Nine slices on the page: the table of their prompts, and making one again. See pages.py."""

from typing import Any

import numpy as np
import pytest
from pages import again, errors, make_finished, press, queued, run, sidebar, write_prompt

from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.making import slices
from studio.runs.storage import part_path
from studio.settings.values import make

pytest_plugins = "page_fixtures"
PROMPTS = ["", "", "a church", "", "grass | a tree:0.5", "", "", "", ""]


def test_nine_slices_with_prompts_in_a_table(page, output_dir):
    assert "Slice prompts: NE" not in sidebar(page)
    sidebar(page)["Nine slices"].set_value(True)
    page.run()
    for name, text in {"NE": "a church", "X": " grass  | a tree:0.5"}.items():
        sidebar(page)[f"Slice prompts: {name}"].set_value(text)
        page.run()
    for side in ("Xdim", "ydim"):
        sidebar(page)[side].set_value(64)
    sidebar(page)["Keep the slices"].set_value(True)
    run(write_prompt(page))
    assert not page.exception and not errors(page)
    (entry,) = queued(output_dir)
    details = entry.details
    assert (details["slices"], details["save_nine"]) == ("nine", True)
    assert details["slice_prompts"] == PROMPTS
    later: Any = sidebar(again(page))
    assert later["Nine slices"].value is True
    assert later["Slice prompts: NE"].value == "a church"


def test_one_picture_has_no_slice_prompts(page, output_dir):
    sidebar(page)["Nine slices"].set_value(True)
    page.run()
    sidebar(page)["Slice prompts: W"].set_value("a lake")
    page.run()
    sidebar(page)["Nine slices"].set_value(False)
    page.run()
    run(write_prompt(page))
    (entry,) = queued(output_dir)
    assert (entry.details["slices"], entry.details["slice_prompts"]) == ("one", [])


@pytest.fixture
def finished(output_dir):
    """A run of nine slices, as far as its files tell."""
    given = {"text_input": "a village", "slices": "nine", "save_nine": True, "slice_steps": 2}
    details: dict[str, Any] = make(VQGANCLIPSettings, given).model_dump() | {"num_steps": 20}
    folder = make_finished(output_dir, "20260101T000000-aaaaaaaa", model="VQGAN-CLIP", **details)
    slices.keep(folder, {number: np.zeros((16, 16, 3), np.uint8) for number in range(9)})
    return folder


def test_a_slice_is_made_again(page, finished):
    press(page.run(), "a village")
    page.session_state[f"remake-{finished.name}"] = True
    page.run()
    press(page, "NE")
    prompt = next(field for field in page.text_input if field.label == "Slice prompt")
    prompt.set_value("a church")
    press(page, "Make NE again")
    assert not page.exception
    assert not part_path(finished.path, 2).exists() and part_path(finished.path, 1).exists()
    details = finished.read()
    assert details["status"] == "queued"
    assert details["slice_prompts"] == ["", "", "a church", *[""] * 6]
    assert details["slice_seeds"][2].isdigit()


def test_a_run_in_one_piece_has_no_slice_to_make_again(page, output_dir):
    make_finished(output_dir, model="VQGAN-CLIP", slices="one", text_input="a tree")
    press(page.run(), "a tree")
    labels = [popover.proto.popover.label for popover in page.get("popover")]
    assert labels and "Make a slice again" not in labels
