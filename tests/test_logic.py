"""The engine as a whole, on tiny seeded models."""

import gc
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pytest
import tiny_models
import torch
import torch.nn.functional as F
from clip import tokenize
from clip.model import build_model
from PIL import Image
from safetensors.torch import save_file

import logic
from logic import Run, Step, VQGANCLIPRun
from studio.base.errors import BadInput, RunFailed
from studio.base.notes import MADE_ROOM
from studio.engines.arrays import to_tensor
from studio.engines.clip import compare, cutouts
from studio.engines.device import FULL_PRECISION, Precision
from studio.engines.fast import frozen
from studio.engines.vqgan_clip import estimate, ground, memory, models, start
from studio.engines.vqgan_clip.latent import Latent
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.engines.vqgan_clip.sketch import Sketcher, fit
from studio.engines.warm import WarmModels
from studio.runs import checkpoints
from studio.settings.values import make
from vqgan_utils import (
    CLIP_MEAN,
    CLIP_STD,
    clamp_with_gradient,
    load_vqgan_model,
    move_picture,
)

CPU = torch.device("cpu")
BASE = {
    "text_input": "a red heart",
    "vqgan_ckpt": "tiny_f8",
    "clip_model": "tiny_clip",
    "Xdim": 48,
    "ydim": 32,
    "cutn": 4,
    "step_size": 0.1,
}
PLAIN = {"use_cutout_augmentations": False, "use_tv_loss_regularization": False}

MakeRun = Callable[..., VQGANCLIPRun]


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    tiny_models.write_tiny_assets(folder)
    return folder


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers on every machine, whatever its precision."""
    monkeypatch.setattr(logic, "compute_precision", lambda _: FULL_PRECISION)


@pytest.fixture
def make_run(assets: Path) -> MakeRun:
    """A run that is ready to iterate; keywords are settings or pictures."""

    def made(
        start_image: Image.Image | None = None,
        image_prompts: tuple[Image.Image, ...] = (),
        image_weights: tuple[float, ...] = (),
        **changes: Any,
    ) -> VQGANCLIPRun:
        given = BASE | changes | {"image_prompt": [f"{n}.png" for n in range(len(image_prompts))]}
        run = VQGANCLIPRun(
            make(VQGANCLIPSettings, given),
            assets_dir=assets,
            device=CPU,
            start_image=start_image,
            image_prompts=image_prompts,
            image_weights=image_weights,
        )
        run.load_model()
        run.model_init()
        return run

    return made


def iterate(run: Run, count: int) -> list[Step]:
    return [run.iterate() for _ in range(count)]


def random_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def latent(run: VQGANCLIPRun) -> torch.Tensor:
    return torch.from_numpy(run.state_dict()["z"])


def decode(run: VQGANCLIPRun, z: torch.Tensor) -> np.ndarray:
    """The picture of a latent, by taming's modules alone."""
    vqgan = tiny_models.seeded_vqgan(tiny_models.vq_config())
    codebook = vqgan.quantize.embedding.weight
    codes = codebook[torch.cdist(z.flatten(2)[0].T, codebook).argmin(dim=1)]
    z_q = codes.T.reshape(z.shape)
    picture = (vqgan.decoder(vqgan.post_quant_conv(z_q))[0] + 1) / 2
    return picture.clamp(0, 1).permute(1, 2, 0).numpy() * 255


# --- A step --------------------------------------------------------------------------------------


def test_a_step_reports_picture_and_losses(make_run: MakeRun) -> None:
    steps = iterate(make_run(use_mse_regularization=True), 2)
    assert [step.index for step in steps] == [1, 2]
    for step in steps:
        assert step.picture.shape == (32, 48, 3) and step.picture.dtype == np.uint8
        assert list(step.losses) == ["text", "mse", "tv", "total"]
        parts = sum(loss for name, loss in step.losses.items() if name != "total")
        assert step.losses["total"] == pytest.approx(parts)


def test_golden_slice(make_run: MakeRun) -> None:
    step = iterate(make_run(seed=7), 2)[-1]
    assert step.losses["total"] == pytest.approx(GOLDEN_LOSS, abs=2e-3)
    np.testing.assert_allclose(step.picture[::8, ::12, 0], GOLDEN_REDS, atol=6)


