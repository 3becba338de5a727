"""Settings in the form of other web UIs, in texts and in pictures, and ours in that form."""

import io
import random
import string
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.engines.diffusion.parameters import (
    foreign_settings_of_parameters,
    parameters_text,
)
from studio.media.exif import EXIF_IFD, USER_COMMENT, with_text
from studio.media.parameters_text import (
    KEY,
    MAX_LENGTH,
    NEGATIVE,
    Parameters,
    parameters_in,
    read_parameters,
    write_parameters,
)
from studio.settings import common
from studio.settings.declare import setting
from studio.settings.run_settings import RunSettings

ROOT = Path(__file__).resolve().parents[1]
LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"
PAIRS = {"Steps": "20", "Sampler": "Euler a", "CFG scale": "7", "Seed": "1", "Size": "512x512"}
QUICK = 10.0  # seconds


@pytest.mark.parametrize(
    "text, prompt, negative, pairs",
    [
        ("", "", "", {}),
        ("a cat", "a cat", "", {}),
        (f"a cat\n{NEGATIVE} a dog\n{LINE}", "a cat", "a dog", PAIRS),
        (f"a cat\n{LINE}", "a cat", "", PAIRS),
        (f"{NEGATIVE} a dog\n{LINE}", "", "a dog", PAIRS),
        (LINE, "", "", PAIRS),
        (f"a cat\r\n{NEGATIVE} a dog\r\n{LINE}\r\n", "a cat", "a dog", PAIRS),
        # Line breaks and colons in prompts.
        (f"a\n\nb: c\n{NEGATIVE} d\ne: f, g: h\n{LINE}", "a\n\nb: c", "d\ne: f, g: h", PAIRS),
        (f"text: Steps: 3\n{NEGATIVE}\n{LINE}", "text: Steps: 3", "", PAIRS),
        (f"no {NEGATIVE} here\n{LINE}", f"no {NEGATIVE} here", "", PAIRS),
        ("a: b, c: d, e: f", "a: b, c: d, e: f", "", {}),
        ("Steps: up, down", "Steps: up, down", "", {}),
        ("Steps: 30", "", "", {"Steps": "30"}),
        ("a\nSeed: 3, Size: 64x64", "a", "", {"Seed": "3", "Size": "64x64"}),
        # Lines behind the settings.
        (f"a\n{LINE}\nTemplate: a {{b|c}}, d", "a", "", PAIRS | {"Template": "a {b|c}, d"}),
        # Values.
        (
            'a\nSteps: 1, Model: "x, y: z", Lora hashes: "ink: 12ab, \\"b\\": 34cd", Version: v1.9',
            *("a", ""),
            {
                "Steps": "1",
                "Model": "x, y: z",
                "Lora hashes": 'ink: 12ab, "b": 34cd',
                "Version": "v1.9",
            },
        ),
        ("Steps: 1, Model: x, y, VAE: z", "", "", {"Steps": "1", "Model": "x, y", "VAE": "z"}),
        (
            'Steps: 1, Hashes: {"model": "12", "vae": "3,4"}, Seed: 2',
            *("", ""),
            {"Steps": "1", "Hashes": '{"model": "12", "vae": "3,4"}', "Seed": "2"},
        ),
        ("Steps: 1, A: {b, C: 3", "", "", {"Steps": "1", "A": "{b", "C": "3"}),
        ('Steps: 1, Aa: "b, Cc: 3', "", "", {"Steps": "1", "Aa": '"b', "Cc": "3"}),
        ('Steps: 1, Aa: "b" c, Cc: 3', "", "", {"Steps": "1", "Aa": '"b" c', "Cc": "3"}),
        (r'Steps: 1, Aa: "\q,x"', "", "", {"Steps": "1", "Aa": r"\q,x"}),
        (r'Steps: 1, Aa: "x\ny"', "", "", {"Steps": "1", "Aa": "x\ny"}),
        ("Steps: 1, Aa:, Bb: ", "", "", {"Steps": "1", "Aa": "", "Bb": ""}),
        ("Steps: 1, Seed: 2, Seed: 3", "", "", {"Steps": "1", "Seed": "2"}),
        ("Steps: 1,, ,Seed: 2,", "", "", {"Steps": "1", "Seed": "2"}),
    ],
)
def test_reading(text: str, prompt: str, negative: str, pairs: dict[str, str]) -> None:
    found = read_parameters(text)
    assert (found.prompt, found.negative) == (prompt, negative)
    assert list(found.pairs.items()) == list(pairs.items())


