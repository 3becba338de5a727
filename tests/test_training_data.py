"""The composed training pictures: what is drawn is what the captions say."""

import json
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from training import icons
from training.augment import augment
from training.captions import Claim, Depicted, article, bare_name, holds
from training.data import COLOURS, Background, Composer, Part, Scene, plain, retint
from training.lexicon import Lexicon, humanise

RED, BLUE, GREEN = (220, 30, 30), (40, 90, 220), (40, 160, 60)


def disc(colour, hole=False):
    """A 96 px icon: a disc of one colour, transparent around it."""
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    picture = np.zeros((96, 96, 4), np.uint8)
    picture[x**2 + y**2 < 0.98] = (*colour, 255)
    if hole:
        picture[x**2 + y**2 < 0.1] = (255, 255, 255, 255)
    return picture


def record(name, picture, aliases=(), words=(), kind="emoji"):
    colour, tint = icons.dominant_colour(picture)
    return {
        "set": "drawn", "id": name, "name": name, "aliases": list(aliases), "words": list(words),
        "kind": kind, "colour": colour, "tint": tint,
    }  # fmt: skip


@pytest.fixture
def icon_cache(tmp_path, monkeypatch):
    """A cache of four drawn icons in place of the rendered sets."""
    half = disc(GREEN)
    half[:, 48:] = 0
    drawn = [
        ("red apple", disc(RED), ["apple"], ["fruit", "food"]),
        ("blue ball", disc(BLUE), ["ball"], ["toy"]),
        ("leaf", half, [], ["plant"]),
        ("red apple", disc(RED, hole=True), ["apple"], ["fruit"]),
    ]
    for split in ("train", "judge"):
        np.save(tmp_path / f"icons-{split}.npy", np.stack([picture for _, picture, *_ in drawn]))
        records = [record(name, picture, *terms) for name, picture, *terms in drawn]
        (tmp_path / f"icons-{split}.json").write_text(json.dumps(records))
    monkeypatch.setattr(icons, "CACHE", tmp_path)
    return tmp_path


@pytest.fixture
def composer(icon_cache):
    return Composer("train", 64, seed=3)


def colour_at(picture, x, y):
    """The RGB in [0, 255] at a place given in fractions of the frame."""
    size = picture.shape[-1]
    return (255 * picture[:, int(y * size), int(x * size)]).round().tolist()


def test_find_ignores_case_and_punctuation(composer):
    assert composer.find("Red-Apple") == [0, 3]
    assert composer.find("no such thing") == []


def test_part_lands_where_it_was_put(composer):
    scene = Scene((Part(0, x=0.25, y=0.75, scale=0.3),), plain("yellow"))
    (picture,) = composer.compose([scene])
    assert colour_at(picture, 0.25, 0.75) == pytest.approx(RED, abs=2)
    for place in ((0.75, 0.25), (0.75, 0.75), (0.25, 0.25), (0.25, 0.55)):
        assert colour_at(picture, *place) == pytest.approx(COLOURS["yellow"], abs=2)


def test_second_part_lies_over_the_first(composer):
    scene = Scene((Part(0, scale=0.9), Part(1, scale=0.4)), plain("white"))
    (picture,) = composer.compose([scene])
    assert colour_at(picture, 0.5, 0.5) == pytest.approx(BLUE, abs=2)
    assert colour_at(picture, 0.5, 0.15) == pytest.approx(RED, abs=2)


@pytest.mark.parametrize("flip, green, white", [(False, 0.3, 0.7), (True, 0.7, 0.3)])
def test_flip_mirrors(composer, flip, green, white):
    (picture,) = composer.compose([Scene((Part(2, flip=flip),))])
    assert colour_at(picture, green, 0.5) == pytest.approx(GREEN, abs=2)
    assert colour_at(picture, white, 0.5) == [255, 255, 255]


def test_no_dark_fringe_around_transparent_edges(composer, icon_cache):
    pictures = np.load(icon_cache / "icons-train.npy")
    pictures[0] = disc((255, 255, 255))  # white, with black invisible pixels around it
    np.save(icon_cache / "icons-train.npy", pictures)
    scenes = [Scene((Part(0, scale=scale),)) for scale in (0.2, 0.5, 1.0)]
    assert Composer("train", 64, 0).compose(scenes).min() > 0.999


