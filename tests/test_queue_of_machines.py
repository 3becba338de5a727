"""Several workers on one queue, killed at random: no run is lost, and no two compute the same run.

The engine is a fake one; processes, kills, claims, messages and Redis are real.
"""

import itertools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import fake_engine
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from waiting import PATIENCE, wait_for

from studio.making.prepare import Request, prepare
from studio.queue import run_queue
from studio.queue.slots import is_served, read_states
from studio.runs import run_index

WORKER = Path(__file__).with_name("fake_worker.py")
STEPS = 25


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed; on Debian: sudo apt install redis-server")
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    options = ["--port", str(port), "--save", "", "--bind", "127.0.0.1"]
    folder = tmp_path_factory.mktemp("redis")
    server = subprocess.Popen([program, *options], cwd=folder, stdout=subprocess.DEVNULL)
    wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, "the Redis")
    yield f"redis://127.0.0.1:{port}/0"
    server.terminate()
    server.wait(PATIENCE)


class Studio:
    """An output folder and its workers, each as if on its own machine."""

    def __init__(self, folder, url=None, **environment):
        self.output_dir, self.assets = folder / "output", folder / "assets"
        self.trace = folder / "trace"
        self.trace.mkdir()
        fake_engine.write_assets(self.assets)
        self.url = url
        self.environment = {**os.environ, "TRACE": str(self.trace), **environment}
        self.environment["PYTHONPATH"] = str(WORKER.parents[1])
        self.environment.pop("SERVING", None)
        self.keepers = []

    def start(self, **environment):
        environment = self.environment | environment
        places = ["--output-dir", self.output_dir, "--assets-dir", self.assets]
        places += ["--queue-url", self.url] if self.url else []
        self.keepers.append(
            subprocess.Popen(
                [sys.executable, WORKER, *places], env=environment, stdout=subprocess.DEVNULL
            )
        )

    def enqueue(self, seed, **given):
        given = {"text_input": f"heart {seed}", "num_steps": STEPS, "seed": seed, **given}
        given |= {"Xdim": 16, "ydim": 16}
        request = Request(given=given, output_dir=self.output_dir, assets_dir=self.assets)
        return run_queue.enqueue(prepare(request), self.url)

    def statuses(self):
        return Counter(entry.status for entry in run_index.entries(self.output_dir))

    def serving(self):
        """The pids of living workers."""
        states = read_states(self.output_dir)
        return [state.pid for state in states if is_alive(state.pid)]

    def steps(self, seed):
        """(pid, step) in the order in which they were computed."""
        path = self.trace / str(seed)
        lines = path.read_text().splitlines() if path.exists() else []
        return [tuple(map(int, line.split())) for line in lines]

    def logs(self):
        return "".join(path.read_text() for path in (self.output_dir / ".logs").glob("*.log*"))

    def close(self):
        for process in self.keepers:
            process.terminate()
        for process in self.keepers:
            process.wait(PATIENCE)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def studio(tmp_path):
    studios = []

    def make(url=None, **environment):
        studios.append(Studio(tmp_path, url, **environment))
        return studios[0]

    yield make
    for studio in studios:
        studio.close()


def kill_one(studio, chance):
    """Kill a worker, or its keeper, which is then started again."""
    if chance.random() < 0.3:
        keeper = chance.choice(studio.keepers)
        studio.keepers.remove(keeper)
        keeper.kill()
        keeper.wait()
        studio.start()
    elif pids := studio.serving():
        with suppress(ProcessLookupError):  # it may just have ended by itself
            os.kill(chance.choice(pids), signal.SIGKILL)