def test_what_is_written_is_read() -> None:
    draw = random.Random(4)
    letters = string.ascii_letters + string.digits + " ,:\"'\\{}[]()\n\t.-/é猫"

    def some(length: int) -> str:
        return "".join(draw.choices(letters, k=draw.randint(0, length)))

    for _ in range(1000):
        lines = [" ".join(some(30).split()) for _ in range(draw.randint(0, 3))]
        prompt, negative = "\n".join(lines).strip(), " ".join(some(40).split())
        pairs = {"Steps": str(draw.randint(1, 99))}
        pairs |= {f"Key {n}": some(20) for n in range(draw.randint(0, 5))}
        given = Parameters(prompt, negative, pairs)
        assert read_parameters(write_parameters(given)) == given


@pytest.mark.parametrize(
    "text",
    [
        *("a" * MAX_LENGTH, "a: " * 60_000, "Steps: 1, " + "a, " * 60_000, "\n" * MAX_LENGTH),
        *(
            "Steps: 1, " + 'aa: "' * 40_000,
            "Steps: 1, " + "aa: [" * 40_000,
            "Steps: 1" + " " * 10**5,
        ),
        *("Steps: 1, aa: " + "[" * 150_000, "Steps: 1, " + "a b " * 40_000, "Steps: 1\n" * 20_000),
        *(
            "Steps: " + "9" * 100_000,
            "Steps: 1, Size: " + "1x" * 50_000,
            "Steps: 1, aa: [1," * 12_000,
        ),
        *('Steps: 1, aa: "' + "\\" * 100_001, f"{NEGATIVE}\n" * 12_000, "\0: \0, " * 30_000),
    ],
)
def test_any_text_is_read_quickly(text: str) -> None:
    began = time.monotonic()
    found = foreign_settings_of_parameters(text, Known)
    assert all(len(reason) < 300 for reason in found.left.values())
    assert time.monotonic() - began < QUICK


class Known(RunSettings):
    """Settings with the names that diffusion's have."""

    text_input: str = common.prompt()
    negative_prompt: str = setting("", "Negative prompt", "What to avoid.")
    num_steps: int = setting(20, "Steps", "How many.", ge=1, le=150)
    Xdim: int = common.width(128)
    ydim: int = common.height(128)
    sampler: Literal["Euler", "PNDM"] = setting("Euler", "Sampler", "Which.")
    guidance_scale: float = setting(7.5, "Guidance scale", "How closely.", ge=0, le=100)
    strength: float = setting(0.75, "Strength", "How much.", ge=0, le=1)
    clip_skip: int = setting(0, "CLIP skip", "How many layers.", ge=0, le=11)
    set_seed: bool = common.set_seed()
    seed: int = common.seed()
    weights: str = setting("", "Weights", "Which.")
    checkpoint_seconds: float = common.checkpoint_seconds()
    upscale: common.Scale = common.upscale()
    upscale_always: bool = common.upscale_always()


def test_what_has_a_counterpart_is_taken() -> None:
    text = (
        "a (red:1.3) cat,\n<lora:ink:0.8>\nNegative prompt: blurry\n"
        "Steps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 42,"
        " Size: 512x768, Model hash: 12ab34cd, Model: dreams_v2, Denoising strength: 0.6,"
        ' Clip skip: 2, ENSD: 31337, Tiling: True, Lora hashes: "ink: 12ab", Mask blur: 4,'
        " Version: v1.9.4"
    )
    found = foreign_settings_of_parameters(text)
    assert found.values == {
        "text_input": "a (red:1.3) cat,\n<lora:ink:0.8>",
        "negative_prompt": "blurry",
        "num_steps": 25,
        "sampler": "DPM++ 2M Karras",
        "guidance_scale": 6.5,
        "seed": 42,
        "set_seed": True,
        "Xdim": 512,
        "ydim": 768,
        "weights": "dreams_v2",
        "strength": 0.6,
        "clip_skip": 1,
        "tiling": True,
    }
    assert found.left == {"ENSD": "random numbers are drawn otherwise here", "Mask blur": ""}
    assert found.taken[:4] == ["Prompt", "Negative prompt", "Steps", "Sampler"]
    assert "Schedule type" in found.taken
    assert not {"Version", "Model hash", "Lora hashes"} & {*found.taken, *found.left}
    assert found.program == "another web UI"


