"""Upscalings that wait in the queue: computed, stopped, killed and taken again, failed, refused."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from test_claims import make_claim

from studio.base.errors import BadInput
from studio.base.stopping import Stop
from studio.making import execute_upscaling
from studio.making.execute_upscaling import execute
from studio.making.upscaling import Enlarger, Upscaling
from studio.media.png_writer import PngWriter
from studio.queue import run_queue
from studio.queue.options import StudioOptions
from studio.queue.recovery import UPSCALING_BROKE_OFF, Watch
from studio.queue.slots import WorkerSlot
from studio.queue.worker_process import Worker
from studio.runs import claims, run_index, trash, upscalings
from studio.runs.claims import claimed
from studio.runs.storage import RunFolder, now
from studio.runs.upscalings import Asked

NAME = "20260101T000000-aaaaaaaa"
TWICE = Upscaling(2, "animevideov3")


@pytest.fixture
def assets(tmp_path):
    (tmp_path / "assets").mkdir()
    return tmp_path / "assets"


@pytest.fixture
def output_dir(tmp_path):
    return tmp_path / "output"


@pytest.fixture
def run(output_dir):
    return make_run(output_dir)


def make_run(output_dir, name=NAME, pictures=("output.PNG",), **details) -> RunFolder:
    folder = RunFolder(output_dir / name)
    folder.path.mkdir(parents=True)
    folder.write({"text_input": "a sun", "status": "done", "num_steps": 3} | details)
    for number, file in enumerate(pictures):
        image = Image.new("RGB", (24, 16), "navy")
        ImageDraw.Draw(image).ellipse([4 + number, 2, 16 + number, 14], fill="gold")
        image.save(folder.path / file)
    return folder


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def files(folder: RunFolder) -> set[str]:
    return {path.name for path in folder.path.iterdir() if path.is_file()}


def line(output_dir) -> list[str]:
    return [entry.name for entry in run_queue.line(output_dir)]


def take(job: RunFolder, assets: Path, stop: Stop | None = None) -> bool:
    """Compute it as a worker does; returns whether the worker goes on."""
    options = StudioOptions(job.output_dir, assets)
    worker = Worker(WorkerSlot(job.output_dir, "here"), options, None, stop or Stop())
    with claimed(job.path) as claim:
        return worker._compute(job, claim)


def test_a_worker_puts_the_large_picture_beside_the_result(run, output_dir, assets):
    before = run.read()
    job = run_queue.enqueue_upscaling(run, TWICE, assets)
    assert line(output_dir) == [job.name] and job.output_dir == output_dir
    assert [entry.name for entry in run_index.entries(output_dir)] == [NAME]
    assert run.read() == before, "the run stays as it is meanwhile"
    assert take(run_queue.next_run(output_dir), assets)
    assert not job.path.exists() and line(output_dir) == []
    assert files(run) == {"details.json", "output.PNG", "output-x2.PNG"}
    origin = Enlarger(TWICE, assets).picture(run.path / "output.PNG", output_dir / "alone.png")
    assert run.read() == before | {"upscaled": [{"file": "output-x2.PNG", **origin}]}
    large = pixels(run.path / "output-x2.PNG")
    assert (large == pixels(output_dir / "alone.png")).all() and large.shape == (32, 48, 3)


def test_all_pictures_of_a_run_are_upscaled_and_the_next_scale_is_kept_beside(output_dir, assets):
    run = make_run(output_dir, pictures=("output.PNG", "output-2.PNG"))
    for scale in (2, 3):
        wanted = Upscaling(scale, "animevideov3")
        job = run_queue.enqueue_upscaling(run, wanted, assets)
        assert execute(job, assets_dir=assets) == "done"
    made = [(entry["of"], entry["scale"]) for entry in run.read()["upscaled"]]
    assert made == [(f"output{n}.PNG", scale) for scale in (2, 3) for n in ("", "-2")]
    assert pixels(run.path / "output-2-x3.PNG").shape == (48, 72, 3)


def test_its_progress_grows(run, assets, monkeypatch):
    monkeypatch.setattr(execute_upscaling, "TOLD_SECONDS", 0.0)
    Image.new("RGB", (300, 700)).save(run.path / "output.PNG")
    job, seen = run_queue.enqueue_upscaling(run, TWICE, assets), [0.0]
    execute(job, assets_dir=assets, on_step=lambda _: seen.append(upscalings.share_done(job)))
    assert seen == sorted(seen) and 0 < seen[-1] < 1


def test_a_stop_leaves_the_run_as_it_was(run, output_dir, assets):
    job = run_queue.enqueue_upscaling(run, TWICE, assets)
    job.request_stop()
    assert execute(job, assets_dir=assets) == "stopped"
    assert files(run) == {"details.json", "output.PNG"} and "upscaled" not in run.read()
    assert files(job) == {"details.json", "stop"}
    assert job.read()["status"] == "stopped" and line(output_dir) == []
    run_queue.enqueue_upscaling(run, TWICE, assets)
    assert execute(job, assets_dir=assets) == "done", "it can be asked for again"


def test_one_that_waits_is_gone_at_once_and_one_that_runs_stops(run, output_dir, assets):
    job = run_queue.enqueue_upscaling(run, TWICE, assets)
    run_queue.withdraw_upscaling(job)
    assert not job.path.exists()
    job = run_queue.enqueue_upscaling(run, TWICE, assets)
    job.update(status="running", heartbeat=now())
    with claimed(job.path):
        run_queue.withdraw_upscaling(job)
    assert job.stop_requested() and job.read()["status"] == "running"


def test_a_worker_that_ends_hands_it_back(run, output_dir, assets):
    job = run_queue.enqueue_upscaling(run, TWICE, assets)
    stop = Stop()
    stop.request()
    take(job, assets, stop)
    assert job.read()["status"] == "queued" and line(output_dir) == [job.name]
    assert files(run) == {"details.json", "output.PNG"}


def test_one_whose_worker_was_killed_is_taken_again_once(run, output_dir, assets):
    job = run_queue.enqueue_upscaling(run, TWICE, assets)
    for crashes, status in ((1, "queued"), (2, "failed")):
        job.update(status="running", heartbeat=now(), host="here")
        make_claim(job.path, number=10 * crashes, machine=claims.this_machine())
        (job.path / ".output-x2.PNG.1234.tmp").touch()
        Watch(output_dir).look()
        assert (job.read()["status"], job.read()["crashes"]) == (status, crashes)
    assert job.read()["error"] == UPSCALING_BROKE_OFF
    run_queue.enqueue_upscaling(run, TWICE, assets)
    assert execute(job, assets_dir=assets) == "done"
    assert files(run) == {"details.json", "output.PNG", "output-x2.PNG"}


def test_a_full_disk_is_said_and_pauses_the_queue(run, output_dir, assets, monkeypatch):
    def full(self, rows):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PngWriter, "add", full)
    job = run_queue.enqueue_upscaling(run, TWICE, assets)
    assert not take(job, assets), "a fresh process goes on"
    assert job.read()["status"] == "failed" and "disk is full" in job.read()["error"]
    assert "disk is full" in run_queue.paused(output_dir).reason
    assert files(run) == {"details.json", "output.PNG"} and files(job) == {"details.json"}


def test_an_upscaler_that_is_none_is_refused_with_its_reason(run, output_dir, assets):
    (assets / "upscalers").mkdir()
    torch.save({"weight": torch.zeros(3)}, assets / "upscalers" / "odd.pth")
    job = run_queue.enqueue_upscaling(run, Upscaling(2, "odd"), assets)
    assert take(job, assets)
    assert job.read()["status"] == "failed" and "spandrel said" in job.read()["error"]


@pytest.mark.parametrize("model", ["no such", "/etc/passwd", "../upscalers/odd.pth"])
def test_other_models_are_refused_with_those_there_are(run, output_dir, assets, model):
    with pytest.raises(BadInput, match="There are: auto, animevideov3"):
        run_queue.enqueue_upscaling(run, Upscaling(2, model), assets)
    assert line(output_dir) == []


def test_what_cannot_be_upscaled_is_refused(output_dir, assets):
    going = make_run(output_dir, "going", status="running", heartbeat=now())
    bare = make_run(output_dir, "bare", pictures=())
    fine = make_run(output_dir, "fine")
    for folder, scale, reason in (
        (going, 2, "Wait until it has ended"),
        (bare, 2, "has no picture"),
        (fine, 5, "The scale 5 is none"),
    ):
        with pytest.raises(BadInput, match=reason):
            run_queue.enqueue_upscaling(folder, Upscaling(scale), assets)
    run_queue.enqueue_upscaling(fine, TWICE, assets)
    with pytest.raises(BadInput, match="being upscaled 2 times already"):
        run_queue.enqueue_upscaling(fine, TWICE, assets)


@pytest.mark.parametrize("how", ["claimed", "resumed", "changed"])
def test_a_run_that_went_on_meanwhile_keeps_what_it_has(run, output_dir, assets, how):
    job = run_queue.enqueue_upscaling(run, TWICE, assets)

    def go_on(_):
        if how == "resumed":
            run.update(status="queued")
        elif how == "changed":
            Image.new("RGB", (24, 16), "red").save(run.path / "output.PNG")

    if how == "claimed":
        with claimed(run.path), pytest.raises(BadInput, match="went on"):
            execute(job, assets_dir=assets)
    else:
        with pytest.raises(BadInput):
            execute(job, assets_dir=assets, on_step=go_on)
    assert "output-x2.PNG" not in files(run) and job.read()["status"] == "failed"


def test_the_upscaling_of_a_removed_run_goes(run, output_dir, assets):
    job = run_queue.enqueue_upscaling(run, TWICE, assets)
    trash.move_to_trash(output_dir, NAME)
    assert execute(job, assets_dir=assets) == "done" and not job.path.exists()


def test_those_that_ended_are_swept_once_their_run_is_nowhere(run, output_dir, assets):
    job = run_queue.enqueue_upscaling(run, TWICE, assets)
    job.update(status="failed")
    trash.move_to_trash(output_dir, NAME)
    upscalings.sweep(output_dir)
    assert job.path.exists(), "the run may be put back"
    trash.restore(output_dir, NAME)
    upscalings.forget(output_dir, NAME)
    assert not job.path.exists() and run.path.exists()
    run_queue.enqueue_upscaling(run, TWICE, assets).update(status="stopped")
    run.remove()
    upscalings.sweep(output_dir)
    assert upscalings.entries(output_dir) == []


@pytest.mark.parametrize(
    "asked",
    [
        *(None, [], {}, {"run": NAME}, {"run": "../x", "scale": 2, "model": "auto"}),
        {"run": NAME, "scale": "2", "model": "auto"},
        {"run": 1, "scale": 2, "model": "auto"},
    ],
)
def test_a_folder_that_asks_for_nothing_is_skipped(output_dir, asked):
    folder = output_dir / ".upscaling" / "x"
    folder.mkdir(parents=True)
    (folder / "details.json").write_text(json.dumps({"status": "queued", "upscaling": asked}))
    assert upscalings.entries(output_dir) == [] and line(output_dir) == []


def test_it_waits_in_the_line_of_the_runs(run, output_dir, assets):
    waits = make_run(output_dir, "20260102T000000-bbbbbbbb", status="queued", queued_at=now())
    job = run_queue.enqueue_upscaling(run, TWICE, assets)
    assert line(output_dir) == [waits.name, job.name]
    run_queue.move_up(output_dir, job.name)
    assert line(output_dir) == [job.name, waits.name]
    assert upscalings.asked_in(job.read()) == Asked(NAME, 2, "animevideov3")
    assert [entry.name for entry in upscalings.of_run(output_dir, NAME)] == [job.name]
    assert upscalings.of_run(output_dir, waits.name) == []
