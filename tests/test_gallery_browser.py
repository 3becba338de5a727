"""The gallery in a real browser: looks, keyboard, what moves by itself, and the slideshow."""

import json
import re
import shutil
import time
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
from gallery_runs import end, make_run, start
from PIL import Image, ImageDraw
from tabs import new_tab
from waiting import wait_for

import storage

NUMBER = 12
PORT = 5600


def draw(folder, number, size):
    """A picture in which something can be seen."""
    image = Image.new("RGB", size, (40 + number * 15, 90, 160))
    box = [size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4]
    ImageDraw.Draw(image).ellipse(box, fill=(250, 200, number * 20))
    image.save(folder / "output.PNG")
    return image


def fill(output):
    """Finished runs in several aspects, a chain, a broken one and one that goes on."""
    names = []
    for number in range(NUMBER):
        size = [(128, 128), (160, 96), (96, 160), (512, 384)][number % 4]
        more = {"parent": names[-1]} if number in (5, 6) else {}
        folder = make_run(output, number, size=size, text_input=f"picture {number}", **more)
        image = draw(folder, number, size)
        if number % 4 == 0:
            film = [np.asarray(image.rotate(angle)) for angle in range(0, 60, 5)]
            imageio.mimwrite(folder / "anim.mp4", film, fps=24, macro_block_size=2)
        names.append(folder.name)
    broken = make_run(output, -5, picture=None, name="20251231T115500-brokenAA")
    (broken / "details.json").write_text('{"text_input": "half')
    Image.new("RGB", (20, 20)).save(make_run(output, -6, text_input="x" * 400) / "init-image.JPEG")
    return names


class Site:
    """A gallery in a process of its own and what it shows."""

    def __init__(self, folder, *options):
        self.output = folder / "output"
        self.names = fill(self.output)
        self.process, self.url = start(self.output, "--port", PORT, *options)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("gallery"))
    yield site
    end(site.process)


@pytest.fixture(scope="module")
def kiosk(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("kiosk"), "--kiosk", "--interval", "0.1")
    yield site
    end(site.process)


