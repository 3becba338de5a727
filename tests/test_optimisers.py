"""Every optimiser: it is the library's own, and a run with it resumes and continues exactly."""

from typing import get_args

import numpy as np
import pytest
import tiny_models
import torch
from pytorch_optimizer import AdamP, DiffGrad
from slowly import slowly

from studio.base.errors import BadInput
from studio.base.stopping import Stop
from studio.engines.arrays import to_arrays
from studio.engines.vqgan_clip import libraries, settings
from studio.engines.vqgan_clip.latent import Latent
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import reopen, submit
from studio.runs import storage
from studio.runs.checkpoints import read

NAMES = get_args(settings.Optimiser)
QUICK = ("Adam", "AdamP")
FEW = [*QUICK, *slowly(*(name for name in NAMES if name not in QUICK))]  # with whole runs
PLAIN = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "Adagrad": torch.optim.Adagrad,
    "Adamax": torch.optim.Adamax,
    "DiffGrad": lambda z, lr: DiffGrad(z, lr=lr, eps=1e-9, weight_decay=1e-9),
    "AdamP": AdamP,
    "RAdam": torch.optim.RAdam,
    "RMSprop": torch.optim.RMSprop,
}
BASE = {"text_input": "a red heart", "vqgan_ckpt": "tiny_f8", "clip_model": "tiny_clip"}
BASE |= {"Xdim": 32, "ydim": 32, "cutn": 2, "seed": 7, "checkpoint_seconds": 0}


def start() -> torch.Tensor:
    return torch.randn(1, 4, 3, 5, generator=torch.Generator().manual_seed(0))


def gradients(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 4, 3, 5, generator=torch.Generator().manual_seed(1))


def moved(latent: Latent, steps: torch.Tensor) -> Latent:
    for gradient in steps:
        latent.z.grad = gradient.clone()
        latent.move()
    return latent


@pytest.mark.parametrize("name", NAMES)
def test_it_moves_as_the_librarys_own(name):
    z = start().requires_grad_()
    plain = PLAIN[name]([z], lr=0.05)
    for gradient in gradients(5):
        z.grad = gradient.clone()
        plain.step()
    ours = moved(Latent(start(), 0.05, name), gradients(5))
    torch.testing.assert_close(ours.z, z, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_its_state_carries_on_to_the_bit(name):
    steps = gradients(6)
    straight = moved(Latent(start(), 0.05, name), steps)
    half = moved(Latent(start(), 0.05, name), steps[:3])
    kept = to_arrays(half.state())
    moved(half, steps[3:4])  # what was kept is a copy
    again = moved(Latent(torch.zeros(1, 4, 3, 5), 0.05, name).restored(kept), steps[3:])
    assert torch.equal(again.z, straight.z)
    for key, value in to_arrays(straight.state())[name.lower()].items():
        assert np.array_equal(to_arrays(again.state())[name.lower()][key], value)


@pytest.mark.parametrize("name", NAMES)
def test_a_change_of_the_step_size_counts(name):
    small, large = (Latent(start(), 0.05, name) for _ in range(2))
    large.step_size = 0.5
    ways = [(moved(latent, gradients(2)).z - start()).abs().mean() for latent in (small, large)]
    assert ways[1] > 5 * ways[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", ["no step", "step 0", "shape", "missing", "no dict"])
def test_a_strangers_state_is_refused(name, wrong):
    state = to_arrays(moved(Latent(start(), 0.05, name), gradients(1)).state())
    own = state[name.lower()]
    moment = next(key for key in own if key != "step")
    match wrong:
        case "no step":
            del own["step"]
        case "step 0":
            own["step"] = 0
        case "shape":
            own[moment] = np.zeros(3, np.float32)
        case "missing":
            del own[moment]
        case "no dict":
            state[name.lower()] = [1]
    with pytest.raises((BadInput, KeyError, ValueError, TypeError)):
        Latent(start(), 0.05, name).restored(state)


# --- whole runs ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    tiny_models.write_tiny_assets(folder)
    return folder


@pytest.fixture
def begin(tmp_path, assets):
    def begun(parent=None, **given):
        given = given if parent else BASE | given
        request = Request(given, tmp_path / "output", assets, continue_run=parent and parent.name)
        return submit(prepare(request), "running")

    return begun


def stop_after(step_index, folder, assets):
    stop = Stop()
    execute(
        folder,
        assets_dir=assets,
        stop=stop,
        on_step=lambda step: stop.request() if step.index == step_index else None,
    )


@pytest.mark.parametrize("name", FEW)
def test_a_run_that_is_stopped_resumes_exactly(name, begin, assets):
    straight, broken = begin(optimiser=name, num_steps=5), begin(optimiser=name, num_steps=5)
    execute(straight, assets_dir=assets)
    stop_after(2, broken, assets)
    assert broken.read()["num_steps"] == 2
    reopen(broken, "running")
    assert execute(broken, assets_dir=assets) == "done"
    for file in ("output.PNG", storage.CHECKPOINT):
        ours, straights = ((run.path / file).read_bytes() for run in (broken, straight))
        assert ours == straights, file


@pytest.mark.parametrize("name", FEW)
def test_n_and_then_m_steps_are_one_run(name, begin, assets):
    whole, first = begin(optimiser=name, num_steps=5), begin(optimiser=name, num_steps=2)
    for folder in (whole, first):
        execute(folder, assets_dir=assets)
    second = begin(first, num_steps=3)
    execute(second, assets_dir=assets)
    ends = [read(run.path / storage.CHECKPOINT) for run in (second, whole)]
    assert np.array_equal(ends[0].state["z"], ends[1].state["z"])
    assert np.array_equal(ends[0].picture, ends[1].picture)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Adam"])
@pytest.mark.parametrize("back", [False, True])
def test_another_optimiser_goes_on_from_the_latent_with_moments_of_its_own(
    name, back, begin, assets
):
    names = (name, "Adam") if back else ("Adam", name)
    first = begin(optimiser=names[0], num_steps=3)
    execute(first, assets_dir=assets)
    second = begin(first, optimiser=names[1], num_steps=3)
    execute(second, assets_dir=assets)
    before, after = (read(run.path / storage.CHECKPOINT) for run in (first, second))
    assert names[0].lower() not in after.state
    assert float(after.state[names[1].lower()]["step"]) == 3, "its own steps alone"
    way = np.abs(after.state["z"] - before.state["z"]).max()
    assert 0 < way < 10 * after.settings["step_size"] * 3
    assert np.isfinite(after.losses["total"])


def test_a_missing_library_is_said_before_anything_loads(begin, monkeypatch):
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"AdamP needs the library pytorch-optimizer.*make setup"):
        begin(optimiser="AdamP")
    begin(optimiser="RAdam")


def test_an_unknown_optimiser_lists_the_good_ones(begin):
    with pytest.raises(BadInput, match=r"must be Adam, AdamW, .* RAdam or RMSprop; it was SGD"):
        begin(optimiser="SGD")
