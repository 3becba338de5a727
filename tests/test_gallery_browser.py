"""The gallery in a real browser: looks, keyboard, what moves by itself, and the slideshow."""

import itertools
import json
import re
import shutil
import struct
import time
import zlib
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
from axe import first_of_each, violations, wait_for_rest
from gallery_runs import end, make_bare_run, make_run, start
from PIL import Image, ImageDraw
from playwright.sync_api import expect
from waiting import wait_for

from studio.base import files
from studio.runs import storage

EXCUSED = ("404", "ERR_FAILED")  # a requested file was missing, or the gallery did not answer
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
    """Finished runs in several aspects, among them a chain; and a broken run."""
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
    """A gallery in a process of its own, and what it shows."""

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
def open_tab(tabs):
    """Opens tabs, whose scripts have run. Complaints of the browser fail the test."""
    complaints = []

    def open_one(address, **options):
        tab = tabs.open(**options)
        tab.on("console", lambda m: m.type == "error" and complaints.append(m.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(address)
        return tab

    yield open_one
    serious = [c for c in complaints if not any(word in c for word in EXCUSED)]
    assert serious == [], "the browser complains about a page"


PAGES = {
    "wall": "/",
    "pager": "/?n=4",
    "nothing": "/?q=nothing+at+all",
    "search": "/?q=picture&weights=emoji_f8&page=9",
    "run": "/runs/{6}",
    "film": "/runs/{4}",
    "broken": "/runs/20251231T115500-brokenAA",
    "compare": "/compare?a={1}&b={2}",
    "trash": "/trash",
    "slideshow": "/slideshow",
    "error": "/runs/nobody",
}


def arrive(tab, sign):
    """Wait for the page that shows this, with its scripts."""
    sign.wait_for()
    tab.wait_for_load_state()


TOO_SMALL = """[...document.querySelectorAll("a, button, input, select, textarea, summary")]
    .filter((one) => one.checkVisibility({ visibilityProperty: true }) && !one.matches(".skip"))
    .filter((one) => one.offsetWidth < 24 || one.offsetHeight < 24).map((one) => one.outerHTML)"""


@pytest.mark.parametrize("page", PAGES)
def test_every_page_fits_is_readable_and_loads_nothing_from_elsewhere(site, open_tab, page):
    tab = open_tab(site.url + PAGES[page].format(*site.names))
    check_looks(tab)
    assert [url for url in tab.strangers if not url.startswith(site.url)] == []


def check_looks(tab):
    """Nothing is cut off, too small to be pressed or hard to read, on large and small screens."""
    for width in (2560, 1400, 390, 320):
        tab.set_viewport_size({"width": width, "height": 844})
        wait_for(lambda size=width: tab.evaluate("innerWidth") == size, f"a width of {width} px")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        assert width > 390 or tab.evaluate(TOO_SMALL) == []
        for scheme in ("light", "dark") if width in (1400, 390) else ():
            found = violations(tab, scheme, again=scheme == "dark")
            assert first_of_each(found) == [], scheme


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """The address of a gallery with a run of four pictures, the last, and two without any."""
    output = tmp_path_factory.mktemp("engines") / "output"
    for number in (1, 2):
        make_bare_run(output, number, length=number)
    folder = make_run(output, 3, model="Tiles")
    image = draw(folder, 3, (160, 120))
    for number in (2, 3, 4):
        image.save(folder / f"output-{number}.PNG")
    process, url = start(output, "--port", PORT)
    yield url
    end(process)


OTHER_ENGINES = {
    "wall": "/?engine=Waves",
    "several pictures": "/runs/run00003",
    "no picture": "/runs/run00001",
    "comparing nothing": "/compare?a=run00001&b=run00002",
    "comparing with a picture": "/compare?a=run00001&b=run00003",
}


@pytest.mark.parametrize("page", OTHER_ENGINES)
def test_runs_of_other_engines_fit_on_every_page(engines, open_tab, page):
    tab = open_tab(engines + OTHER_ENGINES[page])
    check_looks(tab)


@pytest.mark.parametrize("width", [1400, 390])
def test_compared_pictures_never_cover_the_table_below(engines, open_tab, width):
    for page in ("comparing nothing", "comparing with a picture"):
        tab = open_tab(engines + OTHER_ENGINES[page], viewport={"width": width, "height": 844})
        below = box(tab, "#changes-title")["y"]
        for caption in tab.locator("figcaption").all():
            bottom = caption.bounding_box()
            assert bottom["y"] + bottom["height"] <= below


def test_on_a_phone_further_pictures_come_after_prompt_and_actions(engines, open_tab):
    tab = open_tab(f"{engines}/runs/run00003", viewport={"width": 390, "height": 844})
    tops = [box(tab, part)["y"] for part in ("#stage", "#prompt", ".actions", ".pictures")]
    assert tops == sorted(tops) and tab.locator(".pictures img").count() == 3


def test_pictures_keep_their_aspect(site, open_tab):
    tab = open_tab(f"{site.url}/?sort=oldest")
    loaded = "[...document.images].every(i => !i.src || i.complete || i.loading === 'lazy')"
    wait_for(lambda: tab.evaluate(loaded), "the pictures")
    for number, ratio in ((0, 1), (1, 160 / 96), (2, 96 / 160), (3, 512 / 384)):
        box = tab.locator(f'[data-run="{site.names[number]}"] .frame').bounding_box()
        assert abs(box["width"] / box["height"] / ratio - 1) < 0.03


def box(tab, selector):
    return tab.locator(selector).bounding_box()


def test_the_last_row_aligns_with_those_above_it(site, open_tab):
    tab = open_tab(f"{site.url}/?size=128x128", viewport={"width": 700, "height": 900})
    first, second, third = (one.bounding_box() for one in tab.locator(".tile .frame").all())
    assert first["y"] == second["y"] < third["y"]
    for side in ("x", "width", "height"):
        assert third[side] == pytest.approx(first[side], abs=0.5)


def test_a_white_picture_has_a_hairline(site, open_tab):
    tab = open_tab(f"{site.url}/runs/{site.names[6]}")
    line = "getComputedStyle(document.querySelector('.frame'), '::after').boxShadow"
    assert "inset" in tab.evaluate(line)
    line = "getComputedStyle(document.getElementById('picture')).outline"
    assert "solid 1px" in tab.evaluate(line)


def test_on_a_phone_picture_prompt_and_actions_come_first(site, open_tab):
    tab = open_tab(f"{site.url}/runs/{site.names[4]}", viewport={"width": 390, "height": 844})
    parts = ("#stage", "#prompt", ".actions", ".more")
    tops = [box(tab, part)["y"] for part in parts]
    assert tops == sorted(tops) and tops[2] < 844


def focused(tab):
    return tab.evaluate("document.activeElement.closest('.tile')?.dataset.run ?? null")


def wait_for_focus(tab, name):
    wait_for(lambda: focused(tab) == name, f"the focus on {name}")


def test_the_keyboard_alone(site, open_tab):
    tab = open_tab(site.url)
    tab.keyboard.press("ArrowRight")
    wait_for_focus(tab, site.names[-1])
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    wait_for_focus(tab, site.names[-3])
    tab.keyboard.press("ArrowDown")
    wait_for(lambda: site.names.index(focused(tab)) < NUMBER - 3, "the focus in the next row")
    tab.keyboard.press("ArrowUp")
    wait_for(lambda: site.names.index(focused(tab)) >= NUMBER - 5, "the focus in the first row")
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
    arrive(tab, tab.locator("#wall"))
    tab.go_forward()
    tab.wait_for_url(re.compile(re.escape(chosen)))
    tab.keyboard.press("Escape")
    tab.locator("#wall").wait_for()


def in_trash(site):
    folder = site.output / ".trash"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_key_held_down_removes_one_run_and_undo_is_one_tab_away(site, open_tab):
    tab = open_tab(site.url)
    name = site.names[-2]
    tab.locator(f'[data-run="{name}"] .open').focus()
    tab.keyboard.press("Backspace")
    for _ in range(10):
        tab.keyboard.down("Delete")
        tab.wait_for_timeout(30)
    tab.keyboard.up("Delete")
    tab.get_by_text("The run was moved to the trash.").wait_for()
    tab.locator(f'[data-run="{name}"]').wait_for(state="detached")
    wait_for_focus(tab, site.names[-3])
    assert in_trash(site) == [name]
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    tab.locator(f'[data-run="{name}"]').wait_for()
    wait_for_focus(tab, name)
    assert in_trash(site) == []


def test_undo_brings_back_a_whole_series(site, open_tab):
    tab = open_tab(site.url)
    tab.locator(f'[data-run="{site.names[-1]}"] .open').focus()
    for _ in range(3):
        tab.keyboard.press("Delete")
    tab.get_by_text("3 runs were moved to the trash.").wait_for()
    assert in_trash(site) == site.names[-3:]
    undo = tab.get_by_role("button", name="Undo")
    tab.keyboard.press("Tab")
    expect(undo).to_be_focused()
    tab.keyboard.press("Tab")
    wait_for_focus(tab, site.names[-4])  # Tab leads back from the button
    undo.click()
    wait_for_focus(tab, site.names[-1])
    expect(tab.locator(".tile")).to_have_count(NUMBER + 2)
    assert in_trash(site) == []


def test_undo_is_offered_for_half_a_minute_wherever_a_run_was_removed(site, open_tab):
    tab = open_tab(f"{site.url}/runs/{site.names[-2]}?q=picture", fresh=True)
    tab.clock.install()
    tab.get_by_role("button", name="Remove").click()
    tab.wait_for_url(re.compile(r"/\?q=picture$"))
    offer = tab.get_by_text("The run was moved to the trash.")
    offer.wait_for()
    tab.clock.fast_forward(28_000)
    tab.get_by_role("button", name="Undo").click()
    wait_for_focus(tab, site.names[-2])
    tab.mouse.move(0, 0)  # a pointer that rests on the offer keeps it
    tab.keyboard.press("Delete")
    offer.wait_for()
    tab.clock.fast_forward(31_000)
    offer.wait_for(state="hidden")
    (site.output / ".trash" / site.names[-2]).rename(site.output / site.names[-2])
    tab.locator(f'[data-run="{site.names[-2]}"]').wait_for()


def test_stepping_stays_in_the_list_that_it_came_from(site, open_tab):
    tab = open_tab(f"{site.url}/?q=picture&sort=oldest&size=160x96")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    tab.wait_for_url(re.compile(re.escape(site.names[1])))
    for key, number in (("ArrowRight", 5), ("ArrowRight", 9), ("ArrowLeft", 5)):
        tab.keyboard.press(key)
        tab.wait_for_url(re.compile(re.escape(site.names[number])))
    tab.keyboard.press("Escape")
    arrive(tab, tab.get_by_text("3 found"))
    assert [one.get_attribute("data-run") for one in tab.locator(".tile").all()] == [
        site.names[number] for number in (1, 5, 9)
    ]


@pytest.fixture
def running(site):
    """Running runs, more than `/api/activity` lists; the oldest first."""
    more = {"picture": None, "status": "running"}
    folders = [make_run(site.output, 60 + n, heartbeat=storage.now(), **more) for n in range(22)]
    yield folders
    for folder in folders:
        shutil.rmtree(folder)


def test_a_page_changes_in_place_but_not_what_is_in_use(site, open_tab, running):
    folder = running[0]
    tab = open_tab(f"{site.url}/runs/{folder.name}")
    tab.evaluate("window.stayed = true")
    note = tab.get_by_label("Note", exact=True)
    note.press_sequentially("half a")
    tab.locator("summary", has_text="As JSON").click()
    note.focus()
    progress = {"step": 7, "planned_num_steps": 50}
    files.atomic_write(folder / "progress.json", json.dumps(progress).encode())
    tab.get_by_text("step 7 of 50").wait_for()
    draw(folder, 3, (64, 64))
    storage.RunFolder(folder).update(status="done", num_steps=50)
    tab.locator("#picture").wait_for()
    tab.locator(".about .status").wait_for(state="detached")
    tab.keyboard.type(" thought")
    tab.get_by_label("New tags").fill("sea")
    tab.get_by_role("button", name="Add", exact=True).click()
    tab.get_by_role("link", name="sea").wait_for()
    assert note.input_value() == "half a thought"
    tab.get_by_role("button", name="Save note").click()
    tab.get_by_text("The note is saved.").wait_for()
    tab.evaluate("getSelection().selectAllChildren(document.querySelector('h1'))")
    storage.RunFolder(folder).update(num_steps=77)
    tab.get_by_text("77 steps").wait_for()
    assert tab.evaluate("getSelection().toString()") == "picture 60"
    assert tab.evaluate("window.stayed") and tab.locator("details[open] pre").is_visible()
    note.fill("")
    tab.get_by_role("button", name="Save note").click()
    wait_for(lambda: note.input_value() == "" and "half" not in tab.content(), "the empty note")


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
            files.atomic_write(folder / "progress.json", json.dumps(progress).encode())
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
    tab.wait_for_url(f"{site.url}/?q=picture+7")
    tab.get_by_text("1 found").wait_for()
    expect(tab.locator(".tile")).to_have_count(1)
    tab.get_by_text("Show all").click()
    tab.wait_for_url(f"{site.url}/")
    tab.get_by_text("Filter", exact=True).click()
    show = tab.get_by_role("button", name="Show", exact=True).bounding_box()
    assert show["y"] + show["height"] <= 844
    for first, second in (("steps_min", "steps_max"), ("date_from", "date_to")):
        assert box(tab, f"[name={first}]")["y"] == box(tab, f"[name={second}]")["y"]
    tab.get_by_label("Size").click()  # it must not lie under a picture
    tab.get_by_label("Size").select_option("96x160")
    tab.get_by_role("button", name="Show", exact=True).click()
    arrive(tab, tab.get_by_text("3 found"))
    tab.get_by_role("link", name="size: 96x160").click()
    tab.wait_for_url(f"{site.url}/")
    tab.go_back()
    tab.get_by_text("3 found").wait_for()


def test_zoom_scrubber_copy_tags_and_note(site, open_tab):
    tab = open_tab(f"{site.url}/runs/{site.names[4]}")
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])

    def width():
        return box(tab, "#picture")["width"]

    tab.get_by_role("button", name="1:1").click()
    wait_for(lambda: width() == 128, "a pixel for each pixel")
    tab.get_by_role("button", name="Larger").click()
    wait_for(lambda: width() == 192, "a larger picture")
    tab.keyboard.press("Escape")
    wait_for(lambda: width() > 192, "the picture to fit")
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
    tab.get_by_text("The note is saved.").wait_for()
    tab.reload()
    expect(tab.get_by_label("Note", exact=True)).to_have_value("My best")
    tab.get_by_role("button", name="Take off the tag sea").click()
    tab.get_by_role("link", name="sea").wait_for(state="detached")