@pytest.mark.parametrize(
    "theirs, ours, left",
    [
        ("Euler", "Euler", {}),
        ("Euler a", "Euler a", {}),
        ("euler_ancestral", "Euler a", {}),
        ("k_euler_a", "Euler a", {}),
        ("PLMS", "PNDM", {}),
        ("DDIM", "DDIM", {}),
        ("LMS", "LMS", {}),
        ("Heun", "Heun", {}),
        ("UniPC", "UniPC", {}),
        ("uni_pc", "UniPC", {}),
        ("LCM", "LCM", {}),
        ("DPM++ 2M", "DPM++ 2M", {}),
        ("dpmpp_2m", "DPM++ 2M", {}),
        ("DPM++ 2M Karras", "DPM++ 2M Karras", {}),
        ("DPM++ SDE Karras", "DPM++ SDE Karras", {}),
        ("DPM++ 2M, Schedule type: Automatic", "DPM++ 2M Karras", {}),
        ("DPM++ 2M, Schedule type: Uniform", "DPM++ 2M", {}),
        ("DPM++ SDE, Schedule type: Karras", "DPM++ SDE Karras", {}),
        ("Euler a, Schedule type: Automatic", "Euler a", {}),
        ("DPM++ SDE", "DPM++ SDE Karras", {"Schedule type": "the nearest is DPM++ SDE Karras"}),
        ("LMS Karras", "LMS", {"Schedule type": "the nearest is LMS"}),
        ("Euler, Schedule type: Beta", "Euler", {"Schedule type": "the nearest is Euler"}),
        ("DPM2 a", None, {"Sampler": "there is no DPM2 a"}),
        ("", None, {"Sampler": "there is no "}),
        (
            "DPM fast, Schedule type: Karras",
            None,
            {"Sampler": "there is no DPM fast", "Schedule type": ""},
        ),
    ],
)
def test_samplers(theirs: str, ours: str | None, left: dict[str, str]) -> None:
    found = foreign_settings_of_parameters(f"a\nSteps: 9, Sampler: {theirs}, Seed: 3")
    assert found.values.get("sampler") == ours
    assert found.left == left


@pytest.mark.parametrize(
    "pair, reason",
    [
        ("Steps: 1000", "'Steps' must be a whole number from 1 to 150; it was 1000"),
        ("Steps: many, Size: 64x64, Seed: 1", "many cannot be read"),
        ("Seed: -1", "Seed"),
        ("Seed: 99999999999999999999", "Seed"),
        ("Size: 512", "512 cannot be read"),
        ("Size: 7x0", ""),
        ("CFG scale: nan", "nan cannot be read"),
        ("CFG scale: 1e999", "1e999 cannot be read"),
        ("CFG scale: -3", "Guidance scale"),
        ("Denoising strength: 2", "Strength"),
        ("Clip skip: 0", "CLIP skip"),
        ("Sampler: LCM", "Sampler"),
        ("Model: gone", "there are no weights gone"),
    ],
)
def test_what_the_engine_refuses_is_left(pair: str, reason: str) -> None:
    line = pair if pair.startswith("Steps") else f"Steps: 9, {pair}"
    found = foreign_settings_of_parameters(f"a cat\n{line}", Known, weights=["dreams.safetensors"])
    key = pair.partition(":")[0]
    assert reason in found.left[key]
    assert key not in found.taken
    assert found.values["text_input"] == "a cat"


def test_a_setting_that_the_engine_lacks_is_left() -> None:
    found = foreign_settings_of_parameters("a\nSteps: 9, Tiling: True", Known)
    assert found.left == {"Tiling": ""}


@pytest.mark.parametrize("name", ["Dreams", "dreams.safetensors"])
def test_weights_are_found_by_their_name(name: str) -> None:
    text = f"a\nSteps: 9, Model: {name}"
    found = foreign_settings_of_parameters(text, weights=["ink", "dreams.safetensors"])
    assert found.values["weights"] == "dreams.safetensors"


