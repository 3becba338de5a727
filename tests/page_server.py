"""The page of a server of its own, touched in a real browser. See page_server_fixtures.py."""

import base64
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from tiny_models import write_tiny_assets
from waiting import PATIENCE, wait_for

from studio.runs import run_index

ROOT = Path(__file__).resolve().parents[1]
FITS = "main => main.clientWidth > 0 && main.scrollWidth <= main.clientWidth"
# Returns whether the page takes files: whether its script keeps the browser from opening them.
DROP = """(element, [name, data, zeros]) => {
  const picture = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([picture, new Uint8Array(zeros)], name, { type: "image/png" }));
  const init = { bubbles: true, cancelable: true, dataTransfer };
  const isOurs = (kind) => !element.dispatchEvent(new DragEvent(kind, init));
  isOurs("dragenter");
  return isOurs("dragover") && isOurs("drop");
}"""
AT_REST = """app => app.dataset.testScriptState === "notRunning" &&
  !app.querySelector("[data-stale=true]")"""


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
        env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}  # browsers need the rest
        self.process = subprocess.Popen([*streamlit, *options, *places], cwd=root, env=env)
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


def field(tab, label):
    return tab.get_by_label(label, exact=True)


def prompt_of(tab):
    return field(tab, "Text prompt")


def button(tab, name):
    """Run! tells screen readers its keys, too."""
    if name == "Run!":
        return tab.get_by_role("button", name=re.compile(r"^Run!"))
    return tab.get_by_role("button", name=name, exact=True)


def switch(tab, label):
    tab.get_by_test_id("stCheckbox").filter(has_text=label).locator("label").click()


def press_run(tab, prompt, steps):
    """Small pictures, so that a step takes milliseconds."""
    for label, value in (("Xdim", 32), ("ydim", 32), ("Num steps", steps)):
        field(tab, label).fill(str(value))
    prompt_of(tab).fill(prompt)
    button(tab, "Run!").click()


def drop(tab, name, data, zeros=0):
    """Drop a file of these bytes and so many zeros on the page, once its script takes files."""
    words = [name, base64.b64encode(data).decode(), zeros]
    main = tab.get_by_test_id("stMain")
    wait_for(lambda: main.evaluate(DROP, words), "the page to take files")


def wait_until_drawn(tab):
    """Wait until the page is not being drawn again, and nothing on it is of an earlier drawing."""
    app = tab.get_by_test_id("stApp")
    wait_for(lambda: app.evaluate(AT_REST), "the page to be drawn")


def preview(tab):
    return tab.locator("img.run-picture").get_attribute("src")


def choose_engine(tab, name):
    field(tab, "Engine").click()
    tab.get_by_role("option", name=name, exact=True).click()