GOLDEN_LOSS = 0.9839
GOLDEN_REDS = [[128, 118, 113, 142], [134, 104, 137, 154], [156, 88, 57, 215], [112, 98, 78, 156]]


def test_the_picture_is_the_one_that_the_losses_were_computed_on(make_run: MakeRun) -> None:
    run = make_run()
    for _ in range(3):
        expected = decode(run, latent(run))
        np.testing.assert_allclose(run.iterate().picture, expected, atol=0.6)


def test_equals_a_plain_loop(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps, written out: one prompt that attracts, one that repels, fixed cutouts."""
    places = [(32, 0, 0), (32, 16, 0), (32, 8, 0)]
    windows = cutouts.Windows(*torch.tensor(places).T)
    monkeypatch.setattr(compare, "random_windows", lambda *args: windows)
    run = make_run(text_input="a red heart:2 | a dog:-0.5", cutn=3, **PLAIN)

    vqgan = tiny_models.seeded_vqgan(tiny_models.vq_config())
    clip = build_model(tiny_models.clip_state_dict()).float()
    texts = clip.encode_text(tokenize(["a red heart", "a dog"], 16)).detach()
    texts = texts / texts.norm(dim=1, keepdim=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    codebook = vqgan.quantize.embedding.weight
    z = latent(run).clone().requires_grad_()
    optimiser = torch.optim.Adam([z], lr=0.1)
    for _ in range(2):
        z_q, _, _ = vqgan.quantize(z)
        picture = (vqgan.decoder(vqgan.post_quant_conv(z_q)) + 1) / 2
        picture = clamp_with_gradient(picture)
        views = torch.cat([picture[..., y : y + s, x : x + s] for s, x, y in places])
        images = clip.encode_image((views - mean) / std)
        images = images / images.norm(dim=1, keepdim=True)
        angles = 2 * ((images[:, None] - texts).norm(dim=-1) / 2).arcsin()
        attract, repel = (angles.square() / 2).mean(dim=0)
        total = 2 * attract - 0.5 * repel
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        with torch.no_grad():
            z.copy_(z.maximum(codebook.min(0)[0][:, None, None]))
            z.copy_(z.minimum(codebook.max(0)[0][:, None, None]))
        step = run.iterate()
        assert step.losses["total"] == pytest.approx(total.item(), rel=1e-4)
        assert (latent(run) - z).abs().max() < 2e-3


def test_a_prompt_attracts_and_a_negative_one_repels(make_run: MakeRun) -> None:
    def distances(prompt: str) -> list[float]:
        run = make_run(text_input=prompt, Xdim=32, **PLAIN)
        return [abs(step.losses["text"]) for step in iterate(run, 20)]

    nearer, farther = distances("a red heart:1"), distances("a red heart:-1")
    assert nearer[0] == farther[0]
    assert np.mean(nearer[-5:]) < np.mean(farther[-5:]) - 0.01


def test_a_prompt_under_its_stop_leaves_the_latent_alone(make_run: MakeRun) -> None:
    run = make_run(text_input="a red heart:1:9", **PLAIN)
    before = latent(run)
    run.iterate()
    assert torch.equal(latent(run), before)


def test_latent_stays_within_the_codebook(make_run: MakeRun) -> None:
    run = make_run(step_size=5.0)
    iterate(run, 3)
    codebook = run.vqgan.codebook
    assert (latent(run)[0].flatten(1).amax(dim=1) <= codebook.amax(dim=0)).all()
    assert (latent(run)[0].flatten(1).amin(dim=1) >= codebook.amin(dim=0)).all()


def test_one_decode_per_step(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run, decoded = make_run(), []
    original = run.vqgan.decode
    monkeypatch.setattr(run.vqgan, "decode", lambda z: decoded.append(1) or original(z))
    iterate(run, 5)
    assert len(decoded) == 5


def test_nothing_is_kept_per_step(make_run: MakeRun) -> None:
    run = make_run(use_mse_regularization=True)

    def numbers_held() -> int:
        gc.collect()
        return sum(t.numel() for t in gc.get_objects() if type(t) is torch.Tensor)

    iterate(run, 2)
    before = numbers_held()
    for _ in range(10):
        run.iterate()
    assert numbers_held() <= before


def test_half_precision_leaves_latent_and_losses_in_float32(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = make_run().iterate()
    monkeypatch.setattr(logic, "compute_precision", lambda _: Precision(torch.bfloat16))
    run = make_run()
    step = run.iterate()
    assert latent(run).dtype == torch.float32
    assert step.losses["total"] == pytest.approx(exact.losses["total"], abs=0.01)
    np.testing.assert_allclose(step.picture.astype(float), exact.picture.astype(float), atol=8)
    assert not np.array_equal(step.picture, exact.picture)


@pytest.mark.vnni
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eight_bits_touch_the_gradient_and_not_the_picture(
    dtype: torch.dtype, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "WORTHWHILE", 0)  # eight bits in tiny models too
    found = []
    precisions = [Precision(dtype, eight_bits) for eight_bits in (False, True, True)]
    for precision in (FULL_PRECISION, *precisions):
        monkeypatch.setattr(logic, "compute_precision", lambda _, given=precision: given)
        run = make_run()
        found.append((run.iterate(), latent(run).clone()))
    (full, _), (exact, z_exact), (rounded, z_rounded), (again, z_again) = found

    def off(step: Step) -> float:  # its picture was decoded before the first move
        return np.abs(step.picture.astype(float) - full.picture).mean()

    assert off(rounded) <= 1.1 * off(exact)
    assert rounded.losses["total"] == pytest.approx(exact.losses["total"], abs=0.01)
    assert not torch.equal(z_rounded, z_exact)
    assert rounded.losses == again.losses and torch.equal(z_rounded, z_again)


@pytest.mark.parametrize("augmented", [True, False])
def test_cutouts_at_a_time_change_nothing(
    augmented: bool, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "recolour", lambda cutouts, *_: cutouts)  # drawn for each chunk
    changes = {"cutn": 7, "use_cutout_augmentations": augmented, "text_input": "a dog:1:0.99 | x"}
    whole = iterate(make_run(**changes), 2)[-1]
    monkeypatch.setattr(compare, "CUTOUTS_AT_A_TIME", 3 * 32**2 / 224**2)
    run, seen = make_run(**changes), []
    encode = run.perceptor.encode_image
    monkeypatch.setattr(run.perceptor, "encode_image", lambda x: seen.append(len(x)) or encode(x))
    parts = iterate(run, 2)[-1]
    assert seen == [3, 3, 1] * 2
    assert parts.losses["total"] == pytest.approx(whole.losses["total"], abs=1e-5)
    np.testing.assert_allclose(parts.picture.astype(int), whole.picture.astype(int), atol=1)


# --- Seeds ---------------------------------------------------------------------------------------


def test_same_seed_same_bytes_in_a_warm_process(make_run: MakeRun) -> None:
    first = iterate(make_run(seed=3), 3)
    make_run(seed=8).iterate()
    torch.manual_seed(99)
    again, outside = make_run(seed=3), []
    for step in first:
        outside.append(torch.rand(()).item())
        repeated = again.iterate()
        assert repeated.losses == step.losses
        assert np.array_equal(repeated.picture, step.picture)
    torch.manual_seed(99)
    assert outside == [torch.rand(()).item() for _ in first]


def test_every_seed_is_another_picture(make_run: MakeRun) -> None:
    seeds = [0, 1, 2**31, 2**32, 2**32 + 1, 2**63, 2**64 - 1]
    pictures = {make_run(seed=seed).iterate().picture.tobytes() for seed in seeds}
    assert len(pictures) == len(seeds)


# --- What it starts from -------------------------------------------------------------------------


def test_starts_from_random_codes(make_run: MakeRun) -> None:
    run = make_run()
    codes = {tuple(code.tolist()) for code in run.vqgan.codebook}
    assert all(tuple(position.tolist()) in codes for position in latent(run).flatten(2)[0].T)


@pytest.fixture
def sketcher(assets: Path) -> Iterator[Sketcher]:
    """The tiny CLIP's sketcher, in a file beside it."""
    torch.manual_seed(0)
    made = Sketcher(embed_dim=64, hands=5).eval()
    path = assets / "tiny_clip.sketcher.safetensors"
    save_file(made.state_dict(), path)
    yield made
    path.unlink()


def test_starts_from_the_sketch_that_clip_likes_best(
    make_run: MakeRun, sketcher: Sketcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "NEAR_BEST", 1e-6)
    run = make_run(init_sketch=True, text_input="a:2 | b:1")
    a, b = run.perceptor.encode_text(["a", "b"])
    wish = F.normalize(2 * a + b, dim=0)[None]
    drawn = sketcher.draw(wish)
    seen = F.interpolate(drawn, run.perceptor.input_resolution, mode="bilinear", antialias=True)
    best = max(range(5), key=lambda hand: run.perceptor.encode_image(seen)[hand] @ wish[0])
    expected = run.vqgan.encode(2 * fit(drawn[best][None], 32, 48) - 1)
    torch.testing.assert_close(latent(run), expected, atol=1e-4, rtol=1e-4)


def test_seeds_choose_among_sketches_that_are_about_as_good(
    make_run: MakeRun, sketcher: Sketcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "NEAR_BEST", 1.0)
    starts = [latent(make_run(init_sketch=True, seed=seed)).numpy().tobytes() for seed in range(12)]
    assert 2 < len(set(starts)) <= 5
    assert latent(make_run(init_sketch=True, seed=0)).numpy().tobytes() == starts[0]


def test_image_prompts_are_sketched_too(make_run: MakeRun, sketcher: Sketcher) -> None:
    pictures = random_picture(32, 32, seed=1), random_picture(32, 32, seed=2)
    first, again, other = (
        latent(make_run(None, (picture,), init_sketch=True, text_input=""))
        for picture in (pictures[0], pictures[0], pictures[1])
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_without_a_sketcher_it_starts_from_random_codes(make_run: MakeRun) -> None:
    assert torch.equal(latent(make_run(init_sketch=True)), latent(make_run()))


def test_what_is_not_wished_is_not_sketched(make_run: MakeRun, sketcher: Sketcher) -> None:
    only, both = (make_run(init_sketch=True, text_input=t) for t in ("a", "a | b:-1"))
    assert torch.equal(latent(only), latent(both))
    nothing = make_run(init_sketch=True, text_input="b:-1")
    assert torch.equal(latent(nothing), latent(make_run(text_input="b:-1")))


def test_a_starting_image_leaves_nothing_to_sketch(make_run: MakeRun, sketcher: Sketcher) -> None:
    image = random_picture(48, 32)
    with_sketch = make_run(image, init_sketch=True)
    assert torch.equal(latent(with_sketch), latent(make_run(image)))


def test_starts_from_a_picture_scaled_to_cover(make_run: MakeRun, assets: Path) -> None:
    image = random_picture(96, 96)
    fitted = image.resize((48, 48), Image.Resampling.LANCZOS).crop((0, 8, 48, 40))
    x = torch.from_numpy(np.array(fitted)).permute(2, 0, 1)[None] / 127.5 - 1
    vqgan = load_vqgan_model(assets / "tiny_f8.yaml", assets / "tiny_f8.ckpt")
    torch.testing.assert_close(latent(make_run(image)), vqgan.encode(x), atol=0.05, rtol=0)


def test_size_is_floored_to_the_models_factor(make_run: MakeRun) -> None:
    assert make_run(Xdim=63, ydim=41).iterate().picture.shape == (40, 56, 3)


def test_a_size_under_the_factor_is_refused(make_run: MakeRun, assets: Path) -> None:
    tiny_models.write_vqgan(assets, "f16", tiny_models.vq_config(ch_mult=[1] * 5))
    with pytest.raises(BadInput, match="at least 16"):
        make_run(vqgan_ckpt="f16", Xdim=8)


# --- Prompts -------------------------------------------------------------------------------------


def test_image_prompts_work_alone(make_run: MakeRun) -> None:
    red = Image.new("RGB", (32, 32), "red")
    run = make_run(image_prompts=(red,), text_input="", Xdim=32, **PLAIN)
    losses = [step.losses["image"] for step in iterate(run, 20)]
    assert list(run.iterate().losses) == ["image", "total"]
    assert np.mean(losses[-5:]) < losses[0] - 0.002


def test_image_prompts_have_their_own_embedding_and_weight(make_run: MakeRun) -> None:
    pictures = random_picture(32, 32), random_picture(20, 40, seed=1)
    alone = [make_run(image_prompts=(picture,), text_input="").iterate() for picture in pictures]
    beside = make_run(image_prompts=pictures, text_input="a dog:5:0.9 | a cat:-3").iterate().losses
    assert beside["image"] == pytest.approx(sum(step.losses["image"] for step in alone))
    text = make_run(text_input="a dog:5 | a cat:-3").iterate().losses["text"]
    assert beside["text"] == pytest.approx(text, rel=1e-5)


def test_an_image_prompt_pulls_by_its_weight(make_run: MakeRun) -> None:
    picture = (random_picture(32, 32),)
    losses = [
        make_run(image_prompts=picture, image_weights=weights, text_input="").iterate().losses
        for weights in ((), (1.0,), (2.5,))
    ]
    assert losses[0] == losses[1]
    assert losses[2]["image"] == pytest.approx(2.5 * losses[0]["image"])


def test_an_image_prompt_of_negative_weight_repels(make_run: MakeRun) -> None:
    picture, how = (random_picture(32, 32),), {"text_input": "", "Xdim": 32} | PLAIN
    near = []
    for weight in (1.0, -1.0):
        run = make_run(image_prompts=picture, image_weights=(weight,), **how)
        shown = torch.from_numpy(iterate(run, 20)[-1].picture).permute(2, 0, 1)[None] / 255
        near.append(
            float((run._targets[0].embedding @ run.perceptor.encode_image(shown).T).detach())
        )
    assert near[1] < near[0] - 0.002


def test_an_image_prompt_is_near_itself(make_run: MakeRun) -> None:
    run = make_run(image_prompts=(random_picture(32, 32),), text_input="")
    pixels = torch.from_numpy(np.array(random_picture(32, 32))).permute(2, 0, 1)[None] / 255
    (target,) = run._targets
    assert (target.weight, target.stop) == (1.0, -math.inf)
    torch.testing.assert_close(target.embedding, run.perceptor.encode_image(pixels))


def test_what_is_cut_off_a_long_prompt_is_named_once(make_run: MakeRun) -> None:
    run = make_run(text_input=f"{'very ' * 14}red heart | a dog")
    assert len(run.warnings) == 1
    assert "left out: 'red heart'" in run.warnings[0]
    assert make_run().warnings == []
    (warning,) = make_run(text_input="very " * 1900 + "red heart").warnings
    assert len(warning) < 300


def test_serial_prompts_are_refused(make_run: MakeRun) -> None:
    with pytest.raises(BadInput, match="not supported yet"):
        make_run(text_input="a dog ^ a cat")


# --- Regularisation ------------------------------------------------------------------------------


def test_mse_holds_the_latent_near_its_start(make_run: MakeRun) -> None:
    def drift(**changes: Any) -> float:
        run = make_run(random_picture(48, 32), **PLAIN, **changes)
        start = latent(run)
        iterate(run, 5)
        return F.mse_loss(latent(run), start).item()

    held = drift(use_mse_regularization=True, mse_weight=100.0)
    driven = drift(use_mse_regularization=True, mse_weight=-100.0)
    assert held < drift() < driven


# --- The ground ----------------------------------------------------------------------------------


def on_white() -> Image.Image:
    picture = Image.new("RGB", (48, 32), "white")
    picture.paste((200, 40, 40), (16, 8, 32, 24))
    return picture


def test_the_ground_is_kept_by_its_weight(make_run: MakeRun) -> None:
    def changed(weight: float) -> float:
        run = make_run(on_white(), **PLAIN, ground_weight=weight)
        return iterate(run, 30)[-1].losses["ground"] / weight

    assert changed(1000.0) < 0.9 * changed(1e-6)


def test_the_ground_has_its_loss(make_run: MakeRun) -> None:
    run = make_run(on_white(), ground_weight=2.0)
    steps = iterate(run, 6)
    assert steps[0].losses["ground"] == 0
    begun, last = (to_tensor(Image.fromarray(step.picture)) for step in (steps[0], steps[-1]))
    expected = 2 * float(ground.Ground.of(begun).loss(last))
    assert steps[-1].losses["ground"] == pytest.approx(expected, rel=0.1)
    parts = [value for name, value in steps[-1].losses.items() if name != "total"]
    assert steps[-1].losses["total"] == pytest.approx(sum(parts), rel=1e-5)


def test_a_picture_without_a_ground_has_none_to_keep(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ground, "NEAR", 0.0)
    free, kept = (make_run(ground_weight=weight) for weight in (0.0, 5.0))
    assert iterate(kept, 3)[-1].losses == iterate(free, 3)[-1].losses


def test_prompts_that_ask_for_another_ground_free_it(
    make_run: MakeRun, sketcher: Sketcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(on_white(), init_sketch=True, ground_weight=5.0)
    begun = to_tensor(Image.fromarray(run.iterate().picture))
    for brighter, is_kept in ((0.0, True), (0.3, False)):
        asked = begun + brighter
        monkeypatch.setattr(Sketcher, "draw", lambda *_, asked=asked: asked)
        words = f"a heart, {brighter}"  # other words, so the ground is found again
        run.change(run.settings.model_copy(update={"text_input": words}))
        assert ("ground" in run.iterate().losses) == is_kept


def test_a_ground_weight_that_was_raised_on_the_way_resumes_exactly(
    make_run: MakeRun, sketcher: Sketcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    dark = torch.zeros(1, 3, 32, 48)
    monkeypatch.setattr(Sketcher, "draw", lambda *_: dark)
    free, kept = (make_run(on_white(), init_sketch=True, ground_weight=w) for w in (0.0, 5.0))
    free.iterate()
    free.change(kept.settings)
    kept.load_state_dict(free.state_dict())
    assert kept.iterate().losses == free.iterate().losses


def test_a_continued_run_keeps_the_ground_that_it_continues_from(make_run: MakeRun) -> None:
    earlier = make_run(on_white())
    iterate(earlier, 2)
    later = make_run(ground_weight=5.0)
    later.continue_from(earlier.state_dict(), "from its latent", reseed=True)
    assert later.iterate().losses["ground"] == 0


def test_mse_loss_follows_its_schedule(make_run: MakeRun) -> None:
    run = make_run(
        use_mse_regularization=True, mse_weight=1.0, mse_weight_decay=0.6, mse_weight_decay_steps=2
    )
    start, losses, drifts = latent(run), [], []
    for _ in range(6):
        drifts.append(F.mse_loss(latent(run), start).item())
        losses.append(run.iterate().losses["mse"])
    expected = [w * d for w, d in zip([1.0, 1.0, 0.4, 0.4, 0.0, 0.0], drifts, strict=True)]
    assert losses == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_tv_weight_reaches_the_loss_and_smooths(make_run: MakeRun) -> None:
    once, tenfold = (make_run(tv_loss_weight=w).iterate().losses["tv"] for w in (1e-3, 1e-2))
    assert tenfold == pytest.approx(10 * once, rel=1e-5)
    assert "tv" not in make_run(use_tv_loss_regularization=False).iterate().losses
    smooth = make_run(tv_loss_weight=1000.0)
    losses = [step.losses["tv"] for step in iterate(smooth, 8)]
    assert losses[-1] < losses[0]


# --- Scrolling and zooming -----------------------------------------------------------------------

MOVES = {"use_scrolling_zooming": True, "translation_x": 8, "zoom_factor": 1.0}


def test_frames_move_and_the_first_does_not(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = make_run()
    moving = make_run(**MOVES, transform_interval=3)
    first = moving.iterate()
    assert np.array_equal(first.picture, iterate(still, 3)[-1].picture)
    assert first.index == 1

    picture = torch.from_numpy(decode(moving, latent(moving))).permute(2, 0, 1)[None] / 127.5 - 1
    expected = moving.vqgan.encode(move_picture(picture, 8, 0, 0, 1))
    started: list[torch.Tensor] = []
    monkeypatch.setattr(logic, "Latent", lambda z, *how: started.append(z) or Latent(z, *how))
    second = moving.iterate()
    torch.testing.assert_close(started[0], expected, atol=1e-3, rtol=1e-3)
    assert second.index == 2
    assert moving.state_dict()["optimisation_steps"] == 6


def test_the_mse_target_follows_the_move(make_run: MakeRun) -> None:
    run = make_run(**MOVES, transform_interval=1, use_mse_regularization=True)
    assert [step.losses["mse"] for step in iterate(run, 2)] == [0.0, 0.0]


# --- Resuming exactly ----------------------------------------------------------------------------


def through_a_file(state: dict[str, Any], folder: Path) -> Any:
    picture = np.zeros((1, 1, 3), np.uint8)
    checkpoint = checkpoints.Checkpoint(1, [picture], {}, state, "", {}, {}, 1, 24.0)
    (folder / "it").write_bytes(checkpoints.encode(checkpoint))
    return checkpoints.read(folder / "it").state


@pytest.mark.parametrize("changes", [{}, {**MOVES, "transform_interval": 3}])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ValueError])
def test_an_interrupted_step_leaves_the_state_before_it(
    changes: dict[str, Any],
    error: type[BaseException],
    make_run: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here it breaks off after latent, moments and random numbers have changed."""
    run, restored = make_run(**changes), make_run(**changes)
    iterate(run, 2)
    step, before = run._optimise, run.state_dict()

    def break_off() -> None:
        step()
        raise error

    monkeypatch.setattr(run, "_optimise", break_off)
    with pytest.raises((error, RunFailed)):
        run.iterate()
    assert not torch.equal(run._latent.z.detach(), torch.from_numpy(before["z"]))
    restored.load_state_dict(run.state_dict())
    straight = make_run(**changes)
    iterate(straight, 2)
    for again, expected in zip(iterate(restored, 2), iterate(straight, 2), strict=True):
        assert np.array_equal(again.picture, expected.picture)
        assert (again.index, again.losses) == (expected.index, expected.losses)


KEPT = {"start_image": on_white(), "ground_weight": 5.0}


@pytest.mark.parametrize("changes", [{}, {**MOVES, "transform_interval": 2}, KEPT])
def test_a_restored_run_continues_as_if_never_stopped(
    changes: dict[str, Any], make_run: MakeRun, tmp_path: Path
) -> None:
    changes = {**changes, "use_mse_regularization": True, "mse_weight_decay_steps": 2}
    straight = iterate(make_run(**changes), 5)
    run = make_run(**changes)
    iterate(run, 2)
    state = run.state_dict()
    iterate(run, 1)
    for saved in (state, through_a_file(state, tmp_path)):
        restored = make_run(**changes)
        restored.load_state_dict(saved)
        for step in straight[2:]:
            repeated = restored.iterate()
            assert (repeated.index, repeated.losses) == (step.index, step.losses)
            assert np.array_equal(repeated.picture, step.picture)


def test_a_restored_run_looks_at_as_many_cutouts_at_a_time(make_run: MakeRun) -> None:
    """Also where only the stopped run was short of memory."""
    run = make_run(cutn=5)
    run._at_a_time = 2
    iterate(run, 2)
    restored = make_run(cutn=5)
    restored.load_state_dict(run.state_dict())
    assert np.array_equal(restored.iterate().picture, run.iterate().picture)
    for name in ("z", "mse_target", "random"):
        assert np.array_equal(restored.state_dict()[name], run.state_dict()[name])


@pytest.mark.parametrize(
    "wrong",
    [
        {"z": np.zeros((1, 2, 3, 4), np.float32)},
        {"z": "none"},
        {"mse_target": None},
        {"frames": "many"},
        {"frames": math.inf},
        {"optimisation_steps": None},
        {"adam": {"step": 1.0}},
        {"adam": {"step": "x", "exp_avg": 0, "exp_avg_sq": 0}},
        {"adam": [1]},
        {"cutouts_at_a_time": "all"},
        {"random": np.zeros(3, np.uint8)},
        {"random": "dice"},
        {"random": None},
    ],
    ids=str,
)
def test_a_wrong_state_is_refused(wrong: dict[str, Any], make_run: MakeRun) -> None:
    run = make_run()
    run.iterate()
    state = run.state_dict()
    with pytest.raises(BadInput, match="does not fit"):
        run.load_state_dict(state | wrong)


@pytest.mark.parametrize("name", ["z", "mse_target", "frames", "optimisation_steps", "random"])
def test_an_incomplete_state_is_refused(name: str, make_run: MakeRun) -> None:
    run = make_run()
    state = run.state_dict()
    del state[name]
    with pytest.raises(BadInput, match="does not fit"):
        run.load_state_dict(state)


class FakeModel:
    """A model of another engine."""


# --- Warm models ---------------------------------------------------------------------------------


def test_models_stay_loaded_until_their_files_change(assets: Path, tmp_path: Path) -> None:
    folder = tmp_path / "assets"
    shutil.copytree(assets, folder)
    chosen = make(VQGANCLIPSettings, BASE)

    def load() -> tuple[Any, Any]:
        run = VQGANCLIPRun(chosen, assets_dir=folder, device=CPU)
        run.load_model()
        return run.vqgan, run.perceptor

    vqgan, perceptor = load()
    assert load() == (vqgan, perceptor)
    os.utime(folder / "tiny_f8.ckpt", (1, 1))
    newer, same = load()
    assert newer is not vqgan and same is perceptor


# --- What goes wrong -----------------------------------------------------------------------------


def test_an_unknown_clip_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(BadInput, match="tiny_clip"):
        make_run(clip_model="nothing")


def test_a_loss_that_is_not_finite_ends_the_run(make_run: MakeRun) -> None:
    run = make_run()
    state = run.state_dict()
    run.load_state_dict(state | {"z": np.full_like(state["z"], math.nan)})
    with pytest.raises(RunFailed, match=r"[Ll]ower the step size"):
        run.iterate()


LACKS_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("MPS backend out of memory"),
]


@pytest.mark.parametrize("error", LACKS_OF_MEMORY, ids=lambda error: str(error)[:12])
def test_lack_of_memory_says_what_to_lower(
    error: Exception, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(z: torch.Tensor) -> torch.Tensor:
        raise error

    run = make_run()
    with monkeypatch.context() as patch:
        patch.setattr(run.vqgan, "decode", fail)
        with pytest.raises(RunFailed, match=r"48x32 with 4 cutouts\. Lower Xdim"):
            run.iterate()
    assert run.iterate().index == 1


def test_lack_of_memory_names_sizes_that_would_fit(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: 3e9)
    run = make_run(Xdim=1600, ydim=800)
    monkeypatch.setattr(run.vqgan, "decode", lambda z: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(RunFailed, match=r"1600x800 .* \d+x\d+ or \d+x\d+ would fit"):
        run.iterate()


def test_a_size_beyond_the_memory_is_warned_of_before_it_starts(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: 1e8)
    assert any("48x32 may be too large" in warning for warning in make_run().warnings)


@pytest.mark.parametrize("there, kept", [(1.9e9, False), (2.1e9, True)])
def test_freed_memory_is_kept_where_half_of_the_memory_is_enough(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, there: float, kept: bool
) -> None:
    chosen: list[bool] = []
    monkeypatch.setattr(estimate, "memory_bytes", lambda *_: 1e9)
    monkeypatch.setattr(memory, "machine_memory", lambda: there)
    monkeypatch.setattr(memory, "keep_freed_memory", chosen.append)
    make_run()
    assert chosen == [kept]


def test_without_enough_memory_clip_looks_at_fewer_cutouts_at_a_time(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run continues from its last step, with the same random numbers."""
    plain, run = make_run(cutn=5, **PLAIN), make_run(cutn=5, **PLAIN)
    steps = iterate(plain, 3)
    same = run.iterate()
    seen, encode = [], run.perceptor.encode_image

    def encode_few(pictures: torch.Tensor) -> torch.Tensor:
        seen.append(len(pictures))
        if len(pictures) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(pictures)

    monkeypatch.setattr(run.perceptor, "encode_image", encode_few)
    assert run.notes == {}
    for step, small in zip(steps, [same, *iterate(run, 2)], strict=True):
        assert small.index == step.index
        assert small.losses["total"] == pytest.approx(step.losses["total"], abs=1e-5)
    assert seen == [5, 2, 2, 1, 2, 2, 1]
    assert run.notes == {"cutouts_at_a_time": 2}


def test_without_enough_memory_other_models_go_before_any_byte_changes(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step is computed again as it was, once another engine's model has made room."""
    kept = WarmModels()
    for module in (logic, models):
        monkeypatch.setattr(module, "warm", kept)
    straight = iterate(make_run(cutn=5), 3)
    run = make_run(cutn=5)
    first, encode = run.iterate(), run.perceptor.encode_image
    gone = ref(kept.get("other", "model", 1, FakeModel, run=FakeModel(), device=CPU))

    def encode_where_there_is_room(pictures: torch.Tensor) -> torch.Tensor:
        if gone() is not None:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(pictures)

    monkeypatch.setattr(run.perceptor, "encode_image", encode_where_there_is_room)
    for step, repeated in zip(straight, [first, *iterate(run, 2)], strict=True):
        assert repeated.losses == step.losses
        assert np.array_equal(repeated.picture, step.picture)
    assert gone() is None and run.notes == {MADE_ROOM: ["other"]}


def test_other_errors_are_not_taken_for_lack_of_memory(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(z: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a defect")

    run = make_run()
    monkeypatch.setattr(run.vqgan, "decode", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        run.iterate()
