"""The evaluation: its prompts, its ranking and scores, and that it resumes where it stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from test_architecture import COMPUTING, known_files, matching

from studio.base.paths import ROOT
from studio.engines import device
from studio.making.prepare import Request, prepare
from tests.tiny_models import write_tiny_assets
from training import contact_sheet, evaluate, icons
from training.data import Composer
from training.evaluate import Prompt, Score


@pytest.fixture
def composer(tmp_path, monkeypatch):
    """Three sets that draw an apple as a coloured square; the last has no bird."""
    names = [("a", "apple"), ("a", "bird"), ("b", "apple"), ("b", "bird"), ("c", "apple")]
    squares = np.full((len(names), 96, 96, 4), 255, np.uint8)
    for i, square in enumerate(squares):
        square[..., :3] = (40 * i + 20, 0, 200 if names[i][1] == "bird" else 0)
    records = [
        {"set": origin, "name": name, "aliases": [], "words": [], "kind": "emoji", "tint": None}
        for origin, name in names
    ]
    np.save(tmp_path / "icons-judge.npy", squares)
    (tmp_path / "icons-judge.json").write_text(json.dumps(records))
    monkeypatch.setattr(icons, "CACHE", tmp_path)
    return Composer("judge", 64, seed=0)


def test_the_prompts_are_100_40_and_40_and_all_differ():
    prompts = evaluate.read_prompts()
    groups = [prompt.group for prompt in prompts]
    counts = {group: groups.count(group) for group in evaluate.TARGETS}
    assert counts == {"single": 100, "background": 40, "pair": 40}
    assert len({prompt.file_name for prompt in prompts}) == 180
    assert all(len(prompt.names) == 2 for prompt in prompts if prompt.group == "pair")
    assert all(
        f"on a {p.background} background" in p.text.replace(" an ", " a ")
        for p in prompts
        if p.group == "background"
    )


def test_a_sample_keeps_each_groups_share():
    prompts = evaluate.read_prompts()
    groups = [prompt.group for prompt in evaluate.spread(prompts, 60)]
    assert len(groups) == 60
    assert abs(groups.count("single") - 33) <= 1 and abs(groups.count("pair") - 13) <= 1
    assert evaluate.spread(prompts, 999) == prompts


@pytest.mark.parametrize(
    "places, expected",
    [
        ([0, 0, 0], Score(1.0, 1.0, 3)),
        ([0, 4, 5, 99], Score(0.25, 0.5, 4)),
        ([1, 2], Score(0.0, 1.0, 2)),
    ],
)
def test_scores(places, expected):
    assert evaluate.score(places) == expected


def test_ranks_count_the_texts_that_are_more_similar(monkeypatch):
    texts = torch.eye(3)
    pictures = torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.3, 0.9]])
    monkeypatch.setattr(evaluate, "encode_images", lambda judge, x: pictures)
    monkeypatch.setattr(evaluate, "encode_texts", lambda judge, x: texts)
    blank = torch.zeros(2, 3, 64, 64)
    assert evaluate.ranks(None, blank, [0, 1], ["a", "b", "c"]) == [0, 2]
    assert evaluate.ranks(None, blank, [2, 2], ["a", "b", "c"]) == [2, 0]


def test_the_judge_sees_pictures_of_every_size_alike(monkeypatch):
    seen = []
    monkeypatch.setattr(
        evaluate, "encode_images", lambda judge, x: seen.append(x) or torch.ones(1, 1)
    )
    monkeypatch.setattr(evaluate, "encode_texts", lambda judge, x: torch.ones(1, 1))
    small = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    large = F.interpolate(small, (512, 512))
    for picture in (large, F.interpolate(large, (128, 128), mode="bilinear", antialias=True)):
        evaluate.ranks(None, picture, [0], ["a"])
    assert seen[0].shape == (1, 3, 64, 64)
    torch.testing.assert_close(seen[0], seen[1])


def test_real_pictures_come_from_each_set_that_has_all_parts(composer):
    single = evaluate.real_scenes(composer, Prompt("an apple", "single", ("apple",)))
    assert [scene.parts[0].icon for scene in single] == [0, 2, 4]
    either = evaluate.real_scenes(composer, Prompt("food", "single", ("bird", "apple")))
    assert [scene.parts[0].icon for scene in either] == [1, 3, 4]
    pair = evaluate.real_scenes(composer, Prompt("both", "pair", ("apple", "bird")))
    assert [[part.icon for part in scene.parts] for scene in pair] == [[0, 1], [2, 3]]
    (first, *_) = evaluate.real_scenes(
        composer, Prompt("an apple on a blue background", "background", ("apple",), "blue")
    )
    assert first.background.name == "blue"


def test_pictures_are_made_with_the_settings_of_the_command_line(tmp_path, monkeypatch):
    write_tiny_assets(tmp_path)
    monkeypatch.setattr(evaluate, "WEIGHTS", "tiny_f8")
    given = {"text_input": "a cat", "vqgan_ckpt": "tiny_f8", "set_seed": True, "seed": 1}
    plan = prepare(Request(given, output_dir=tmp_path, assets_dir=tmp_path))
    settings = evaluate.default_settings("a cat", tmp_path)
    assert settings == plan.settings
    assert (settings.num_steps, settings.Xdim, settings.ydim) == (150, 128, 128)
    assert settings.clip_model == "tiny_clip"
    other = evaluate.default_settings("a cat", tmp_path, others={"Xdim": "64"})
    assert other == settings.model_copy(update={"Xdim": 64})
    short = settings.model_copy(update={"num_steps": 2, "Xdim": 32, "ydim": 32, "step_size": 5.0})
    first, last = evaluate.generate(short, tmp_path)
    assert first.size == last.size == (32, 32)
    assert first.tobytes() != last.tobytes()


def test_other_weights_or_settings_have_another_fingerprint(tmp_path, monkeypatch):
    write_tiny_assets(tmp_path)
    monkeypatch.setattr(evaluate, "WEIGHTS", "tiny_f8")
    before = evaluate.fingerprint(tmp_path)
    assert evaluate.fingerprint(tmp_path) == before
    config = tmp_path / "tiny_f8.yaml"
    config.write_text(config.read_text().replace("cutn: 4", "cutn: 5"))
    others = evaluate.fingerprint(tmp_path)
    larger = evaluate.fingerprint(tmp_path, {"Xdim": "64"})
    (tmp_path / "tiny_clip.sketcher.safetensors").write_bytes(b"draws otherwise")
    assert len({before, others, larger, evaluate.fingerprint(tmp_path)}) == 4


def test_another_engine_or_precision_has_another_fingerprint(tmp_path, monkeypatch):
    write_tiny_assets(tmp_path)
    monkeypatch.setattr(evaluate, "WEIGHTS", "tiny_f8")
    found = {evaluate.fingerprint(tmp_path)}
    other = tmp_path / "other.py"
    other.write_text("")
    for part in evaluate.ENGINE:
        with monkeypatch.context() as context:
            changed = [other if path == part else path for path in evaluate.ENGINE]
            context.setattr(evaluate, "ENGINE", changed)
            found.add(evaluate.fingerprint(tmp_path))
    monkeypatch.setattr(device, "compute_precision", lambda _: device.Precision(torch.float16))
    found.add(evaluate.fingerprint(tmp_path))
    assert len(found) == 1 + len(evaluate.ENGINE) + 1
    no_matter = {"studio/models/weight_files.py", "studio/models/without_memory.py"}
    no_matter |= {"studio/engines/sharing.py", "studio/engines/warm.py"}
    upscaling = ("enlarging", "fast_upscalers", "ncnn_weights", "side_by_side", "upscaler_networks")
    no_matter |= {f"studio/models/{name}.py" for name in upscaling}  # after a run's picture is made
    named = {path.relative_to(ROOT).as_posix() for path in evaluate.ENGINE}
    computing = {path for path in known_files() if matching(path, COMPUTING)}
    computing -= {path for path in computing if path.startswith("studio/engines/diffusion/")}
    assert named >= computing - no_matter


def test_what_was_generated_before_is_not_generated_again(tmp_path, monkeypatch):
    made = []

    def draw(settings, assets):
        made.append(settings)
        return Image.new("RGB", (16, 16), "white"), Image.new("RGB", (16, 16), (0, 0, 255))

    monkeypatch.setattr(evaluate, "fingerprint", lambda assets, others: "some-weights")
    monkeypatch.setattr(evaluate, "default_settings", lambda text, assets, others: text)
    monkeypatch.setattr(evaluate, "generate", draw)
    prompts = [Prompt(text, "single", ()) for text in ("a cat", "a dog", "a cow")]
    evaluate.generated_pictures(prompts[:2], tmp_path)
    pictures = evaluate.generated_pictures(prompts, tmp_path)
    assert made == ["a cat", "a dog", "a cow"]
    assert pictures.shape == (3, 3, 16, 16) and pictures[0, 2].min() == 1
    sketches = evaluate.generated_pictures(prompts, tmp_path, frame="first")
    assert sketches.min() == 1 and len(made) == 3


def test_dirt_on_what_the_sketch_left_white_is_told_for_both_frames(composer):
    square = torch.ones(2, 3, 64, 64)
    square[:, 1:, 16:48, 16:48] = 0
    dirty = square - 0.05 * (square.amin(dim=1, keepdim=True) == 1)
    prompts = [Prompt("an apple", "single", ("apple",))] * 2
    found = evaluate.measure_cleanness(prompts, square, dirty)
    assert found["first frame"]["ground"] == 0
    assert found["last frame"]["ground"] == pytest.approx(0.05, abs=1e-6)
    assert found["real icons"]["roughness"] == pytest.approx(1.1, abs=0.2)
    table = evaluate.cleanness_table(found)
    assert "last / first" in table and "last / real" in table and "0.0500" in table


def test_a_missing_judge_is_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="make judge"):
        evaluate.load_judge(tmp_path / "judge.pt")


def test_the_contact_sheet_shows_every_picture_with_a_caption():
    pictures = torch.zeros(7, 3, 32, 32)
    pictures[6, 0] = 1
    sheet = contact_sheet.lay_out(pictures, [f"picture {i}" for i in range(7)], columns=3)
    assert sheet.width == 3 * 136 + 8 and sheet.height == 3 * 166 + 8
    assert sheet.getpixel((8 + 64, 8 + 2 * 166 + 64)) == (255, 0, 0)
    caption = np.array(sheet.crop((8, 8 + 128, 136, 8 + 158)).convert("L"))
    assert caption.min() < 128
    assert len(contact_sheet.PROMPTS) == len(set(contact_sheet.PROMPTS)) == 30


def test_the_shipped_contact_sheet_is_there():
    with Image.open(Path(__file__).parents[1] / "docs" / "contact-sheet.png") as sheet:
        assert sheet.width >= 6 * 128