def test_compare_with_the_slider(site, open_tab):
    tab = open_tab(f"{site.url}/runs/{site.names[1]}")
    tab.get_by_role("link", name="Compare …").click()
    arrive(tab, tab.get_by_text("Choose a run to compare"))
    tab.locator(f'[data-run="{site.names[2]}"] .open').click()
    tab.get_by_role("slider").fill("25")  # the script may come later
    expect(tab.locator("#compare")).to_have_css("--cut", "25%")
    tab.wait_for_load_state()
    expect(tab.get_by_role("row", name=re.compile("Xdim"))).to_have_count(1)
    picture, slider = box(tab, ".first img"), box(tab, "#slider")
    assert picture == box(tab, ".second img")
    assert abs(picture["width"] / picture["height"] / (160 / 96) - 1) < 0.01
    for part in (0, 0.25, 1):
        tab.mouse.click(picture["x"] + part * picture["width"], slider["y"] + 10)
        wait_for(
            lambda goal=100 * part: (
                abs(float(tab.get_by_role("slider").input_value()) - goal) <= 0.5
            ),
            "the slider to follow",
        )
    crisp = "[...document.images].filter((i) => getComputedStyle(i).imageRendering === 'pixelated')"
    assert tab.evaluate(f"{crisp}.length") == 2
    tab.keyboard.press("Escape")
    tab.locator("#wall").wait_for()


