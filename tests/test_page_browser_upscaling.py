"""Upscaling in a real browser, by a real worker: pressed, shown, compared, stopped."""

import pytest
from axe import SERIOUS, first_of_each, violations
from page_server import FITS, button, wait_until_drawn
from PIL import Image, ImageDraw
from playwright.sync_api import expect
from waiting import wait_for

from studio.queue import run_queue
from studio.runs import upscalings
from studio.runs.storage import PICTURE, RunFolder

DONE, SIZE = "20260101T000000-finished", (48, 32)
pytest_plugins = "page_server_fixtures"


@pytest.fixture(scope="module")
def run(server):
    folder = RunFolder(server.output_dir / DONE)
    folder.path.mkdir(parents=True)
    folder.write({"text_input": "a sun", "status": "done", "num_steps": 3, "Xdim": 48, "ydim": 32})
    image = Image.new("RGB", SIZE, "navy")
    ImageDraw.Draw(image).ellipse([12, 4, 36, 28], fill="gold")
    image.save(folder.path / PICTURE, "PNG")
    return folder


def open_result(open_tab):
    tab = open_tab()
    tab.locator(".st-key-last-runs").get_by_text("a sun").click()
    result = tab.locator('[class*="st-key-result-"]')
    result.locator("img.after").wait_for()
    wait_until_drawn(tab)
    return tab, result


def upscale(tab, result, scale):
    button(result, "Upscale").click()
    tab.get_by_text(f"×{scale}", exact=True).first.click()
    button(tab, "Upscale now").click()


def width(result):
    return result.locator("img.after").evaluate("e => e.naturalWidth")


def test_a_result_is_upscaled_and_compared(run, open_tab):
    tab, result = open_result(open_tab)
    assert width(result) == 48 and not button(result, "Before / after").is_visible()
    upscale(tab, result, 2)
    wait_for(lambda: width(result) == 96, "the larger picture")
    expect(
        result.get_by_role("group", name="As made, or upscaled").get_by_role("button")
    ).to_have_text(["×2 animevideov3 · 96×64", "As made · 48×32"])
    button(result, "Before / after").click()
    result.get_by_text("Before: as it was made").wait_for()
    before = result.locator("img.before")
    wait_for(lambda: before.evaluate("e => e.naturalWidth") == 48, "the picture as made")
    expect(before).to_have_css("image-rendering", "pixelated")
    result.locator(".cut").press("Home")
    expect(before).to_have_css("clip-path", "inset(0px 100% 0px 0px)")
    with tab.expect_download() as download:
        button(result, "Picture ×2").click()
    assert download.value.path().read_bytes() == (run.path / "output-x2.PNG").read_bytes()
    assert download.value.suggested_filename == f"{DONE}-output-x2.PNG"
    button(result, "As made · 48×32").click()
    wait_for(lambda: width(result) == 48, "the picture as made")
    before.wait_for(state="hidden")
    found = [one for one in violations(tab, "light") if one["impact"] in SERIOUS]
    assert not found, first_of_each(found)


def test_one_that_waits_is_cancelled_and_the_page_fits_a_phone(run, server, open_tab):
    run_queue.pause(server.output_dir)
    try:
        tab, result = open_result(open_tab)
        tab.set_viewport_size({"width": 390, "height": 844})
        upscale(tab, result, 8)
        result.get_by_text("Upscaling ×8").wait_for()
        button(tab, "Upscale now").wait_for(state="hidden")
        wait_for(lambda: tab.get_by_test_id("stMain").evaluate(FITS), "the page to fit into 390 px")
        button(result, "Cancel").click()
        result.get_by_text("Upscaling ×8").wait_for(state="detached")
        assert upscalings.entries(server.output_dir) == []
    finally:
        run_queue.unpause(server.output_dir)


def test_a_stop_ends_it_and_leaves_the_picture(run, server, open_tab):
    image = Image.effect_noise((1600, 1200), 64).convert("RGB")
    image.save(run.path / PICTURE, "PNG")
    run.update(upscaled=[])
    tab, result = open_result(open_tab)
    upscale(tab, result, 4)
    bar = result.get_by_role("progressbar")
    bar.wait_for()
    wait_for(lambda: "%" in (result.get_by_text("Upscaling ×4").first.text_content() or ""), "%")
    button(result, "Stop").click()
    result.get_by_text("Upscaling ×4 was stopped.").wait_for()
    assert {path.name for path in run.path.glob("*x4*")} == set()
    button(result, "Dismiss").click()
    result.get_by_text("Upscaling ×4 was stopped.").wait_for(state="detached")