@pytest.fixture
def open_tab(chromium):
    """Opens tabs, which are closed after the test; complaints of the browser fail it."""
    contexts, complaints = [], []

    def open_one(address, **options):
        tab = new_tab(chromium, contexts, **options)
        tab.on("console", lambda m: m.type == "error" and complaints.append(m.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(address)
        return tab

    yield open_one
    for context in contexts:
        context.close()
    assert [c for c in complaints if "404" not in c] == [], "a page must not trip the browser"


PAGES = {
    "wall": "/",
    "search": "/?q=picture&weights=emoji_f8&page=9",
    "run": "/runs/{6}",
    "film": "/runs/{4}",
    "broken": "/runs/20251231T115500-brokenAA",
    "compare": "/compare?a={1}&b={2}",
    "trash": "/trash",
    "slideshow": "/slideshow",
    "error": "/runs/nobody",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_every_page_fits_is_readable_and_asks_nobody_else(site, open_tab, page, scheme):
    from axe_playwright_python.sync_playwright import Axe

    tab = open_tab(site.url + PAGES[page].format(*site.names), color_scheme=scheme)
    for width in (1400, 390):
        tab.set_viewport_size({"width": width, "height": 844})
        tab.wait_for_load_state("load")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        found = Axe().run(tab).response["violations"]
        told = [f"{v['id']}: {v['nodes'][0]['html']}" for v in found]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert not serious, told
    assert [url for url in tab.strangers if not url.startswith(site.url)] == []


def test_pictures_are_at_their_aspect(site, open_tab):
    tab = open_tab(f"{site.url}/?sort=oldest")
    tab.wait_for_function("[...document.images].every(i => !i.src || i.complete)")
    for number, ratio in ((0, 1), (1, 160 / 96), (2, 96 / 160), (3, 512 / 384)):
        box = tab.locator(f'[data-run="{site.names[number]}"] .frame').bounding_box()
        assert abs(box["width"] / box["height"] / ratio - 1) < 0.03


def focused(tab):
    return tab.evaluate("document.activeElement.closest('.tile')?.dataset.run ?? null")


def test_the_keyboard_alone(site, open_tab):
    tab = open_tab(site.url)
    tab.keyboard.press("ArrowRight")
    assert focused(tab) == site.names[-1]
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert focused(tab) == site.names[-3]
    tab.keyboard.press("ArrowDown")
    below = focused(tab)
    assert site.names.index(below) < NUMBER - 3
    tab.keyboard.press("ArrowUp")
    assert site.names.index(focused(tab)) >= NUMBER - 5
    tab.keyboard.press("f")
    tab.locator(f'[data-run="{focused(tab)}"] [aria-pressed="true"]').wait_for()
    chosen = focused(tab)
    tab.keyboard.press("Enter")
    tab.wait_for_url(re.compile(re.escape(chosen)))
    tab.locator('.actions [aria-pressed="true"]').wait_for()
    tab.keyboard.press("f")
    tab.locator('.actions [aria-pressed="false"]').wait_for()
    tab.keyboard.press("ArrowRight")
    older = site.names[site.names.index(chosen) - 1]
    tab.wait_for_url(re.compile(re.escape(older)))
    tab.go_back()
    tab.wait_for_url(re.compile(re.escape(chosen)))
    tab.go_back()
    tab.locator("#wall").wait_for()
    tab.go_forward()
    tab.wait_for_url(re.compile(re.escape(chosen)))
    tab.keyboard.press("Escape")
    tab.locator("#wall").wait_for()


def test_del_removes_and_undo_brings_back(site, open_tab):
    tab = open_tab(site.url)
    name = site.names[-2]
    tab.locator(f'[data-run="{name}"] .open').focus()
    tab.keyboard.press("Delete")
    tab.get_by_text("Moved to the trash.").wait_for()
    tab.locator(f'[data-run="{name}"]').wait_for(state="detached")
    assert (site.output / ".trash" / name).is_dir() and focused(tab) is not None
    tab.get_by_role("button", name="Undo").click()
    tab.locator(f'[data-run="{name}"]').wait_for()
    assert (site.output / name).is_dir()
    tab.goto(f"{site.url}/runs/{name}")
    tab.get_by_role("button", name="Remove").click()
    tab.get_by_text("The run was moved to the trash.").wait_for()
    tab.get_by_role("button", name="Undo").click()
    tab.locator(f'[data-run="{name}"]').wait_for()


def test_new_runs_appear_and_running_ones_move_without_a_reload(site, open_tab):
    tab = open_tab(site.url)
    tab.evaluate("window.stayed = true")
    tab.locator(f'[data-run="{site.names[0]}"] .open').focus()
    folder = make_run(
        site.output, 60, picture=None, status="running", heartbeat=storage.now(), text_input="new"
    )
    try:
        tile = tab.locator(f'[data-run="{folder.name}"]')
        tile.wait_for()
        Image.new("RGB", (64, 64), "red").save(folder / "preview.JPEG")
        for step in (3, 9):
            progress = {"step": step, "planned_num_steps": 50, "seconds_left": 3}
            storage.atomic_write(folder / "progress.json", json.dumps(progress).encode())
            storage.RunFolder(folder).update(heartbeat=storage.now())
            tile.get_by_text(f"step {step} of 50").wait_for()
        first = tile.locator("img").get_attribute("src")
        time.sleep(0.1)
        Image.new("RGB", (64, 64), "blue").save(folder / "preview.JPEG")
        wait_for(lambda: tile.locator("img").get_attribute("src") != first, "another preview")
        draw(folder, 3, (64, 64))
        storage.RunFolder(folder).update(status="done")
        tile.locator(".status").wait_for(state="detached")
    finally:
        shutil.rmtree(folder)
    tile.wait_for(state="detached")
    assert tab.evaluate("window.stayed") and focused(tab) == site.names[0]


@pytest.mark.parametrize("width", [1400, 390])
def test_search_and_filters(site, open_tab, width):
    tab = open_tab(site.url, viewport={"width": width, "height": 844})
    tab.get_by_role("searchbox").fill("picture 7")
    tab.get_by_role("searchbox").press("Enter")
    tab.get_by_text("1 found").wait_for()
    assert tab.locator(".tile").count() == 1 and tab.url.endswith("/?q=picture+7")
    tab.get_by_text("Show all").click()
    tab.get_by_text("Filter", exact=True).click()
    tab.get_by_label("Size").click()  # it must not lie under a picture
    tab.get_by_label("Size").select_option("96x160")
    tab.get_by_role("button", name="Show", exact=True).click()
    tab.get_by_text("3 found").wait_for()
    tab.get_by_role("link", name="size: 96x160").click()
    tab.get_by_text("runs").first.wait_for()
    tab.go_back()
    tab.get_by_text("3 found").wait_for()


def test_zoom_scrubber_copy_tags_and_note(site, open_tab):
    tab = open_tab(f"{site.url}/runs/{site.names[4]}")
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    picture = tab.locator("#picture")
    tab.get_by_role("button", name="1:1").click()
    assert picture.bounding_box()["width"] == 128
    tab.get_by_role("button", name="Larger").click()
    assert picture.bounding_box()["width"] == 192
    tab.keyboard.press("Escape")
    assert picture.bounding_box()["width"] > 192
    scrub = tab.locator("#scrub")
    scrub.wait_for()
    scrub.evaluate("e => { e.value = 500; e.dispatchEvent(new Event('input')); }")
    film = "v => Math.abs(v.currentTime / v.duration - 0.5) < 0.1"
    wait_for(lambda: tab.locator("#film").evaluate(film), "the film's middle")
    tab.get_by_role("button", name="Copy prompt").click()
    tab.get_by_text("Copied.").wait_for()
    assert tab.evaluate("navigator.clipboard.readText()") == "picture 4"
    tab.get_by_label("New tags").fill("sea, calm")
    tab.get_by_role("button", name="Add", exact=True).click()
    tab.get_by_role("link", name="calm").wait_for()
    tab.get_by_label("Note", exact=True).fill("My best")
    tab.get_by_role("button", name="Save note").click()
    tab.wait_for_load_state("load")
    assert tab.get_by_label("Note", exact=True).input_value() == "My best"
    tab.get_by_role("button", name="Take off the tag sea").click()
    tab.get_by_role("link", name="sea").wait_for(state="detached")


def test_compare_with_the_slider(site, open_tab):
    tab = open_tab(f"{site.url}/runs/{site.names[1]}")
    tab.get_by_role("link", name="Compare …").click()
    tab.get_by_text("Choose a run to compare").wait_for()
    tab.locator(f'[data-run="{site.names[2]}"] .open').click()
    tab.get_by_role("slider").fill("25")
    cut = "getComputedStyle(document.getElementById('compare')).getPropertyValue('--cut')"
    assert tab.evaluate(cut) == "25%"
    assert tab.get_by_role("row", name=re.compile("Xdim")).count() == 1


def test_without_javascript_all_can_be_read_and_done(site, open_tab):
    tab = open_tab(site.url, java_script_enabled=False)
    assert tab.locator(".tile").count() == NUMBER + 2
    tile = tab.locator(f'[data-run="{site.names[-1]}"]')
    tile.hover()
    tile.get_by_role("button", name="Favourite").click()
    assert tile.get_by_role("button", name="Favourite").get_attribute("aria-pressed") == "true"
    tile.locator(".open").click()
    assert tab.get_by_role("heading", name=f"picture {NUMBER - 1}").is_visible()
    assert tab.get_by_text("emoji_clip").first.is_visible()
    tab.get_by_role("button", name="Favourite").click()
    tab.get_by_role("button", name="Remove").click()
    tab.get_by_role("button", name="Undo").click()
    assert tab.locator(".tile").count() == NUMBER + 2


def shown(tab):
    return tab.locator(".caption").text_content()


def test_the_slideshow_moves_on_and_shows_what_comes(kiosk, open_tab):
    tab = open_tab(f"{kiosk.url}/slideshow")
    seen = set()
    wait_for(lambda: seen.add(shown(tab)) or len(seen) > 4, "some slides")
    new = make_run(kiosk.output, 90, text_input="a newcomer")
    wait_for(lambda: shown(tab) == "a newcomer", "the new run")
    shutil.rmtree(new)
    tab.keyboard.press(" ")
    paused = shown(tab)
    time.sleep(1)
    assert shown(tab) == paused
    tab.keyboard.press(" ")
    wait_for(lambda: shown(tab) != paused, "the next slide")
    wait_for(lambda: tab.locator("#play").is_visible(), "a run with an animation")
    assert tab.locator("img").count() <= 2
    tab.keyboard.press("Escape")
    tab.locator("#wall").wait_for()
    assert tab.get_by_role("button").count() <= 1, "nothing to press but the search"


def test_an_animation_is_played_on_request(site, open_tab):
    tab = open_tab(f"{site.url}/slideshow?at={site.names[8]}")
    tab.keyboard.press("a")
    wait_for(lambda: tab.locator("video").count() == 1, "the film")
    wait_for(lambda: tab.locator("video").count() == 0, "the film's end")


def heap(tab):
    session = tab.context.new_cdp_session(tab)
    session.send("HeapProfiler.collectGarbage")
    return session.send("Runtime.getHeapUsage")["usedSize"]


def held(process):
    """Resident memory in KiB."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1])


@pytest.mark.slow
def test_a_thousand_slides_leave_memory_as_it_was(kiosk, open_tab):
    tab = open_tab(f"{kiosk.url}/slideshow")
    asked = []
    tab.on("response", lambda answer: "/api/slides/next" in answer.url and asked.append(1))
    wait_for(lambda: tab.wait_for_timeout(100) or len(asked) > 100, "the first hundred slides")
    before = heap(tab), held(kiosk.process)
    for number in range(10):
        folder = make_run(kiosk.output, 200 + number)
        wait_for(
            lambda goal=110 * number + 200: tab.wait_for_timeout(200) or len(asked) > goal,
            "more slides",
        )
        shutil.rmtree(folder)
    assert len(asked) > 1000
    after = heap(tab), held(kiosk.process)
    assert after[0] < 1.1 * before[0] and after[1] < 1.1 * before[1], (before, after)