def test_shrunk_fine_patterns_become_their_mean(icon_cache):
    pictures = np.load(icon_cache / "icons-train.npy")
    pictures[0] = np.indices((96, 96)).sum(0)[..., None] % 2 * np.uint8(255)
    pictures[0, ..., 3] = 255
    np.save(icon_cache / "icons-train.npy", pictures)
    (picture,) = Composer("train", 64, 0).compose([Scene((Part(0, scale=0.4),))])
    inside = picture[:, 24:40, 24:40]
    assert (inside - 0.5).abs().max() < 0.05


def test_size_of_compose_and_named_scene(composer):
    scene = composer.scene(0, 1, background="green")
    (picture,) = composer.compose([scene], size=128)
    assert picture.shape == (3, 128, 128)
    assert colour_at(picture, 0.27, 0.5) == pytest.approx(RED, abs=2)
    assert colour_at(picture, 0.73, 0.5) == pytest.approx(BLUE, abs=2)
    assert colour_at(picture, 0.02, 0.02) == pytest.approx(COLOURS["green"], abs=2)
    with pytest.raises(ValueError, match=r"mauve.*turquoise"):
        composer.scene(0, background="mauve")


def test_background_with_horizon(composer):
    stops = ((0, 0, 200), (100, 100, 255), (0, 120, 0), (0, 60, 0))
    background = Background(None, (), stops, horizon=0.5)
    (picture,) = composer.compose([Scene((Part(0, scale=0.1),), background)])
    assert colour_at(picture, 0.1, 0.0) == pytest.approx((0, 0, 200), abs=2)
    assert colour_at(picture, 0.1, 0.48) == pytest.approx((100, 100, 255), abs=8)
    assert colour_at(picture, 0.1, 0.99) == pytest.approx((0, 60, 0), abs=2)


def test_batch_shape_range_and_seed(icon_cache):
    pictures, captions = Composer("train", 32, 7).batch(12)
    again, same = Composer("train", 32, 7).batch(12)
    assert pictures.shape == (12, 3, 32, 32) and pictures.dtype == torch.float32
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert torch.equal(pictures, again) and captions == same
    assert Composer("train", 32, 8).batch(12)[1] != captions
    assert all(isinstance(caption, str) and caption.strip() == caption for caption in captions)


def test_captions_tell_the_truth_about_colours(composer):
    """The colour that a claim gives to a single thing or a plain background is in the picture."""
    samples = composer.samples(200)
    pictures = composer.compose([sample.scene for sample in samples])
    checked = 0
    for sample, picture in zip(samples, pictures, strict=True):
        (_, colour), *others = sample.claim.things
        part = sample.scene.parts[0]
        middle = 0.1 < part.x < 0.9 and 0.1 < part.y < 0.9
        if others or colour is None or not middle or sample.things[0].name in ("leaf",):
            continue
        at = np.array(colour_at(picture, part.x, part.y)) / 255
        if sample.scene.parts[0].icon == 3:  # its middle is white
            continue
        assert icons.name_colours(at) == colour, sample.caption
        assert colour in sample.caption
        checked += 1
    assert checked > 20


def test_mentioned_background_is_the_one_drawn(composer):
    samples = [s for s in composer.samples(300) if s.claim.background]
    assert len(samples) > 60
    for sample in samples:
        claimed, drawn = sample.claim.background, sample.scene.background.name
        assert claimed == drawn or (claimed == "gradient" and "gradient" in drawn)
        assert any(sample.caption.endswith(phrase) for phrase in sample.scene.background.phrases)


def test_agreement_equals_asking_each_pair(composer):
    samples = composer.samples(60)
    found = Composer.agreement(samples)
    for i, picture in enumerate(samples):
        for j, caption in enumerate(samples):
            expected = holds(caption.claim, picture.things, picture.scene.background.name)
            assert found[i, j] == (1 if i == j else expected)


GHOST = Depicted("ghost", frozenset(), "white")
BLUE_DOG = Depicted("dog", frozenset(), "blue", is_recoloured=True)
APPLE = Depicted("apple", frozenset({"fruit"}), "red")
BALL = Depicted("ball", frozenset({"toy"}), None)


