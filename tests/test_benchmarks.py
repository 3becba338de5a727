"""The benchmarks measure what they say, on tiny models."""

import io
import json
import statistics
import subprocess
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import first_picture
import keeping
import large
import neighbours
import plain
import quality
import step as benchmark
import upscale
from tiny_models import write_tiny_assets

from studio.engines import device
from studio.making.prepare import Request
from studio.runs import run_index
from training import evaluate


@pytest.mark.parametrize("loop", benchmark.LOOPS)
def test_both_loops_are_measured(
    loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    write_tiny_assets(tmp_path)
    chosen = benchmark.chosen_settings(Namespace(assets_dir=tmp_path, size=[(32, 48)], cutn=2))
    monkeypatch.setattr(sys, "stdin", io.StringIO("step\nstep\n"))
    benchmark.serve(loop, tmp_path, chosen, torch.device("cpu"))
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(answers) == 2
    for found in answers:
        assert found["seconds"] > 0 and found["cpu_seconds"] > 0
        assert found["peak_mib"] >= found["weights_mib"] > 0


def test_the_first_step_of_a_turn_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Loop(SimpleNamespace):
        def communicate(self) -> None:
            asked.append(f"{self.name} ends")

    def ask(loop: Loop) -> dict[str, float]:
        asked.append(loop.name)
        return {"seconds": len(asked), "cpu_seconds": 0.5, "peak_mib": len(asked)}

    monkeypatch.setattr(benchmark, "_start", lambda loop, *_: Loop(name=loop))
    monkeypatch.setattr(benchmark, "_ask", ask)
    args = Namespace(loops=["a", "b"], turns=2, steps=2)
    a, b = benchmark._take_turns(args, Path(), (128, 128))
    assert asked == [*"aaabbbaaabbb", "a ends", "b ends"]
    assert a["seconds"] == statistics.median([2, 3, 8, 9]) and a["peak_mib"] == 9
    assert b["seconds"] == statistics.median([5, 6, 11, 12]) and b["peak_mib"] == 12


def test_the_engine_can_be_held_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    computed_in: list[device.Precision] = []
    quick = device.Precision(torch.bfloat16, eight_bits=True)
    monkeypatch.setattr(device, "compute_precision", lambda _: quick)
    monkeypatch.setattr(benchmark, "chosen_settings", lambda args: None)
    monkeypatch.setattr(
        benchmark, "serve", lambda *given: computed_in.append(device.compute_precision(given[-1]))
    )
    for more in ([], ["--float32"]):
        monkeypatch.setattr(sys, "argv", ["step.py", "--serve", "ours", *more])
        benchmark.main()
    assert computed_in == [quick, device.Precision(torch.float32)]


def test_the_plain_loop_resamples_as_lanczos_does() -> None:
    torch.manual_seed(0)
    smooth = F.interpolate(torch.rand(1, 3, 6, 6), (96, 96), mode="bicubic").clamp(0, 1)
    expected = to_pil_image(smooth[0]).resize((32, 32), Image.Resampling.LANCZOS)
    ours = plain.resample(smooth, 32)[0]
    assert (ours - pil_to_tensor(expected) / 255).abs().mean() < 0.03


def test_the_growth_of_a_step_is_beside_that_of_the_pixels(capsys: pytest.CaptureFixture) -> None:
    found = [{"ours": {"device": "CPU", "cpu_seconds": taken}} for taken in (0.5, 3.0)]
    benchmark._tell_growth("tiny", [(32, 32), (64, 128)], found)
    said = capsys.readouterr().out
    assert "from 32x32 to 64x128" in said and "6.0x as long" in said and "8.0x the pix" in said


def test_a_run_that_does_not_look_for_neighbours_is_a_run() -> None:
    command = [sys.executable, "-c", neighbours.UNWATCHED, "--help"]
    done = subprocess.run(command, cwd=neighbours.ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "--num-steps" in done.stdout, done.stderr


def test_the_seconds_to_the_first_picture_are_measured(tmp_path: Path) -> None:
    write_tiny_assets(tmp_path)
    given = {"text_input": "a heart", "num_steps": 3, "Xdim": 32, "ydim": 32, "cutn": 2}
    request = Request(given, tmp_path / "output", tmp_path)
    with first_picture.worker(tmp_path / "output", tmp_path, None):
        assert 0 < first_picture.seconds_to_picture(request) < first_picture.PATIENCE
    (run,) = run_index.entries(tmp_path / "output")
    assert run.status == "done" and run.details["num_steps"] == 3


def test_the_cost_of_keeping_a_run_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.making.recording.CHECKPOINT_SHARE", 1e9)  # at each step
    write_tiny_assets(tmp_path)
    given = {"num_steps": 3, "Xdim": 32, "ydim": 32, "cutn": 2, "checkpoint_seconds": 0}
    found = keeping.measure(given, tmp_path, tmp_path / "output", None)
    assert 0 < found["checkpoints"] < found["waiting"] < 1
    assert found["step"] > 0 and found["encoder"] >= 0 and found["mib"] > 0


def test_both_loops_take_the_same_steps_and_are_looked_at() -> None:
    plain_course, ours = quality.courses("a red heart", 0, steps=2, same_settings=False)
    for course in (plain_course, ours):
        assert len(course.losses) == len(course.seconds) == 1
        assert course.seconds[0] > 0 and 0 < course.losses[0] < 2
        assert tuple(course.picture.shape) == (128, 128, 3)
    assert ours.seconds_to(ours.losses[0]) == ours.seconds[0]
    assert ours.seconds_to(ours.losses[0] - 0.01) is None


def test_without_a_judge_r_precision_is_not_made_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    missing = partial(evaluate.load_judge, tmp_path / "judge.pt")
    monkeypatch.setattr(evaluate, "load_judge", missing)
    quality.tell_r_precision(["a red heart"], [None], [None])
    assert "run `make judge` first" in capsys.readouterr().out


def test_upscaling_is_measured_beside_ncnn(capsys: pytest.CaptureFixture) -> None:
    threads = torch.get_num_threads()
    upscale.main(["--models", "animevideov3", "--size", "16", "--turns", "1", "--threads", "1"])
    torch.set_num_threads(threads)
    _, line = capsys.readouterr().out.splitlines()
    name, size, _, ours, theirs, ratio, *cpu = line.split()
    assert (name, size) == ("animevideov3", "16") and len(cpu) == 3
    assert float(ours) >= 0 and float(theirs) >= 0 and float(ratio) > 0


def test_a_large_picture_is_measured(tmp_path: Path) -> None:
    write_tiny_assets(tmp_path)
    args = Namespace(prompt="a", steps=2, grow_steps=1, cutn=2, save=tmp_path, assets_dir=tmp_path)
    args.slices = "one"
    found = large.made(args, "32x48")
    assert found["seconds"] >= found["last_step"] > 0
    assert found["peak_mib"] >= found["weights_mib"] > 0
    assert np.isnan([found["seams"], found["near"]]).all()  # it has one tile
    args.slices, args.steps = "nine", 10
    assert large.made(args, "64x128")["seams"] > 0


def test_seams_are_told_from_what_a_picture_shows(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(100, 110, (640, 1024, 3), np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    assert large.seams_of(path, 8) == pytest.approx((1, 1), abs=0.05)
    for border in large.borders_along(1024, 8):
        pixels[:, border:] += 10
    Image.fromarray(pixels).save(path)
    assert min(large.seams_of(path, 8)) > 1.5
    for border in (160, 320, 480):
        pixels[border:] += 10
    Image.fromarray(pixels).save(path)
    assert min(large.seams_of(path, 8, of_slices=True)) > 1.5
