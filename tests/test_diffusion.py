"""Runs of the engine Diffusion beside diffusers' own pipelines, and their stops and starts."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_diffusion
import torch
from PIL import Image

from studio.base.errors import BadInput
from studio.base.stopping import Stop
from studio.engines import registry
from studio.engines.diffusion.canvas import Canvas
from studio.engines.diffusion.run import DiffusionRun
from studio.engines.diffusion.samplers import SAMPLERS, first_step, known_name, sampler_of
from studio.engines.diffusion.schedule import Schedule
from studio.engines.diffusion.settings import DiffusionSettings
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import reopen, submit
from studio.runs import checkpoints
from studio.runs.checkpoints import Checkpoint

CPU = torch.device("cpu")
WITH_STRENGTH = [*((sampler, 0.5) for sampler in SAMPLERS), ("DDIM", 1.0), ("Euler a", 1.0)]
STEPS, SEED, SIDE = 4, 3, 64
PROMPT, AVOID = "a red heart", "blue"
KINDS: dict[str, Any] = {
    "sd": tiny_diffusion.tiny_sd,
    "v": lambda: tiny_diffusion.tiny_sd(prediction_type="v_prediction"),
    "xl": tiny_diffusion.tiny_xl,
    "sd9": lambda: tiny_diffusion.tiny_sd(in_channels=9),
    "xl9": lambda: tiny_diffusion.tiny_xl(in_channels=9),
    "lcm": lambda: tiny_diffusion.tiny_sd(time_cond_proj_dim=32),
}


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Any]:
    return {kind: make() for kind, make in KINDS.items()}


@pytest.fixture(scope="module", autouse=True)
def loaded_schedulers(pipelines: dict[str, Any], assets: Path) -> None:
    """As from_pretrained has them: a configuration from a file states the defaults as well."""
    for kind, pipeline in pipelines.items():
        loaded = diffusers.PNDMScheduler.from_pretrained(assets / kind / "scheduler")
        pipeline.register_modules(scheduler=loaded)


@pytest.fixture(scope="module")
def assets(pipelines: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    for kind, pipeline in pipelines.items():
        tiny_diffusion.write(pipeline, folder / kind)
    return folder


@pytest.fixture(scope="module")
def image() -> Image.Image:
    colours = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    return Image.fromarray(colours).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def mask() -> Image.Image:
    white = np.zeros((SIDE, SIDE), np.uint8)
    white[16:40, 8:56] = 255
    return Image.fromarray(white)


def settings(**changes: Any) -> DiffusionSettings:
    given = {"text_input": PROMPT, "negative_prompt": AVOID, "num_steps": STEPS, "seed": SEED}
    given |= {"Xdim": SIDE, "ydim": SIDE, "weights": "sd", "guidance_scale": 5.0}
    return DiffusionSettings(**(given | changes))


def begun(assets: Path, start: Any = None, mask: Any = None, **changes: Any) -> DiffusionRun:
    mask = mask and mask.convert("RGB")
    run = DiffusionRun(
        settings(**changes), assets_dir=assets, device=CPU, start_image=start, mask=mask
    )
    run.load_model()
    run.model_init()
    return run


def pictures(run: DiffusionRun, steps: int = STEPS) -> list[np.ndarray]:
    step = [run.iterate() for _ in range(steps)][-1]
    return list(step.pictures)


def theirs(pipeline: Any, sampler: str, task: str, **more: Any) -> np.ndarray:
    """What diffusers' own pipeline draws. task: "", "Img2Img" or "Inpaint"."""
    name = "StableDiffusionXL" if hasattr(pipeline, "text_encoder_2") else "StableDiffusion"
    chosen = SAMPLERS[sampler]  # type: ignore[index]
    kind = getattr(diffusers, chosen.class_name)
    parts = dict(pipeline.components)
    beside = {} if "XL" in name else {"requires_safety_checker": False}
    whole = getattr(diffusers, f"{name}{task}Pipeline")(**parts, **beside)
    whole.scheduler = kind.from_config(whole.scheduler.config, **chosen.config)
    whole.set_progress_bar_config(disable=True)
    if task != "Img2Img":
        more |= {"width": SIDE, "height": SIDE}
    drawn = whole(
        prompt=PROMPT,
        **({"negative_prompt": AVOID, "guidance_scale": 5.0} | more),
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(SEED),
    )
    return np.asarray(drawn.images[0])


