"""Settings from XibQGAN-CLIP's configuration files, which have the keys of the published ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import yaml
from PIL import Image

import generate
from studio.base.errors import BadInput
from studio.engines.vqgan_clip import xibqgan
from studio.engines.vqgan_clip.augmentation_list import parse_augmentations
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.making import recipes
from studio.making.prepare import Request, prepare
from studio.settings.values import check_values

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
use_config: True
prompts: a lighthouse in a storm|oil painting:0.5|text:-0.3
init_image: sea.png
image_prompts: input/sea.png:0.25|clouds.png|gone.png:2
size:
  - 96 # width
  - 64
output_dir: output
input_dir: input
step_size: 0.07
display_freq: 10
max_iterations: 40
seed: 11
prompt_frequency:
noise_prompt_weights: [0.1, -0.2]
noise_prompt_seeds: [123, 7]
init_weight:
init_noise: gradient # None (blank), pixels, gradient
optimiser: DiffGrad
vqgan_type: tiny_f8
cutn: 6
cut_pow: 1.5
cut_method: latest
default_config: vqgan_imagenet_f16_1024
default_model: vqgan_imagenet_f16_16384
clip_model: tiny_clip
weight_decay: 1e-9
cuda_device: cuda:0
cudnn_determinism: True
max_split_size_mb: 2048
realesrgan: True
realesrgan_model: x2
upscale_always: False
nine_type:
smooth: 0.3
"""
AUGMENTS = """
no_augments: False
noise_fac: 0.1
augments:
  - Sh
  - Ji
  - Zz
jitter: {use: False, brightness: 0.1, contrast: 0.2, saturation: 0.3, hue: 0.4, p: 0.5, arg: Ji}
sharpness: {use: False, sharpness: 0.4, p: 0.25, arg: Sh, incompatible: [updatedpooling]}
erasing: {use: True, scale: [.1, .4], ratio: [.3, 1 / .3], same_on_batch: True, p: 0.3, arg: Er}
gaussian_blur: {use: False, kernel_size: [3, 3], sigma: [0.2, 0.4], border_type: reflect, p: 0.25}
motion_blur:
  use: True
  kernel_size: [5, 5]
  angle: 0.0
  direction: 0.0
  border_type: CONSTANT
  resample: NEAREST
  same_on_batch: False
  p: 0.5,
affine: {use: True, arg: Af, degrees: 15, translate: 0.1, shear: 5, p: 0.7, padding_mode: zeros}
perspective: {use: False, arg: Pe, distortion_scale: 0.7, p: 0.7}
thin_plate_spline: {use: True, arg: Ts, scale: 9, same_on_batch: True, p: 0.7}
"""
VIDEO = """
make_video: False
make_zoom_video: True
zoom_start: 0
zoom_frequency: 7
zoom_scale: 0.99
zoom_shift_x: 3
zoom_shift_y: 0
video_length: 10
output_video_fps: 10
video_style_dir:
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A folder of that program, with its settings and two of the three pictures that they name."""
    for name, text in zip(xibqgan.FILES, (CONFIG, AUGMENTS, VIDEO), strict=True):
        (tmp_path / "Config").mkdir(exist_ok=True)
        (tmp_path / "Config" / name).write_text(text)
    (tmp_path / "input").mkdir()
    for name in ("sea.png", "clouds.png"):
        Image.new("RGB", (8, 8), "blue").save(tmp_path / "input" / name)
    return tmp_path


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    tiny_models.write_tiny_assets(folder)
    return folder


def read(program: Path, name: str = "config.yaml") -> xibqgan.ForeignSettings:
    path = program / "Config" / name
    found = xibqgan.settings_of(yaml.safe_load(path.read_text()), path)
    assert found is not None
    return found


def changed(program: Path, name: str = "config.yaml", **values: Any) -> xibqgan.ForeignSettings:
    path = program / "Config" / name
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values, sort_keys=False))
    return read(program)


