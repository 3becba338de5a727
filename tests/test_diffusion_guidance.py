"""CLIP guidance of Diffusion, and the steps that a starting image leaves out."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_diffusion
import tiny_models
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from studio.base.errors import BadInput
from studio.engines.clip.prompts import Prompt
from studio.engines.device import FULL_PRECISION
from studio.engines.diffusion import models
from studio.engines.diffusion.clip_prompts import clip_prompts, denoiser_prompt
from studio.engines.diffusion.denoiser import Denoiser
from studio.engines.diffusion.run import DiffusionRun
from studio.engines.diffusion.settings import DiffusionSettings
from studio.engines.gradients import clamp_with_gradient
from studio.engines.random_stream import RandomStream
from studio.making.prepare import Request, prepare
from studio.settings.values import make

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
STEPS = 4
KINDS = {
    "sd": lambda: tiny_diffusion.tiny_sd(),
    "v": lambda: tiny_diffusion.tiny_sd(prediction_type="v_prediction"),
    "sample": lambda: tiny_diffusion.tiny_sd(prediction_type="sample"),
    "xl": lambda: tiny_diffusion.tiny_xl(),
    "sd9": lambda: tiny_diffusion.tiny_sd(in_channels=9),
    "lcm": lambda: tiny_diffusion.tiny_sd(time_cond_proj_dim=32),
}
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
Begin = Callable[..., DiffusionRun]


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    for kind, build in KINDS.items():
        tiny_diffusion.write(build(), folder / kind)
    (folder / "emoji_clip.pt").symlink_to(ROOT / "assets" / "emoji_clip.pt")
    torch.save(tiny_models.clip_state_dict(), folder / "tiny_clip.pt")
    return folder


@pytest.fixture(scope="module")
def ink(assets: Path) -> None:
    """A LoRA."""
    draw = torch.Generator().manual_seed(1)
    layer = tiny_diffusion.tiny_sd().unet.get_submodule(LAYER)
    out, into = layer.weight.shape
    matrices = {
        f"unet.{LAYER}.lora_A.weight": torch.randn(2, into, generator=draw),
        f"unet.{LAYER}.lora_B.weight": torch.randn(out, 2, generator=draw),
    }
    (assets / "loras").mkdir()
    save_file(matrices, assets / "loras" / "ink.safetensors")


@pytest.fixture
def begin(assets: Path) -> Begin:
    def begun(
        start: Any = None, prompts: Any = (), weights_of_images: Any = (), **changes: Any
    ) -> DiffusionRun:
        given = {"text_input": "a red heart", "num_steps": STEPS, "seed": 3, "clip_guidance": 500}
        given |= {"Xdim": 64, "ydim": 64, "weights": "sd", "clip_model": "tiny_clip", "cutn": 6}
        settings = DiffusionSettings(**(given | changes))
        images = {"start_image": start, "image_prompts": prompts}
        images["image_weights"] = weights_of_images
        run = DiffusionRun(settings, assets_dir=assets, device=CPU, **images)
        run.load_model()
        run.model_init()
        return run

    return begun


def steps(run: DiffusionRun, count: int = STEPS) -> list[Any]:
    return [run.iterate() for _ in range(count)]


def blue() -> Image.Image:
    return Image.new("RGB", (64, 64), (20, 30, 220))


@pytest.mark.parametrize(
    ("kind", "sampler"), [*((k, "DPM++ 2M") for k in KINDS), ("sd", "Euler a"), ("v", "Heun")]
)
def test_guidance_brings_the_picture_nearer(begin: Begin, kind: str, sampler: str) -> None:
    """By the bundled CLIP: the tiny one knows nothing. One picture alone depends on chance."""
    how = {"weights": kind, "sampler": sampler, "clip_model": "emoji_clip", "pictures": 3}
    off, on = (steps(begin(clip_guidance=n, **how))[-1].losses for n in (1e-9, 5000))
    assert set(on) == {"text", "total"}
    assert on["total"] < off["total"]


def test_without_guidance_nothing_is_different(begin: Begin) -> None:
    off, on = (steps(begin(clip_guidance=n))[-1] for n in (0, 500))
    other = steps(begin(clip_guidance=0, cutn=3, clip_model="none"))[-1]
    assert off.losses == {} and np.array_equal(off.picture, other.picture)
    assert not np.array_equal(off.picture, on.picture)


@pytest.mark.parametrize("kind", ["sd", "v", "sample"])
def test_the_noise_grows_by_the_gradient_of_the_whole(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The slow, obvious way: one graph from the noisy latent to the loss."""
    monkeypatch.setattr(models, "compute_precision", lambda _: FULL_PRECISION)
    run = begin(weights=kind, num_steps=8)
    steps(run, 4)
    drawing, clip, place = run._drawings[0], run._clip, 4
    assert clip is not None
    schedule, seed = drawing.schedule, torch.Generator().manual_seed(5)

    def predict(latent: Tensor) -> Tensor:
        time = schedule.timesteps[place]
        texts = run._script.at(place + 1)
        return run._denoiser.predict(latent, time, texts, run.settings.guidance_scale)

    scaled = schedule.scaled(drawing.latent, place)
    found, losses = clip.guided(predict, scaled, schedule, place, torch.Generator().manual_seed(5))

    latent = scaled.clone().requires_grad_()
    a = float(schedule.scheduler.alphas_cumprod[int(schedule.timesteps[place])])
    said = predict(latent)
    clean = {
        "sd": lambda: (latent - math.sqrt(1 - a) * said) / math.sqrt(a),
        "v": lambda: math.sqrt(a) * latent - math.sqrt(1 - a) * said,
        "sample": lambda: said,
    }[kind]()
    picture = clamp_with_gradient(run._canvas.decoded(clean))
    with RandomStream(int(torch.randint(2**31, (), generator=seed))):
        slope, wanted = clip.comparison.differentiate(picture, 6)
    (slope,) = torch.autograd.grad(picture, latent, slope)
    guess = schedule.without_noise(said.detach(), scaled, place)
    nearer = guess - clip.scale * (1 - a) / math.sqrt(a) * slope
    moved = schedule.without_noise(found, scaled, place)
    assert losses["text"] == pytest.approx(float(wanted["text"]), rel=1e-4)
    assert (moved - guess).abs().max() > 1e-3
    torch.testing.assert_close(moved, nearer, atol=1e-4, rtol=1e-3)


