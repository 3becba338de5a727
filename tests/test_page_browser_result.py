"""A result in a real browser: zoom, before and after, frames; and the news that a run has ended."""

import re
import signal

import numpy as np
import pytest
from page_server import FITS, Server, button
from PIL import Image
from playwright.sync_api import expect
from waiting import wait_for

from studio.base.files import atomic_write, to_json
from studio.media import video
from studio.page.gallery_link import LABEL
from studio.queue import run_queue
from studio.runs.storage import INIT_IMAGE, PICTURE, PROGRESS, RunFolder

SIZE, FRAMES = (96, 64), 30
DONE, GOING = "20260101T000000-finished", "20260102T000000-going_on"
SHOWS = "v => v.readyState > 1 && !v.seeking && [v.currentTime, v.paused, v.loop]"
GREY = """v => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d");
  canvas.drawImage(v, 0, 0, 1, 1);
  return canvas.getImageData(0, 0, 1, 1).data[0];
}"""
NOTIFICATIONS = """
window.told = [];
window.asked = 0;
window.Notification = class {
  static permission = "default";
  static async requestPermission() {
    window.asked += 1;
    return (this.permission = "granted");
  }
  constructor(title, { body }) {
    window.told.push(`${title}: ${body}`);
  }
};
Object.defineProperty(document, "hidden", { get: () => window.isAway === true });
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory, chromium):
    """A page with a finished run and one that goes on; its queue is paused."""
    server = Server(tmp_path_factory.mktemp("result"))
    run_queue.pause(server.output_dir)
    folder = make_run(server.output_dir, DONE, text_input="a tree", status="done", device="CPU")
    Image.new("RGB", (40, 40), "red").save(folder.path / INIT_IMAGE, "JPEG")
    Image.new("RGB", SIZE, "blue").save(folder.path / PICTURE, "PNG")
    part = folder.path / "anim.part.mp4"
    writer = video.VideoWriter(part, SIZE)
    for number in range(FRAMES):
        writer.add(np.full((SIZE[1], SIZE[0], 3), 8 * number, np.uint8))
    writer.close()
    video.finish(part, folder.path / "anim.mp4", "")
    yield server
    if server.process.poll() is None:
        server.end(signal.SIGTERM)


def make_run(output_dir, name, **details):
    folder = RunFolder(output_dir / name)
    folder.path.mkdir(parents=True)
    usual = {"Xdim": SIZE[0], "ydim": SIZE[1], "num_steps": FRAMES, "planned_num_steps": FRAMES}
    folder.write(usual | {"heartbeat": "2999-01-01T00:00:00+00:00"} | details)
    return folder


def open_result(server, tabs):
    tab = tabs.open()
    tab.goto(server.url)
    tab.locator(".st-key-last-runs").get_by_text("a tree").click()
    return tab, tab.locator('[class*="st-key-result-"]')


def test_a_result_is_looked_at_closely_and_a_frame_of_it_is_used(server, tabs):
    tab, result = open_result(server, tabs)
    picture, stage = result.locator("img.after"), result.locator(".stage")

    def size():
        return picture.evaluate("e => [e.clientWidth, e.clientHeight, e.naturalWidth]")

    wait_for(lambda: size() == [480, 320, 96], "the picture at whole pixels")
    assert picture.evaluate("e => getComputedStyle(e).imageRendering") == "pixelated"
    for name, width in (("100 %", 96), ("Larger", 192)):
        button(result, name).click()
        wait_for(lambda to=width: size()[0] == to, name)
    stage.focus()
    for key, width in (("+", 288), ("0", 480)):
        tab.keyboard.press(key)
        wait_for(lambda to=width: size()[0] == to, key)
    stage.hover()
    tab.keyboard.down("Control")
    tab.mouse.wheel(0, -100)
    tab.keyboard.up("Control")
    wait_for(lambda: size()[0] == 576, "the wheel to zoom")
    button(result, "Fit").click()

    button(result, "Before / after").click()
    result.get_by_text("Before: its starting image").wait_for()
    result.locator(".cut").press("Home")
    before, all_of_it = result.locator("img.before"), re.compile("100%")
    expect(before).to_have_css("clip-path", all_of_it)
    result.locator(".cut").press("End")
    expect(before).not_to_have_css("clip-path", all_of_it)

    film, scrub = result.locator("video"), result.get_by_label("Frame", exact=True)
    expect(scrub).to_have_attribute("max", str(FRAMES))  # the script is there
    scrub.fill("11")
    scrub.press("ArrowRight")
    result.get_by_text(f"frame 12 of {FRAMES}").wait_for()
    there = [pytest.approx(11.5 / 24, abs=1e-3), True, True]
    wait_for(lambda: film.evaluate(SHOWS) == there, "the frame's middle, in a film at rest")
    wait_for(lambda: abs(film.evaluate(GREY) - 88) < 4, "the twelfth frame's grey")
    button(result, "One frame back").click()
    result.get_by_text(f"frame 11 of {FRAMES}").wait_for()
    button(result, "Continue from this frame").click()
    tab.get_by_text(f"Continues frame 11 of “a tree” ({DONE}).").wait_for()
    before.wait_for()  # what was chosen stays
    button(result, "Use this frame as starting image").click()
    tab.get_by_text("Frame 11 is the starting image of the next run.").wait_for()
    tab.get_by_text("Continues frame 11").wait_for(state="detached")
    tab.set_viewport_size({"width": 390, "height": 844})
    wait_for(lambda: tab.get_by_test_id("stMain").evaluate(FITS), "the page to fit into 390 px")
    wait_for(lambda: size()[0] == 288, "the picture to fit as well")


def test_the_end_of_a_run_is_told_to_a_person_who_is_away(server, tabs):
    going = make_run(server.output_dir, GOING, text_input="a house", status="running")
    atomic_write(going.path / PROGRESS, to_json({"step": 9, "planned_num_steps": 90}))
    tab = tabs.open(fresh=True)
    tab.add_init_script(NOTIFICATIONS)
    tab.goto(server.url)
    ask = button(tab, "Tell me when it is done")
    ask.wait_for()
    assert tab.evaluate("window.asked") == 0, "nobody is asked unasked"
    ask.click()
    button(tab, "You will be told when it is done").wait_for()
    wait_for(lambda: tab.title() == "10 % · a house", "the title")
    tab.evaluate("window.isAway = true")
    going.update(status="done", heartbeat=None)
    wait_for(lambda: tab.evaluate("window.told") == ["✓ Done: a house"], "the notification")
    wait_for(lambda: tab.title() == "✓ Done: a house", "the title")
    button(tab, "You will be told when it is done").wait_for(state="hidden")
    with tab.context.expect_page() as gallery:
        button(tab, LABEL).click()
    gallery.value.get_by_role("heading", name="a house").wait_for()
    expect(tab.get_by_role("link", name=LABEL)).to_have_count(1)
    back = gallery.value.get_by_role("link", name="Use these settings")
    assert back.get_attribute("href") == f"{server.url}/?use={GOING}"
    assert tab.evaluate("window.told.length") == 1, "told once"
