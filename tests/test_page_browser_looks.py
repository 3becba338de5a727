"""How the page looks and reads in a real browser."""

import re
import signal

import numpy as np
import pytest
from axe import SERIOUS, first_of_each, violations
from page_server import (
    FITS,
    ROOT,
    Server,
    button,
    choose_engine,
    drop,
    field,
    prompt_of,
    switch,
    wait_until_drawn,
)
from PIL import Image
from playwright.sync_api import expect
from waiting import wait_for

from studio.base.files import atomic_write, to_json
from studio.engines.registry import DEFAULT
from studio.media import video
from studio.queue import run_queue
from studio.runs.storage import RunFolder


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, chromium):
    """A page with a paused queue, a run that is running, and some that have ended."""
    server = Server(tmp_path_factory.mktemp("shelf"))
    folders = {name: make_run(server.output_dir, name, **how) for name, how in SHELF.items()}
    run_queue.pause(server.output_dir)
    (folders["20260102T000000-stopped2"].path / "chain.mp4").write_bytes(b"no film")
    going = folders["20260103T000000-running3"]
    progress = {"step": 9, "planned_num_steps": 90, "seconds_left": 60.0, "steps_per_second": 2.0}
    progress |= {"losses": {"total": 0.5}, "history": [[1, 2.0], [5, 1.0], [9, 0.5]]}
    atomic_write(going.path / "progress.json", to_json(progress))
    yield server
    if server.process.poll() is None:
        server.end(signal.SIGTERM)


MARKUP = "see https://a.b www.c.d e@f.g -- -> <b>x</b> **y** :smile: :streamlit: $z$ [l](http://m)"
SHELF = {
    "20260101T000000-finished": {"text_input": MARKUP},
    "20260102T000000-stopped2": {
        "text_input": "a tall tree",
        "status": "stopped",
        "size": (32, 256),
        "chain": {"number": 1, "count": 2, "next": []},
        "loss_history": [[1, 2.0], [2, 1.0]],
    },
    "20260103T000000-running3": {"text_input": "going", "status": "running"},
    "20260104T000000-waiting4": {"text_input": MARKUP, "status": "queued"},
    "20260105T000000-waiting5": {"text_input": "last in line", "status": "queued"},
}


def make_run(output_dir, name, size=(32, 32), **details):
    folder = RunFolder(output_dir / name)
    folder.path.mkdir(parents=True)
    usual = {"status": "done", "num_steps": 65, "planned_num_steps": 400, "model": DEFAULT}
    usual |= {"heartbeat": "2999-01-01T00:00:00+00:00", "queued_at": name, "device": "CPU"}
    folder.write(usual | {"Xdim": size[0], "ydim": size[1], "warnings": []} | details)
    Image.new("RGB", size, "red").save(folder.path / "output.PNG", "PNG")
    film = video.VideoWriter(folder.path / "anim.part.mp4", size, 0)
    film.add(np.zeros((size[1], size[0], 3), np.uint8))
    film.close()
    video.finish(folder.path / "anim.part.mp4", folder.path / "anim.mp4", "")
    return folder


def open_shelf(shelf, tabs, **options):
    tab = tabs.open(**options)
    tab.goto(shelf.url)
    tab.locator(".st-key-last-runs").wait_for()
    return tab


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_all_is_readable(shelf, tabs, scheme):
    tab = open_shelf(shelf, tabs, color_scheme=scheme)
    tab.get_by_text("README", exact=True).click()
    tab.get_by_role("heading", name="Licence").wait_for()
    main = tab.get_by_test_id("stMain")
    for width in (1400, 390):
        tab.set_viewport_size({"width": width, "height": 844})
        wait_for(lambda: main.evaluate(FITS), f"the page to fit into {width} px")
    colours = "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    text, ground = map(brightness, tab.get_by_test_id("stApp").evaluate(colours))
    assert abs(text - ground) > 150
    assert (ground > text) == (scheme == "light")


def brightness(colour):
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


def choose(tab, words):
    tab.locator(".st-key-last-runs").get_by_test_id("stBaseButton-tertiary").filter(
        has_text=words
    ).click()
    tab.locator('[class*="st-key-result-"]').get_by_text("CPU").wait_for()


def show_stages(tab):
    switch(tab, "Several stages")
    tab.get_by_test_id("stDataFrame").wait_for()


def show_sidebar(tab):
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.get_by_test_id("stExpandSidebarButton").click()
    switch(tab, "Continue previous run")
    tab.get_by_role("button", name="Pick another run").click()
    tab.get_by_label("Find by prompt").wait_for()


STATES = {  # one after the other
    "queue": lambda tab: tab.get_by_text("The queue is paused").wait_for(),
    "done": lambda tab: choose(tab, "see https"),
    "stopped, stages": lambda tab: (choose(tab, "a tall tree"), show_stages(tab)),
    "sidebar": show_sidebar,
}


