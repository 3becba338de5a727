"""Changing a run on the page while it goes, and making the changes again."""

import pytest
from pages import again, everything, make_finished, make_run, press, queued, run
from streamlit.testing.v1 import AppTest

from studio.runs import change_requests
from studio.runs.claims import claimed
from studio.runs.storage import now

pytest_plugins = "page_fixtures"

NAME = "20260101T000000-aaaaaaaa"
FISH = {"step": 2, "settings": {"text_input": "a blue fish"}}


@pytest.fixture
def live(page, output_dir):
    """The page while a run goes: a process of this machine, this one, owns it."""
    details = {"text_input": "a red heart", "status": "running", "heartbeat": now(), "host": "here"}
    details |= {"num_steps": 3, "planned_num_steps": 9, "vqgan_ckpt": "tiny_f8", "cutn": 4}
    details |= {"clip_model": "tiny_clip", "warnings": [], "init_image": None, "image_prompts": []}
    folder = make_run(output_dir, NAME, **details)
    with claimed(folder.path):
        yield folder


def opened() -> AppTest:
    page = again(None)
    page.session_state[f"steer-change-{NAME}"] = True
    return page.run()


def widget(page, name):
    kinds = ("text_area", "number_input", "text_input")
    return next(w for kind in kinds for w in page.get(kind) if w.key == f"steer-{name}-{NAME}")


def asked(folder):
    return [change_requests.read(path) for path in change_requests.pending(folder.path)]


def test_the_box_shows_what_is_in_force_and_asks_for_what_was_changed(live):
    live.update(changes=[FISH])
    page = opened()
    assert widget(page, "text_input").value == "a blue fish"
    assert "From step 2 on: Text prompt: a blue fish" in everything(page)
    widget(page, "step_size").set_value(0.5)
    page = press(page, "Apply to this run")
    assert asked(live) == [{"step_size": 0.5}]
    assert [toast.value for toast in page.toast] == ["Changed from the next step on."]
    assert "A change counts from the next step on." in everything(page)

    widget(page, "text_input").set_value("a cat")
    page = press(page, "Apply to this run")
    assert asked(live) == [{"step_size": 0.5}, {"text_input": "a cat"}]


def test_what_is_typed_stays_while_the_run_goes_on(live):
    page = opened()
    widget(page, "text_input").set_value("a cat")
    page.run()
    live.update(num_steps=5, changes=[FISH])
    page.run()
    assert widget(page, "text_input").value == "a cat"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("step_size", 0.0, "'Step size' must be a number above 0 to 10; it was 0.0."),
        ("text_input", "a ^ b", "Serial prompts"),
        ("text_input", "", "No prompt: type what the picture should show"),
        ("text_input", "a red heart", "These values are in force already."),
    ],
)
def test_what_cannot_be_is_refused_in_the_settings_own_words(live, name, value, said):
    page = opened()
    widget(page, name).set_value(value)
    page = press(page, "Apply to this run")
    assert said in everything(page)
    assert asked(live) == [] and not page.toast
    assert widget(page, name).value == value


def test_settings_without_effect_are_not_shown(live):
    page = opened()
    keys = [w.key for kind in ("text_area", "number_input") for w in page.main.get(kind) if w.key]
    shown = {key.split("-")[1] for key in keys if key.startswith("steer-")}
    weights = {"tv_loss_weight", "ground_weight"}
    assert shown == {"text_input", "step_size", "cut_pow", "whole_views"} | weights


# --- made again ----------------------------------------------------------------------------------


@pytest.fixture
def changed(page, output_dir):
    """The page with the settings of a run that changed."""
    make_finished(
        output_dir,
        NAME,
        text_input="a red heart",
        vqgan_ckpt="tiny_f8",
        schema_version=1,
        changes=[FISH],
    )
    page = again(None)
    page.query_params["use"] = NAME
    return page.run()


def test_the_changes_are_made_again_unless_they_are_left_out(changed, output_dir):
    assert "That run changed at step 2. Run! changes the next run in the same way." in everything(
        changed
    )
    assert "From step 2 on: Text prompt: a blue fish" in everything(changed)
    page = run(changed)
    assert queued(output_dir)[-1].details["changes"] == [FISH]
    page = run(press(page, "Leave the changes out"))
    assert "changes" not in queued(output_dir)[-1].details


def test_another_prompt_leaves_them_out_and_the_page_says_so(changed, output_dir):
    changed.text_area(key="text_input").set_value("a cat")
    page = changed.run()
    said = "The changes at step 2 are left out, since 'Text prompt' is different now."
    assert said in everything(page)
    run(page)
    details = queued(output_dir)[-1].details
    assert "changes" not in details and said in details["warnings"]


def test_the_result_tells_what_changed(page, output_dir):
    make_finished(output_dir, NAME, text_input="a red heart", changes=[FISH])
    page = again(None)
    page.session_state["chosen"] = NAME
    assert "<dt>From step 2 on</dt><dd>Text prompt: a blue fish</dd>" in everything(page.run())
