"""Outpainting: a picture that grows beyond its edges."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_diffusion
from PIL import Image

from studio.base.errors import BadInput
from studio.engines.diffusion.outpainting import outpainted
from studio.making.execute import execute
from studio.making.prepare import Plan, Request, prepare
from studio.making.submit import submit
from studio.runs.storage import RunFolder


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    tiny_diffusion.write(tiny_diffusion.tiny_sd(), folder / "sd")
    tiny_diffusion.write(tiny_diffusion.tiny_sd(in_channels=9), folder / "sd9")
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Path:
    colours = np.random.default_rng(0).integers(0, 255, (5, 8, 3)).astype(np.uint8)
    picture = Image.fromarray(colours).resize((64, 40), Image.Resampling.NEAREST)
    picture.save(tmp_path / "start.png")
    return tmp_path / "start.png"


def planned(assets: Path, output: Path, **given: Any) -> Plan:
    usual = {"text_input": "a red heart", "num_steps": 4, "seed": 3, "set_seed": True}
    usual |= {"weights": "sd", "guidance_scale": 2}
    more = {name: given.pop(name) for name in ("continue_run", "settings_file") if name in given}
    usual = {} if "settings_file" in more else usual
    return prepare(Request(usual | given, output, assets, engine="Diffusion", **more))


def made(plan: Plan, assets: Path) -> RunFolder:
    folder = submit(plan, "running")
    assert execute(folder, assets_dir=assets) == "done"
    return folder


def result(folder: RunFolder) -> np.ndarray:
    return np.asarray(Image.open(folder.path / "output.PNG"))


def test_the_edge_goes_on_and_the_mask_is_white_there() -> None:
    image = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 9)
    mask = Image.fromarray(np.array([[0, 255, 0], [0, 0, 0]], np.uint8))
    larger, white = outpainted(image, mask, (2, 1), (6, 4))
    pixels, old = np.asarray(larger), np.asarray(image)
    assert pixels.shape == (4, 6, 3) and np.array_equal(pixels[1:3, 2:5], old)
    assert (pixels[0, :2] == old[0, 0]).all() and (pixels[3, 5] == old[1, 2]).all()
    kept = np.asarray(white)[..., 0]
    assert np.array_equal(kept[1:3, 2:5], np.asarray(mask))
    assert kept.sum() == 255 * (24 - 6 + 1)


@pytest.mark.parametrize("weights", ["sd", "sd9"])
def test_the_picture_grows_by_so_many_pixels(
    assets: Path, tmp_path: Path, start: Path, weights: str
) -> None:
    """Whatever size the form says; where the picture is, it stays as the decoder has it."""
    how = {"init_image": str(start), "weights": weights, "outpaint_left": 16, "outpaint_top": 24}
    plan = planned(assets, tmp_path / "output", Xdim=512, ydim=512, **how)
    folder = made(plan, assets)
    assert result(folder).shape == (64, 80, 3)
    assert (folder.read()["Xdim"], folder.read()["ydim"]) == (80, 64)
    again = made(
        planned(assets, tmp_path / "output", settings_file=folder.path / "details.json"), assets
    )
    assert np.array_equal(result(again), result(folder))


def test_only_the_margin_is_drawn(assets: Path, tmp_path: Path, start: Path) -> None:
    """Two seeds differ there, and hardly inside, where the decoder looks over the edge."""
    how = {"init_image": str(start), "outpaint_right": 64, "strength": 1.0}
    one, two = (
        result(made(planned(assets, tmp_path / "output", seed=seed, **how), assets)).astype(int)
        for seed in (1, 2)
    )
    apart = np.abs(one - two).mean(axis=(0, 2))
    assert apart[80:].mean() > 10 * max(apart[:40].mean(), 0.1)


def test_a_size_that_does_not_fit_grows_a_little_more(
    assets: Path, tmp_path: Path, start: Path
) -> None:
    plan = planned(assets, tmp_path / "output", init_image=str(start), outpaint_right=3)
    made = plan.settings.model_dump()
    assert (made["Xdim"], made["ydim"]) == (72, 40)
    assert any("67x40 became 72x40" in warning for warning in plan.warnings)


def test_a_run_that_is_continued_grows_each_time_it_is_asked_to(
    assets: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    first = made(planned(assets, output, Xdim=64, ydim=64), assets)
    wider = made(planned(assets, output, continue_run=first.name, outpaint_right=32), assets)
    assert result(wider).shape == (64, 96, 3)
    same = prepare(Request({"text_input": "a"}, output, assets, continue_run=wider.name))
    assert same.settings.model_dump()["outpaint_right"] == 0
    assert same.start and same.start.size == (96, 64)


BAD = {
    "no picture": ({"outpaint_left": 8}, "Outpainting needs a picture to go beyond: give"),
    "too much": ({"init_image": True, "outpaint_left": 4090}, "4154x40 pixels large; at most 4096"),
    "less than nothing": ({"init_image": True, "outpaint_top": -8}, "--outpaint-top"),
    "a mask of another size": (
        {"init_image": True, "outpaint_top": 8, "mask": True},
        "The mask is 32x32 pixels large, and the picture that it lies on 64x40",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_before_anything_is_made(
    assets: Path, tmp_path: Path, start: Path, name: str
) -> None:
    changes, told = BAD[name]
    given = dict(changes)
    Image.new("RGB", (32, 32)).save(tmp_path / "mask.png")
    for key, path in (("init_image", start), ("mask", tmp_path / "mask.png")):
        if key in given:
            given[key] = str(path)
    with pytest.raises(BadInput, match=told):
        planned(assets, tmp_path / "output", **given)
    assert not (tmp_path / "output").exists()
