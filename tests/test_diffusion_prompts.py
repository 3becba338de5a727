"""Prompts in runs of the engine Diffusion: what is shared, weighed, scheduled and refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny_diffusion
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.base.errors import BadInput
from studio.engines.diffusion.run import DiffusionRun
from studio.engines.diffusion.settings import DiffusionSettings
from studio.making import recipes
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import submit
from studio.media import picture_files
from studio.media.parameters_text import parameters_in
from studio.media.planes import read_planes


def written(folder: Path, **details: Any) -> Path:
    path = folder / "details.json"
    path.write_text(json.dumps({"schema_version": 1, **details}))
    return path


@pytest.mark.parametrize(
    ("made_by", "given", "engine", "expected"),
    [
        ("VQGAN-CLIP", {"avoid": "fog"}, "Diffusion", {"negative_prompt": "fog"}),
        ("VQGAN-CLIP", {"avoid": ""}, "Diffusion", {}),
        ("Diffusion", {"negative_prompt": "fog"}, "VQGAN-CLIP", {"avoid": "fog"}),
        ("Diffusion", {"negative_prompt": "fog"}, "Diffusion", {"negative_prompt": "fog"}),
        ("Diffusion", {"guidance_scale": 3.0}, "VQGAN-CLIP", {}),
    ],
)
def test_engines_share_what_is_to_be_avoided_by_their_own_names(
    made_by: str, given: dict[str, Any], engine: str, expected: dict[str, Any], tmp_path: Path
) -> None:
    path = written(tmp_path, model=made_by, text_input="a heart", Xdim=64, ydim=72, **given)
    values = recipes.from_file(path, tmp_path, engine).values
    assert values == {"text_input": "a heart", "Xdim": 64, "ydim": 72} | expected


# --- pictures of other web UIs, and ours for them ----------------------------------------------

PARAMETERS = (
    "a (red:1.2) cat\nNegative prompt: fog\nSteps: 9, Sampler: Euler a, CFG scale: 5.5, Seed: 7,"
    " Size: 96x64, Model hash: 12ab, Model: sd, Mask blur: 4, ENSD: 31337, Version: v1.9.4"
)
TAKEN = {
    **{"text_input": "a (red:1.2) cat", "negative_prompt": "fog", "num_steps": 9, "seed": 7},
    **{"sampler": "Euler a", "guidance_scale": 5.5, "set_seed": True, "Xdim": 96, "ydim": 64},
}


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    tiny_diffusion.write(tiny_diffusion.tiny_sd(), folder / "sd")
    return folder


def foreign(folder: Path, kind: str, text: str = PARAMETERS) -> Path:
    path, image, exif = folder / f"foreign.{kind}", Image.new("RGB", (8, 8)), Image.Exif()
    chunks = PngInfo()
    chunks.add_text("parameters", text)
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-be")
    how: dict[str, Any] = {"pnginfo": chunks} if kind == "png" else {"exif": exif}
    image.save(path, **how)
    return path


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_a_picture_of_another_web_ui_brings_its_settings(
    kind: str, assets: Path, tmp_path: Path
) -> None:
    path = foreign(tmp_path, kind)
    assert recipes.engine_in(path) == "Diffusion"
    recipe = recipes.from_file(path, tmp_path, "Diffusion", assets_dir=assets)
    assert recipe.values == TAKEN | {"weights": "sd"}
    taken, left = recipe.said
    assert "another web UI" in taken and "Negative prompt" in taken
    assert left.startswith("Left out: Mask blur, ENSD (random numbers")
    plan = prepare(Request({}, tmp_path / "output", assets, settings_file=path))
    assert plan.engine == "Diffusion" and left in plan.warnings
    assert plan.settings.model_dump().items() >= TAKEN.items()


def test_another_engine_takes_the_words_of_such_a_picture(assets: Path, tmp_path: Path) -> None:
    values = recipes.from_file(foreign(tmp_path, "png"), tmp_path, "VQGAN-CLIP").values
    assert values == {"text_input": "a (red:1.2) cat", "avoid": "fog", "Xdim": 96, "ydim": 64}


def test_a_picture_without_settings_says_so(tmp_path: Path) -> None:
    path = foreign(tmp_path, "png", " ")
    with pytest.raises(BadInput, match=r"neither the output.PNG of a run nor a picture with `para"):
        recipes.engine_in(path)
    with pytest.raises(BadInput, match="neither the output"):
        recipes.engine_in(foreign(tmp_path, "jpg", "Screenshot: of today"))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(BadInput, match="broken"):
        recipes.engine_in(path)


def test_pictures_carry_their_settings_for_other_programs(assets: Path, tmp_path: Path) -> None:
    """Each its own seed; ours stay beside, and go along into a JPEG."""
    given = {"text_input": "a (red:1.2) cat é猫", "negative_prompt": "fog", "weights": "sd"}
    given |= {"num_steps": "2", "Xdim": "64", "ydim": "64", "pictures": "2", "seed": "7"}
    plan = prepare(Request(given, tmp_path, assets, engine="Diffusion"))
    folder = submit(plan)
    execute(folder, assets_dir=assets)
    for number, seed in (("", 7), ("-2", 8)):
        (path,) = folder.path.glob(f"output{number}.PNG")
        jpeg = tmp_path / f"copy{number}.jpg"
        planes = read_planes(path)
        picture_files.write(jpeg, (64, 64), [planes.pixels], planes)
        with Image.open(path) as image, Image.open(jpeg) as copied:
            told = image.info["parameters"]
            assert parameters_in(copied) == told
            comment = copied.getexif().get_ifd(0x8769)[0x9286]
            assert comment.removeprefix(b"UNICODE\0").decode("utf-16-be") == told
        assert told.startswith("a (red:1.2) cat é猫\nNegative prompt: fog\nSteps: 2, Sampler: ")
        assert f"Seed: {seed}, Size: 64x64, Model: sd" in told
        for file in (path, jpeg):
            assert recipes.from_file(file, tmp_path, "Diffusion").values["seed"] == 7


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a (cat", r"The bracket \( in “a \(cat” has no partner, so it is read as text"),
        ("a [cat:dog", "has no partner"),
        ("((((a", "4 brackets have no partner"),
        ("a cat)", "has no partner"),
        ("a <hypernet:x:1>", "is left out: there are only LoRAs"),
        ("a <clay>", "There is no textual inversion clay in .*embeddings.* There are: none"),
        ("word " * 4000, None),
        ("(" * 20_000, "20000 brackets have no partner"),
        ("[a|" * 6_000, "brackets have no partner"),
    ],
)
def test_odd_prompts_are_drawn_and_said(
    prompt: str, said: str | None, assets: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"text_input": prompt, "weights": "sd"}
    assert prepare(Request(given, tmp_path / "output", assets, engine="Diffusion"))
    settings = DiffusionSettings(**given, num_steps=1, Xdim=32, ydim=32)
    run = DiffusionRun(settings, assets_dir=assets, device=torch.device("cpu"))
    run.load_model()
    run.model_init()
    assert run.iterate().picture is not None
    told = " ".join(run.warnings)
    assert re.search(said, told) if said else not told


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a <lora:gone:1>", "There is no LoRA 'gone' in .*loras. There are: none."),
        ("a <lora:x:much>", "is not a LoRA with its weight. Write it as <lora:name:0.8>"),
        ("a <lora:x:1e9>", "The LoRA 'x' has the weight 1e"),
        ("(a:99999999)", "Use a number from -10000 to 10000"),
        ("a AND " * 40 + "b", "joins 41 prompts by AND. Join at most 32"),
        ("x" * 100_001, "text of at most 100,000 characters"),
    ],
)
def test_prompts_that_are_refused(prompt: str, said: str, assets: Path, tmp_path: Path) -> None:
    given = {"text_input": prompt, "weights": "sd"}
    with pytest.raises(BadInput, match=said):
        prepare(Request(given, tmp_path / "output", assets, engine="Diffusion"))