def test_what_has_a_counterpart_is_taken(program: Path) -> None:
    values = dict(read(program).values)
    lists = values.pop("augmentations")
    pictures = [str(program / "input" / name) for name in ("sea.png", "clouds.png")]
    assert values == {
        "text_input": "a lighthouse in a storm|oil painting:0.5|text:-0.3",
        "init_image": pictures[0],
        "image_prompt": [f"{pictures[0]}:0.25", pictures[1]],
        "Xdim": 96,
        "ydim": 64,
        "step_size": 0.07,
        "num_steps": 40,
        "seed": 11,
        "set_seed": True,
        "noise_prompt": ["123:0.1", "7:-0.2"],
        "init_noise": "gradient",
        "optimiser": "DiffGrad",
        "vqgan_ckpt": "tiny_f8",
        "cutn": 6,
        "cut_pow": 1.5,
        "cut_method": "latest",
        "clip_model": "tiny_clip",
        "deterministic": True,
        "use_scrolling_zooming": True,
        "zoom_factor": 0.99,
        "transform_interval": 7,
        "translation_x": 3,
        "translation_y": 0,
        "upscale": 2,
        "upscale_always": False,
    }
    assert parse_augmentations(lists) == parse_augmentations(
        "sharpness(0.4, p=0.25) | colour_jitter(0.1, 0.2, 0.3, 0.4, p=0.5)"
        " | erasing((0.1, 0.4), (0.3, 3.3333333333333335), same_on_batch=true, p=0.3)"
        " | motion_blur(5, 0, 0, constant, p=0.5)"
        " | affine(15, 0.1, shear=5, padding_mode=zeros, p=0.7)"
    ), "the listed ones in their order, then those that are switched on"


PARTS = ["a sun", None, "", "-0.5", *["grass"] * 5]


def with_slices(program: Path, **values: Any) -> xibqgan.ForeignSettings:
    (program / "Config" / "video_config.yaml").unlink()
    return changed(program, **({"slice_prompts": PARTS, "save_nine": True} | values))


def test_slices_have_the_size_and_the_steps_of_its_pictures(program: Path) -> None:
    found = with_slices(program, max_iterations=40, size=[96, 64])
    values = {n: found.values[n] for n in ("slices", "Xdim", "ydim", "num_steps", "slice_steps")}
    assert values == {
        "slices": "nine",
        "Xdim": 192,
        "ydim": 128,
        "num_steps": 9 * 40,
        "slice_steps": 40,
    }
    assert found.values["slice_prompts"] == ["a sun", "", "", "-0.5", *["grass"] * 5]
    assert found.values["save_nine"] is True
    assert {"slice_prompts", "save_nine"} <= {*found.taken}
    assert found.left["smooth"] == "it is 0.1 here" and "nine_type" not in found.left
    check_values(VQGANCLIPSettings, found.values, "the test")


def test_without_a_starting_image_slices_begin_with_a_small_picture(program: Path) -> None:
    values = with_slices(program, init_image=None, save_nine=False, nine_type="NW").values
    assert (values["num_steps"], values["slice_steps"], values["grow_steps"]) == (400, 40, 40)
    assert values["save_nine"] is False


def test_one_slice_alone_is_not_made(program: Path) -> None:
    found = with_slices(program, nine_type=4, slice_prompts=None)
    assert found.values["slices"] == "nine" and "slice_prompts" not in found.values
    assert "--remake" in found.left["nine_type"]


def test_slice_prompts_that_are_not_nine_are_left(program: Path) -> None:
    found = with_slices(program, slice_prompts=["a"] * 8)
    assert "slices" not in found.values and found.values["Xdim"] == 96
    assert found.left["slice_prompts"] == "there must be nine; there are 8"
    zooming = changed(program, slice_prompts=PARTS, make_zoom_video=True)
    assert "slices" not in zooming.values
    assert zooming.left["slice_prompts"] == "a picture that zooms has no slices"


