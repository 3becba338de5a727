"""The prompt of the page in a real browser: pictures to click, and the keys that press Run!."""

import json

import pytest
from page_server import button, field, prompt_of, wait_until_drawn
from PIL import Image
from playwright.sync_api import expect
from waiting import wait_for

from studio.media.pictures import encode_png
from studio.runs.storage import PNG_KEY

pytest_plugins = "page_server_fixtures"
MADE_FROM = {
    "schema_version": 1,
    "text_input": "a green square",
    "seed": 3,
    "vqgan_ckpt": "tiny_f8",
}


@pytest.fixture
def example(server):
    """A picture that was made with the tiny weights."""
    folder = server.output_dir.parent / "assets" / "tiny_f8.examples"
    folder.mkdir()
    picture = encode_png(Image.new("RGB", (32, 32), "green"), {PNG_KEY: json.dumps(MADE_FROM)})
    (folder / "1.png").write_bytes(picture)


def hold_run_keys(tab):
    tab.keyboard.down("Control")
    for _ in range(15):  # the first is a press, the others are its repetitions
        tab.keyboard.down("Enter")
        tab.wait_for_timeout(40)
    tab.keyboard.up("Enter")
    tab.keyboard.up("Control")


def test_from_an_example_to_runs_without_touching_run(server, example, tabs):
    tab = tabs.open()
    tab.goto(server.url)
    tab.locator(".st-key-examples img").wait_for()
    wait_until_drawn(tab)
    tab.locator(".st-key-examples img").click(force=True)  # its button lies above it
    expect(prompt_of(tab)).to_have_value("a green square")
    expect(field(tab, "Seed")).to_have_value("3")
    for label, value in (("Xdim", 32), ("ydim", 32), ("Num steps", 1)):
        field(tab, label).fill(str(value))
        field(tab, label).press("Enter")
    expect(button(tab, "Run!")).to_be_enabled()
    wait_until_drawn(tab)
    prompt_of(tab).fill("")
    prompt_of(tab).press_sequentially("a heart | fog:-0.5")
    hold_run_keys(tab)  # at once: the run has the newest text
    wait_for(lambda: tab.title() == "✓ Done: a heart | fog:-0.5", "the run's end")
    assert len(server.runs()) == 1, "Enter in a number runs nothing, and held keys count once"
    field(tab, "Avoid").fill("rain")
    tab.keyboard.press("Control+Enter")
    wait_for(lambda: len(server.runs()) == 2, "another run")
    assert server.runs()[0].details["avoid"] == "rain"
    wait_until_drawn(tab)
    tab.locator('[data-variant="segmented_control"]').first.focus()  # it would take Enter itself
    tab.keyboard.press("Control+Enter")
    wait_for(lambda: len(server.runs()) == 3, "a run from a chip")
