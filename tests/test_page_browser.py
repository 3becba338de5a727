"""Watching and steering runs on the page in a real browser, with a real worker on tiny weights."""

import re
import signal
from urllib.parse import urljoin

from page_server import button, press_run, preview
from PIL import Image
from waiting import wait_for

from studio.queue.slots import is_served

pytest_plugins = "page_server_fixtures"


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
    picture = tab.locator("[class*=st-key-viewer-] img.after")
    shown = tab.request.get(urljoin(tab.url, picture.get_attribute("src"))).body()
    assert shown == (entry.folder.path / "output.PNG").read_bytes(), "with its settings"
    ours = (server.url, "data:", "blob:")
    assert [url for url in tab.strangers if not url.startswith(ours)] == []


def step_of(folder):
    return folder.read_progress().get("step", 0)


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
    step = step_of(going)
    wait_for(lambda: step_of(going) > step + 3, "the run to outlive its tab")
    button(second, "Stop").click()
    wait_for(lambda: second.title() == "✓ Done: tab two", "the second run's end")
    assert [entry.status for entry in server.runs()[:2]] == ["done", "stopped"]


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
    wait_for(lambda: step_of(second) > 1, "the second to go")
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
    wait_for(lambda: step_of(folder) > 2, "some steps")
    button(tab, "Stop").click()
    button(tab, "Resume").wait_for()
    before = folder.read()["num_steps"]
    button(tab, "Resume").click()
    wait_for(lambda: step_of(folder) > before, "it to continue")
    button(tab, "Stop").click()
    wait_for(lambda: folder.read()["status"] == "stopped", "it to stop again")
    assert folder.read()["num_steps"] > before


def test_ending_the_app_puts_the_run_back_and_ends_the_worker(server, open_tab):
    before = len(server.runs())
    press_run(open_tab(), "saved at the end", -1)
    wait_for(lambda: len(server.runs()) > before, "the run")
    wait_for(lambda: step_of(server.runs()[0].folder) > 2, "some steps")
    server.end(signal.SIGINT)
    assert not is_served(server.output_dir)
    saved = server.runs()[0]
    assert (saved.status, saved.details["text_input"]) == ("queued", "saved at the end")
    assert saved.folder.picture_path() and saved.folder.video_path()
    assert not (saved.folder.path / "progress.json").exists()