def test_nothing_serious_keeps_anybody_out(shelf, tabs):
    tab = open_shelf(shelf, tabs)
    for state, reach in STATES.items():
        reach(tab)
        for scheme in ("light", "dark"):
            wear(tab, scheme)
            found = violations(tab, scheme, again=scheme == "dark")
            assert first_of_each(v for v in found if v["impact"] in SERIOUS) == [], state


def wear(tab, scheme):
    """Let the page follow a system of that scheme, and see it do so."""
    tab.emulate_media(color_scheme=scheme)
    shown = "e => getComputedStyle(e).colorScheme"
    wait_for(lambda: tab.get_by_test_id("stApp").evaluate(shown) == scheme, f"a {scheme} page")
    wait_until_drawn(tab)


def test_a_prompt_is_shown_as_it_was_typed(shelf, tabs):
    tab = open_shelf(shelf, tabs)
    choose(tab, "see https")
    shown = tab.locator('[class*="st-key-result-"] strong').first
    expect(shown).to_have_text(MARKUP)
    waiting = tab.locator('[class*="st-key-wait-20260104"]')
    expect(waiting).to_contain_text(MARKUP[:50])
    assert tab.locator('[class*="st-key-result-"] a, [class*="st-key-wait-"] a').count() == 0


def test_tall_results_stay_on_the_screen_and_full_screen_is_crisp(shelf, tabs):
    tab = open_shelf(shelf, tabs)
    choose(tab, "a tall tree")
    result = tab.locator('[class*="st-key-result-"]')
    result.get_by_text("65 of 400 steps · stage 1 of 2").wait_for()
    result.get_by_alt_text("Total loss").wait_for()
    wait_for(lambda: result.locator("video").count() == 2, "films of the run and of the chain")
    wait_for(lambda: result.bounding_box()["height"] < 2000, "films that fit")
    picture = result.locator("img.after")
    wait_for(lambda: picture.evaluate("e => e.naturalWidth") == 32, "the picture")
    result.get_by_role("button", name="Full screen").click()
    wait_for(lambda: picture.bounding_box()["height"] == 3 * 256, "whole pixels that fill it")
    assert picture.evaluate("e => getComputedStyle(e).imageRendering") == "pixelated"


def test_files_that_are_too_large_say_so_in_view(shelf, tabs):
    tab = open_shelf(shelf, tabs)
    switch(tab, "Use starting image")
    file = {"name": "big.png", "mimeType": "image/png", "buffer": bytes(10_500_000)}
    tab.locator("input[type=file]").set_input_files(file)
    refusal = tab.get_by_test_id("stFileChip").get_by_text("must be 10.0MB or smaller")
    wait_for(lambda: refusal.bounding_box()["height"] > 10, "the words to be seen")
    drop(tab, "huge.png", b"", 20_000_001)
    tab.get_by_test_id("stToast").get_by_text("huge.png is over 20 MB").wait_for()


def test_the_page_says_that_the_server_has_ended(shelf, tabs):
    tab = open_shelf(shelf, tabs)
    shelf.end(signal.SIGINT)
    told = tab.get_by_role("dialog")
    told.get_by_text("The studio has ended").wait_for()
    assert "make app" in told.inner_text() and "treamlit" not in told.inner_text()


TWO_ENGINES = f"""
import runpy, sys
import tiles_engine
from studio.queue import keeper

tiles_engine.use()
keeper.WORKER = (sys.executable, tiles_engine.__file__)
runpy.run_path({str(ROOT / "app.py")!r}, run_name="__main__")
"""


@pytest.fixture
def two_engines(tmp_path, chromium):
    """A page whose registry has a second engine."""
    script = tmp_path / "app.py"
    script.write_text(TWO_ENGINES)
    server = Server(tmp_path, script)
    yield server
    server.end(signal.SIGTERM)


def test_another_engine_makes_several_pictures(two_engines, tabs):
    tab = tabs.open()
    tab.goto(two_engines.url)
    prompt_of(tab).fill("a red heart")
    prompt_of(tab).press("Tab")
    choose_engine(tab, "Tiles")
    field(tab, "Tiles").fill("3")
    prompt_of(tab).wait_for(state="detached")
    field(tab, "Xdim").wait_for(state="detached")
    button(tab, "Run!").click()
    wait_for(lambda: tab.title() == "✓ Done: Tiles", "the run's end")
    result = tab.locator('[class*="st-key-result-"]')
    wait_for(lambda: result.locator(".strip img").count() == 3, "its pictures")
    with tab.expect_download() as download:
        button(tab, "Picture 2").click()
    assert download.value.suggested_filename.endswith("output-2.PNG")
    assert Image.open(download.value.path()).size == (96, 96)
    result.get_by_role("button", name="Show picture 3").click()
    result.get_by_alt_text("Picture 3: ").wait_for()
    tab.set_viewport_size({"width": 390, "height": 844})
    wait_for(lambda: tab.get_by_test_id("stMain").evaluate(FITS), "the row to wrap")
    tab.set_viewport_size({"width": 1400, "height": 1000})
    choose_engine(tab, "VQGAN-CLIP")
    expect(prompt_of(tab)).to_have_value("a red heart")
