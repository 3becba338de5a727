"""What a person gets, exactly: the bundled weights, the default settings, the machine's precision.

However a run begins: resumed, or made as n steps and then m more, it ends with the same bytes as
without a break. The state is compared as well as the picture, as a bit in it shows up there later.
"""

import itertools
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from waiting import wait_for

from studio.base.stopping import Stop
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import reopen, submit
from studio.runs import storage
from studio.runs.checkpoints import Checkpoint, read
from studio.runs.storage import RunFolder

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "assets"
AIM = {"text_input": "a red heart", "seed": 5}
MSE = {"use_mse_regularization": True, "mse_weight_decay_steps": 2}
SCROLL = {"translation_x": 3, "rotation_angle": 2.0, "zoom_factor": 1.05, "transform_interval": 2}
SIZES = {"square": (128, 128), "odd": (117, 91)}
# What the run adds to the settings, and how it differs from the run that it continues, if any.
WAYS = {
    "sketch": ({}, None),
    "tokens": ({"init_sketch": False}, None),
    "starting image": ({"init_image": "start.png"}, None),
    "scrolling": (SCROLL, None),
    "continued exactly": ({}, {}),
    "continued from its latent": ({}, {"text_input": "a blue fish"}),
    "continued from its picture": ({}, {"Xdim": 96, "ydim": 160}),
}
SHORT = list(zip(WAYS, itertools.cycle([{}, MSE]), itertools.cycle(["square", "square", "odd"])))
EVERY = list(itertools.product(WAYS, [{}, MSE], SIZES))


@pytest.fixture
def output(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((150, 100)).save(tmp_path / "start.png")
    return tmp_path / "output"


class Case:
    """A way to begin: makes folders of runs that begin in this way."""

    def __init__(self, output, way, mse, size):
        changes, self.differs = WAYS[way]
        self.output = output
        self.given = AIM | dict(zip(("Xdim", "ydim"), SIZES[size], strict=True)) | mse | changes
        if "init_image" in changes:
            self.given["init_image"] = str(output.parent / changes["init_image"])
        self.parent = self.made(2).name if self.differs is not None else None
        if self.parent:
            self.given = self.differs

    def begin(self, steps, parent=None, **changes):
        """A run's folder: of that way, or one that continues `parent` with nothing changed."""
        given = {"num_steps": steps} | ({} if parent else self.given | changes)
        request = Request(given, self.output, ASSETS, continue_run=parent or self._parent())
        return submit(prepare(request), "running")

    def made(self, steps, parent=None):
        folder = self.begin(steps, parent)
        assert execute(folder, assets_dir=ASSETS) == "done"
        return folder

    def _parent(self):
        return getattr(self, "parent", None)


def end_of(folder: RunFolder) -> Checkpoint:
    return read(folder.path / storage.CHECKPOINT)


def bits(tree, without=()):
    """Every leaf of a state as bytes, by its path."""
    if not isinstance(tree, dict):
        return np.asarray(tree).tobytes()
    return {key: bits(value) for key, value in tree.items() if key not in without}


def check_same(folder, straight, without=()):
    end, expected = end_of(folder), end_of(straight)
    assert bits(end.state, without) == bits(expected.state, without)
    assert end.losses == expected.losses
    for pixels in (end.picture, np.array(Image.open(folder.path / "output.PNG"))):
        assert np.array_equal(pixels, expected.picture)


@pytest.mark.parametrize(("way", "mse", "size"), SHORT, ids=[way for way, _, _ in SHORT])
def test_stopped_and_resumed_or_continued(output, way, mse, size):
    case = Case(output, way, mse, size)
    straight = case.made(5)

    folder, stop = case.begin(5), Stop()
    execute(folder, assets_dir=ASSETS, stop=stop, on_step=lambda s: s.index == 2 and stop.request())
    reopen(folder, "running")
    assert execute(folder, assets_dir=ASSETS) == "done"
    check_same(folder, straight)

    check_same(case.made(3, parent=case.made(2).name), straight, without=["frames"])


# --- by processes that are killed ----------------------------------------------------------------


def generate(*words):
    command = [sys.executable, str(ROOT / "generate.py"), *words, "--assets-dir", str(ASSETS)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, **quiet)


def resume(case, folder):
    """In a process of its own."""
    return generate("--resume", folder.name, "--output-dir", str(case.output))


def kill_and_resume(case, steps, moments):
    """A run that is killed each time its details reach so many steps, then resumed to its end."""
    folder = case.begin(steps, checkpoint_seconds=0.1)
    folder.update(status="interrupted")  # `begin` starts no process
    for moment in moments:
        process = resume(case, folder)
        wait_for(lambda moment=moment: folder.read()["num_steps"] >= moment, "steps")
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        folder.update(status="interrupted")
    assert resume(case, folder).wait() == 0
    return folder


def test_killed_and_resumed(output):
    """The shipped command, its run and its end in three processes."""
    case = Case(output, "sketch", {}, "square")
    folder = kill_and_resume(case, 24, [random.randint(3, 18)])
    check_same(folder, case.made(24))


@pytest.mark.slow
@pytest.mark.parametrize(("way", "mse", "size"), EVERY)
def test_killed_and_resumed_in_every_way(output, way, mse, size):
    case = Case(output, way, mse, size)
    moments = sorted(random.sample(range(1, 34), 2))
    print("killed at", moments)
    straight = case.made(40)
    check_same(kill_and_resume(case, 40, moments), straight)
    check_same(case.made(23, parent=case.made(17).name), straight, without=["frames"])
