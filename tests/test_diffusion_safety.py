"""The safety checker that weights may bring, beside diffusers' pipeline with the same one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_diffusion
import tiny_models
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

from studio.base.notes import HIDDEN, notes_in_words
from studio.base.stopping import Stop
from studio.engines.diffusion.canvas import Canvas
from studio.engines.diffusion.run import DiffusionRun
from studio.engines.diffusion.safety import Checker
from studio.engines.diffusion.settings import DiffusionSettings
from studio.engines.diffusion.weights import get_weights
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import submit

CPU = torch.device("cpu")
SEEDS = range(4)
VISION = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "image_size": 32}
VISION |= {"num_attention_heads": 2, "patch_size": 8, "projection_dim": 16}
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 99}
GIVEN: dict[str, Any] = {"text_input": "a heart", "Xdim": 64, "ydim": 64, "num_steps": 3}
GIVEN |= {"weights": "tiny", "sampler": "DDIM", "guidance_scale": 5.0}


def pipeline_with_checker(threshold: float) -> StableDiffusionPipeline:
    """threshold: how alike a picture and a concept must be for the picture to be hidden."""
    torch.manual_seed(1)
    config = CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)
    checker = StableDiffusionSafetyChecker(config).eval()
    with torch.no_grad():
        checker.concept_embeds.normal_()
        checker.concept_embeds_weights.fill_(threshold)
        checker.special_care_embeds_weights.fill_(2.0)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    parts = tiny_diffusion.tiny_sd().components
    parts |= {"safety_checker": checker, "feature_extractor": CLIPImageProcessor(**size)}
    return StableDiffusionPipeline(**parts)


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Of each seed's picture: the threshold under which it is hidden."""
    pipeline = pipeline_with_checker(5.0)
    found = []
    checker = pipeline.safety_checker
    for seed in SEEDS:
        seen: list[Any] = []
        handle = checker.visual_projection.register_forward_hook(
            lambda module, given, out, seen=seen: seen.append(out)
        )
        theirs(pipeline, seed)
        handle.remove()
        alike = torch.cosine_similarity(seen[0], checker.concept_embeds)
        found.append(float(alike.max()))
    return found


@pytest.fixture
def threshold(scores: list[float]) -> float:
    """Some pictures are hidden, and some are not."""
    ordered = sorted(scores)
    return (ordered[1] + ordered[2]) / 2


def theirs(pipeline: StableDiffusionPipeline, seed: int) -> np.ndarray:
    from diffusers import DDIMScheduler

    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    random = torch.Generator().manual_seed(seed)
    how = {"width": 64, "height": 64, "num_inference_steps": 3, "guidance_scale": 5.0}
    return np.asarray(pipeline("a heart", generator=random, **how).images[0])


def written(threshold: float, folder: Path, old: bool = False) -> StableDiffusionPipeline:
    """old: with whole numbers for sizes, and without `text_config`'s newer keys."""
    pipeline = pipeline_with_checker(threshold)
    tiny_diffusion.write(pipeline, folder / "tiny")
    if old:
        path = folder / "tiny/feature_extractor/preprocessor_config.json"
        told = json.loads(path.read_text()) | {"size": 32, "crop_size": 32}
        path.write_text(json.dumps(told | {"feature_extractor_type": "CLIPFeatureExtractor"}))
    return pipeline


def drawn(assets: Path, **how: Any) -> tuple[DiffusionRun, list[np.ndarray]]:
    settings = DiffusionSettings(**(GIVEN | {"seed": 0, "pictures": len(SEEDS)} | how))
    run = DiffusionRun(settings, assets_dir=assets, device=CPU)
    run.load_model()
    run.model_init()
    return run, list([run.iterate() for _ in range(3)][-1].pictures)


@pytest.mark.parametrize("old", [False, True])
def test_it_hides_what_diffusers_hides_and_changes_nothing_else(
    threshold: float, scores: list[float], tmp_path: Path, old: bool
) -> None:
    pipeline = written(threshold, tmp_path, old)
    run, pictures = drawn(tmp_path)
    wanted = [theirs(pipeline, seed) for seed in SEEDS]
    hidden = [seed for seed in SEEDS if not wanted[seed].any()]
    assert hidden == [seed for seed in SEEDS if scores[seed] > threshold] and len(hidden) == 2
    assert run.notes[HIDDEN] == hidden
    for ours, picture in zip(pictures, wanted, strict=True):
        assert np.abs(ours.astype(int) - picture.astype(int)).max() <= 2
    _, unchecked = drawn(tmp_path, safety_checker=False)
    for seed in SEEDS:
        assert unchecked[seed].any()
        if seed not in hidden:
            assert np.array_equal(pictures[seed], unchecked[seed])


