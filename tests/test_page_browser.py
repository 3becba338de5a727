"""The page in a real browser, with a real worker on tiny weights. The tests share one server."""

import base64
import io
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urljoin

import numpy as np
import pytest
from PIL import Image
from tabs import new_tab
from tiny_models import write_tiny_assets
from waiting import PATIENCE, wait_for

from studio.base.files import atomic_write, to_json
from studio.engines.registry import DEFAULT
from studio.media import video
from studio.queue import run_queue
from studio.queue.slots import is_served
from studio.runs import run_index
from studio.runs.storage import RunFolder

ROOT = Path(__file__).resolve().parents[1]
FITS = "main => main.clientWidth > 0 && main.scrollWidth <= main.clientWidth"


class Server:
    """`streamlit run app.py` on a free port, with folders of its own."""

    def __init__(self, folder, script=ROOT / "app.py", root=ROOT):
        self.output_dir, assets = folder / "output", folder / "assets"
        write_tiny_assets(assets)
        with socket.create_server(("localhost", 0)) as free:
            self.url = f"http://localhost:{free.getsockname()[1]}"
        port = self.url.rpartition(":")[2]
        streamlit = [sys.executable, "-m", "streamlit", "run", script]
        options = [f"--server.port={port}", "--server.headless=true"]
        places = ["--", "--output-dir", self.output_dir, "--assets-dir", assets]
        paths = os.pathsep.join(map(str, (root, ROOT / "tests")))
        self.process = subprocess.Popen(
            [*streamlit, *options, *places], cwd=root, env={**os.environ, "PYTHONPATH": paths}
        )
        wait_for(self._answers, "the server")

    def _answers(self):
        try:
            return urllib.request.urlopen(f"{self.url}/_stcore/health").status == 200
        except OSError:
            return False

    def runs(self):
        """The newest first."""
        return run_index.entries(self.output_dir)

    def end(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def server(tmp_path_factory, chromium):
    server = Server(tmp_path_factory.mktemp("page"))
    yield server
    if server.process.poll() is None:
        server.end(signal.SIGTERM)


@pytest.fixture
def open_tab(server, chromium, contexts):
    """Opens tabs of the page."""

    def open_one(**options):
        tab = new_tab(chromium, contexts, **options)
        tab.goto(server.url)
        prompt_of(tab).wait_for()
        field(tab, "Xdim").wait_for()
        return tab

    return open_one


def field(tab, label):
    return tab.get_by_label(label, exact=True)


def prompt_of(tab):
    return field(tab, "Text prompt")


def button(tab, name):
    return tab.get_by_role("button", name=name, exact=True)


def switch(tab, label):
    tab.get_by_test_id("stCheckbox").filter(has_text=label).locator("label").click()


def press_run(tab, prompt, steps):
    """Small pictures, so that a step takes milliseconds."""
    for label, value in (("Xdim", 32), ("ydim", 32), ("Num steps", steps)):
        field(tab, label).fill(str(value))
    prompt_of(tab).fill(prompt)
    button(tab, "Run!").click()


def preview(tab):
    return tab.locator("img.run-picture").get_attribute("src")


def test_type_run_watch_and_stop(server, open_tab):
    tab = open_tab()
    press_run(tab, "a red heart", -1)
    tab.get_by_text(re.compile(r"step \d+, until you stop it")).wait_for()
    tab.locator("img.run-picture").wait_for()
    first = preview(tab)
    wait_for(lambda: preview(tab) != first, "the picture to change")
    tab.get_by_text(re.compile("steps/s")).wait_for()
    tab.get_by_alt_text(re.compile("Total loss")).wait_for()
    assert re.fullmatch(r"step \d+ · a red heart", tab.title())
    button(tab, "Stop").click()
    (entry,) = server.runs()
    tab.get_by_text(f"Run folder: {entry.name}").wait_for()
    wait_for(lambda: tab.title() == "■ Stopped: a red heart", "the notice in the tab's title")
    assert server.runs()[0].status == "stopped"
    tab.locator("video").wait_for()
    loaded = "video => video.readyState > 0 && video.videoWidth == 32"
    wait_for(lambda: tab.locator("video").evaluate(loaded), "a video that plays")
    with tab.expect_download() as download:
        button(tab, "Picture").click()
    assert Image.open(download.value.path()).size == (32, 32)
    assert button(tab, "a red heart").count() == 1, "among the last runs"
    picture = tab.locator("[class*=st-key-result-]").get_by_test_id("stImage").locator("img")
    shown = tab.request.get(urljoin(tab.url, picture.get_attribute("src"))).body()
    assert shown == (entry.folder.path / "output.PNG").read_bytes(), "with its settings"
    ours = (server.url, "data:", "blob:")
    assert [url for url in tab.strangers if not url.startswith(ours)] == []


def test_continue_from_the_picture_with_another_prompt_and_an_upload(server, open_tab):
    tab = open_tab()
    press_run(tab, "a red heart", 2)
    wait_for(lambda: tab.title() == "✓ Done: a red heart", "the first run's end")
    parent = server.runs()[0]
    switch(tab, "Continue previous run")
    tab.get_by_text(f"({parent.name})").wait_for()
    switch(tab, "Add image prompt(s)")
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(buffer, "PNG")
    file = {"name": "red.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    tab.locator("input[type=file]").set_input_files(file)
    tab.get_by_text("red.png").wait_for()
    press_run(tab, "a blue heart", 3)
    wait_for(lambda: tab.title() == "✓ Done: a blue heart", "the run's end")
    details = server.runs()[0].details
    assert (details["prev_run_id"], details["num_steps"]) == (parent.folder.run_id, 3)
    assert details["image_prompts"] and details["continue_prev_run"]


def test_two_tabs_see_the_same_and_a_second_run_waits(server, open_tab):
    first = open_tab()
    press_run(first, "tab one", -1)
    button(first, "Stop").wait_for()
    second = open_tab()
    button(second, "Stop").wait_for()
    press_run(second, "tab two", 2)
    for tab in (first, second):
        tab.get_by_text("waits: 1 before it").wait_for()
    first.context.close()
    going = server.runs()[1].folder
    step = going.read_progress()["step"]
    wait_for(lambda: going.read_progress()["step"] > step + 3, "the run to outlive its tab")
    button(second, "Stop").click()
    wait_for(lambda: second.title() == "✓ Done: tab two", "the second run's end")
    assert [entry.status for entry in server.runs()[:2]] == ["done", "stopped"]


def test_bad_input_is_refused_and_nothing_is_queued(server, open_tab):
    before = len(server.runs())
    tab = open_tab()
    press_run(tab, "a red heart", 0)
    tab.get_by_role("alert").get_by_text("'Num steps' must be 1 or more").wait_for()
    assert len(server.runs()) == before


def test_three_wait_their_turn_through_reload_stop_and_another_browser(server, open_tab):
    tab = open_tab()
    before = len(server.runs())
    for number, steps in enumerate((-1, -1, 2), start=1):
        press_run(tab, f"number {number} of three", steps)
        wait_for(lambda n=number: len(server.runs()) == before + n, "the run")
    third, second, first = (entry.folder for entry in server.runs()[:3])
    tab.get_by_text("waits: 2 before it").wait_for()
    tab.reload()
    tab.get_by_text("waits: 2 before it").wait_for()
    tab.get_by_text(re.compile(r"step \d+, until you stop it")).wait_for()
    button(tab, "Stop").click()
    wait_for(lambda: first.read()["status"] == "stopped", "the first to stop")
    wait_for(lambda: second.read_progress().get("step", 0) > 1, "the second to go")
    tab.context.close()
    tab = open_tab()
    tab.get_by_text("waits: 1 before it").wait_for()
    button(tab, "Stop").click()
    wait_for(lambda: third.read()["status"] == "done", "the third's end")
    assert [f.read()["status"] for f in (first, second)] == ["stopped", "stopped"]
    wait_for(lambda: tab.title() == "✓ Done: number 3 of three", "the notice of the end")


def test_a_stopped_run_is_resumed_in_its_folder(server, open_tab):
    tab = open_tab()
    press_run(tab, "on and on", -1)
    button(tab, "Stop").wait_for()
    folder = server.runs()[0].folder
    wait_for(lambda: folder.read_progress().get("step", 0) > 2, "some steps")
    button(tab, "Stop").click()
    button(tab, "Resume").wait_for()
    before = folder.read()["num_steps"]
    button(tab, "Resume").click()
    wait_for(lambda: folder.read_progress().get("step", 0) > before, "it to go on")
    button(tab, "Stop").click()
    wait_for(lambda: folder.read()["status"] == "stopped", "it to stop again")
    assert folder.read()["num_steps"] > before


def test_continue_on_a_phone_shows_what_happened(server, open_tab):
    tab = open_tab()
    press_run(tab, "a heart to continue", 2)
    wait_for(lambda: tab.title() == "✓ Done: a heart to continue", "the run's end")
    tab.context.close()
    tab = open_tab(viewport={"width": 390, "height": 844})
    prompt_of(tab).fill("something else")
    prompt_of(tab).press("Control+Enter")
    tab.locator(".st-key-last-runs").get_by_test_id("stButton").first.locator("button").click()
    button(tab, "Continue").click()
    strip = tab.locator(".st-key-origin")
    strip.get_by_text("Continues “a heart to continue”").wait_for()
    in_view = "e => { const r = e.getBoundingClientRect(); return r.top >= 0 && r.bottom < 844 }"
    wait_for(lambda: strip.evaluate(in_view), "what is continued to come into view")
    strip.locator("img").wait_for()
    assert prompt_of(tab).input_value() == "a heart to continue"
    button(tab, "Do not continue").click()
    strip.get_by_text("Continues").wait_for(state="detached")


DROP = """(element, [name, data, zeros = 0]) => {
  const picture = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([picture, new Uint8Array(zeros)], name, { type: "image/png" }));
  for (const kind of ["dragenter", "dragover", "drop"])
    element.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer }));
}"""


def test_a_picture_that_is_dropped_on_the_page_brings_its_settings(server, open_tab):
    tab = open_tab()
    press_run(tab, "a dropped heart", 3)
    wait_for(lambda: tab.title() == "✓ Done: a dropped heart", "the run's end")
    folder = server.runs()[0].folder
    switch(tab, "Continue previous run")
    tab.get_by_text("Continues “a dropped heart”").wait_for()
    prompt_of(tab).fill("something else")
    field(tab, "Num steps").fill("9")
    field(tab, "Num steps").press("Enter")
    tab.get_by_test_id("stBidiComponentIsolated").nth(1).wait_for(state="attached")
    data = base64.b64encode((folder.path / "output.PNG").read_bytes()).decode()
    main = tab.get_by_test_id("stMain")
    main.evaluate(DROP, ["output.PNG", data])
    wait_for(lambda: prompt_of(tab).input_value() == "a dropped heart", "its prompt in the form")
    assert field(tab, "Num steps").input_value() == "3"
    wait_for(lambda: field(tab, "Seed").input_value() == str(folder.read()["seed"]), "its seed")
    wait_for(
        lambda: not tab.get_by_text("Continues “").count(), "it to be made again, not continued"
    )
    button(tab, "Run!").click()
    wait_for(lambda: server.runs()[0].name != folder.name, "another run")
    again = server.runs()[0].folder
    wait_for(lambda: again.read()["status"] == "done", "the same once more")
    pictures = [Image.open(one.path / "output.PNG").tobytes() for one in (folder, again)]
    assert pictures[0] == pictures[1]
    main.evaluate(DROP, ["odd.png", base64.b64encode(b"no picture").decode()])
    tab.get_by_test_id("stAlert").get_by_text("odd.png").wait_for()


SEASONS = [f"a garden in {season}" for season in ("spring", "summer", "autumn", "winter")]


def type_into(table, row, text, x=60):
    table.dblclick(position={"x": x, "y": 52 + 35 * row})
    editor = table.page.locator("textarea.gdg-input")
    editor.fill(text)
    editor.press("Enter")
    editor.wait_for(state="detached")


def cells(tab):
    """What the table says to those who cannot see its canvas."""
    rows = tab.get_by_test_id("stDataFrame").locator("canvas tbody tr").all()
    return [row.locator("td").all_text_contents() for row in rows]


def also_change(tab, label):
    field(tab, "Also change").fill(label)
    tab.get_by_role("option", name=label, exact=True).click()
    tab.keyboard.press("Escape")


def test_the_table_of_stages_survives_all_that_is_done_to_it(server, open_tab):
    tab = open_tab()
    switch(tab, "Several stages")
    table = tab.get_by_test_id("stDataFrame")
    for row, prompt in enumerate(SEASONS):  # the table begins with three rows
        type_into(table, row, prompt)
    type_into(table, 3, "many", x=800)
    written = [[prompt, ""] for prompt in SEASONS[:3]] + [[SEASONS[3], "many"]]
    wait_for(lambda: cells(tab) == written, "the typed cells")
    also_change(tab, "Step size")
    wait_for(lambda: cells(tab) == [[*row, ""] for row in written], "another column")
    for _ in range(2):
        switch(tab, "Several stages")
    wait_for(lambda: cells(tab) == [[*row, ""] for row in written], "the table once more")
    tab.reload()
    wait_for(lambda: cells(tab) == [[*row, ""] for row in written], "the table after a reload")
    table.hover()
    above = tab.get_by_test_id("stMultiSelect").bounding_box()
    toolbar = table.get_by_test_id("stElementToolbar").bounding_box()
    assert above["y"] + above["height"] <= toolbar["y"], "the toolbar covers nothing"
    table.click(position={"x": 20, "y": 18})
    tab.keyboard.press("Delete")
    wait_for(lambda: cells(tab) == [], "no rows")
    for _ in range(2):
        switch(tab, "Several stages")
    wait_for(lambda: cells(tab) == [["", "", ""]] * 3, "empty rows to begin with")
    assert tab.get_by_role("alert").count() == 0
    switch(tab, "Several stages")
    tab.get_by_test_id("stDataFrame").first.wait_for(state="detached")


def test_a_table_of_stages_becomes_a_chain_with_one_film(server, open_tab):
    tab = open_tab()
    switch(tab, "Several stages")
    table = tab.get_by_test_id("stDataFrame")
    table.wait_for()
    for row, prompt in enumerate(("a garden in spring", "a garden in winter")):
        type_into(table, row, prompt)
    press_run(tab, "", 80)  # long enough to be seen while they go
    wait_for(lambda: tab.title() == "✓ Done: a garden in winter", "the chain's end")
    last, first = (entry.details for entry in server.runs()[:2])
    assert [first["text_input"], last["text_input"]] == ["a garden in spring", "a garden in winter"]
    assert (last["parent"], last["stage"], last["num_steps"]) == (first["run_folder"], 2, 80)
    wait_for((server.runs()[0].folder.path / "chain.mp4").is_file, "the film of the chain")
    tab = open_tab()
    button(tab, "a garden in winter").click()
    tab.get_by_role("button", name="Film of all stages").wait_for()
    switch(tab, "Several stages")
    tab.get_by_test_id("stDataFrame").first.wait_for(state="detached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_all_is_readable(open_tab, scheme):
    tab = open_tab(color_scheme=scheme)
    tab.get_by_text("CHANGELOG", exact=True).wait_for()
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


def open_shelf(shelf, chromium, contexts, **options):
    tab = new_tab(chromium, contexts, **options)
    tab.goto(shelf.url)
    tab.locator(".st-key-last-runs").wait_for()
    return tab


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_keeps_anybody_out(shelf, chromium, contexts, scheme):
    from axe_playwright_python.sync_playwright import Axe

    tab = open_shelf(shelf, chromium, contexts, color_scheme=scheme)
    for state, reach in STATES.items():
        reach(tab)
        tab.wait_for_function("document.getAnimations().every(a => a.playState != 'running')")
        found = Axe().run(tab).response["violations"]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert not serious, [state, *(f"{v['id']}: {v['nodes'][0]['html']}" for v in serious)]


def test_a_prompt_is_shown_as_it_was_typed(shelf, chromium, contexts):
    tab = open_shelf(shelf, chromium, contexts)
    choose(tab, "see https")
    shown = tab.locator('[class*="st-key-result-"] strong').first
    assert shown.inner_text() == MARKUP
    waiting = tab.locator('[class*="st-key-wait-20260104"]')
    assert waiting.inner_text().startswith(MARKUP[:50])
    assert tab.locator('[class*="st-key-result-"] a, [class*="st-key-wait-"] a').count() == 0


def test_tall_results_stay_on_the_screen_and_full_screen_is_crisp(shelf, chromium, contexts):
    tab = open_shelf(shelf, chromium, contexts)
    choose(tab, "a tall tree")
    result = tab.locator('[class*="st-key-result-"]')
    result.get_by_text("65 of 400 steps · stage 1 of 2").wait_for()
    result.get_by_alt_text("Total loss").wait_for()
    wait_for(lambda: result.locator("video").count() == 2, "films of the run and of the chain")
    wait_for(lambda: result.bounding_box()["height"] < 2000, "films that fit")
    picture = result.get_by_test_id("stImage").locator("img")
    picture.hover()
    result.get_by_role("button", name="Fullscreen").click()
    wait_for(lambda: picture.bounding_box()["height"] > 800, "a picture as large as the screen")
    assert picture.evaluate("e => getComputedStyle(e).imageRendering") == "pixelated"


def test_files_that_are_too_large_say_so_in_view(shelf, chromium, contexts):
    tab = open_shelf(shelf, chromium, contexts)
    switch(tab, "Use starting image")
    file = {"name": "big.png", "mimeType": "image/png", "buffer": bytes(10_500_000)}
    tab.locator("input[type=file]").set_input_files(file)
    refusal = tab.get_by_test_id("stFileChip").get_by_text("must be 10.0MB or smaller")
    wait_for(lambda: refusal.bounding_box()["height"] > 10, "the words to be seen")
    tab.get_by_test_id("stMain").evaluate(DROP, ["huge.png", "", 20_000_001])
    tab.get_by_test_id("stToast").get_by_text("huge.png is over 20 MB").wait_for()


def test_the_page_says_that_the_server_has_ended(shelf, chromium, contexts):
    tab = open_shelf(shelf, chromium, contexts)
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


def choose_engine(tab, name):
    field(tab, "Engine").click()
    tab.get_by_role("option", name=name, exact=True).click()


def test_another_engine_makes_several_pictures(two_engines, chromium, contexts):
    tab = new_tab(chromium, contexts)
    tab.goto(two_engines.url)
    prompt_of(tab).fill("a red heart")
    prompt_of(tab).press("Control+Enter")
    choose_engine(tab, "Tiles")
    field(tab, "Tiles").fill("3")
    prompt_of(tab).wait_for(state="detached")
    assert field(tab, "Xdim").count() == 0
    button(tab, "Run!").click()
    wait_for(lambda: tab.title() == "✓ Done: Tiles", "the run's end")
    result = tab.locator('[class*="st-key-result-"]')
    wait_for(lambda: result.get_by_test_id("stImage").count() == 3, "its pictures")
    with tab.expect_download() as download:
        button(tab, "Picture 2").click()
    assert download.value.suggested_filename.endswith("output-2.PNG")
    assert Image.open(download.value.path()).size == (96, 96)
    result.get_by_test_id("stImage").nth(2).hover()
    result.get_by_role("button", name="Fullscreen").nth(2).click()
    large = result.get_by_test_id("stImage").nth(2).locator("img")
    wait_for(lambda: large.bounding_box()["height"] > 800, "a picture as large as the screen")
    tab.keyboard.press("Escape")
    tab.set_viewport_size({"width": 390, "height": 844})
    wait_for(lambda: tab.get_by_test_id("stMain").evaluate(FITS), "the row to wrap")
    tab.set_viewport_size({"width": 1400, "height": 1000})
    choose_engine(tab, "VQGAN-CLIP")
    wait_for(lambda: prompt_of(tab).input_value() == "a red heart", "the prompt again")


def test_ending_the_app_puts_the_run_back_and_ends_the_worker(server, open_tab):
    press_run(open_tab(), "saved at the end", -1)
    wait_for(lambda: server.runs()[0].folder.read_progress().get("step", 0) > 2, "some steps")
    server.end(signal.SIGINT)
    assert not is_served(server.output_dir)
    saved = server.runs()[0]
    assert (saved.status, saved.details["text_input"]) == ("queued", "saved at the end")
    assert saved.folder.picture_path() and saved.folder.video_path()
    assert not (saved.folder.path / "progress.json").exists()
