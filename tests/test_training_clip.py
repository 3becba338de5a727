"""The bundled CLIP: its losses, its training loop, and the file that is shipped."""

import json
import math
import random
from pathlib import Path

import clip
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

from training import icons, impostors, teacher, train_clip
from training.train_clip import contrastive_loss, encode_images, encode_texts

WEIGHTS = Path(__file__).parents[1] / "assets" / "emoji_clip.pt"
TINY = {**train_clip.ARCHITECTURE, "vision_width": 8, "embed_dim": 16,
        "vision_layers": (1, 1, 1, 1), "transformer_width": 64, "transformer_heads": 1,
        "transformer_layers": 1}  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    """Trainers build a tiny CLIP with a random token table."""
    torch.manual_seed(0)
    monkeypatch.setattr(train_clip, "ARCHITECTURE", TINY)
    monkeypatch.setattr(teacher, "token_table", lambda width: 0.02 * torch.randn(49408, width))
    return train_clip.new_model()


def test_contrastive_loss_of_single_positives_is_cross_entropy():
    torch.manual_seed(0)
    logits = 5 * torch.randn(6, 6)
    agreement = torch.where(torch.eye(6).bool(), 1, -1)
    labels = torch.arange(6)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    assert contrastive_loss(logits, agreement).item() == pytest.approx(expected.item(), rel=1e-5)


def test_contrastive_loss_with_several_and_doubtful_positives():
    torch.manual_seed(1)
    logits = 3 * torch.randn(3, 3)
    agreement = torch.tensor([[1, 1, -1], [-1, 1, 0], [-1, -1, 1]])

    def one_way(table, agrees):
        total = 0.0
        for row, marks in zip(table.tolist(), agrees.tolist(), strict=True):
            kept = [math.exp(value) for value, mark in zip(row, marks, strict=True) if mark != 0]
            right = [math.exp(value) for value, mark in zip(row, marks, strict=True) if mark == 1]
            total += sum(-math.log(value / sum(kept)) for value in right) / len(right)
        return total / len(table)

    expected = (one_way(logits, agreement) + one_way(logits.T, agreement.T)) / 2
    assert contrastive_loss(logits, agreement).item() == pytest.approx(expected, rel=1e-4)


def test_impostors_are_choices_for_captions_alone():
    torch.manual_seed(2)
    logits, fooling = 3 * torch.randn(4, 4), 3 * torch.randn(2, 4)
    labels = torch.arange(4)
    by_caption = F.cross_entropy(torch.cat([logits, fooling]).T, labels)
    expected = (F.cross_entropy(logits, labels) + by_caption) / 2
    agreement = torch.where(torch.eye(4).bool(), 1, -1)
    found = contrastive_loss(logits, agreement, fooling)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert found > contrastive_loss(logits, agreement)


def test_impostors_move_towards_their_captions_until_replaced(tiny, drawn_cache, monkeypatch):
    torch.manual_seed(0)
    random.seed(0)
    monkeypatch.setattr(impostors, "_crop", lambda pictures: pictures)
    pool = impostors.ImpostorPool(train_clip.Composer("train", 64, seed=0))
    drawn = pool.draw()
    for one in drawn:
        one.age = 0
    texts = F.normalize(torch.randn(len(drawn), TINY["embed_dim"]), dim=1)
    tiny.eval()

    def similarity(pictures):
        with torch.no_grad():
            return (encode_images(tiny, pictures) * texts).sum().item()

    seen = [pool.advance(drawn, lambda x: encode_images(tiny, x), texts) for _ in range(8)]
    assert max(similarity(pictures) for pictures in seen[4:]) > similarity(seen[0])
    assert min(pictures.min() for pictures in seen) >= 0
    assert max(pictures.max() for pictures in seen) <= 1
    assert {one.age for one in drawn} == {8}
    for entries in pool.pools.values():
        for entry in entries:
            entry.age = impostors.OLDEST
    assert {one.age for one in pool.draw()} == {0}


def test_impostors_must_be_further_from_their_captions_than_what_they_pass_for():
    texts, images = torch.eye(3), torch.eye(3)
    impostor, scale = torch.tensor([[0.0, 0.6, 0.8]]), torch.tensor(10.0)
    found = train_clip.outranking_loss(impostor, images, texts, scale)
    assert found.item() == pytest.approx(math.log1p(math.exp(10 * (0.8 - 1))), rel=1e-5)
    better = train_clip.outranking_loss(texts[2:], 0.5 * images, texts, scale)
    assert better.item() == pytest.approx(math.log1p(math.exp(10 * (1 - 0.5))), rel=1e-5)


