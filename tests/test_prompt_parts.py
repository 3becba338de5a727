"""What VQGAN-CLIP tells of a prompt: parts and weights, tokens, what is to be avoided."""

import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import clip
import pytest
import torch
from tiny_models import clip_state_dict

from studio.base.errors import BadInput
from studio.engines.clip.prompts import (
    AVOIDING_WEIGHT,
    Prompt,
    parse_avoided,
    parse_prompts,
    write_prompts,
)
from studio.engines.clip.targets import text_targets, warnings_of_length
from studio.engines.device import compute_precision
from studio.engines.prompt_parts import Length, PromptPart
from studio.engines.vqgan_clip.engine import VQGANCLIP
from studio.making import recipes
from studio.making.prepare import Request, prepare
from studio.models import clip_text
from vqgan_utils import load_clip_model

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "assets"
ENGINE = VQGANCLIP()
NEVER = -math.inf


@pytest.mark.parametrize(
    "text",
    [
        *("a cat", "a cat:2", "a cat:-0.25 | fog", "a cat:1:0.3", "a cat:0", "photo:abc:2"),
        *("1:2:3:4", "1:2:1:-inf", "at 12:30:1:-inf", "http://example.org:8080 | b"),
        *("a:1e-07", "a:0.1234567891"),
    ],
)
def test_prompts_are_written_as_they_are_read(text):
    assert write_prompts(parse_prompts(text)) == text
    parts = ENGINE.prompt_parts(text)
    assert ENGINE.prompt_text(parts) == text


def test_a_part_keeps_its_stop_when_its_weight_changes():
    (part,) = ENGINE.prompt_parts("a cat:2:0.3")
    assert (part.text, part.weight) == ("a cat", 2)
    assert ENGINE.prompt_text([PromptPart(part.text, 1.0, part.rest)]) == "a cat:1:0.3"


@pytest.mark.parametrize(
    "text, prompts",
    [
        ("", []),
        ("fog", [("fog", -AVOIDING_WEIGHT, NEVER)]),
        (
            "fog:2 | red:-1 | text:1:0.9",
            [("fog", -2, NEVER), ("red", -1, NEVER), ("text", -1, 0.9)],
        ),
    ],
)
def test_what_is_to_be_avoided_repels(text, prompts):
    assert parse_avoided(text) == [Prompt(*prompt) for prompt in prompts]


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "short.pt"
    torch.save(clip_state_dict(context_length=7), path)
    return path


@pytest.fixture(scope="module")
def perceptor(short_clip):
    return load_clip_model(short_clip, compute_precision(torch.device("cpu")))


def test_what_is_to_be_avoided_is_a_target_and_may_be_too_long(perceptor):
    targets = list(text_targets("a heart", "fog | text:2", perceptor))
    assert [target.weight for target in targets] == [1, -0.5, -2]
    (warning,) = warnings_of_length("a heart", "one two three four five six", perceptor, "it")
    assert "left out: 'six'" in warning


@pytest.mark.parametrize(
    "avoid, says", [("fog ^ rain", "Serial"), (":1", "no text"), ("a:nan", "nan")]
)
def test_what_cannot_be_avoided_is_refused_by_the_settings(avoid, says, tmp_path):
    given = {"text_input": "a heart", "avoid": avoid}
    with pytest.raises(BadInput, match=f"'Avoid'|--avoid.*{says}|{says}"):
        prepare(Request(given, tmp_path, ASSETS))


def test_avoiding_alone_is_no_prompt(tmp_path):
    with pytest.raises(BadInput, match="No prompt"):
        prepare(Request({"avoid": "fog"}, tmp_path, ASSETS))


TEXTS = ("", "A red Heart", "one two three four five six seven", "Bär 🐻 naïve&amp;c", "x" * 90)


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_clip(text, perceptor, short_clip, tmp_path):
    length = ENGINE.length(text, {"clip_model": str(short_clip)}, tmp_path)
    counted = int((clip.tokenize(text, 300) > 0).sum()) - clip_text.MARKS
    assert length == Length(counted, 5, perceptor.cut_off(text))


@pytest.mark.parametrize("name, room", [("emoji_clip", 30), ("ViT-B/32", 75), ("nonesuch", None)])
def test_how_much_a_clip_reads(name, room):
    assert ENGINE.length("a heart", {"clip_model": name}, ASSETS) == Length(2, room)


@pytest.mark.parametrize("data", [b"", b"no zip", pickle.dumps({"positional_embedding": 3})])
def test_a_clip_that_does_not_tell_how_much_it_reads(data, tmp_path):
    path = tmp_path / "odd.pt"
    path.write_bytes(data)
    assert clip_text.room(path) is None


def test_no_name_in_a_checkpoint_is_called(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "called"),)

    torch.save({"positional_embedding": torch.zeros(9, 2), "evil": Evil()}, tmp_path / "evil.pt")
    assert clip_text.room(tmp_path / "evil.pt") == 7
    assert not (tmp_path / "called").exists()


def test_counting_tokens_imports_no_torch():
    code = (
        "import sys; from studio.models import clip_text; print(len(clip_text.encode('a heart')))"
    )
    code += "; print({'torch', 'clip'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.split("\n")[:2] == ["2", "set()"]


# --- examples ---


EXAMPLES = ENGINE.examples({"vqgan_ckpt": "emoji_f8"}, ASSETS)


def test_the_bundled_weights_have_six_examples_and_an_introduction():
    assert len(EXAMPLES) == 6
    assert sum(path.stat().st_size for path in EXAMPLES) < 150_000
    said = ENGINE.introduction({"vqgan_ckpt": "emoji_f8"}, ASSETS)
    assert said.startswith("emoji_f8 draws simple things") and "download-weights.sh" in said


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_was_made_by_its_prompt_with_the_default_settings(path, tmp_path):
    values = recipes.from_file(path, tmp_path, "VQGAN-CLIP").values
    assert path.stem.partition("-")[2] == values["text_input"].replace(" ", "-")
    given = {name: values[name] for name in ("text_input", "set_seed", "seed")}
    settings = prepare(Request(given, tmp_path, ASSETS)).settings.model_dump()
    assert {name: settings[name] for name in values} == values
    assert json.loads(json.dumps(settings))["num_steps"] == 150


@pytest.mark.parametrize("values", [{}, {"vqgan_ckpt": "nonesuch"}, {"vqgan_ckpt": None}])
def test_weights_that_are_not_there_have_nothing_to_show(values):
    assert ENGINE.examples(values, ASSETS) == () and ENGINE.introduction(values, ASSETS) == ""
