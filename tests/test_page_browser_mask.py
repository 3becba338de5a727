"""Painting a mask over the starting image, in a real browser."""

import io

import numpy as np
import pytest
import tiny_diffusion
from page_server import button, choose_engine, prompt_of, switch, wait_until_drawn
from PIL import Image
from playwright.sync_api import expect
from waiting import wait_for

pytest_plugins = "page_server_fixtures"
USUAL = {"num_steps": 4, "Xdim": 64, "ydim": 64}
PAINTED = """canvas => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return pixels.filter((value, at) => at % 4 === 3 && value > 127).length;
}"""


@pytest.fixture(scope="module")
def weights(server):
    folder = server.output_dir.parent / "assets" / "sd"
    tiny_diffusion.write(tiny_diffusion.tiny_sd(), folder, USUAL)


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def upload(tab, label, image):
    file = {"name": f"{label}.png", "mimeType": "image/png", "buffer": png(image)}
    uploader = tab.get_by_test_id("stFileUploader").filter(has_text=label)
    uploader.locator("input[type=file]").set_input_files(file)


@pytest.fixture
def tab(server, weights, open_tab, request):
    (server.output_dir / ".page" / "form.json").unlink(
        missing_ok=True
    )  # no test's form but its own
    tab = open_tab(**getattr(request, "param", {}))
    choose_engine(tab, "Diffusion")
    wait_until_drawn(tab)
    if hasattr(request, "param"):
        tab.set_viewport_size({"width": 390, "height": 844})
        tab.get_by_test_id("stExpandSidebarButton").click()
    switch(tab, "Use starting image")
    upload(tab, "Upload starting image", Image.new("RGB", (64, 48), "teal"))
    tab.get_by_text("64x48").wait_for()
    switch(tab, "Use mask")
    tab.locator("canvas").wait_for()
    wait_until_drawn(tab)
    return tab


def drag(tab, begin, end):
    """From one place on the picture to another, in shares of it."""
    canvas = tab.locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for place, act in ((begin, "down"), (end, "up")):
        x, y = box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"]
        tab.mouse.move(x, y, steps=5)
        getattr(tab.mouse, act)()


def test_what_is_painted_goes_into_the_run(server, tab):
    drag(tab, (0.1, 0.5), (0.4, 0.5))
    tab.get_by_alt_text("Use mask: picture 1").wait_for()
    wait_until_drawn(tab)
    assert tab.locator("canvas").evaluate(PAINTED) > 50, "the canvas keeps what was painted"
    prompt_of(tab).fill("a masked heart")
    button(tab, "Run!").click()
    wait_for(lambda: tab.title() == "✓ Done: a masked heart", "the run's end")
    folder = server.runs()[0].folder
    mask = np.asarray(Image.open(folder.path / folder.read()["mask"]).convert("L"))
    assert mask.shape == (48, 64)
    assert mask[24, 8:25].min() > 200 and mask[:, 40:].max() < 50 and mask[:12].max() < 50


def test_erasing_and_clearing_take_it_back(tab):
    drag(tab, (0.1, 0.5), (0.9, 0.5))
    thumbnail = tab.get_by_alt_text("Use mask: picture 1")
    thumbnail.wait_for()
    whole = tab.locator("canvas").evaluate(PAINTED)
    button(tab, "Erase").click()
    expect(button(tab, "Erase")).to_have_attribute("aria-pressed", "true")
    drag(tab, (0.5, 0.5), (0.9, 0.5))
    wait_for(lambda: tab.locator("canvas").evaluate(PAINTED) < 0.8 * whole, "less paint")
    button(tab, "Clear").click()
    thumbnail.wait_for(state="detached")
    assert tab.locator("canvas").evaluate(PAINTED) == 0


def test_an_uploaded_mask_is_shown_and_can_be_painted_on(tab):
    mask = Image.new("L", (64, 48))
    mask.paste(255, (0, 0, 32, 48))
    upload(tab, "Upload mask", mask)
    canvas = tab.locator("canvas")
    wait_for(lambda: canvas.evaluate(PAINTED) == 32 * 48, "the mask on the picture")
    drag(tab, (0.8, 0.2), (0.8, 0.8))
    wait_for(lambda: canvas.evaluate(PAINTED) > 32 * 48 + 50, "more paint")


@pytest.mark.parametrize("tab", [{"has_touch": True}], ids=["phone"], indirect=True)
def test_it_is_painted_by_touch_on_a_phone(tab):
    canvas = tab.locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    canvas.tap()
    tab.get_by_alt_text("Use mask: picture 1").wait_for()
    assert canvas.evaluate(PAINTED) > 5