def test_everything_can_be_read_and_done_without_javascript(site, open_tab):
    tab = open_tab(site.url, java_script_enabled=False)
    assert tab.locator(".tile").count() == NUMBER + 2
    tile = tab.locator(f'[data-run="{site.names[-1]}"]')
    tile.hover()
    favourite = tile.get_by_role("button", name="Favourite")
    favourite.click()
    expect(favourite).to_have_attribute("aria-pressed", "true")
    tile.locator(".open").click()
    tab.get_by_role("heading", name=f"picture {NUMBER - 1}").wait_for()
    tab.get_by_text("emoji_clip").first.wait_for()
    favourite = tab.locator(".actions").get_by_role("button", name="Favourite")
    favourite.click()
    expect(favourite).to_have_attribute("aria-pressed", "false")
    tab.get_by_role("button", name="Remove").click()
    tab.get_by_role("button", name="Undo").click()
    expect(tab.locator(".tile")).to_have_count(NUMBER + 2)


def shown(tab):
    return tab.locator(".caption").text_content()


def test_the_slideshow_advances_and_shows_new_runs(kiosk, open_tab):
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
    arrive(tab, tab.locator("#wall"))
    assert tab.get_by_role("button").count() <= 1, "nothing to press but the search"


def png(width, height):
    """A PNG with nothing but its header and its end."""
    parts = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IEND", b"")
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return b"".join([b"\x89PNG\r\n\x1a\n", *chunks])


