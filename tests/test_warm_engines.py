"""Runs of two engines in one process whose memory holds the models of one of them only."""

import math
from pathlib import Path
from typing import Any

import pytest
import tiny_diffusion
import tiny_models

from studio.base.notes import MADE_ROOM, notes_in_words
from studio.base.stopping import Stop
from studio.engines import warm as warm_module
from studio.engines.warm import WarmModels
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import submit
from studio.runs.storage import CHECKPOINT, RunFolder

SIZE = {"text_input": "a red heart", "num_steps": 4, "set_seed": True, "seed": 5}
GIVEN: dict[str, dict[str, Any]] = {
    "VQGAN-CLIP": {"vqgan_ckpt": "tiny_f8", "clip_model": "tiny_clip", "Xdim": 32, "ydim": 32},
    "Diffusion": {"weights": "tiny", "Xdim": 64, "ydim": 64, "sampler": "Euler a"},
}
ENGINES = list(GIVEN)


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    tiny_models.write_tiny_assets(folder)
    tiny_diffusion.write(tiny_diffusion.tiny_sd(), folder / "tiny")
    return folder


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch) -> WarmModels:
    """Models of a process that has just begun; there is room while one engine has some."""
    models = warm_module.warm
    monkeypatch.setattr(models, "_models", {})

    def free(device: Any) -> float:
        return 0.0 if len({engine for engine, _ in models._models}) > 1 else math.inf

    monkeypatch.setattr(warm_module, "free_memory", free)
    return models


def begun(engine: str, assets: Path, output: Path) -> RunFolder:
    given = SIZE | GIVEN[engine]
    return submit(prepare(Request(given, output, assets, engine=engine)), "running")


def held(warm: WarmModels) -> set[str]:
    return {engine for engine, _ in warm._models}


@pytest.mark.parametrize("first", ENGINES)
def test_what_does_not_fit_makes_room_and_the_run_says_so(
    first: str, warm: WarmModels, assets: Path, tmp_path: Path
) -> None:
    second = next(engine for engine in ENGINES if engine != first)
    runs = []
    for engine in (first, second, first, first):
        runs.append(begun(engine, assets, tmp_path))
        assert execute(runs[-1], assets_dir=assets) == "done"
        assert held(warm) == {engine}
    told = [run.read().get(MADE_ROOM) for run in runs]
    assert told == [None, [first], [second], None]
    (said,) = notes_in_words(runs[1].read())
    assert f"models of {first} were let go" in said and "nothing is lost" in said
    pictures = [(run.path / "output.PNG").read_bytes() for run in runs]
    assert pictures[0] == pictures[2] == pictures[3]  # as if nobody had made room


@pytest.mark.parametrize("first", ENGINES)
def test_a_run_that_another_engine_interrupts_loses_nothing(
    first: str, warm: WarmModels, assets: Path, tmp_path: Path
) -> None:
    second = next(engine for engine in ENGINES if engine != first)
    whole, halved = (begun(first, assets, tmp_path) for _ in range(2))
    assert execute(whole, assets_dir=assets) == "done"
    stop = Stop()

    def stop_after_two(step: Any) -> None:
        if step.index == 2:
            stop.request()

    assert execute(halved, assets_dir=assets, on_step=stop_after_two, stop=stop) == "stopped"
    assert (halved.path / CHECKPOINT).exists()
    execute(begun(second, assets, tmp_path), assets_dir=assets)
    assert held(warm) == {second}
    halved.update(status="running")
    assert execute(halved, assets_dir=assets) == "done"
    same = [(run.path / "output.PNG").read_bytes() for run in (whole, halved)]
    assert same[0] == same[1]