@pytest.mark.parametrize(
    "claim, things, background, expected",
    [
        (Claim((("apple", None),)), [APPLE], "white", 1),
        (Claim((("apple", None),)), [APPLE], "blue", -1),
        (Claim((("ghost", None),)), [GHOST], "blue", 1),
        (Claim((("apple", None),), "gradient"), [APPLE], "red and blue gradient", 0),
        (Claim((("apple", "red"),), "blue"), [APPLE], "blue", 1),
        (Claim((("apple", "green"),)), [APPLE], "white", -1),
        (Claim((("apple", None),), "yellow"), [APPLE], "blue", -1),
        (Claim((("apple", None),), "light blue"), [APPLE], "blue", 0),
        (Claim((("dog", None),)), [BLUE_DOG], "white", -1),
        (Claim((("dog", "blue"),)), [BLUE_DOG], "white", 1),
        (Claim((("fruit", None),)), [APPLE], "white", 0),
        (Claim((("ball", "red"),)), [BALL], "white", 0),
        (Claim((("pear", None),)), [APPLE], "white", -1),
        (Claim((("apple", None),)), [APPLE, BALL], "white", 0),
        (Claim((("apple", None), ("ball", None))), [BALL, APPLE], "white", 1),
        (Claim((("apple", None), ("pear", None))), [BALL, APPLE], "white", -1),
    ],
)
def test_holds(claim, things, background, expected):
    assert holds(claim, things, background) == expected


@pytest.mark.parametrize(
    "phrase, expected",
    [
        ("red apple", "a red apple"), ("apple", "an apple"), ("hourglass", "an hourglass"),
        ("unicorn", "a unicorn"), ("umbrella", "an umbrella"), ("scissors", "scissors"),
        ("bus", "a bus"), ("octopus", "an octopus"), ("dress", "a dress"), ("bread", "bread"),
        ("face with tears", "a face with tears"), ("bowl of grapes", "a bowl of grapes"),
    ],
)  # fmt: skip
def test_article(phrase, expected):
    assert article(phrase) == expected


@pytest.mark.parametrize(
    "name, expected",
    [("red apple", "apple"), ("blue", "blue"), ("books", "books"), ("green heart", "heart")],
)
def test_bare_name(name, expected):
    assert bare_name(name) == expected


@pytest.mark.parametrize(
    "rgb, name",
    [
        ((220, 30, 30), "red"), ((250, 145, 30), "orange"), ((252, 215, 50), "yellow"),
        ((60, 170, 75), "green"), ((45, 110, 225), "blue"), ((140, 65, 190), "purple"),
        ((250, 150, 190), "pink"), ((130, 80, 45), "brown"), ((10, 10, 10), "black"),
        ((250, 250, 250), "white"), ((128, 128, 130), "gray"), ((50, 200, 195), "turquoise"),
    ],
)  # fmt: skip
def test_colour_names(rgb, name):
    assert icons.name_colours(np.array(rgb) / 255) == name


def test_named_backgrounds_look_like_their_names():
    for name, rgb in COLOURS.items():
        seen = str(icons.name_colours(np.array(rgb) / 255))
        assert seen in name or name == "beige"


@pytest.mark.parametrize("colour", ["blue", "green", "gray", "white", "black", "pink"])
def test_retint_changes_the_dominant_colour_alone(colour):
    picture = disc(RED)
    picture[:20] = (255, 255, 255, 255)
    picture[-20:] = (0, 0, 0, 255)
    _, tint = icons.dominant_colour(disc(RED))
    rgb = torch.from_numpy(picture[..., :3].copy()).permute(2, 0, 1).float() / 255
    changed = retint(rgb, tint, colour).permute(1, 2, 0).numpy()
    assert icons.name_colours(changed[48, 48]) == colour
    assert changed[5, 48] == pytest.approx([1, 1, 1], abs=0.02)
    assert changed[-5, 48] == pytest.approx([0, 0, 0], abs=0.02)


def test_dominant_colour_is_null_for_many_colours():
    picture = np.full((96, 96, 4), 255, np.uint8)
    for i, colour in enumerate((RED, BLUE, GREEN)):
        picture[:, 32 * i : 32 * i + 32, :3] = colour
    assert icons.dominant_colour(picture) == (None, None)