def assert_near(ours: np.ndarray, wanted: np.ndarray) -> None:
    assert ours.shape == wanted.shape and ours.std() > 5
    assert np.abs(ours.astype(int) - wanted.astype(int)).max() <= 2


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kind", ["sd", "v", "xl"])
def test_txt2img_is_that_of_diffusers(
    kind: str, sampler: str, pipelines: dict[str, Any], assets: Path
) -> None:
    (ours,) = pictures(begun(assets, weights=kind, sampler=sampler))
    assert_near(ours, theirs(pipelines[kind], sampler, ""))


@pytest.mark.parametrize(("sampler", "strength"), WITH_STRENGTH)
@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_img2img_is_that_of_diffusers(
    kind: str,
    sampler: str,
    strength: float,
    pipelines: dict[str, Any],
    assets: Path,
    image: Image.Image,
) -> None:
    run = begun(assets, image, weights=kind, sampler=sampler, strength=strength)
    (ours,) = pictures(run)
    assert_near(ours, theirs(pipelines[kind], sampler, "Img2Img", image=image, strength=strength))


@pytest.mark.parametrize(("sampler", "strength"), WITH_STRENGTH)
@pytest.mark.parametrize("kind", ["sd", "xl", "sd9", "xl9"])
def test_inpainting_is_that_of_diffusers(
    kind: str,
    sampler: str,
    strength: float,
    pipelines: dict[str, Any],
    assets: Path,
    image: Image.Image,
    mask: Image.Image,
) -> None:
    run = begun(assets, image, mask, weights=kind, sampler=sampler, strength=strength)
    (ours,) = pictures(run)
    more = {"image": image, "mask_image": mask, "strength": strength}
    assert_near(ours, theirs(pipelines[kind], sampler, "Inpaint", **more))


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # our settings; what diffusers is told
    "no guidance": ({"guidance_scale": 1.0}, {"guidance_scale": 1.0}),
    "nothing to avoid": ({"negative_prompt": ""}, {"negative_prompt": None}),
    "nothing to avoid, SDXL": ({"negative_prompt": "", "weights": "xl"}, {"negative_prompt": None}),
    "CLIP skip, SDXL": ({"clip_skip": 1, "weights": "xl"}, {"clip_skip": 1}),
    "LCM": ({"weights": "lcm", "sampler": "LCM"}, {}),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_settings_are_those_of_diffusers(
    case: str, pipelines: dict[str, Any], assets: Path
) -> None:
    changes, told = OTHERS[case]
    changes = {"sampler": "Euler"} | changes
    (ours,) = pictures(begun(assets, **changes))
    assert_near(
        ours, theirs(pipelines[changes.get("weights", "sd")], changes["sampler"], "", **told)
    )


def test_a_skipped_layer_is_as_if_it_were_not_there(
    pipelines: dict[str, Any], assets: Path
) -> None:
    """diffusers' own code for this does not run with today's transformers."""
    run = begun(assets, clip_skip=1)
    encoder = deepcopy(pipelines["sd"].text_encoder)
    encoder.encoder.layers = encoder.encoder.layers[:-1]
    tokens = pipelines["sd"].tokenizer(
        PROMPT, padding="max_length", max_length=77, return_tensors="pt"
    )
    wanted = encoder(tokens.input_ids).last_hidden_state
    assert torch.allclose(run._script.at(1).prompt.tokens, wanted, atol=1e-5)
    assert not torch.allclose(begun(assets)._script.at(1).prompt.tokens, wanted, atol=1e-2)


# --- stops and starts ------------------------------------------------------------------------


def kept(run: DiffusionRun, steps: int, path: Path) -> dict[str, Any]:
    """The run's state, through a checkpoint's file."""
    checkpoint = Checkpoint(
        index=steps,
        pictures=(),
        grows_to=None,
        losses={},
        frames=0,
        frames_per_second=1,
        state=run.state_dict(),
        history={},
        engine="Diffusion",
        settings={},
    )
    path.write_bytes(checkpoints.encode(checkpoint))
    return dict(checkpoints.read(path).state)


