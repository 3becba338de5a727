"""How the bundled CLIP's sketcher is trained."""

import json

import clip
import numpy as np
import pytest
import torch

from studio.engines.vqgan_clip import sketch
from training import icons, train_clip, train_sketcher
from training.data import Background, Part, Scene
from training.train_sketcher import HALF, LARGE, SMALL, StillComposer, drawing_loss, swapped

TINY = {**train_clip.ARCHITECTURE, "vision_width": 8, "vision_layers": (1, 1, 1, 1),
        "transformer_width": 64, "transformer_heads": 1, "transformer_layers": 1}  # fmt: skip


@pytest.fixture
def drawn_cache(tmp_path, monkeypatch):
    """Four one-coloured icons of two sets, and an untrained CLIP."""
    names, sets = ["apple", "ball", "leaf", "star"], ("noto", "noto", "openclipart", "openclipart")
    pictures = np.full((4, 96, 96, 4), 255, np.uint8)
    pictures[..., :3] = np.random.default_rng(0).integers(0, 255, (4, 1, 1, 3))
    records = [
        {"set": icon_set, "id": name, "name": name, "aliases": [], "words": [], "kind": "emoji",
         "colour": None, "tint": None}
        for name, icon_set in zip(names, sets, strict=True)
    ]  # fmt: skip
    np.save(tmp_path / "icons-train.npy", pictures)
    (tmp_path / "icons-train.json").write_text(json.dumps(records))
    torch.manual_seed(0)
    model = clip.model.CLIP(**TINY).eval().requires_grad_(False)
    monkeypatch.setattr(icons, "CACHE", tmp_path)
    for name, value in {
        "CHECKPOINT": tmp_path / "training.pt", "WEIGHTS": tmp_path / "a.sketcher.safetensors",
        "BATCH": 8, "FROM_PICTURES": 2, "load_clip": lambda: model,
    }.items():  # fmt: skip
        monkeypatch.setattr(train_sketcher, name, value)
    return tmp_path


def test_things_stand_upright_in_their_usual_places(drawn_cache):
    composer = StillComposer("train", 32, seed=0)
    parts = [part for sample in composer.samples(200) for part in sample.scene.parts]
    assert {(part.angle, part.flip) for part in parts} == {(0.0, False)}
    places = {(part.x, part.y, part.scale) for part in parts}
    sides = {(0.27, 0.5, HALF), (0.73, 0.5, HALF), (0.5, 0.27, HALF), (0.5, 0.73, HALF)}
    assert places == sides | {(0.5, 0.5, LARGE), (0.76, 0.76, SMALL)}


def test_swapped_things_keep_all_but_their_places():
    first = Part(1, 0.27, 0.4, 0.5, colour="red")
    second = Part(2, 0.73, 0.6, 0.5)
    scene = swapped(Scene((first, second), Background(), "left"))
    assert scene.parts == (Part(1, 0.73, 0.6, 0.5, colour="red"), Part(2, 0.27, 0.4, 0.5))


def test_the_nearer_arrangement_counts():
    torch.manual_seed(0)
    drawn, pictures, others = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8), torch.rand(2, 3, 8, 8)
    others[0] = drawn[1] + 0.01
    expected = [(drawn[i] - pictures[i]).abs().mean().item() for i in range(4)]
    swaps = {row: (drawn[row] - others[i]).abs().mean().item() for i, row in enumerate((1, 3))}
    expected = [min(loss, swaps.get(row, loss)) for row, loss in enumerate(expected)]
    assert expected[1] == pytest.approx(0.01, abs=1e-5)
    found = drawing_loss(drawn, pictures, [1, 3], others)
    assert found.item() == pytest.approx(sum(expected) / 4, rel=1e-5)
    alone = drawing_loss(drawn, pictures, [], others[:0])
    assert alone.item() == pytest.approx((drawn - pictures).abs().mean().item(), rel=1e-5)


def test_each_scene_is_drawn_in_the_hand_of_one_of_its_icons(drawn_cache):
    trainer = train_sketcher.Trainer(minutes=1, resume=False)
    noto, clipart = (train_sketcher.HANDS.index(name) for name in ("noto", "openclipart"))
    scenes = [Scene((Part(0),)), Scene((Part(3),)), *[Scene((Part(1), Part(2)))] * 30]
    hands = trainer.hands(scenes).tolist()
    assert hands[:2] == [noto, clipart] and set(hands[2:]) == {noto, clipart}


def test_some_are_drawn_from_the_picture_itself(drawn_cache):
    trainer = train_sketcher.Trainer(minutes=1, resume=False)
    samples = trainer.composer.samples(8)
    by_caption = train_clip.encode_texts(trainer.clip, [sample.caption for sample in samples])
    found = trainer.embeddings(samples)
    differs = (found - by_caption).abs().amax(dim=1) > 1e-3
    assert int(differs.sum()) == 2
    row = int(differs.nonzero()[0])
    picture = trainer.composer.compose([samples[row].scene], train_clip.SIZE)
    expected = train_clip.encode_images(trainer.clip, picture)[0]
    torch.testing.assert_close(found[row], expected, atol=0.02, rtol=0)


def test_training_learns_saves_and_resumes(drawn_cache, monkeypatch):
    monkeypatch.setattr(train_clip, "WARM_UP", 1)
    trainer = train_sketcher.Trainer(minutes=100, resume=False)
    losses = [trainer.train_step() for _ in range(40)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    trainer.step, trainer.spent = 40, trainer.seconds - 0.01
    trainer.run()
    with torch.no_grad():
        trainer.clip.text_projection += 1
    assert train_sketcher.Trainer(minutes=200, resume=True).step == 0, "of another CLIP"
    with torch.no_grad():
        trainer.clip.text_projection -= 1
    trainer.clip_digest = train_sketcher._digest(trainer.clip)
    trainer.save()
    resumed = train_sketcher.Trainer(minutes=200, resume=True)
    assert (resumed.step, resumed.spent) == (41, trainer.spent)
    loaded = sketch.load_sketcher(train_sketcher.WEIGHTS, TINY["embed_dim"])
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_in_the_second_half_clip_looks_too(drawn_cache, monkeypatch):
    trainer = train_sketcher.Trainer(minutes=100, resume=False)
    looked_at = []
    monkeypatch.setattr(trainer, "unlikeness", lambda drawn, wish: looked_at.append(1) or 0.0)
    trainer.train_step()
    assert not looked_at
    trainer.spent = 0.5 * trainer.seconds
    trainer.train_step()
    assert looked_at == [1]


def test_clips_view_of_sketches_leads_to_the_wish(drawn_cache):
    trainer = train_sketcher.Trainer(minutes=1, resume=False)
    trainer.clip = train_clip.load_frozen(train_sketcher.CLIP_WEIGHTS, "nothing")
    wish = train_clip.encode_texts(trainer.clip, ["a red apple", "a blue fish"])
    torch.manual_seed(0)
    drawn = torch.full((2, 3, 32, 32), 0.5, requires_grad=True)
    optimiser = torch.optim.Adam([drawn], lr=0.02)
    found = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = trainer.unlikeness(drawn, wish)
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    assert sum(found[-5:]) < 0.8 * sum(found[:5])


def test_exported_weights_begin_with_the_second_half(drawn_cache):
    trainer = train_sketcher.Trainer(minutes=100, resume=False)
    trainer.save()
    begun = train_sketcher.Trainer(minutes=100, resume=False, start=train_sketcher.WEIGHTS)
    assert (begun.step, begun.spent) == (0, 0.5 * begun.seconds)
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(begun.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)