def test_perturbation_stays_in_its_radius_and_hurts(tiny):
    torch.manual_seed(0)
    pictures = 0.2 + 0.6 * torch.rand(8, 3, 64, 64)
    texts = F.normalize(torch.randn(8, TINY["embed_dim"]), dim=1)
    agreement = torch.where(torch.eye(8).bool(), 1, -1)
    scale = torch.tensor(20.0)
    tiny.train()
    statistics = tiny.visual.bn1.running_mean.clone()
    moved = train_clip.perturbed(tiny, pictures, texts, scale, agreement, rows=6, radius=1.0)
    assert torch.equal(moved[6:], pictures[6:])
    distances = (moved - pictures)[:6].flatten(1).norm(dim=1)
    assert (distances <= 1.0001).all() and (distances > 0.5).all()
    assert torch.equal(tiny.visual.bn1.running_mean, statistics) and tiny.visual.training
    tiny.eval()
    with torch.no_grad():
        before, after = (
            contrastive_loss(scale * encode_images(tiny, x) @ texts.T, agreement)
            for x in (pictures, moved)
        )
    assert after > before


@pytest.mark.parametrize(
    "step, progress, share",
    [(0, 0, 1 / train_clip.WARM_UP), (train_clip.WARM_UP, 0, 1), (10_000, 0.5, 0.505),
     (10_000, 1, 0.01), (10_000, 1.2, 0.01)],
)  # fmt: skip
def test_learning_rate(step, progress, share):
    expected = share * train_clip.LEARNING_RATE
    assert train_clip.learning_rate(step, progress) == pytest.approx(expected, rel=1e-6)


def test_radius_grows_from_nothing():
    start = train_clip.ADVERSARIAL_FROM
    radii = [train_clip.radius_at(x) for x in (0, start - 1e-6, start, (1 + start) / 2, 1)]
    assert radii == pytest.approx([0, 0, train_clip.RADIUS[0], train_clip.RADIUS[1],
                                   train_clip.RADIUS[1]])  # fmt: skip


def test_texts_keep_their_order(tiny):
    texts = ["a cat", "an emoji of a very large green dragon on a blue background", "dog",
             "a red apple next to a bird", "sun"]  # fmt: skip
    with torch.no_grad():
        together = encode_texts(tiny, texts)
        alone = torch.cat([encode_texts(tiny, [text]) for text in texts])
    assert (together * alone).sum(1).min() > 0.999


def test_export_is_what_build_model_takes(tiny, tmp_path):
    tiny.visual.bn1.running_mean.normal_()
    train_clip.export(tiny.eval(), tmp_path / "clip.pt")
    loaded = clip.model.build_model(torch.load(tmp_path / "clip.pt", weights_only=True)).float()
    pictures, texts = torch.randn(4, 3, 64, 64), clip.tokenize(["a cat", "two dogs"], 32)
    with torch.no_grad():
        for ours, theirs in (
            (tiny.encode_image(pictures), loaded.encode_image(pictures)),
            (tiny.encode_text(texts), loaded.encode_text(texts)),
        ):
            assert F.cosine_similarity(ours, theirs).min() > 0.999


@pytest.fixture
def drawn_cache(tmp_path, monkeypatch):
    """Eight one-coloured icons and a teacher that knows two words, in place of the real ones."""
    names = ["apple", "ball", "leaf", "star", "boat", "cup", "hat", "key"]
    pictures = np.full((8, 96, 96, 4), 255, np.uint8)
    pictures[..., :3] = np.random.default_rng(0).integers(0, 255, (8, 1, 1, 3))
    records = [
        {"set": "drawn", "id": name, "name": name, "aliases": [], "words": [], "kind": "emoji",
         "colour": None, "tint": None}
        for name in names
    ]  # fmt: skip
    for split in ("train", "judge"):
        np.save(tmp_path / f"icons-{split}.npy", pictures)
        (tmp_path / f"icons-{split}.json").write_text(json.dumps(records))
    found = {
        "names": names,
        "name_vectors": F.normalize(torch.randn(8, 384), dim=1),
        "free": ["fruit", "toy"],
        "free_vectors": F.normalize(torch.randn(2, 384), dim=1),
    }
    monkeypatch.setattr(icons, "CACHE", tmp_path)
    monkeypatch.setattr(impostors, "COUNTS", {8: 2})
    monkeypatch.setattr(teacher, "phrases", lambda records: found)
    for name, value in {
        "CHECKPOINT": tmp_path / "clip.pt", "LOG": tmp_path / "clip.log", "FREE_PHRASES": 2,
        "WEIGHTS": tmp_path / "out.pt", "BATCH": 8, "ADVERSARIAL_BATCH": 8, "ARTEFACTS_FROM": 2,
    }.items():  # fmt: skip
        monkeypatch.setattr(train_clip, name, value)
    return tmp_path


