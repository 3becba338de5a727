"""The page in a real browser, with a real worker on tiny weights. The tests share one server."""

import base64
import io
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from PIL import Image
from tabs import new_tab
from tiny_models import write_tiny_assets
from waiting import PATIENCE, wait_for

import run_index
from serving import is_served

ROOT = Path(__file__).resolve().parents[1]
FITS = "main => main.clientWidth > 0 && main.scrollWidth <= main.clientWidth"


class Server:
    """`streamlit run app.py` on a free port, with folders of its own."""

    def __init__(self, folder):
        self.output_dir, assets = folder / "output", folder / "assets"
        write_tiny_assets(assets)
        with socket.create_server(("localhost", 0)) as free:
            self.url = f"http://localhost:{free.getsockname()[1]}"
        port = self.url.rpartition(":")[2]
        streamlit = [sys.executable, "-m", "streamlit", "run", ROOT / "app.py"]
        options = [f"--server.port={port}", "--server.headless=true"]
        places = ["--", "--output-dir", self.output_dir, "--assets-dir", assets]
        self.process = subprocess.Popen([*streamlit, *options, *places], cwd=ROOT)
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
def open_tab(server, chromium):
    """Opens tabs of the page, which are closed after the test."""
    contexts = []

    def open_one(**options):
        tab = new_tab(chromium, contexts, **options)
        tab.goto(server.url)
        prompt_of(tab).wait_for()
        field(tab, "Xdim").wait_for()
        return tab

    yield open_one
    for context in contexts:
        context.close()


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
    assert tab.get_by_role("button", name="a red heart").count() == 1, "among the last runs"
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


def test_bad_input_is_told_and_nothing_is_queued(server, open_tab):
    before = len(server.runs())
    tab = open_tab()
    press_run(tab, "a red heart", 0)
    tab.get_by_role("alert").get_by_text("num_steps must be 1 or more").wait_for()
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


DROP = """(element, [name, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name, { type: "image/png" }));
  for (const kind of ["dragenter", "dragover", "drop"])
    element.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer }));
}"""


def test_a_picture_that_is_dropped_on_the_page_brings_its_settings(server, open_tab):
    tab = open_tab()
    press_run(tab, "a dropped heart", 3)
    wait_for(lambda: tab.title() == "✓ Done: a dropped heart", "the run's end")
    folder = server.runs()[0].folder
    prompt_of(tab).fill("something else")
    field(tab, "Num steps").fill("9")
    field(tab, "Num steps").press("Enter")
    tab.get_by_test_id("stBidiComponentIsolated").wait_for(state="attached")
    data = base64.b64encode((folder.path / "output.PNG").read_bytes()).decode()
    main = tab.get_by_test_id("stMain")
    main.evaluate(DROP, ["output.PNG", data])
    wait_for(lambda: prompt_of(tab).input_value() == "a dropped heart", "its prompt in the form")
    assert field(tab, "Num steps").input_value() == "3"
    wait_for(lambda: field(tab, "Seed").input_value() == str(folder.read()["seed"]), "its seed")
    main.evaluate(DROP, ["odd.png", base64.b64encode(b"no picture").decode()])
    tab.get_by_role("alert").get_by_text("odd.png").wait_for()


def test_a_table_of_stages_becomes_a_chain_with_one_film(server, open_tab):
    tab = open_tab()
    switch(tab, "Several stages")
    table = tab.get_by_test_id("stDataFrame")
    table.wait_for()
    for row, prompt in enumerate(("a garden in spring", "a garden in winter")):
        table.dblclick(position={"x": 60, "y": 52 + 35 * row})
        tab.locator("textarea.gdg-input").fill(prompt)
        tab.locator("textarea.gdg-input").press("Enter")
    press_run(tab, "", 80)  # long enough to be seen while they go
    wait_for(lambda: tab.title() == "✓ Done: a garden in winter", "the chain's end")
    last, first = (entry.details for entry in server.runs()[:2])
    assert [first["text_input"], last["text_input"]] == ["a garden in spring", "a garden in winter"]
    assert (last["parent"], last["stage"], last["num_steps"]) == (first["run_folder"], 2, 80)
    wait_for((server.runs()[0].folder.path / "chain.mp4").is_file, "the film of the chain")
    tab = open_tab()
    button(tab, "a garden in winter").click()
    tab.get_by_role("button", name="Film of all stages").wait_for()


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


def test_ending_the_app_puts_the_run_back_and_ends_the_worker(server, open_tab):
    press_run(open_tab(), "saved at the end", -1)
    wait_for(lambda: server.runs()[0].folder.read_progress().get("step", 0) > 2, "some steps")
    server.end(signal.SIGINT)
    assert not is_served(server.output_dir)
    saved = server.runs()[0]
    assert (saved.status, saved.details["text_input"]) == ("queued", "saved at the end")
    assert saved.folder.picture_path() and saved.folder.video_path()
    assert not (saved.folder.path / "progress.json").exists()
