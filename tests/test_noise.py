"""Noise prompts, and pictures of noise to begin from."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
import torch.nn.functional as F
from PIL import Image

from logic import VQGANCLIPRun
from studio.base.errors import BadInput
from studio.engines.vqgan_clip import noise
from studio.engines.vqgan_clip.noise_prompts import NoisePrompt, parse_noise_prompts
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.settings.values import make

BASE = {"text_input": "a red heart", "vqgan_ckpt": "tiny_f8", "clip_model": "tiny_clip"}
BASE |= {"Xdim": 48, "ydim": 40, "cutn": 4, "seed": 3}
KINDS = ("pixels", "gradient", "fractal")


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    tiny_models.write_tiny_assets(folder)
    return folder


def ready(assets: Path, start_image: Image.Image | None = None, **changes) -> VQGANCLIPRun:
    chosen, device = make(VQGANCLIPSettings, BASE | changes), torch.device("cpu")
    run = VQGANCLIPRun(chosen, assets_dir=assets, device=device, start_image=start_image)
    run.load_model()
    run.model_init()
    return run


# --- noise prompts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "prompts"),
    [
        ("123:0.1", [(123, 0.1)]),
        ("7", [(7, 1)]),
        (" 7 : -2 ", [(7, -2)]),
        ("123:0.1|234:0.2", [(123, 0.1), (234, 0.2)]),
        (["123:0.1", "1 | 2:3"], [(123, 0.1), (1, 1), (2, 3)]),
        ([str(2**64 - 1)], [(2**64 - 1, 1)]),
        ("", []),
        ("|", []),
    ],
)
def test_prompts_are_seeds_with_weights(texts, prompts) -> None:
    assert parse_noise_prompts(texts) == [NoisePrompt(*prompt) for prompt in prompts]
    settings = make(VQGANCLIPSettings, BASE | {"noise_prompt": texts})
    assert parse_noise_prompts(settings.noise_prompt) == parse_noise_prompts(texts)
    assert all("|" not in text for text in settings.noise_prompt)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x:1", "'x:1' has no seed, a whole number from 0 to 18446744073709551615"),
        ("-1:1", "has no seed"),
        ("1.5:1", "has no seed"),
        (f"{2**64}", "has no seed"),
        ("9" * 5000, "has no seed"),
        ("²:1", "has no seed"),
        ("1:", "'1:' has no weight after the seed. Write it as SEED:WEIGHT, such as 123:0.1"),
        ("1:much", "has no weight"),
        ("1:2:3", "has no weight"),
        ("1:nan", "has the weight nan. Use a number from -10000 to 10000"),
        ("1:1e9", "has the weight 1e+09"),
        ("|".join(["1"] * 101), "There are 101 noise prompts. Give at most 100"),
    ],
)
def test_mistakes_are_explained(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=f"--noise-prompt must be .*{re.escape(said)}"):
        make(VQGANCLIPSettings, BASE | {"noise_prompt": [text]})


def test_a_noise_prompt_alone_is_something_to_aim_at() -> None:
    make(VQGANCLIPSettings, {"noise_prompt": ["1"]})
    with pytest.raises(BadInput, match="No prompt"):
        make(VQGANCLIPSettings, {"noise_prompt": [" "]})


def test_an_embedding_is_the_seeds_alone() -> None:
    generator = torch.Generator().manual_seed(123)
    plain = torch.empty(1, 64).normal_(generator=generator)
    before = torch.get_rng_state()
    torch.testing.assert_close(noise.embedding(123, 64), plain / plain.norm())
    assert torch.equal(torch.get_rng_state(), before)
    apart = [noise.embedding(seed, 512)[0] for seed in (1, 2, 2**64 - 1)]
    assert (torch.corrcoef(torch.stack(apart)) - torch.eye(3)).abs().max() < 0.2


def test_the_loss_is_the_prompts_distance(assets: Path) -> None:
    run = ready(assets, noise_prompt=["123:0.5", "4:-0.25"], use_cutout_augmentations=False)
    plain = ready(assets, use_cutout_augmentations=False)
    losses, without = run.iterate().losses, plain.iterate().losses
    assert losses["text"] == pytest.approx(without["text"])
    # The windows and the first picture, once more.
    again = ready(assets, use_cutout_augmentations=False)
    with again._random:
        windows, _, seed = again._comparison._draw(40, 48)
        picture = again._canvas.decode(again._latent.z.detach())
        cutouts = again._comparison._cutouts(picture, slice(0, 4), windows, None, seed)
    images, expected = again.perceptor.encode_image(cutouts), 0.0
    for number, weight in ((123, 0.5), (4, -0.25)):
        target = F.normalize(torch.randn(1, 64, generator=torch.Generator().manual_seed(number)))
        half = (images - target).norm(dim=-1) / 2
        expected += abs(weight) * (2 * half.arcsin() ** 2 * math.copysign(1, weight)).mean().item()
    assert losses["noise"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("weight", ["1", "-1"])
def test_a_noise_prompt_pulls_or_repels(weight: str, assets: Path) -> None:
    same_views = {"use_cutout_augmentations": False, "whole_views": 1}
    run = ready(assets, text_input="", noise_prompt=[f"5:{weight}"], **same_views)
    losses = [run.iterate().losses["noise"] for _ in range(12)]
    assert losses[-1] < losses[0] and losses[0] * float(weight) > 0


# --- pictures to begin from ------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(40, 48), (8, 8), (128, 16), (17, 200)])
def test_pictures_of_noise_are_in_range_and_of_the_seed(kind: str, height: int, width: int) -> None:
    def made(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return noise.PICTURES[kind](height, width)

    picture = made(0)
    assert picture.shape == (1, 3, height, width)
    assert picture.min() >= 0 and picture.max() <= 1 and picture.std() > 0
    assert torch.equal(made(0), picture) and not torch.equal(made(1), picture)


def test_pixels_are_independent_and_gradients_are_straight() -> None:
    torch.manual_seed(0)
    flat = noise.pixels(100, 100)[0].flatten(1)
    links = torch.corrcoef(torch.stack([flat[0, :-1], flat[0, 1:], flat[1, 1:]]))
    assert links.triu(1).abs().max() < 0.03
    for _ in range(10):
        for channel in noise.gradient(30, 40)[0]:
            down, across = channel.diff(dim=0), channel.diff(dim=1)
            assert min(down.abs().max(), across.abs().max()) < 1e-6
            assert down.std() < 1e-5 and across.std() < 1e-5


def test_fractal_noise_is_as_strong_in_each_octave_as_it_should_be() -> None:
    """Half the amplitude at twice the frequency: a spectrum of power that falls with its square."""
    torch.manual_seed(0)
    powers = []
    for _ in range(40):
        channel = noise.fractal(256, 256)[0, 0]
        window = torch.hann_window(256)
        power = torch.fft.rfft2((channel - channel.mean()) * window * window[:, None]).abs() ** 2
        radius = torch.fft.fftfreq(256, 1 / 256)[:, None].hypot(torch.arange(129.0))
        rings = [(4, 8), (8, 16), (16, 32), (32, 64)]
        powers.append([power[(radius >= low) & (radius < high)].sum() for low, high in rings])
    falls = torch.tensor(powers).mean(dim=0).log2().diff()
    assert (falls + 2).abs().max() < 0.7


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_begins_with_it(kind: str, assets: Path) -> None:
    run = ready(assets, init_noise=kind, init_sketch=True)
    torch.manual_seed(3)
    picture = noise.PICTURES[kind](40, 48)
    torch.testing.assert_close(run._latent.z, run.vqgan.encode(picture * 2 - 1))
    other = ready(assets, init_noise=kind, seed=4)
    assert not torch.equal(other._latent.z, run._latent.z)


def test_a_starting_image_comes_first(assets: Path) -> None:
    picture = Image.fromarray(np.full((40, 48, 3), 90, np.uint8))
    plain, both = (ready(assets, picture, init_noise=kind) for kind in ("none", "pixels"))
    assert torch.equal(plain._latent.z, both._latent.z)


def test_noise_takes_the_place_of_a_sketch(assets: Path) -> None:
    chosen = make(VQGANCLIPSettings, BASE | {"init_noise": "fractal", "init_sketch": True})
    fitted, warnings = chosen.fitted(assets)
    assert not fitted.init_sketch and warnings == []


@pytest.mark.parametrize("knob", [{"init_noise": "fractal"}, {"noise_prompt": ["1:0.3", "2"]}])
def test_a_run_resumes_exactly(knob: dict, assets: Path) -> None:
    straight, broken = ready(assets, **knob), ready(assets, **knob)
    pictures = [straight.iterate().picture for _ in range(3)]
    broken.iterate()
    again = ready(assets, **knob)
    again.load_state_dict(broken.state_dict())
    assert [again.iterate().picture.tobytes() for _ in range(2)] == [
        picture.tobytes() for picture in pictures[1:]
    ]
