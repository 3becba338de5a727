"""Upscaling in the gallery in a real browser: asked for, followed by itself, compared."""

import json

import pytest
from axe import first_of_each, violations
from gallery_runs import end, make_run, start
from PIL import Image, ImageDraw
from playwright.sync_api import expect
from waiting import wait_for

from studio.base.paths import ASSETS_DIR
from studio.making.execute_upscaling import execute
from studio.queue import run_queue
from studio.runs import upscalings
from studio.runs.storage import RunFolder, now

PORT = 5640
FITS = "document.documentElement.scrollWidth <= innerWidth"


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("upscaling") / "output"


@pytest.fixture(scope="module")
def site(output):
    folder = make_run(output, 1, size=(48, 32), text_input="a sun")
    image = Image.new("RGB", (48, 32), "navy")
    ImageDraw.Draw(image).ellipse([12, 4, 36, 28], fill="gold")
    image.save(folder / "output.PNG")
    process, url = start(output, "--port", PORT)
    yield f"{url}/runs/{folder.name}"
    end(process)


def ask(tab, scale):
    tab.locator(".upscale summary").click()
    tab.locator(".upscale select[name=scale]").select_option(str(scale))
    tab.get_by_role("button", name="Upscale now").click()
    tab.get_by_text(f"Upscaling ×{scale} waits in the queue.").wait_for()


def test_one_is_asked_for_followed_and_compared(site, output, tabs):
    tab = tabs.open()
    tab.goto(site)
    ask(tab, 2)
    (entry,) = run_queue.line(output)
    job = entry.folder
    job.update(status="running", heartbeat=now(), host="here")
    (job.path / "progress.json").write_text(json.dumps({"share": 0.3}))
    tab.get_by_text("Upscaling ×2: 30 %").wait_for()
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate(FITS)
    tab.get_by_role("button", name="Stop", exact=True).click()
    wait_for(job.stop_requested, "the wish to stop")
    job.forget_stop()
    assert execute(job, assets_dir=ASSETS_DIR) == "done"
    tab.get_by_role("link", name="×2 animevideov3 · 96×64").wait_for()
    expect(tab.locator("#picture")).to_have_js_property("naturalWidth", 96)

    tab.locator(".before-after summary").click()
    both = tab.locator(".before-after .compare")
    tab.locator(".before-after input").fill("25")
    expect(both).to_have_css("--cut", "25%")
    boxes = [both.locator(f".{side} img").bounding_box() for side in ("first", "second")]
    assert boxes[0] == boxes[1] and abs(boxes[0]["width"] / boxes[0]["height"] - 1.5) < 0.02
    assert tab.evaluate(FITS)
    for scheme in ("light", "dark"):
        assert first_of_each(violations(tab, scheme, again=scheme == "dark")) == []

    RunFolder(output / job.path.name.removesuffix("-x2")).update(steps_per_second=3)
    ask(tab, 3)
    tab.locator(".before-after summary").click()
    tab.locator(".before-after input").fill("75")
    upscalings.entries(output)[0].folder.update(status="stopped")
    tab.get_by_text("Upscaling ×3 was stopped.").wait_for()
    expect(both).to_have_css("--cut", "75%")  # what a person chose stays while the page follows
    tab.get_by_role("button", name="Dismiss").click()
    tab.get_by_text("Upscaling ×3 was stopped.").wait_for(state="detached")
    tab.get_by_role("link", name="As made · 48×32").click()
    expect(tab.locator("#picture")).to_have_js_property("naturalWidth", 48)
    assert upscalings.entries(output) == []