def shows_a_picture(tab):
    return tab.evaluate("document.querySelector('.slide.shown img')?.naturalWidth > 0")


def test_the_slideshow_advances_past_any_failure_and_is_never_black(kiosk, open_tab):
    broken = [make_run(kiosk.output, 90 + n, picture=None, text_input="broken") for n in range(3)]
    for folder, data in zip(broken, (png(64, 64), png(60_000, 60_000), png(8, 8)), strict=True):
        (folder / "output.PNG").write_bytes(data)
    try:
        tab = open_tab(f"{kiosk.url}/slideshow?at={kiosk.names[6]}")
        tab.route(f"**/files/{kiosk.names[4]}/*", lambda route: route.fulfill(status=404))
        seen = []
        wait_for(lambda: seen.append(shown(tab)) or seen[-1] == "picture 5", "some slides")
        wait_for(
            lambda: (
                shows_a_picture(tab)
                and (
                    seen.append(shown(tab)) or (seen.count("picture 0") and seen[-1] == "picture 9")
                )
            ),
            "the slides before and after those that fail",
        )
        assert not {"broken", "picture 4"} & set(seen)
        tab.route("**/api/slides/next*", lambda route: route.abort())
        with tab.expect_event("requestfailed"):
            pass
        before = shown(tab)
        assert shows_a_picture(tab)
        tab.unroute("**/api/slides/next*")
        wait_for(lambda: shown(tab) != before, "the next slide")
    finally:
        for folder in broken:
            shutil.rmtree(folder)