@pytest.mark.parametrize("done", [1, 2, 3])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_resumed_run_has_the_same_bytes(
    sampler: str, done: int, assets: Path, image: Image.Image, mask: Image.Image, tmp_path: Path
) -> None:
    def fresh() -> DiffusionRun:
        return begun(assets, image, mask, sampler=sampler, strength=0.75, pictures=2)

    whole = fresh()
    wanted = pictures(whole)
    interrupted = fresh()
    pictures(interrupted, done)
    resumed = fresh()
    resumed.load_state_dict(kept(interrupted, done, tmp_path / "kept.safetensors"))
    found = pictures(resumed, STEPS - done)
    assert all(map(np.array_equal, found, wanted))


def test_a_step_that_breaks_off_leaves_the_state_before_it(
    assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(assets, pictures=2)
    wanted = pictures(begun(assets, pictures=2))
    pictures(run, 2)
    with monkeypatch.context() as patched:
        patched.setattr(Canvas, "decode", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run.iterate()
    state = run.state_dict()
    assert state["frames"] == 2
    resumed = begun(assets, pictures=2)
    resumed.load_state_dict(state)
    assert all(map(np.array_equal, pictures(resumed, 2), wanted))


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_several_pictures_are_those_made_alone(assets: Path) -> None:
    together = pictures(begun(assets, pictures=3, sampler="Euler a", seed=2**64 - 2))
    for number, seed in enumerate((2**64 - 2, 2**64 - 1, 0)):
        (alone,) = pictures(begun(assets, seed=seed, sampler="Euler a"))
        assert np.array_equal(together[number], alone)


class Watched:
    """A UNet whose batches are noted. rounds: whether large ones give other last digits."""

    def __init__(self, unet: Any, rounds: bool) -> None:
        self.unet, self.rounds, self.batches = unet, rounds, []
        self.config, self.device = unet.config, unet.device

    def __call__(self, latent: torch.Tensor, *given: Any, **more: Any) -> tuple[torch.Tensor]:
        self.batches.append(len(latent))
        (answer,) = self.unet(latent, *given, **more)
        return (answer * (1 + 1e-6 * (self.rounds and len(latent) > 2)),)


@pytest.mark.parametrize(
    ("rounds", "batches"), [(False, [6, 2, 2, 2, 6, 6]), (True, [6, 2, 2, 2, 2, 2, 2, 2, 2, 2])]
)
@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_pictures_are_computed_together_where_no_byte_differs(
    assets: Path, kind: str, rounds: bool, batches: list[int]
) -> None:
    run = begun(assets, weights=kind, pictures=3, num_steps=3)
    watched = Watched(run._denoiser.unet, rounds)
    run._denoiser.unet = watched
    together = pictures(run, 3)
    assert watched.batches == batches
    for number, found in enumerate(together):
        alone = begun(assets, weights=kind, seed=SEED + number, num_steps=3)
        assert np.array_equal(found, pictures(alone, 3)[0])


def test_more_steps_draw_the_picture_again(assets: Path, image: Image.Image) -> None:
    for start in (None, image):
        first = begun(assets, start)
        (drawn,) = pictures(first)
        (wanted,) = pictures(begun(assets, start, num_steps=8), 8)
        more = begun(assets, Image.fromarray(drawn), num_steps=8)
        more.continue_from(first.state_dict(), "exactly", reseed=False)
        (found,) = pictures(more, 8)
        assert np.array_equal(found, wanted)


def test_other_words_go_on_from_the_picture(assets: Path) -> None:
    first = begun(assets)
    (drawn,) = pictures(first)
    run = begun(assets, Image.fromarray(drawn), text_input="a blue star", strength=0.5)
    run.continue_from(first.state_dict(), "from its latent", reseed=False)
    steps = [run.iterate() for _ in range(STEPS)]
    assert [len(step.pictures) for step in steps] == [0, 0, 1, 1]
    assert not np.array_equal(steps[-1].pictures[0], drawn)


def test_a_changed_prompt_is_as_if_set_from_the_checkpoint_on(assets: Path) -> None:
    run = begun(assets)
    pictures(run, 2)
    state, other = run.state_dict(), settings(text_input="a blue star")
    run.change(other)
    resumed = begun(assets, text_input="a blue star")
    resumed.load_state_dict(state)
    assert np.array_equal(pictures(run, 2)[0], pictures(resumed, 2)[0])


def test_a_state_of_another_size_is_refused(assets: Path) -> None:
    state = begun(assets).state_dict()
    with pytest.raises(BadInput, match="checkpoint"):
        begun(assets, Xdim=72).load_state_dict(state)
    with pytest.raises(BadInput, match="checkpoint"):
        begun(assets).load_state_dict({"frames": 1})


# --- what settings do ------------------------------------------------------------------------


def test_edges_meet_where_they_should(assets: Path) -> None:
    """A picture whose latent is rolled is rolled itself, if its edges meet; only then."""
    for tiling in (True, False):
        run = begun(assets, tiling=tiling)
        latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        rolled = run._canvas.decode(latent.roll(4, -1))
        whole = run._canvas.decode(latent)
        assert torch.allclose(rolled, whole.roll(32, -1), atol=1e-4) == tiling


def test_a_sketch_has_roughly_the_colours_of_the_picture(assets: Path) -> None:
    """With an autoencoder that averages, the sketch is the average."""
    run = begun(assets)

    class Average:
        config = run._canvas.vae.config
        device = CPU

        def encode(self, picture: torch.Tensor) -> Any:
            small = torch.nn.functional.avg_pool2d(picture, 8)
            return type("Told", (), {"latents": torch.cat([small, small.mean(1, True)], 1)})

    canvas = Canvas(Average(), 8, 32, torch.float32)
    colour = torch.tensor([0.9, 0.3, 0.1])[None, :, None, None].expand(1, 3, 32, 32)
    sketch = canvas.sketch(canvas.encode(colour, None))
    assert sketch.shape == colour.shape and torch.allclose(sketch, colour, atol=0.02)


def test_a_run_that_is_stopped_leaves_a_decoded_picture(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its steps were shown by sketches; resumed, it ends with the same bytes."""
    monkeypatch.setattr(Canvas, "is_quick", False)
    given = {"text_input": PROMPT, "weights": "sd", "num_steps": STEPS, "seed": SEED}
    given |= {"Xdim": SIDE, "ydim": SIDE, "set_seed": True}
    plan = prepare(Request(given, tmp_path, assets, engine="Diffusion"))
    straight, folder, stop = submit(plan, "running"), submit(plan, "running"), Stop()
    assert execute(straight, assets_dir=assets) == "done"
    guessed: list[Any] = []

    def on_step(step: Any) -> None:
        guessed.append(step.picture)
        if step.index == 2:
            stop.request()

    assert execute(folder, assets_dir=assets, stop=stop, on_step=on_step) == "stopped"
    left = np.asarray(Image.open(folder.path / "output.PNG"))
    run = DiffusionRun(plan.settings, assets_dir=assets, device=CPU)
    run.load_model()
    run.model_init()
    for _ in range(2):
        run.iterate()
    assert np.array_equal(left, run.pictures_now()[0])
    assert not np.array_equal(left, guessed[-1])
    reopen(folder, "running")
    assert execute(folder, assets_dir=assets) == "done"
    ends = [np.asarray(Image.open(one.path / "output.PNG")) for one in (folder, straight)]
    assert np.array_equal(ends[0], ends[1])


STEP_TABLE = {  # sampler, steps, first step: how many evaluations in each step
    ("Euler", 4, 0): [1, 1, 1, 1],
    ("Euler", 4, 2): [0, 0, 1, 1],
    ("Heun", 4, 0): [2, 2, 2, 1],
    ("Heun", 4, 1): [0, 2, 2, 1],
    ("PNDM", 4, 0): [2, 1, 1, 1],
    ("PNDM", 4, 2): [0, 0, 2, 1],
    ("LCM", 1, 0): [1],
}


@pytest.mark.parametrize("case", STEP_TABLE, ids=str)
def test_how_often_the_denoiser_answers_in_a_step(case: tuple[Any, int, int]) -> None:
    sampler, steps, skipped = case
    schedule = Schedule(sampler, tiny_diffusion.NOISE, steps, skipped)
    places = [list(schedule.evaluations(step)) for step in range(steps)]
    assert [len(each) for each in places] == STEP_TABLE[case]
    assert [p for each in places for p in each] == list(range(len(schedule.timesteps)))


@pytest.mark.parametrize(
    ("steps", "strength", "skipped"),
    [(20, 1, 0), (20, 0.5, 10), (20, 0.04, 20), (20, 0, 20), (4, 0.99, 1), (1, 1, 0)],
)
def test_how_many_steps_a_starting_image_skips(steps: int, strength: float, skipped: int) -> None:
    assert first_step(steps, strength) == skipped


def test_names_of_samplers() -> None:
    assert known_name(" euler  A ") == "Euler a" and known_name("PLMS") == "PNDM"
    assert known_name("nothing") == "nothing"
    for name, sampler in SAMPLERS.items():
        assert sampler_of({"_class_name": sampler.class_name, **sampler.config}) == name
    assert sampler_of({"_class_name": "DDPMScheduler"}) is None


# --- bad input -------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, image: Image.Image, mask: Image.Image) -> Iterator[dict[str, str]]:
    found = {"image": tmp_path / "image.png", "mask": tmp_path / "mask.png"}
    found["small"] = tmp_path / "small.png"
    image.save(found["image"])
    mask.save(found["mask"])
    mask.resize((32, 32)).save(found["small"])
    yield {name: str(path) for name, path in found.items()}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a sampler": ({"sampler": "Magic"}, r"--sampler must be DDIM, .*LCM; it was Magic"),
    "weights": ({"weights": "none-such"}, r"named 'none-such'.*There are: lcm, sd"),
    "strength 0": ({"init_image": "image", "strength": "0"}, "Strength 0 of .* leaves no step"),
    "strength 2": ({"init_image": "image", "strength": "2"}, "--strength must be a number from 0"),
    "a mask alone": ({"mask": "mask"}, "A mask needs the picture"),
    "a mask's size": (
        {"init_image": "image", "mask": "small"},
        "The mask is 32x32 pixels large, and the picture that it lies on 64x64",
    ),
    "a mask that is none": ({"init_image": "image", "mask": __file__}, "The mask .*not an image"),
    "no steps": ({"num_steps": "-1"}, "--num-steps must be a whole number from 1"),
    "no prompt": ({"text_input": " "}, "No prompt"),
    "a tiny picture": ({"Xdim": "8", "ydim": "8", "pictures": "0"}, "--pictures must be"),
    "a long prompt": ({"text_input": "word " * 40_000}, "at most 100,000 characters"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_before_anything_is_made(
    case: str, files: dict[str, str], assets: Path, tmp_path: Path
) -> None:
    changes, told = BAD[case]
    given = {"text_input": PROMPT, "weights": "sd"}
    given |= {name: files.get(value, value) for name, value in changes.items()}
    request = Request(given, tmp_path / "output", assets, engine="diffusion")
    with pytest.raises(BadInput, match=told):
        prepare(request)
    assert not (tmp_path / "output").exists()


def test_strength_0_is_told_before_weights_load(assets: Path, image: Image.Image) -> None:
    run = DiffusionRun(settings(strength=0), assets_dir=assets, device=CPU, start_image=image)
    with pytest.raises(BadInput, match="leaves no step"):
        run.load_model()


def test_a_plan_has_the_engines_listed_name_and_the_mask(
    files: dict[str, str], assets: Path, tmp_path: Path
) -> None:
    given = {"text_input": PROMPT, "weights": "sd", "Xdim": 70, "ydim": 64}
    given |= {"init_image": files["image"], "mask": files["mask"], "sampler": "euler A"}
    plan = prepare(Request(given, tmp_path, assets, engine="DIFFUSION"))
    assert plan.engine == "Diffusion" and plan.mask and plan.settings.model_dump()["Xdim"] == 64
    assert any("70x64 became 64x64" in warning for warning in plan.warnings)
    assert plan.settings.model_dump()["sampler"] == "Euler a"


def test_weights_recommend_their_size_and_sampler(assets: Path, tmp_path: Path) -> None:
    plan = prepare(Request({"text_input": PROMPT, "weights": "lcm"}, tmp_path, assets, "Diffusion"))
    values = plan.settings.model_dump()
    assert (values["Xdim"], values["sampler"], values["num_steps"]) == (64, "LCM", 4)
    estimate = registry.get("Diffusion").estimate(plan.settings, assets, "CPU (x, 2 threads)", [])
    assert estimate and estimate.seconds and estimate.memory_bytes
    larger = plan.settings.model_copy(update={"upscale": 4})
    upscaled = registry.get("Diffusion").estimate(larger, assets, "CPU (x, 2 threads)", [])
    assert upscaled and (upscaled.seconds or 0) > estimate.seconds


# --- prompts over the steps ------------------------------------------------------------------


SCHEDULED = "a red [heart:star:0.5] AND [fog|rain] :0.3"


def test_a_schedule_says_what_its_parts_say_alone(assets: Path) -> None:
    run = begun(assets, text_input="a [heart:star:0.5]", negative_prompt="[fog|rain]")
    for step, words, avoided in (
        (1, "a heart", "fog"),
        (2, "a heart", "rain"),
        (3, "a star", "fog"),
        (4, "a star", "rain"),
    ):
        told = run._script.at(step)
        plain = begun(assets, text_input=words, negative_prompt=avoided)._script.at(step)
        assert torch.equal(told.prompt.tokens, plain.prompt.tokens)
        assert torch.equal(told.avoid.tokens, plain.avoid.tokens)


def test_resuming_and_continuing_are_exact_with_schedules(assets: Path, tmp_path: Path) -> None:
    (wanted,) = pictures(begun(assets, text_input=SCHEDULED))
    for done in (1, 2, 3):
        interrupted = begun(assets, text_input=SCHEDULED)
        pictures(interrupted, done)
        resumed = begun(assets, text_input=SCHEDULED)
        resumed.load_state_dict(kept(interrupted, done, tmp_path / "kept.safetensors"))
        assert np.array_equal(pictures(resumed, STEPS - done)[0], wanted)
    first = begun(assets, text_input=SCHEDULED)
    drawn = pictures(first)[0]
    (more_wanted,) = pictures(begun(assets, text_input=SCHEDULED, num_steps=8), 8)
    more = begun(assets, Image.fromarray(drawn), text_input=SCHEDULED, num_steps=8)
    more.continue_from(first.state_dict(), "exactly", reseed=False)
    assert np.array_equal(pictures(more, 8)[0], more_wanted)


@pytest.mark.parametrize("kind", ["sd", "xl", "lcm"])
def test_joined_prompts_add_up_what_each_pulls(kind: str, assets: Path) -> None:
    """One prompt that is joined to itself by halves is that prompt."""
    parts = f"{PROMPT} :0.5 AND {PROMPT} :0.5"
    (joined,) = pictures(begun(assets, weights=kind, text_input=parts))
    (alone,) = pictures(begun(assets, weights=kind))
    (other,) = pictures(begun(assets, weights=kind, text_input=f"{PROMPT} AND a cat :20"))
    assert np.abs(joined.astype(int) - alone).max() <= 2
    assert np.abs(other.astype(int) - alone).max() > 2


@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_prompts_of_other_lengths_are_drawn_together(
    kind: str, assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long prompt, and whether the texts go through the denoiser at once makes no difference."""
    long = "a (cat:1.2) and a dog, " * 40 + "AND fog :0.2"
    run = begun(assets, weights=kind, text_input=long)
    told = run._script.at(1)
    lengths = {t.tokens.shape[1] for t in (told.avoid, *(wish.text for wish in told.wishes))}
    assert lengths == {4 * 77}
    (together,) = pictures(run)
    monkeypatch.setattr("studio.engines.diffusion.denoiser.TOGETHER", 0)
    (apart,) = pictures(begun(assets, weights=kind, text_input=long))
    assert np.abs(together.astype(int) - apart).max() <= 2


def test_nothing_to_avoid_is_as_long_as_the_prompt(assets: Path) -> None:
    told = begun(assets, weights="xl", negative_prompt=" ", text_input="cat " * 100)._script.at(1)
    assert told.avoid.tokens.shape == told.prompt.tokens.shape
    assert not told.avoid.tokens.any()