def test_fit_fills_the_frame_and_refuses_empty_icons():
    image = Image.new("RGBA", (200, 200))
    assert icons._fit(image) is None
    image.paste((10, 200, 10, 255), (20, 60, 60, 80))
    fitted = icons._fit(image)
    columns, rows = (
        np.nonzero(fitted[..., 3].max(0) > 128)[0],
        np.nonzero(fitted[..., 3].max(1) > 128)[0],
    )
    assert (columns[0], columns[-1]) == (0, 95)
    assert rows[-1] - rows[0] == pytest.approx(48, abs=2)


def test_augment_keeps_shape_and_range():
    torch.manual_seed(0)
    pictures = torch.rand(64, 3, 32, 32)
    changed = augment(pictures.clone())
    assert changed.shape == pictures.shape
    assert changed.min() >= 0 and changed.max() <= 1
    untouched = (changed == pictures).flatten(1).all(1)
    assert 0 < untouched.sum() < 40


@pytest.fixture
def lexicon(tmp_path):
    base = tmp_path / "emojibase-data" / "en"
    (base / "shortcodes").mkdir(parents=True)
    (tmp_path / "emojilib" / "dist").mkdir(parents=True)
    emojis = [
        {"label": "red apple", "hexcode": "1F34E", "emoji": "🍎", "tags": ["apple", "fruit"]},
        {"label": "flag: France", "hexcode": "1F1EB-1F1F7", "emoji": "🇫🇷", "tags": ["FR"]},
        {"label": "waving hand", "hexcode": "1F44B", "emoji": "👋", "tags": ["hello"],
         "skins": [{"label": "waving hand: dark", "hexcode": "1F44B-1F3FF", "emoji": "👋🏿"}]},
    ]  # fmt: skip
    (base / "data.json").write_text(json.dumps(emojis))
    for origin in ("cldr", "emojibase", "iamcal", "github"):
        codes = {"1F34E": ["red_apple", "apple"], "1F44B": "wave"}
        (base / "shortcodes" / f"{origin}.json").write_text(json.dumps(codes))
    keywords = {"🍎": ["red_apple", "fruit", "school"]}
    (tmp_path / "emojilib" / "dist" / "emoji-en-US.json").write_text(json.dumps(keywords))
    return Lexicon(tmp_path)


def test_lexicon_joins_names_of_the_same_emoji(lexicon):
    apple = lexicon.lookup("Red-Apple")
    assert apple is lexicon.lookup("apple") is lexicon.by_hex["1f34e"]
    assert apple.name == "red apple"
    assert apple.aliases == ["apple", "fruit"]
    assert apple.words == ["school"]
    assert lexicon.by_hex["1f44b-1f3ff"].name == "waving hand"
    assert lexicon.lookup("pear") is None


def test_lexicon_splits_names_without_spaces(lexicon):
    assert lexicon.segment("wavinghand") == "waving hand"
    assert lexicon.segment("handofapple") == "hand of apple"
    assert lexicon.segment("qwertyhand") is None


@pytest.mark.parametrize(
    "text, expected",
    [
        ("flag: France", "flag of france"), ("filing-cabinet", "filing cabinet"),
        ("woman: red hair", "woman with red hair"), ("grey_wolf", "gray wolf"),
    ],
)  # fmt: skip
def test_humanise(text, expected):
    assert humanise(text) == expected


def test_composer_before_the_data_step_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(icons, "CACHE", tmp_path)
    with pytest.raises(FileNotFoundError, match="run `python -m"):
        Composer("train", 64, 0)


def test_build_keeps_what_is_there(icon_cache, monkeypatch):
    monkeypatch.setattr(icons, "fetch", lambda: pytest.fail("fetched again"))
    before = (icon_cache / "icons-train.npy").stat().st_mtime_ns
    icons.build("train")
    assert (icon_cache / "icons-train.npy").stat().st_mtime_ns == before


def test_equal_random_states_choose_equal_words(composer):
    from training.captions import describe_thing

    first = [describe_thing("apple", "red", "big", Random(5)) for _ in range(3)]
    assert len(set(first)) == 1
    assert first[0] in ("a big red apple", "a large red apple", "a huge red apple",
                        "big red apple", "large red apple", "huge red apple")  # fmt: skip