def test_any_scale_leaves_a_picture(begin: Begin) -> None:
    picture = steps(begin(clip_guidance=100_000))[-1].picture
    assert picture is not None and picture.std() > 5


def test_image_prompts_pull_and_repel(begin: Begin) -> None:
    how = {
        "text_input": "",
        "image_prompt": ["a.png"],
        "prompts": [blue()],
        "clip_model": "emoji_clip",
    }
    near, away = (begin(clip_guidance=1000, weights_of_images=[w], **how) for w in (1.0, -1.0))
    ends = [steps(run)[-1] for run in (near, away)]
    assert all(set(end.losses) == {"image", "total"} for end in ends)
    assert ends[0].losses["image"] < -ends[1].losses["image"] - 0.02


def test_several_pictures_are_those_made_alone(begin: Begin) -> None:
    together = steps(begin(pictures=2, sampler="Euler a"))[-1].pictures
    alone = [steps(begin(seed=seed, sampler="Euler a"))[-1].picture for seed in (3, 4)]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "Euler a", "Heun"])
def test_a_resumed_run_has_the_same_bytes(begin: Begin, sampler: str) -> None:
    straight = steps(begin(sampler=sampler))
    broken = begin(sampler=sampler)
    steps(broken, 2)
    resumed = begin(sampler=sampler)
    resumed.load_state_dict(broken.state_dict())
    rest = steps(resumed, 2)
    assert np.array_equal(rest[-1].picture, straight[-1].picture)
    assert rest[-1].losses == straight[-1].losses


@pytest.mark.parametrize("sampler", ["DDIM", "Euler a"])
def test_a_run_resumed_after_a_starting_image_has_the_same_latent(
    begin: Begin, sampler: str
) -> None:
    """To the last bit, which pictures do not show: a checkpoint keeps no order of memory."""
    noisy = Image.effect_noise((64, 64), 80).convert("RGB")
    how = {"sampler": sampler, "strength": 1.0}
    straight, resumed = begin(noisy, **how), begin(noisy, **how)
    steps(straight, 2)
    resumed.load_state_dict(straight.state_dict())
    steps(straight, 2)
    steps(resumed, 2)
    assert torch.equal(resumed._drawings[0].latent, straight._drawings[0].latent)