def test_each_key_is_taken_left_or_empty(program: Path) -> None:
    found = read(program)
    texts = (CONFIG, AUGMENTS, VIDEO)
    keys = {k: v for text in texts for k, v in yaml.safe_load(text).items() if v is not None}
    silent = {"input_dir", "use_config", "default_model", "default_config"}
    assert keys.keys() - silent <= {*found.taken, *found.left}
    assert found.files == [*xibqgan.FILES]
    assert set(found.taken).isdisjoint(set(found.left) - {"image_prompts"})
    assert found.left["image_prompts"] == "gone.png is not there"
    assert found.left["augments: Zz"] == "there is no such augmentation"
    assert found.left["perspective"] == "it is not used"
    assert found.left["thin_plate_spline"].startswith("thin_plate_spline: 'scale' must be a number")
    assert found.left["display_freq"] == "" and "prompt_frequency" not in found.left


@pytest.mark.parametrize(
    ("values", "ours"),
    [
        ({"size": 64}, {"Xdim": 64, "ydim": 64}),
        ({"optimiser": "RMSProp"}, {"optimiser": "RMSprop"}),
        ({"vqgan_type": None}, {"vqgan_ckpt": "vqgan_imagenet_f16_16384"}),
        ({"cut_method": None}, {"cut_method": "latest"}),
        ({"prompts": "one | two ^ three"}, {"text_input": "one | two"}),
        ({"init_noise": "Pixels"}, {"init_noise": "pixels"}),
        ({"noise_prompt_seeds": 5, "noise_prompt_weights": 0.5}, {"noise_prompt": ["5:0.5"]}),
    ],
)
def test_other_spellings(program: Path, values: dict, ours: dict) -> None:
    assert ours.items() <= dict(changed(program, **values).values).items()


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({"seed": None}, "seed"),
        ({"init_image": "None"}, "init_image"),
        ({"init_image": "gone.png"}, "init_image"),
        ({"init_noise": None}, "init_noise"),
        ({"noise_prompt_seeds": None}, "noise_prompt"),
        ({"cut_method": "updated"}, "augmentations"),
    ],
)
def test_what_is_not_said_is_not_set(program: Path, values: dict, missing: str) -> None:
    assert missing not in changed(program, **values).values


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, (2, False)),
        ({"realesrgan_model": "x4", "upscale_always": True}, (4, True)),
        ({"realesrgan_model": "x8", "upscale_always": None}, (8, False)),
        ({"realesrgan": False, "upscale_always": True}, (0, False)),
        ({"realesrgan": None}, (None, None)),
    ],
)
def test_upscaling_is_taken_as_it_is_switched_on(
    program: Path, values: dict, wanted: tuple[int | None, bool | None]
) -> None:
    found = changed(program, **values).values
    assert (found.get("upscale"), found.get("upscale_always")) == wanted


@pytest.mark.parametrize(
    ("values", "key", "reason"),
    [
        ({"prompts": "one ^ two"}, "prompts after the first ^", "there are no stories yet"),
        ({"init_image": "gone.png"}, "init_image", "gone.png is not there"),
        ({"weight_decay": 0.1}, "weight_decay", "DiffGrad's is 1e-09 here"),
        ({"optimiser": "Adam"}, "weight_decay", "it is DiffGrad's alone"),
        ({"cut_method": "updated"}, "jitter", "the cutout method updated takes no others"),
        ({"init_weight": 0.5}, "init_weight", ""),
        ({"realesrgan": False}, "realesrgan_model", "it is not used"),
        ({"realesrgan_model": "x16"}, "realesrgan_model", "there is no x16"),
        ({"realesrgan_model": None}, "realesrgan_model", "it is empty"),
    ],
)
def test_what_is_left_has_its_reason(program: Path, values: dict, key: str, reason: str) -> None:
    assert changed(program, **values).left[key] == reason


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"no_augments": True}, []),
        ({"augments": ["Gb"]}, ["gaussian_blur", "erasing", "motion_blur", "affine"]),
        ({"augments": ["Af", "Sh"]}, ["affine", "sharpness", "erasing", "motion_blur"]),
        (
            {"augments": None, "erasing": {"use": False}, "motion_blur": None, "affine": None}
            | {"thin_plate_spline": None},
            ["affine", "perspective", "colour_jitter", "erasing"],
        ),
    ],
)
def test_the_order_of_the_list_is_kept(program: Path, values: dict, names: list[str]) -> None:
    found = changed(program, "augment_config.yaml", **values).values["augmentations"]
    assert [item.name for item in parse_augmentations(found)] == names


