"""The engine of docs/adding-an-engine.md, put into a copy of the project and removed again."""

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from page_server import Server, button, choose_engine, drop, field, prompt_of
from PIL import Image
from playwright.sync_api import expect
from tabs import Tabs
from test_architecture import broken_rules
from waiting import wait_for

from studio.engines import registry

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "adding-an-engine.md"
COPIED = ("*.py", "*.yaml", "*.md", "studio", "static", "templates", ".streamlit")
FILE = re.compile(r"^`(studio/\S+\.py)`:\n\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINE = re.compile(r'^    "Weave": .*\n', re.MULTILINE)
REGISTRY = "studio/engines/registry.py"
FIRST_LINE = '    "VQGAN-CLIP": "studio.engines.vqgan_clip.engine:VQGANCLIP",\n'
PLAIN = {"pattern": "plain"}
SMALL = ("--xdim", "48", "--ydim", "32")


# Command lines in processes of their own, forked where torch is imported: that takes seconds.
FORKS = """
import json, os, sys
import torch
import generate
for line in sys.stdin:
    if (child := os.fork()) == 0:
        os.dup2(2, 1)
        os._exit(generate.main(json.loads(line)))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Copy:
    """A copy of the project, in which the engine is added as the page says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.output = root / "output"
        for pattern in COPIED:
            for path in ROOT.glob(pattern):
                copy = shutil.copytree if path.is_dir() else shutil.copy
                copy(path, root / path.name)
        (root / "assets").symlink_to(ROOT / "assets")
        self.before = self.files()

    def add(self) -> None:
        page = PAGE.read_text(encoding="utf-8")
        for name, text in FILE.findall(page):
            path = self.root / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        registry = self.root / REGISTRY
        line = LINE.search(page)
        assert line and FIRST_LINE in registry.read_text(encoding="utf-8")
        text = registry.read_text(encoding="utf-8").replace(FIRST_LINE, FIRST_LINE + line[0])
        registry.write_text(text, encoding="utf-8")

    def remove(self) -> None:
        shutil.rmtree(self.root / "studio/engines/weave")
        registry = self.root / REGISTRY
        registry.write_text(LINE.sub("", registry.read_text(encoding="utf-8")), encoding="utf-8")

    def files(self) -> dict[str, str]:
        paths = [*self.root.glob("*.py"), *(self.root / "studio").rglob("*.py")]
        return {str(p.relative_to(self.root)): p.read_text(encoding="utf-8") for p in paths}

    def command(self, *words: object) -> list[str]:
        return [sys.executable, "generate.py", *map(str, words), "--output-dir", str(self.output)]

    def generate(self, *words: object, status: int = 0) -> Any:
        done = subprocess.run(
            self.command(*words), cwd=self.root, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == status, done.stderr
        return done

    def run(self, *words: object) -> Path:
        """A run of the engine; returns its folder."""
        there = set_of(self)
        assert self._forks.stdin and self._forks.stdout
        print(json.dumps(self.command(*words)[2:]), file=self._forks.stdin, flush=True)
        assert self._forks.stdout.readline() == "0\n"
        (folder,) = set_of(self) - there
        return folder

    @cached_property
    def _forks(self) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, "-c", FORKS], cwd=self.root, **pipes)

    def close(self) -> None:
        assert self._forks.stdin
        self._forks.stdin.close()
        assert self._forks.wait(60) == 0


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    copy = Copy(tmp_path_factory.mktemp("project"))
    copy.add()
    yield copy
    copy.close()


def details_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "details.json").read_text(encoding="utf-8"))


def pictures_of(folder: Path) -> list[np.ndarray]:
    paths = sorted(folder.glob("output*.PNG"), key=lambda path: (len(path.name), path.name))
    return [np.asarray(Image.open(path)) for path in paths]