def test_switched_off_nothing_is_hidden_or_noted(tmp_path: Path) -> None:
    written(-2.0, tmp_path)
    run, pictures = drawn(tmp_path, safety_checker=False)
    assert all(picture.any() for picture in pictures) and HIDDEN not in run.notes


def test_the_run_tells_what_was_hidden(tmp_path: Path) -> None:
    written(-2.0, tmp_path)
    given = GIVEN | {"set_seed": True, "seed": 7, "pictures": 2}
    request = Request(given, tmp_path / "output", tmp_path, engine="diffusion")
    folder = submit(prepare(request), "running")
    assert execute(folder, assets_dir=tmp_path) == "done"
    (said,) = notes_in_words(folder.read())
    assert "hid the pictures of seeds 7, 8" in said and "switch the safety checker off" in said
    assert notes_in_words({HIDDEN: []}) == []


def test_pictures_are_checked_under_guidance_and_at_full_size(tmp_path: Path) -> None:
    written(-2.0, tmp_path)
    torch.save(tiny_models.clip_state_dict(), tmp_path / "tiny_clip.pt")
    how = {"clip_guidance": 100, "clip_model": "tiny_clip", "cutn": 2, "hires_scale": 1.5}
    run, pictures = drawn(tmp_path, pictures=2, **how)
    assert run.notes[HIDDEN] == [0, 1]
    assert [picture.shape for picture in pictures] == [(96, 96, 3)] * 2
    assert not any(picture.any() for picture in pictures)
    assert any(picture.any() for picture in drawn(tmp_path, safety_checker=False, **how)[1])


def test_a_run_that_is_stopped_hides_its_decoded_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though no sketch before was hidden."""
    monkeypatch.setattr(Canvas, "is_quick", False)
    monkeypatch.setattr(Canvas, "sketch", lambda *_: torch.ones(1, 3, 64, 64))
    monkeypatch.setattr(Checker, "__call__", lambda _, pictures: [p.min() < 255 for p in pictures])
    written(-2.0, tmp_path)
    given = GIVEN | {"set_seed": True, "seed": 7}
    folder = submit(
        prepare(Request(given, tmp_path / "output", tmp_path, engine="diffusion")), "running"
    )
    stop, seen = Stop(), []

    def on_step(step: Any) -> None:
        seen.append(step.picture)
        stop.request()

    assert execute(folder, assets_dir=tmp_path, stop=stop, on_step=on_step) == "stopped"
    assert seen[0].all() and not np.asarray(Image.open(folder.path / "output.PNG")).any()
    assert folder.read()[HIDDEN] == [7]


def test_weights_whose_checker_is_lost_say_so(tmp_path: Path) -> None:
    written(-2.0, tmp_path)
    file = next((tmp_path / "tiny/safety_checker").glob("*.safetensors"))
    file.rename(file.with_suffix(".bin"))
    assert get_weights(tmp_path, "tiny").checker == "lost"
    settings = DiffusionSettings(**GIVEN)
    assert "no picture is checked" in " ".join(settings.fitted(tmp_path)[1])
    without = settings.model_copy(update={"safety_checker": False})
    assert without.fitted(tmp_path)[1] == []
    _, pictures = drawn(tmp_path)
    assert all(picture.any() for picture in pictures)


def test_a_checker_of_another_class_is_never_built(tmp_path: Path) -> None:
    written(-2.0, tmp_path)
    (tmp_path / "tiny/evil.py").write_text("raise SystemExit")
    path = tmp_path / "tiny/model_index.json"
    index = json.loads(path.read_text()) | {"safety_checker": ["evil", "EvilChecker"]}
    path.write_text(json.dumps(index))
    assert get_weights(tmp_path, "tiny").checker == "lost"
    assert all(picture.any() for picture in drawn(tmp_path)[1])