@pytest.mark.parametrize(
    ("runs", "kills"), [(8, 5), pytest.param(40, 40, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_every_run_ends_exactly_once_whichever_process_is_killed(studio, redis_url, runs, kills):
    studio, chance = studio(redis_url), random.Random(runs)
    folders = [studio.enqueue(seed) for seed in range(runs)]
    studio.start()
    studio.start()
    for _ in range(kills):
        time.sleep(chance.uniform(0.3, 1.0))
        kill_one(studio, chance)
    wait_for(lambda: studio.statuses().keys() <= {"done", "failed"}, "all runs to end")

    assert sorted(path.name for path in run_index_paths(studio)) == sorted(f.name for f in folders)
    assert studio.statuses()["done"] >= runs / 2
    logs = studio.logs()
    for seed, folder in enumerate(folders):
        check_ended(studio, seed, folder)
        assert len(re.findall(f"{re.escape(folder.name)} done", logs)) <= 1


def run_index_paths(studio):
    return [path for path in studio.output_dir.iterdir() if not path.name.startswith(".")]


def check_ended(studio, seed, folder):
    details = folder.read()
    pids = [pid for pid, _ in studio.steps(seed)]
    changes = sum(a != b for a, b in itertools.pairwise(pids))
    assert changes == len(set(pids)) - 1, "two processes computed it at the same time"
    if details["status"] == "failed":
        assert details["crashes"] == 2 and "ended without warning" in details["error"]
        return
    assert details["num_steps"] == STEPS
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    picture = np.asarray(Image.open(folder.picture_path()))
    assert (picture == np.roll(noise, STEPS - 1, axis=0)).all()
    assert imageio_ffmpeg.count_frames_and_secs(str(folder.video_path()))[0] == STEPS


def test_a_worker_that_was_frozen_leaves_the_run_to_the_one_that_took_it_over(studio):
    studio = studio(SILENT_SECONDS="1.5")
    folder = studio.enqueue(1, num_steps=-1)
    studio.start(MACHINE="first")
    wait_for(lambda: len(studio.steps(1)) > 3, "some steps")
    (sleeper,) = studio.serving()
    studio.start(MACHINE="second")
    wait_for(lambda: len(studio.serving()) == 2, "the other machine")
    time.sleep(1)  # in which its keeper hears of the run
    os.kill(sleeper, signal.SIGSTOP)
    try:
        wait_for(lambda: studio.steps(1)[-1][0] != sleeper, "another worker to take it over")
    finally:
        os.kill(sleeper, signal.SIGCONT)
    wait_for(lambda: not is_alive(sleeper), "the sleeper to leave")
    told = [pid for pid, _ in studio.steps(1)]
    assert told[told.index(told[-1]) :].count(sleeper) <= 1, "the step that it slept in"
    assert folder.read()["crashes"] == 1
    run_queue.cancel(folder)
    wait_for(lambda: folder.read()["status"] == "stopped", "it to stop")


def test_a_run_that_fails_is_tried_by_a_second_process_and_leaves_one_for_the_next(studio):
    studio = studio()
    broken, after = studio.enqueue(1, text_input="memory"), studio.enqueue(2)
    studio.start()
    wait_for(lambda: after.read()["status"] == "done", "the run after")
    details = broken.read()
    assert (details["status"], details["crashes"]) == ("failed", 2)
    assert "Out of memory" in details["error"]
    assert len({pid for pid, _ in studio.steps(1)}) == 2
    assert studio.steps(2)[0][0] not in {pid for pid, _ in studio.steps(1)}


@pytest.mark.parametrize("broken", ["deleted", "garbage"])
def test_the_queue_survives_the_loss_of_its_messages(studio, broken):
    studio = studio()
    studio.start()
    before = studio.enqueue(1, num_steps=2)
    wait_for(lambda: before.read()["status"] == "done", "the first run")
    if broken == "deleted":
        shutil.rmtree(studio.output_dir / ".queue")
    else:
        (studio.output_dir / ".queue" / "messages.db").write_bytes(b"no database" * 1000)
    after = [studio.enqueue(seed, num_steps=2) for seed in (2, 3)]
    wait_for(lambda: all(f.read()["status"] == "done" for f in after), "the runs after")


def test_without_a_redis_that_answers_workers_look_into_the_folders(studio):
    studio = studio("redis://127.0.0.1:1/0")
    studio.start()
    folder = studio.enqueue(1, num_steps=2)
    wait_for(lambda: folder.read()["status"] == "done", "the run")


def test_workers_on_several_gpus_share_the_runs(studio):
    studio = studio()
    folders = [studio.enqueue(seed, num_steps=-1) for seed in (1, 2)]
    options = ["--output-dir", studio.output_dir, "--assets-dir", studio.assets, "--gpus", "0,1"]
    keeper = subprocess.Popen([sys.executable, WORKER, *options], env=studio.environment)
    studio.keepers.append(keeper)
    wait_for(lambda: studio.statuses()["running"] == 2, "both to run")
    wait_for(lambda: studio.steps(1) and studio.steps(2), "steps of both")
    assert studio.steps(1)[0][0] != studio.steps(2)[0][0]
    keeper.send_signal(signal.SIGINT)
    assert keeper.wait(PATIENCE) == 0
    assert [folder.read()["status"] for folder in folders] == ["queued", "queued"]
    assert not is_served(studio.output_dir)
