"""A new engine gets its place on the command line by its registration alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from logic import VQGANCLIPRun
from studio.base.errors import BadInput, RunFailed
from studio.cli import generating
from studio.engines import registry
from studio.engines.contract import Engine, Run, Step
from studio.making.execute import execute
from studio.making.prepare import prepare
from studio.making.submit import submit
from studio.settings import common
from studio.settings.declare import setting
from studio.settings.run_settings import RunSettings


class GreySettings(RunSettings):
    """No prompt, no size: what every engine must have, and one setting of its own."""

    num_steps: int = common.num_steps(4)
    set_seed: bool = common.set_seed()
    seed: int = common.seed()
    darkness: float = setting(0.5, "Darkness", "How dark the picture is.", ge=0, le=1)
    checkpoint_seconds: float = common.checkpoint_seconds()
    upscale: common.Scale = common.upscale()
    upscale_always: bool = common.upscale_always()


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
        return Step(self.steps, np.full((16, 24, 3), grey, np.uint8))

    def state_dict(self) -> dict[str, Any]:
        return {"frames": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["frames"]


class GreyEngine(Engine):
    settings = GreySettings
    run = f"{__name__}:GreyRun"


class LackingEngine(GreyEngine):
    libraries = ("no_such_library",)


class BrokenRunEngine(GreyEngine):
    run = "no_such_module:Run"


@pytest.fixture
def grey(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(registry.ENGINES, "Grey", f"{__name__}:GreyEngine")
    yield


def parsed(*words: str, output_dir: Path) -> Any:
    return generating.parse([*words, "--output-dir", str(output_dir)]).request


def computed(request: Any, tmp_path: Path) -> Any:
    folder = submit(prepare(request), status="running")
    assert execute(folder, assets_dir=tmp_path) == "done"
    return folder


def test_the_first_engine_is_vqgan_clip() -> None:
    assert registry.DEFAULT == registry.names()[0] == "VQGAN-CLIP"
    assert registry.run_class("VQGAN-CLIP") is VQGANCLIPRun


@pytest.mark.parametrize("name", registry.ENGINES)
def test_a_run_takes_the_settings_of_its_engine(name: str) -> None:
    assert registry.run_class(name).Settings is registry.get(name).settings
    assert registry.unavailable(name) == ""


def test_settings_without_what_every_engine_needs_are_refused() -> None:
    with pytest.raises(TypeError, match="lacks set_seed, seed, checkpoint_seconds"):

        class Few(RunSettings):
            num_steps: int = common.num_steps(4)


@pytest.mark.parametrize("words", [["--engine", "Dall-E"], ["--engine=Dall-E"]])
def test_an_unknown_engine_lists_those_known(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no engine 'Dall-E'. There are: VQGAN-CLIP"):
        parsed("a cat", *words, output_dir=tmp_path)


def test_its_settings_become_options_and_its_run_runs(grey: None, tmp_path: Path) -> None:
    request = parsed("--engine", "Grey", "--darkness", "0.25", output_dir=tmp_path)
    details = computed(request, tmp_path).read()
    assert (details["model"], details["darkness"], details["num_steps"]) == ("Grey", 0.25, 4)
    assert "text_input" not in details and details["losses"] == {}


def test_its_own_defaults_rank_above_those_of_others(grey: None, tmp_path: Path) -> None:
    request = parsed("--engine", "Grey", output_dir=tmp_path)
    assert prepare(request).settings.num_steps == 4


def test_its_ranges_are_kept(grey: None, tmp_path: Path) -> None:
    request = parsed("--engine", "Grey", "--darkness", "2", output_dir=tmp_path)
    with pytest.raises(BadInput, match="darkness"):
        prepare(request)


@pytest.mark.parametrize("words", [["--cutn", "3"], ["a cat"]])
def test_options_of_other_engines_are_not_its_own(
    grey: None, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"--cutn|one word too many"):
        parsed(*words, "--engine", "Grey", output_dir=tmp_path)


@pytest.mark.parametrize("option", ["--settings", "--continue-run"])
def test_settings_of_a_run_bring_its_engine(grey: None, option: str, tmp_path: Path) -> None:
    request = parsed("--engine", "Grey", "--darkness", "0.25", output_dir=tmp_path)
    folder = computed(request, tmp_path)
    value = str(folder.path / "output.PNG") if option == "--settings" else folder.run_id
    plan = prepare(parsed(option, value, output_dir=tmp_path))
    assert plan.engine == "Grey" and plan.settings.model_dump()["darkness"] == 0.25


def test_settings_of_an_engine_that_is_gone_say_so(
    grey: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = computed(parsed("--engine", "Grey", output_dir=tmp_path), tmp_path)
    monkeypatch.delitem(registry.ENGINES, "Grey")
    with pytest.raises(BadInput, match=r"cannot be used here. There is no engine 'Grey'"):
        parsed("--settings", str(folder.path / "details.json"), output_dir=tmp_path)
    assert registry.find("Grey") is None


def test_another_engine_takes_over_the_picture_alone(
    grey: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.ENGINES, "Grey too", f"{__name__}:GreyEngine")
    request = parsed("--engine", "Grey", "--darkness", "0.25", output_dir=tmp_path)
    folder = computed(request, tmp_path)
    request = parsed("--engine", "Grey too", "--continue-run", folder.run_id, output_dir=tmp_path)
    plan = prepare(request)
    assert plan.engine == "Grey too" and plan.ancestors == [folder.name]
    assert plan.start is not None and plan.checkpoint is None
    assert plan.settings.model_dump()["darkness"] == 0.5


BROKEN = {
    "no module": ("nowhere.at_all:Engine", "cannot be imported.*nowhere"),
    "no such name": (f"{__name__}:Nothing", "cannot be imported.*Nothing"),
    "a library is missing": (f"{__name__}:LackingEngine", "needs no_such_library: run"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_engine_says_why_and_disturbs_no_other(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, said = BROKEN[name]
    monkeypatch.setitem(registry.ENGINES, "Broken", address)
    with pytest.raises(BadInput, match=said):
        prepare(parsed("--engine", "Broken", output_dir=tmp_path))
    assert registry.unavailable("VQGAN-CLIP") == ""
    assert prepare(parsed("a cat", output_dir=tmp_path)).engine == "VQGAN-CLIP"


def test_a_queued_run_of_an_engine_that_is_gone_fails_with_the_reason(
    grey: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = submit(prepare(parsed("--engine", "Grey", output_dir=tmp_path)))
    monkeypatch.delitem(registry.ENGINES, "Grey")
    with pytest.raises(BadInput, match="no engine 'Grey'"):
        execute(folder, assets_dir=tmp_path)
    assert folder.read()["status"] == "failed" and "no engine 'Grey'" in folder.read()["error"]


WRONG_STEPS = {
    "no index": {"index": 0},
    "a float picture": {"picture": np.zeros((4, 4, 3))},
    "a grey picture": {"picture": np.zeros((4, 4), np.uint8)},
    "two sizes": {"pictures": [np.zeros((4, side, 3), np.uint8) for side in (4, 5)]},
}


@pytest.mark.parametrize("name", WRONG_STEPS)
def test_a_step_that_breaks_the_contract_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"steps count from 1|uint8 \[H, W, 3\]|differ in size"):
        Step(**{"index": 1} | WRONG_STEPS[name])


class GrowingRun(GreyRun):
    def iterate(self) -> Step:
        self.steps += 1
        return Step(self.steps, np.zeros((16, 16 * self.steps, 3), np.uint8))


class GrowingEngine(GreyEngine):
    run = f"{__name__}:GrowingRun"


def test_pictures_that_change_their_size_end_the_run_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.ENGINES, "Growing", f"{__name__}:GrowingEngine")
    folder = submit(prepare(parsed("--engine", "Growing", output_dir=tmp_path)), "running")
    with pytest.raises(RunFailed, match="from 16x16 to 32x16"):
        execute(folder, assets_dir=tmp_path)
    assert folder.read()["status"] == "failed" and (folder.path / "output.PNG").is_file()


@pytest.mark.parametrize(
    ("field", "said"),
    [
        (setting(0.5, "Blur", "How soft.", le=1), "has no range"),
        (setting("a", "Word", "A word.", group="use_words"), "group that is not a setting"),
    ],
)
def test_a_declaration_that_no_form_could_show_is_refused(field: Any, said: str) -> None:
    annotation = type(field.default)
    body = {"__annotations__": {"odd": annotation}, "odd": field, "__module__": __name__}
    with pytest.raises(TypeError, match=said):
        type("OddSettings", (GreySettings,), body)


def test_a_run_whose_code_is_broken_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.ENGINES, "Broken", f"{__name__}:BrokenRunEngine")
    folder = submit(prepare(parsed("--engine", "Broken", output_dir=tmp_path)))
    with pytest.raises(BadInput, match=r"Broken cannot be .* imported \(ModuleNotFound"):
        execute(folder, assets_dir=tmp_path)
    assert folder.read()["status"] == "failed"
