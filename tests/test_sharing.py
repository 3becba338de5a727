"""Making way for other programs: when it is called for, what it does, and that no byte changes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import tiny_models
import torch
from waiting import wait_for

from logic import VQGANCLIPRun
from studio.engines import sharing
from studio.engines.sharing import CROWDED, MOST_PATIENCE, PATIENCE, ROOMY, Crowd, Sharing
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.settings.values import make

NOBODY, SOME, MANY = ROOMY / 2, (ROOMY + CROWDED) / 2, 2 * CROWDED

on_linux = pytest.mark.skipif(not sharing.TASKS.exists(), reason="elsewhere OpenMP is left alone")


def seen(*waits: float, pause: float = PATIENCE / 4) -> str:
    """What a Crowd says of these waits, one look each: "c" for crowded, "." for room."""
    crowd = Crowd()
    return "".join("c" if crowd.look(n * pause, w) else "." for n, w in enumerate(waits))


@pytest.mark.parametrize(
    ("waits", "said"),
    [
        ([NOBODY, NOBODY, NOBODY], "..."),
        ([SOME, SOME], ".."),
        ([MANY, MANY], "cc"),
        ([NOBODY, MANY, SOME, SOME, SOME, SOME, SOME], ".cccccc"),
        ([MANY, NOBODY, NOBODY, NOBODY, NOBODY, NOBODY], "cccc.."),
        ([MANY, NOBODY, NOBODY, SOME, NOBODY, NOBODY, NOBODY, NOBODY], "ccccccc."),
    ],
)
def test_a_crowd_is_there_until_there_was_room_for_a_while(waits: list[float], said: str) -> None:
    assert seen(*waits) == said


def test_futile_tries_become_rare() -> None:
    """Beside a program that always makes way, there seems to be room until our threads spin."""
    crowd, tries, now = Crowd(), [], 0.0
    for _ in range(2000):
        now += 0.5
        was_there = crowd.is_there
        if was_there and not crowd.look(now, NOBODY):
            tries.append(now)
        elif not was_there:
            crowd.look(now, MANY)
    pauses = [after - before for before, after in pairwise(tries)]
    assert pauses[0] <= 2 * PATIENCE + 2 and pauses == sorted(pauses)
    assert MOST_PATIENCE <= pauses[-1] <= MOST_PATIENCE + 2


def test_patience_is_reset_after_a_good_while() -> None:
    crowd = Crowd()
    for now, waited in [(0, MANY), (2, NOBODY), (3, MANY), (7, NOBODY), (100, MANY)]:
        crowd.look(float(now), waited)
    assert crowd.is_there
    assert not crowd.look(100 + PATIENCE, NOBODY)


@on_linux
@pytest.mark.parametrize(("processors", "threads"), [(2, 2), (8, 4), (16, 8), (64, 3), (4, 5)])
def test_idle_threads_outnumber_the_processors(
    processors: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(processors)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    idle = sharing.teams_needed() * (threads - 1)  # each team's main thread may count or not
    assert processors < threads + idle <= processors + threads


@on_linux
def test_waits_are_those_of_the_thread_that_waited_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "TASKS", tmp_path)
    monkeypatch.setattr("time.monotonic", iter([10.0, 12.0, 13.0]).__next__)

    def waited(**seconds: float) -> None:
        for thread, waits in seconds.items():
            (tmp_path / thread).mkdir(exist_ok=True)
            (tmp_path / thread / "schedstat").write_text(f"5 {int(waits * 1e9)} 7\n")

    waited(a=1.0, b=5.0)
    waits = sharing.Waits()
    waited(a=2.0, b=5.5, new=50.0)
    assert waits.share() == pytest.approx(0.5)
    (tmp_path / "a" / "schedstat").unlink()  # the thread has ended
    (tmp_path / "b" / "schedstat").write_text("garbage")
    assert waits.share() == 0


@pytest.fixture
def own_sharing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sharing]:
    """A Sharing that no other test has used."""
    made = Sharing()
    monkeypatch.setattr("logic.sharing", made)
    yield made
    for team in made.teams:
        team.dismiss()


def threads_there() -> int:
    return len(list(sharing.TASKS.iterdir()))


@on_linux
@pytest.mark.skipif(torch.get_num_threads() == 1, reason="one thread waits for nobody")
def test_idle_teams_come_and_go(own_sharing: Sharing) -> None:
    torch.zeros(10_000_000).add_(1)  # the usual team is there
    before = threads_there()
    own_sharing.make_way(True)
    wait_for(lambda: threads_there() >= before + torch.get_num_threads(), "idle threads")
    own_sharing.make_way(True)
    assert len(own_sharing.teams) == sharing.teams_needed()
    own_sharing.make_way(False)
    wait_for(lambda: threads_there() == before, "their end")


@on_linux
@pytest.mark.skipif(torch.get_num_threads() == 1, reason="one thread waits for nobody")
def test_no_byte_changes(
    tmp_path: Path, own_sharing: Sharing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither beside idle teams, nor when they come and go between steps."""
    tiny_models.write_tiny_assets(tmp_path)
    given = {"text_input": "a red heart", "vqgan_ckpt": "tiny_f8", "clip_model": "tiny_clip"}
    given |= {"Xdim": 64, "ydim": 64, "cutn": 4, "seed": 3}
    crowd = {"is there": False}
    monkeypatch.setattr(Crowd, "look", lambda self, now, waited: crowd["is there"])
    monkeypatch.setattr(sharing, "LOOK_SECONDS", 0.001)

    def states(crowded: list[bool]) -> list[bytes]:
        kind = VQGANCLIPSettings
        run = VQGANCLIPRun(make(kind, given), assets_dir=tmp_path, device=torch.device("cpu"))
        run.load_model()
        run.model_init()
        told = []
        for crowd["is there"] in crowded:
            with own_sharing:
                wait_for(lambda: bool(own_sharing.teams) == crowd["is there"], "the watch")
            told.append(run.iterate().picture.tobytes() + run.state_dict()["z"].tobytes())
        return told

    assert states([False] * 4) == states([True] * 4) == states([True, False, False, True])


WATCH = """
import sys, threading, torch
from studio.engines import sharing
if sys.argv[1] == "one":
    torch.set_num_threads(1)
with sharing.sharing:
    names = [thread.name for thread in threading.enumerate()]
print("sharing" in names)
"""


@pytest.mark.parametrize(("threads", "watched"), [("one", "False"), ("two", "True")])
def test_one_thread_needs_no_watch(threads: str, watched: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WATCH, threads],
        cwd=Path(__file__).resolve().parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == watched