def test_concept_head_shares_a_picture_between_its_things(tiny, drawn_cache):
    composer = train_clip.Composer("train", 64, seed=0)
    head = train_clip.ConceptHead(composer.records)
    features = F.normalize(torch.randn(30, TINY["embed_dim"]), dim=1)
    samples = composer.samples(30)
    assert {len(sample.scene.parts) for sample in samples} == {1, 2}
    names = sorted(record["name"] for record in composer.records)
    logs = head.linear(16 * features).log_softmax(1)
    losses = [
        -sum(logs[i, names.index(composer.records[part.icon]["name"])] for part in parts)
        / len(parts)
        for i, parts in enumerate(sample.scene.parts for sample in samples)
    ]
    assert head.loss(features, samples).item() == pytest.approx(sum(losses).item() / 30, rel=1e-4)


def test_training_resumes_where_it_stopped(tiny, drawn_cache):
    trainer = train_clip.Trainer(minutes=100, resume=False)
    for _ in range(3):
        loss, top = trainer.train_step()
        assert math.isfinite(loss) and 0 <= top <= 1
        trainer.step += 1
    trainer.spent = 30.0
    trainer.save()
    resumed = train_clip.Trainer(minutes=100, resume=True)
    assert (resumed.step, resumed.spent) == (3, 30.0)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    trained = trainer.model.visual.conv1.weight
    assert not torch.equal(trained, train_clip.new_model().visual.conv1.weight)
    assert (drawn_cache / "out.pt").exists()


def test_training_begins_with_exported_weights(tiny, drawn_cache):
    train_clip.export(tiny, drawn_cache / "start.pt")
    trainer = train_clip.Trainer(minutes=100, resume=True, start=drawn_cache / "start.pt")
    assert (trainer.step, trainer.spent) == (0, 0.0)
    for name, value in tiny.state_dict().items():
        torch.testing.assert_close(trainer.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_training_learns_and_uses_its_time(tiny, drawn_cache, monkeypatch):
    monkeypatch.setattr(train_clip, "WARM_UP", 1)
    monkeypatch.setattr(train_clip, "ADVERSARIAL_FROM", 0.5)
    monkeypatch.setattr(train_clip, "ARTEFACTS_FROM", 0.5)
    trainer = train_clip.Trainer(minutes=100, resume=False)
    before = [trainer.train_step()[0] for _ in range(4)]
    for _ in range(25):
        trainer.train_step()
    trainer.spent = 0.8 * trainer.seconds  # adversarial from here
    after = [trainer.train_step()[0] for _ in range(4)]
    assert sum(after) < sum(before)
    trainer.spent = trainer.seconds - 0.01
    trainer.run()
    assert trainer.spent >= trainer.seconds and (drawn_cache / "out.pt").exists()


# The file that is shipped


@pytest.fixture(scope="module")
def shipped():
    return clip.model.build_model(torch.load(WEIGHTS, weights_only=True)).float()


def drawn(shape, colour, background="white"):
    image = Image.new("RGB", (64, 64), background)
    draw = ImageDraw.Draw(image)
    if shape == "circle":
        draw.ellipse((8, 8, 56, 56), fill=colour)
    elif shape == "square":
        draw.rectangle((10, 10, 54, 54), fill=colour)
    else:
        draw.polygon([(32, 6), (58, 56), (6, 56)], fill=colour)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def best_captions(model, pictures, captions):
    with torch.no_grad():
        similar = encode_images(model, torch.stack(pictures)) @ encode_texts(model, captions).T
    return similar.argmax(1).tolist()


def test_shipped_file_is_small_and_of_the_stated_shape(shipped):
    assert WEIGHTS.stat().st_size < 40e6
    assert shipped.visual.input_resolution == 64 and shipped.context_length == 32


def test_shipped_model_knows_colours(shipped):
    colours = {"red": "#e02828", "green": "#30a040", "blue": "#2860e0", "yellow": "#fcd732"}
    pictures = [drawn("circle", colour) for colour in colours.values()]
    captions = [f"a {name} circle" for name in colours]
    assert best_captions(shipped, pictures, captions) == [0, 1, 2, 3]


def test_shipped_model_knows_backgrounds(shipped):
    colours = {"red": "#e02828", "green": "#3caa4b", "blue": "#2d6ee1", "yellow": "#fcd732"}
    pictures = [drawn("circle", "white", colour) for colour in colours.values()]
    captions = [f"a white circle on a {name} background" for name in colours]
    assert best_captions(shipped, pictures, captions) == [0, 1, 2, 3]