@pytest.mark.parametrize("name", xibqgan.FILES)
def test_any_of_the_files_brings_the_others(program: Path, name: str) -> None:
    assert read(program, name).values == read(program).values


def test_a_file_by_itself(program: Path) -> None:
    for name in ("config.yaml", "video_config.yaml"):
        (program / "Config" / name).unlink()
    assert list(read(program, "augment_config.yaml").values) == ["augmentations"]


# --- as a settings file ----------------------------------------------------------------------


def test_a_request_says_what_was_taken_and_left(
    program: Path, assets: Path, tmp_path: Path
) -> None:
    path = program / "Config" / "config.yaml"
    request = Request({}, tmp_path / "output", assets, settings_file=path)
    plan = prepare(request)
    assert plan.engine == "VQGAN-CLIP"
    assert (plan.settings.seed, plan.settings.num_steps) == (11, 40)
    taken, left = (line for line in plan.warnings if line.startswith(("Taken", "Left out")))
    assert "from XibQGAN-CLIP's config.yaml, augment_config.yaml, video_config.yaml: " in taken
    assert "step_size, max_iterations" in taken and "display_freq" not in taken
    assert "display_freq" in left and "image_prompts (gone.png is not there)" in left


def test_what_is_given_wins(program: Path, assets: Path, tmp_path: Path) -> None:
    path = program / "Config" / "config.yaml"
    given = {"cutn": 3, "init_image": None, "cut_method": "original"}
    plan = prepare(Request(given, tmp_path / "output", assets, settings_file=path))
    assert (plan.settings.model_dump()["cutn"], plan.settings.model_dump()["step_size"]) == (
        3,
        0.07,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1", "is of no kind that the studio knows. Give the details.json"),
        ("- 1", "is of no kind"),
        ("", "is of no kind"),
        ("cut_method: latest\nsize: [", "cannot be read: as yaml"),
        (CONFIG.replace("cutn: 6", "cutn: many"), r"In .*: cutn must be a whole number"),
        (CONFIG.replace("latest", "newest"), r"In .*: cut_method must be ours, original"),
        (CONFIG.replace("DiffGrad", "SGD"), r"In .*: optimiser must be Adam"),
        (CONFIG.replace("- 96 # width", "- 9999999"), r"In .*: Xdim must be"),
        (CONFIG.replace("tiny_f8", "faceshq"), r"'./download-weights.sh faceshq'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    text: str, said: str, assets: Path, tmp_path: Path
) -> None:
    path = tmp_path / "config.yml"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        prepare(Request({}, tmp_path / "output", assets, settings_file=path))


def test_another_engine_takes_the_prompt_and_the_size_alone(program: Path, monkeypatch) -> None:
    import fake_engine

    fake_engine.use(monkeypatch)
    path = program / "Config" / "config.yaml"
    values = recipes.from_file(path, program, fake_engine.MODEL).values
    assert values.keys() == {"text_input", "Xdim", "ydim"}


def test_the_command_line_takes_such_a_file(
    program: Path, assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folders = program / "Config" / "config.yaml", ["--output-dir", str(tmp_path / "output")]
    folders += ["--assets-dir", str(assets)]
    words = ["--settings", path, "--num-steps", "1", "--transform-interval", "1"]
    words += ["--xdim", "32", "--ydim", "32"]
    assert generate.main([*map(str, words), *folders]) == 0
    run, said = capsys.readouterr()
    assert "Taken from XibQGAN-CLIP's config.yaml" in said and "Left out:" in said
    folder = Path(run.strip())
    details = json.loads((folder / "details.json").read_text())
    assert (details["optimiser"], details["cut_method"]) == ("DiffGrad", "latest")
    assert details["noise_prompt"] == ["123:0.1", "7:-0.2"]
    assert generate.main(["--settings", str(folder / "details.json"), *folders]) == 0
    again = Path(capsys.readouterr().out.strip())
    pictures = [Image.open(path / "output.PNG") for path in (folder, again)]
    assert pictures[0].tobytes() == pictures[1].tobytes()