def test_the_strength_of_a_hires_fix_is_not_taken() -> None:
    text = "a\nSteps: 9, Denoising strength: 0.4, Hires upscale: 2, Hires upscaler: Latent"
    found = foreign_settings_of_parameters(text)
    assert found.values == {"text_input": "a", "num_steps": 9}
    assert found.left == {
        "Denoising strength": "it is that of the hires fix",
        "Hires upscale": "",
        "Hires upscaler": "",
    }


OURS: dict[str, Any] = {
    "text_input": "a (red) cat:\n1, 2",
    "negative_prompt": "blurry, a dog",
    "num_steps": 25,
    "sampler": "PNDM",
    "guidance_scale": 7.5,
    "seed": 0,
    "set_seed": True,
    "Xdim": 128,
    "ydim": 96,
    "weights": "dreams, v2",
}


def test_our_settings_in_their_form() -> None:
    text = parameters_text(OURS | {"strength": 0.5, "clip_skip": 0}, {"Model hash": "12ab"})
    lines = text.split("\n")
    assert lines[:3] == ["a (red) cat:", "1, 2", "Negative prompt: blurry, a dog"]
    assert lines[3].startswith(
        "Steps: 25, Sampler: PLMS, CFG scale: 7.5, Seed: 0, Size: 128x96,"
        ' Model: "dreams, v2", Model hash: 12ab, Version: studio '
    )


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"clip_skip": 2},
        {"tiling": True},
        {"sampler": "DPM++ SDE Karras"},
        {"sampler": "DPM++ 2M"},
        {"negative_prompt": "x: y\nSeed: 3"},
        {"guidance_scale": 0.0},
    ],
)
def test_our_settings_are_read_back(more: dict[str, Any]) -> None:
    found = foreign_settings_of_parameters(parameters_text(OURS | more))
    assert found.values == OURS | more
    assert found.left == {}


def test_the_strength_is_written_for_a_starting_image() -> None:
    text = parameters_text(OURS | {"strength": 0.5, "init_image": "a.png"})
    assert foreign_settings_of_parameters(text).values["strength"] == 0.5


def picture(kind: str, **how: Any) -> Image.Image:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind, **how)
    return Image.open(io.BytesIO(buffer.getvalue()))


def with_comment(comment: bytes | str, kind: str = "JPEG") -> Image.Image:
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = comment
    return picture(kind, exif=exif.tobytes())


TEXT = f"a cat, 猫\n{LINE}"


@pytest.mark.parametrize("chunk", ["tEXt", "zTXt", "iTXt"])
def test_the_text_in_a_png(chunk: str) -> None:
    info, text = PngInfo(), TEXT if chunk == "iTXt" else LINE
    if chunk == "iTXt":
        info.add_itxt(KEY, text)
    else:
        info.add_text(KEY, text, zip=chunk == "zTXt")
    assert parameters_in(picture("PNG", pnginfo=info)) == text
    assert parameters_in(picture("PNG")) is None


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + TEXT.encode("utf-16-be"),
        b"UNICODE\0" + TEXT.encode("utf-16-le"),
        b"\0" * 8 + TEXT.encode(),
        b"ASCII\0\0\0" + TEXT.encode(),
        TEXT.encode(),
    ],
)
def test_the_text_in_exif(comment: bytes, kind: str) -> None:
    assert parameters_in(with_comment(comment, kind)) == TEXT


def test_the_text_in_a_jpeg_of_the_studio() -> None:
    ours = with_text(Image.Exif().tobytes(), {"details": "{}", KEY: TEXT})
    assert parameters_in(picture("JPEG", exif=ours)) == TEXT
    assert parameters_in(picture("JPEG", exif=with_text(b"", {"details": "{}"}))) is None


@pytest.mark.parametrize("comment", [b"", b" ", b"UNICODE\0", b"UNICODE\0\0", b"ASCII\0\0\0\0\0"])
def test_no_text_in_exif(comment: bytes) -> None:
    assert parameters_in(with_comment(comment)) is None


def test_a_huge_text_is_not_read() -> None:
    info = PngInfo()
    info.add_text(KEY, "a" * (MAX_LENGTH + 1))
    assert parameters_in(picture("PNG", pnginfo=info)) is None
    info = PngInfo()
    info.add_text(KEY, "a" * MAX_LENGTH)
    assert parameters_in(picture("PNG", pnginfo=info)) == "a" * MAX_LENGTH


def test_reading_needs_no_torch() -> None:
    code = "import sys, studio.engines.diffusion.parameters; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
