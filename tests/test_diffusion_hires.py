"""The hires fix: drawn small, enlarged, and drawn on at full size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_diffusion
import torch
from PIL import Image

from studio.base.errors import BadInput
from studio.engines.diffusion.estimate import _moves
from studio.engines.diffusion.run import DiffusionRun
from studio.engines.diffusion.settings import DiffusionSettings
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import submit

CPU = torch.device("cpu")
STEPS = 6  # of which a strength of a half leaves two for the large size
Begin = Callable[..., DiffusionRun]


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    tiny_diffusion.write(tiny_diffusion.tiny_sd(), folder / "sd")
    tiny_diffusion.write(tiny_diffusion.tiny_sd(in_channels=9), folder / "sd9")
    tiny_diffusion.write(tiny_diffusion.tiny_xl(), folder / "xl")
    return folder


@pytest.fixture
def begin(assets: Path) -> Begin:
    def begun(start: Any = None, mask: Any = None, **changes: Any) -> DiffusionRun:
        given = {"text_input": "a red heart", "num_steps": STEPS, "seed": 3, "hires_scale": 2}
        given |= {"Xdim": 64, "ydim": 48, "weights": "sd", "guidance_scale": 3}
        settings = DiffusionSettings(**(given | changes))
        images = {"start_image": start, "mask": mask}
        run = DiffusionRun(settings, assets_dir=assets, device=CPU, **images)
        run.load_model()
        run.model_init()
        return run

    return begun


def steps(run: DiffusionRun, count: int = STEPS) -> list[Any]:
    return [run.iterate() for _ in range(count)]


def test_the_picture_grows_after_its_small_steps(begin: Begin) -> None:
    made = steps(begin())
    assert [step.pictures[0].shape for step in made] == [(48, 64, 3)] * 4 + [(96, 128, 3)] * 2
    assert {step.grows_to for step in made} == {(128, 96)}
    small = steps(begin(hires_scale=1, num_steps=4), 4)
    assert small[0].grows_to is None
    for step, alone in zip(made[:3], small, strict=False):
        assert np.array_equal(step.picture, alone.picture)


@pytest.mark.parametrize("sampler", ["DDIM", "DPM++ 2M", "Euler a", "Heun"])
def test_the_end_is_img2img_of_the_enlarged_picture(begin: Begin, sampler: str) -> None:
    """A run of its own that starts from it, with the random numbers that come next."""
    run = begin(sampler=sampler)
    steps(run, 4)
    small = Image.fromarray(
        steps(begin(sampler=sampler, hires_scale=1, num_steps=4), 4)[-1].picture
    )
    large = small.resize((128, 96), Image.Resampling.LANCZOS)
    how = {"hires_scale": 1, "Xdim": 128, "ydim": 96, "num_steps": 4, "strength": 0.5}
    other = begin(large, sampler=sampler, **how)
    generator = torch.Generator()
    generator.set_state(run._drawings[0].generator.get_state())
    other._begin_with([generator])
    ours, theirs = steps(run, 2)[-1].picture, steps(other, 4)[-1].picture
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


@pytest.mark.parametrize("done", [2, 4, 5])
@pytest.mark.parametrize("upscaler", ["latent", "lanczos", "animevideov3"])
def test_a_resumed_run_has_the_same_bytes(begin: Begin, upscaler: str, done: int) -> None:
    """Stopped before, between and after."""
    how = {"hires_upscaler": upscaler, "sampler": "Euler a", "pictures": 2}
    straight = steps(begin(**how))[-1].pictures
    broken = begin(**how)
    steps(broken, done)
    resumed = begin(**how)
    resumed.load_state_dict(broken.state_dict())
    rest = steps(resumed, STEPS - done)[-1].pictures
    assert all(np.array_equal(a, b) for a, b in zip(rest, straight, strict=True))


@pytest.mark.parametrize("weights", ["sd", "sd9", "xl"])
def test_around_a_mask_the_picture_stays(begin: Begin, weights: str) -> None:
    start = Image.new("RGB", (64, 48), "teal")
    mask = Image.new("RGB", (64, 48))
    mask.paste("white", (0, 0, 24, 48))
    made = steps(begin(start, mask, weights=weights, hires_upscaler="latent", strength=1.0))
    assert made[-1].picture.shape == (96, 128, 3)


def test_more_steps_draw_it_again(begin: Begin) -> None:
    short = begin()
    steps(short)
    again = begin(num_steps=9)
    again.continue_from(short.state_dict(), "exactly", reseed=False)
    assert np.array_equal(steps(again, 9)[-1].picture, steps(begin(num_steps=9), 9)[-1].picture)


def test_a_run_keeps_the_large_picture_and_a_film_of_one_size(assets: Path, tmp_path: Path) -> None:
    given = {"text_input": "a", "weights": "sd", "num_steps": 4, "Xdim": 64, "ydim": 64}
    plan = prepare(Request(given | {"hires_scale": 1.5}, tmp_path, assets, engine="Diffusion"))
    folder = submit(plan, "running")
    assert execute(folder, assets_dir=assets) == "done"
    assert Image.open(folder.path / "output.PNG").size == (96, 96)
    assert (folder.path / "anim.mp4").stat().st_size > 0


@pytest.mark.parametrize(
    ("steps", "strength", "small", "large"),
    [(30, 0.5, 20, 10), (30, 1.0, 15, 15), (20, 0.25, 16, 4), (2, 0.5, 1, 1), (3, 0.01, 2, 1)],
)
def test_how_the_steps_are_shared(steps: int, strength: float, small: int, large: int) -> None:
    how: Any = {"text_input": "a", "num_steps": steps, "hires_scale": 2, "hires_strength": strength}
    settings = DiffusionSettings(**how)
    assert (settings.small_steps, settings.hires_steps) == (small, large)
    assert _moves(settings.model_dump() | {"sampler": "Euler"}) == (small, large)


BAD = {
    "one step": ({"num_steps": 1}, "needs 2 steps or more"),
    "too large": ({"hires_scale": 8, "Xdim": 1024}, "it would be|would be 8192x"),
    "no such upscaler": ({"hires_upscaler": "no"}, "There is no upscaler 'no'. There are:"),
    "no strength": ({"hires_strength": 0}, "--hires-strength"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_before_anything_is_made(name: str, assets: Path, tmp_path: Path) -> None:
    changes, told = BAD[name]
    given = {"text_input": "a", "weights": "sd", "hires_scale": 2} | changes
    with pytest.raises(BadInput, match=told):
        prepare(Request(given, tmp_path / "output", assets, engine="Diffusion"))
    assert not (tmp_path / "output").exists()