def test_the_slideshows_buttons_come_with_the_pointer_or_the_focus(site, open_tab):
    tab = open_tab(f"{site.url}/slideshow", fresh=True)  # no pointer was there before
    tools, pause = tab.locator(".slide-tools"), tab.get_by_role("button", name="Pause")
    idle = re.compile(r"\bidle\b")
    expect(tab.locator("body")).to_have_class(idle)
    expect(tools).to_have_css("opacity", "0")
    moves = itertools.cycle([200, 201])  # it rests after three seconds
    wait_for(lambda: tab.mouse.move(next(moves), 200) or opacity_of(tools) == "1", "the buttons")
    pause.focus()
    expect(tab.locator("body")).to_have_class(idle)
    wait_for_rest(tab)
    assert opacity_of(tools) == "1"


def opacity_of(locator):
    return locator.evaluate("element => getComputedStyle(element).opacity")


def test_a_broken_picture_leaves_the_console_empty(site, open_tab):
    tab = open_tab(site.url)
    said = []
    tab.on("console", lambda message: said.append(message.text))
    folder = make_run(site.output, 95, picture=None)
    (folder / "output.PNG").write_bytes(png(64, 64))
    try:
        tile = tab.locator(f'[data-run="{folder.name}"]')
        tile.get_by_text("cannot be shown").wait_for()
        tile.locator(".open").click()
        tab.get_by_text("The picture cannot be shown.").wait_for()
        assert said == []
    finally:
        shutil.rmtree(folder)


def test_an_animation_is_played_on_request(site, open_tab):
    tab = open_tab(f"{site.url}/slideshow?at={site.names[8]}")
    tab.evaluate("addEventListener('ended', () => (window.wasPlayed = true), true)")
    tab.locator("#play").wait_for()  # a slow tab may show the next slide by now
    tab.keyboard.press("a")
    wait_for(lambda: tab.evaluate("window.wasPlayed"), "the film to its end")
    expect(tab.locator("video")).to_have_count(0)


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