def same(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    return len(some) == len(others) > 0 and all(map(np.array_equal, some, others))


def test_it_keeps_the_rules(copy: Copy) -> None:
    assert broken_rules(copy.files()) == []


def test_a_run_from_the_command_line(copy: Copy) -> None:
    folder = copy.run("red, #336699", "--engine", "Weave", "--num-steps", "5", *SMALL)
    details = details_of(folder)
    assert (details["model"], details["status"], details["num_steps"]) == ("Weave", "done", 5)
    assert (details["pattern"], details["losses"]) == ("twill", {})
    first, second = pictures_of(folder)
    assert first.shape == second.shape == (32, 48, 3) and not np.array_equal(first, second)
    film = imageio_ffmpeg.read_frames(str(folder / "anim.mp4"))
    facts = next(film)
    film.close()
    assert (facts["fps"], facts["source_size"]) == (12, (96, 32))
    assert imageio_ffmpeg.count_frames_and_secs(str(folder / "anim.mp4"))[0] == 5


def test_its_own_defaults_and_grammar(copy: Copy) -> None:
    help_page = copy.generate("--engine", "Weave", "--help").stdout
    assert "--cloths" in help_page and "--cutn" not in help_page
    refused = copy.generate("a red heart", "--engine", "Weave", status=2).stderr
    assert "not a list of colours" in refused and "Traceback" not in refused
    assert "No colour" in copy.generate("--engine", "Weave", status=2).stderr
    unknown = copy.generate("red", "--engine", "Wove", status=2).stderr
    assert "There are: VQGAN-CLIP, Weave" in unknown


def test_settings_of_a_run_bring_the_engine_along(copy: Copy) -> None:
    folder = copy.run("red, gold", "--engine", "Weave", "--num-steps", "3", *SMALL)
    for source in ("details.json", "output-2.PNG"):
        again = copy.run("--settings", folder / source)
        assert details_of(again)["model"] == "Weave"
        assert same(pictures_of(folder), pictures_of(again))


def test_its_settings_change_while_it_goes(copy: Copy) -> None:
    """A change at step 1 is the same as a beginning with it."""
    began = {"model": "Weave", "schema_version": 1, "text_input": "red, gold", "seed": 3}
    began |= {"planned_num_steps": 3, "Xdim": 48, "ydim": 32}
    file = copy.root / "changed.json"
    file.write_text(json.dumps(began | {"changes": [{"step": 1, "settings": PLAIN}]}))
    changed = copy.run("--settings", file)
    assert details_of(changed)["pattern"] == "twill"
    file.write_text(json.dumps(began | PLAIN))
    assert same(pictures_of(changed), pictures_of(copy.run("--settings", file)))


def test_a_run_that_was_killed_is_resumed_exactly(copy: Copy) -> None:
    words = ("red, gold", "--engine", "Weave", "--seed", "7", *SMALL)
    words += ("--num-steps", "200", "--checkpoint-seconds", "0")
    whole = copy.run(*words)
    there = set(copy.output.iterdir())
    process = subprocess.Popen(copy.command(*words), cwd=copy.root, stderr=subprocess.DEVNULL)
    wait_for(
        lambda: any((p / "checkpoint.safetensors").exists() for p in set_of(copy) - there), "a step"
    )
    process.kill()
    process.wait()
    (folder,) = set_of(copy) - there
    assert details_of(folder)["status"] == "running"
    copy.generate("--resume", folder.name)
    assert details_of(folder)["num_steps"] == 200
    assert same(pictures_of(folder), pictures_of(whole))


def set_of(copy: Copy) -> set[Path]:
    return set(copy.output.glob("[!.]*"))


def test_more_steps_continue_exactly_and_other_colours_from_the_cloth(copy: Copy) -> None:
    words = ("--engine", "Weave", "--seed", "7", *SMALL, "--num-steps")
    six, three = copy.run("red", *words, "6"), copy.run("red", *words, "3")
    continued = copy.run("--continue-run", three.name, "--num-steps", "3")
    assert same(pictures_of(continued), pictures_of(six))
    larger = copy.run("lime", "--continue-run", three.name, "--xdim", "96", "--num-steps", "1")
    assert pictures_of(larger)[0].shape == (32, 96, 3)
    found = {tuple(colour) for colour in pictures_of(larger)[0].reshape(-1, 3)}
    assert {(0, 255, 0), (255, 0, 0)} <= found


def test_a_worker_computes_it_from_the_queue(copy: Copy) -> None:
    name = copy.generate("red", "--engine", "Weave", "--num-steps", "3", "--enqueue").stdout.strip()
    places = ["--output-dir", str(copy.output)]
    worker = subprocess.Popen([sys.executable, "worker.py", *places], cwd=copy.root)
    try:
        folder = copy.output / name
        wait_for(lambda: details_of(folder)["status"] == "done", "the run")
    finally:
        worker.terminate()
        worker.wait()
    assert len(pictures_of(folder)) == 2


@pytest.fixture
def page(copy: Copy, tmp_path: Path, chromium: Any) -> Iterator[Server]:
    server = Server(tmp_path, copy.root / "app.py", copy.root)
    yield server
    server.end(signal.SIGTERM)


def open_page(server: Server, tabs: Tabs, query: str = "") -> Any:
    tab = tabs.open()
    tab.goto(f"{server.url}/{query}")
    field(tab, "Engine").wait_for()
    return tab


def make_on_page(server: Server, tab: Any, colours: str) -> Path:
    """Run! with these colours and small cloths, and wait for the result."""
    for label, value in (("Xdim", 48), ("ydim", 32), ("Num steps", 4)):
        field(tab, label).fill(str(value))
    prompt_of(tab).fill(colours)
    button(tab, "Run!").click()
    wait_for(lambda: tab.title() == f"✓ Done: {colours}", "the run's end")
    return server.runs()[0].folder.path


def test_on_the_page(page: Server, tabs: Tabs) -> None:
    tab = open_page(page, tabs)
    field(tab, "Cutouts").wait_for(state="attached")  # folded
    expect(field(tab, "Pattern")).to_have_count(0)
    choose_engine(tab, "Weave")
    field(tab, "Cloths").wait_for()
    field(tab, "Cutouts").wait_for(state="detached")
    wait_for(lambda: field(tab, "Num steps").input_value() == "60", "the engine's usual steps")
    prompt_of(tab).fill("a red heart")
    button(tab, "Run!").click()
    tab.get_by_test_id("stAlert").get_by_text("not a list of colours").wait_for()
    field(tab, "Cloths").fill("3")
    folder = make_on_page(page, tab, "red, gold")
    result = tab.locator('[class*="st-key-result-"]')
    wait_for(lambda: result.locator(".strip img").count() == 3, "its pictures")
    assert result.locator("figure.losses").count() == 0
    assert details_of(folder)["model"] == "Weave" and len(pictures_of(folder)) == 3


def test_presets_links_and_a_dropped_picture_bring_the_engine(page: Server, tabs: Tabs) -> None:
    tab = open_page(page, tabs)
    choose_engine(tab, "Weave")
    field(tab, "Cutouts").wait_for(state="detached")  # with the rest of the other form
    field(tab, "Cloths").fill("4")
    folder = make_on_page(page, tab, "lime")
    save_preset(tab, "four cloths")
    choose_engine(tab, "VQGAN-CLIP")
    field(tab, "Cutouts").wait_for(state="attached")  # folded
    expect(prompt_of(tab)).to_have_value("lime")
    drop(tab, "output-2.PNG", (folder / "output-2.PNG").read_bytes())
    button(tab, "Use its settings").click()
    wait_for(lambda: field(tab, "Cloths").input_value() == "4", "the picture's cloths")
    later = open_page(page, tabs, f"?continue={folder.name}")
    later.get_by_text("Continues “lime”").wait_for()
    wait_for(lambda: field(later, "Cloths").input_value() == "4", "the run's cloths")
    field(later, "Cloths").fill("2")
    button(later, "Presets").click()
    button(later, "Apply").click()
    wait_for(lambda: field(later, "Cloths").input_value() == "4", "the preset's cloths")


def save_preset(tab: Any, name: str) -> None:
    button(tab, "Presets").click()
    field(tab, "Save the form's settings as").fill(name)
    button(tab, "Save").click()
    tab.get_by_text(f"Saved as {name}").first.wait_for()
    tab.keyboard.press("Escape")


def test_in_the_gallery(copy: Copy, tabs: Tabs) -> None:
    folder = copy.run("gold", "--engine", "Weave", "--num-steps", "3", *SMALL)
    tab = tabs.open()
    with gallery_of(copy) as address:
        tab.goto(f"{address}/?engine=Weave")
        assert tab.locator(f'a[href*="{folder.name}"]').count()
        tab.goto(f"{address}/runs/{folder.name}")
        text = tab.locator("main").inner_text()
        assert "Weave" in text and "Pattern" in text and "twill" in text
        assert tab.locator('main img[src*="output-2.PNG"]').count() == 1
        tab.goto(f"{address}/?engine=VQGAN-CLIP")
        assert not tab.locator(f'a[href*="{folder.name}"]').count()


@contextmanager
def gallery_of(copy: Copy) -> Iterator[str]:
    command = [sys.executable, "gallery.py", str(copy.output), "--port", "5600"]
    process = subprocess.Popen(command, cwd=copy.root, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://[\w.:]+", process.stdout.readline())
        assert found
        yield found[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def test_removed_it_leaves_nothing_but_its_runs(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    copy.add()
    folder = copy.run("red", "--engine", "Weave", "--num-steps", "2", *SMALL)
    copy.close()
    copy.remove()
    assert copy.files() == copy.before
    said = copy.generate("--settings", folder / "output.PNG", status=2).stderr
    assert f"There is no engine 'Weave'. There are: {', '.join(registry.names())}." in said
    listed = copy.generate("--list").stdout
    assert folder.name in listed and "--cutn" in copy.generate("--help").stdout
    with gallery_of(copy) as address:
        shown = urllib.request.urlopen(f"{address}/runs/{folder.name}").read().decode()
    assert "Weave" in shown and "Pattern" in shown and "twill" in shown