CHANGES = {
    "guidance": {"clip_guidance": 500.0},
    "guidance, its grammar and a LoRA": {
        "clip_guidance": 500.0,
        "text_input": "a [cat:dog:0.75]:2 | text:-1 | <lora:ink:1>",
    },
    "what is to be avoided": {"clip_guidance": 0.0, "negative_prompt": "a cat"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_aim_changes_while_a_run_is_made(begin: Begin, ink: None, name: str) -> None:
    run, changes = begin(clip_guidance=0), CHANGES[name]
    steps(run, 2)
    state = run.state_dict()
    run.change(run.settings.model_copy(update=changes))
    other, same = begin(**changes), begin(clip_guidance=0)
    other.load_state_dict(state)
    same.load_state_dict(state)
    changed = steps(run, 2)[-1].picture
    assert np.array_equal(changed, steps(other, 2)[-1].picture)
    assert not np.array_equal(changed, steps(same, 2)[-1].picture)


def test_loras_guidance_and_the_hires_fix_share_one_count_of_steps(
    begin: Begin, ink: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four small steps and two large ones; a dog from half of all six on."""
    told: list[Any] = []
    predict = Denoiser.predict

    def noted(self: Denoiser, latent: Tensor, time: Tensor, texts: Any, guidance: float) -> Tensor:
        told.append((texts.prompt.tokens, latent.shape[-1]))
        return predict(self, latent, time, texts, guidance)

    monkeypatch.setattr(Denoiser, "predict", noted)
    words = "a [cat:dog:0.5]:2 | text:-1"
    how = {"sampler": "DDIM", "num_steps": 6, "hires_scale": 1.5}
    with_lora = {"text_input": f"{words} | <lora:ink:1:1>"} | how
    straight = steps(begin(**with_lora), 6)
    cat, dog = (
        begin(text_input=f"a {word} | <lora:ink:1:1>")._script.at(1).prompt.tokens
        for word in ("cat", "dog")
    )
    wanted = [(cat, 8)] * 3 + [(dog, 8)] + [(dog, 12)] * 2
    assert len(told) == len(wanted)
    for (tokens, width), (expected, expected_width) in zip(told, wanted, strict=True):
        assert width == expected_width and torch.equal(tokens, expected)
    broken, resumed = begin(**with_lora), begin(**with_lora)
    steps(broken, 5)
    resumed.load_state_dict(broken.state_dict())
    assert np.array_equal(steps(resumed, 1)[-1].picture, straight[-1].picture)
    assert not np.array_equal(
        steps(begin(text_input=words, **how), 6)[-1].picture, straight[-1].picture
    )


def test_the_grammar_of_prompts() -> None:
    text = r"a (red:1.3) heart:2 | text:-1 | [cat:dog:0.5] \(x\) <lora:y:0.5>"
    assert clip_prompts(text) == [
        Prompt("a red heart", 2.0),
        Prompt("text", -1.0),
        Prompt("dog (x)", 1.0),
    ]
    text = "a red heart:2 | text:-1 | a (blue:1.2) fish"
    assert denoiser_prompt(text, 100) == "a red heart, a (blue:1.2) fish"
    assert denoiser_prompt(text, 0) == text
    assert clip_prompts("") == [] and denoiser_prompt("", 100) == ""


def test_a_repelled_prompt_is_not_read_by_the_denoiser(begin: Begin) -> None:
    run, plain = begin(text_input="a red heart | text:-1"), begin()
    assert torch.equal(run._script.at(1).prompt.tokens, plain._script.at(1).prompt.tokens)


# --- skipped steps ----------------------------------------------------------------------------


def test_so_many_of_the_first_steps_are_left_out(begin: Begin) -> None:
    """Two of four are what a strength of a half leaves out."""
    skipped = steps(begin(blue(), clip_guidance=0, skip_timesteps=2, strength=1.0))
    strength = steps(begin(blue(), clip_guidance=0, strength=0.5))
    assert [len(step.pictures) for step in skipped] == [0, 0, 1, 1]
    assert np.array_equal(skipped[-1].picture, strength[-1].picture)


def test_more_steps_draw_what_a_new_run_draws(begin: Begin) -> None:
    """Three of ten are skipped, and five of twenty: the share is not that of the first run."""
    short = begin(blue(), clip_guidance=0, num_steps=10, strength=0.75)
    steps(short, 10)
    again = begin(blue(), clip_guidance=0, num_steps=20, strength=0.75)
    again.continue_from(short.state_dict(), "exactly", reseed=False)
    straight = begin(blue(), clip_guidance=0, num_steps=20, strength=0.75)
    assert np.array_equal(steps(again, 20)[-1].picture, steps(straight, 20)[-1].picture)


# --- before anything loads --------------------------------------------------------------------

BAD = {
    "an image prompt alone": ({"image_prompt": ["a.png"], "clip_guidance": 0}, "without CLIP"),
    "every step left out": ({"init_image": "a.png", "skip_timesteps": 4}, "less than 4"),
    "a guidance below 0": ({"clip_guidance": -1}, "0 to 100000"),
    "a CLIP that is not there": ({"clip_model": "no"}, "There is no CLIP 'no'. In"),
    "a weight without text": ({"text_input": ":2"}, "a weight but no text"),
    "a number that is none": ({"text_input": "a:nan"}, "nan"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_before_anything_is_made(name: str, assets: Path, tmp_path: Path) -> None:
    blue().save(tmp_path / "a.png")
    changes, told = BAD[name]
    given = {"text_input": "a", "num_steps": 4, "weights": "sd", "clip_guidance": 100}
    given |= {"clip_model": "tiny_clip"} | changes
    if "init_image" in given:
        given["init_image"] = str(tmp_path / "a.png")
    with pytest.raises(BadInput, match=told.replace(".", r"\.")):
        prepare(Request(given, tmp_path / "output", assets, engine="Diffusion"))
    assert not (tmp_path / "output").exists()


def test_what_is_ignored_is_said(assets: Path, ink: None) -> None:
    given = {"text_input": "a", "num_steps": 4, "weights": "sd", "clip_model": "tiny_clip"}
    _, said = make(DiffusionSettings, given | {"skip_timesteps": 2}).fitted(assets)
    assert said == ["'Skip timesteps' is ignored: there is no starting image."]
    lora = given | {"clip_guidance": 9, "text_input": "<lora:ink:1>"}
    assert make(DiffusionSettings, lora).fitted(assets)[1] == [
        "'CLIP guidance' is ignored: there is no prompt."
    ]


def test_small_weights_are_guided_by_the_clip_beside_them(assets: Path) -> None:
    assert DiffusionSettings.recommended({"weights": "sd"}, assets)["clip_model"] == "emoji_clip"
