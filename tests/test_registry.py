"""A model of one's own gets its place in form and command line by its registration alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from logic import Run, Step, VQGANCLIPRun
from studio.base.errors import BadInput
from studio.cli import generating
from studio.engines import registry
from studio.making.execute import execute
from studio.making.prepare import prepare
from studio.making.submit import submit
from studio.settings.declare import setting
from studio.settings.run_settings import RunSettings


class GreySettings(RunSettings):
    darkness: float = setting(0.5, "Darkness", "How dark the picture is.", ge=0, le=1)


class GreyRun(Run):
    """Pictures of one grey, a little darker with each step."""

    Settings = GreySettings
    settings: GreySettings

    def load_model(self) -> None:
        pass

    def model_init(self) -> None:
        self.steps = 0

    def iterate(self) -> Step:
        self.steps += 1
        grey = round(255 * (1 - self.settings.darkness)) - self.steps
        shape = (self.settings.ydim, self.settings.Xdim, 3)
        return Step(self.steps, np.full(shape, grey, np.uint8), {"total": float(grey)})

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


@pytest.fixture
def grey(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    model = registry.Model(settings=GreySettings, run=f"{__name__}:GreyRun")
    monkeypatch.setitem(registry.MODELS, "Grey", model)
    yield


def test_the_first_model_is_vqgan_clip() -> None:
    assert next(iter(registry.MODELS)) == "VQGAN-CLIP"
    assert registry.run_class("VQGAN-CLIP") is VQGANCLIPRun


@pytest.mark.parametrize("name", registry.MODELS)
def test_a_run_takes_the_settings_it_is_registered_with(name: str) -> None:
    assert registry.run_class(name).Settings is registry.get(name).settings


def test_an_unknown_model_lists_those_known() -> None:
    with pytest.raises(BadInput, match="VQGAN-CLIP"):
        registry.get("Dall-E")


def test_its_settings_become_options_and_its_run_runs(grey: None, tmp_path: Path) -> None:
    argv = ["a cat", "--model", "Grey", "--darkness", "0.25", "--num-steps", "3"]
    request = generating.parse([*argv, "--output-dir", str(tmp_path)]).request
    assert request.model == "Grey"
    folder = submit(prepare(request), status="running")
    steps: list[Step] = []
    assert execute(folder, assets_dir=tmp_path, on_step=steps.append) == "done"
    assert [int(step.picture[0, 0, 0]) for step in steps] == [190, 189, 188]
    details = folder.read()
    assert (details["model"], details["darkness"], details["num_steps"]) == ("Grey", 0.25, 3)


def test_its_ranges_are_kept(grey: None) -> None:
    request = generating.parse(["a cat", "--model", "Grey", "--darkness", "2"]).request
    with pytest.raises(BadInput, match="darkness"):
        prepare(request)


def test_options_of_other_models_are_not_its_own(grey: None) -> None:
    with pytest.raises(BadInput, match="--cutn"):
        generating.parse(["a cat", "--model", "Grey", "--cutn", "3"])
