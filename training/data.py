"""Pictures with captions, composed on the fly from the rendered icons.

`python -m training.data` fetches and renders all icons; `Composer` composes.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training import icons
from training.captions import (
    Claim,
    Depicted,
    article,
    bare_name,
    describe_thing,
    holds,
    join_things,
    sentence,
)
from training.lexicon import squash

# Named colours of backgrounds, sRGB in [0, 255].
COLOURS = {
    "white": (255, 255, 255), "red": (226, 42, 42), "orange": (250, 145, 30),
    "yellow": (252, 215, 50), "green": (60, 170, 75), "blue": (45, 110, 225),
    "purple": (140, 65, 190), "pink": (250, 150, 190), "brown": (130, 80, 45),
    "black": (16, 16, 18), "gray": (140, 142, 146), "turquoise": (50, 200, 195),
    "light blue": (160, 210, 250), "dark blue": (20, 40, 115), "light green": (165, 225, 140),
    "dark green": (20, 85, 45), "beige": (240, 225, 195), "light gray": (204, 206, 209),
    "dark red": (130, 15, 25),
}  # fmt: skip
PLAIN = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "gray",
    "turquoise", "red", "yellow", "green", "blue", "light blue", "dark blue", "light green",
    "dark green", "beige", "light gray", "dark red",
)  # fmt: skip
# What an icon can be recoloured to: hue in degrees, saturation, value.
TINTS = {
    "red": (0, 0.85, 0.88), "orange": (28, 0.9, 0.97), "yellow": (50, 0.85, 0.98),
    "green": (125, 0.68, 0.65), "blue": (216, 0.8, 0.9), "purple": (275, 0.65, 0.72),
    "pink": (336, 0.45, 0.98), "brown": (22, 0.65, 0.5), "turquoise": (177, 0.7, 0.8),
    "gray": (0, 0.0, 0.55), "white": (0, 0.0, 0.97), "black": (0, 0.0, 0.16),
}  # fmt: skip
# Scenery: phrases, then colours from the top to the horizon and from the horizon to the bottom.
SCENERY = {
    "sky": (("in the sky", "in a blue sky", "against the sky"),
            ((95, 165, 235), (200, 228, 250), (200, 228, 250), (225, 240, 252))),
    "meadow": (("on grass", "in a meadow", "on a green meadow under a blue sky", "in a field"),
               ((110, 180, 245), (205, 232, 252), (110, 190, 80), (60, 140, 50))),
    "sea": (("by the sea", "in front of the sea", "at sea", "on the ocean"),
            ((150, 205, 245), (225, 240, 250), (45, 130, 190), (20, 75, 140))),
    "night": (("at night", "in the night sky", "in the dark"),
              ((8, 12, 40), (25, 35, 85), (25, 35, 85), (50, 55, 110))),
    "sunset": (("at sunset", "in front of a sunset", "at dusk"),
               ((90, 60, 130), (250, 140, 80), (255, 180, 90), (240, 110, 70))),
    "desert": (("in the desert", "on sand", "on a beach"),
               ((150, 205, 245), (225, 235, 240), (240, 215, 150), (215, 175, 100))),
    "snow": (("in the snow", "on snow", "in winter"),
             ((165, 190, 220), (225, 235, 245), (250, 252, 255), (225, 232, 242))),
}  # fmt: skip
# Icons often show people and signs; prompts rarely ask for them.
RARER_KINDS = {
    "flag": 0.05, "clock": 0.1, "letter": 0.05, "skin tone": 0.05, "interface": 0.1,
    "clip art": 0.15, "family": 0.05,
}  # fmt: skip
PEOPLE = frozenset((
    "man", "men", "woman", "women", "person", "people", "boy", "boys", "girl", "girls", "child",
    "children", "adult", "couple", "family", "kiss", "hand", "hands", "finger", "fist", "palm",
    "holding", "facing", "student", "teacher", "judge", "cook", "worker", "scientist",
))  # fmt: skip
SIGNS = frozenset((
    "button", "arrow", "arrows", "symbol", "sign", "mark", "square", "clock", "letter", "letters",
    "input", "playing", "card", "hundred", "bright", "heavy", "prohibited",
))  # fmt: skip
RARER_WORDS = ((PEOPLE, 0.1), (SIGNS, 0.06), (frozenset({"face"}), 0.4))
UNFLIPPED = ("left", "right", "arrow", "button", "clock", "flag", "letter", "text", "sign")


@dataclass(frozen=True)
class Part:
    """One icon in a picture: its centre and side as fractions of the frame, angle in radians."""

    icon: int
    x: float = 0.5
    y: float = 0.5
    scale: float = 0.8
    angle: float = 0.0
    flip: bool = False
    colour: str | None = None  # recoloured to this


@dataclass(frozen=True)
class Background:
    """Colours [0, 255] from one edge to the horizon (a fraction) and from there to the other.

    `name` is what captions may call it (None: they do not mention it); `phrases` say it.
    """

    name: str | None = "white"
    phrases: tuple[str, ...] = ("on a white background",)
    stops: tuple[tuple[float, ...], ...] = ((255.0, 255.0, 255.0),) * 4
    horizon: float = 1.0
    angle: float = 0.0


@dataclass(frozen=True)
class Scene:
    """A picture to compose: parts from back to front, on a background."""

    parts: tuple[Part, ...]
    background: Background = field(default_factory=Background)
    layout: str = "left"
    explicit: bool = False  # the caption must name colours and background


@dataclass(frozen=True)
class Sample:
    """A scene with its caption and what that caption claims."""

    scene: Scene
    caption: str
    claim: Claim
    things: list[Depicted]


def plain(name: str, colour: tuple[float, ...] | None = None) -> Background:
    """A background of one named colour of COLOURS."""
    if name not in COLOURS:
        raise ValueError(f"no background colour {name!r}; there are {', '.join(COLOURS)}")
    ground = article(f"{name} background")
    phrases = (f"on {ground}", f"on {name}", f"with {ground}", f"in front of {ground}")
    return Background(name, phrases, (colour or COLOURS[name],) * 4)


class Composer:
    """Composes captioned pictures of one split's icons ("train" or "judge"), size x size pixels.

    Equal seeds give equal batches. Raises FileNotFoundError before `python -m training.data`.
    """

    def __init__(self, split: str, size: int, seed: int):
        records = icons.CACHE / f"icons-{split}.json"
        if not records.exists():
            raise FileNotFoundError(f"{records} is missing: run `python -m training.data` first")
        self.records: list[dict] = json.loads(records.read_text("utf-8"))
        self.pictures = np.load(icons.CACHE / f"icons-{split}.npy", mmap_mode="r")
        self.size = size
        self.random = Random(seed)
        self._by_name: dict[str, list[int]] = defaultdict(list)
        for index, record in enumerate(self.records):
            self._by_name[squash(record["name"])].append(index)
        self._loose = [self._loose_terms(record) for record in self.records]
        self._cumulative = np.cumsum([self._weight(record) for record in self.records]).tolist()

    # Icons

    def find(self, name: str) -> list[int]:
        """Indices of the icons of this name (case, blanks and punctuation do not matter)."""
        return list(self._by_name.get(squash(name), []))

    def _weight(self, record: dict) -> float:
        """How often to draw an icon: things more than people and signs, rare names more often."""
        kind = RARER_KINDS.get(record["kind"], 1.0)
        words = set(record["name"].split())
        rarer = min((share for group, share in RARER_WORDS if words & group), default=1.0)
        return min(kind, rarer) / math.sqrt(len(self._by_name[squash(record["name"])]))

    @staticmethod
    def _loose_terms(record: dict) -> frozenset[str]:
        bare = bare_name(record["name"])
        return frozenset([*record["aliases"], *record["words"], bare, *bare.split()])

    # Sampling

    def batch(self, n: int) -> tuple[Tensor, list[str]]:
        """n pictures, float32 [n, 3, size, size] in [0, 1], and their captions."""
        samples = self.samples(n)
        return self.compose([sample.scene for sample in samples]), [s.caption for s in samples]

    def samples(self, n: int) -> list[Sample]:
        """n scenes with captions; one in five is a variant of the one before.

        A variant differs in one thing only (background, colour, partner). Its caption names that
        thing, and mostly the caption before it does too: this teaches which colour belongs to what,
        and what goes without saying.
        """
        scenes: list[Scene] = []
        while len(scenes) < n:
            scene = self._scene()
            scenes.append(scene)
            if self.random.random() < 0.25 and len(scenes) < n:
                scenes[-1] = replace(scene, explicit=self.random.random() < 0.6)
                scenes.append(self._variant(replace(scene, explicit=True)))
        return [self._sample(scene) for scene in scenes]

    def _scene(self) -> Scene:
        random = self.random
        if random.random() < 0.75:
            parts, layout = (self._single(),), "left"
        else:
            parts, layout = self._pair()
        parts = tuple(self._maybe_tinted(part) for part in parts)
        return Scene(parts, self._background(parts), layout)

    def _icon(self) -> int:
        return self.random.choices(range(len(self.records)), cum_weights=self._cumulative)[0]

    def _single(self) -> Part:
        random = self.random
        if random.random() < 0.12:  # zoomed in: a cutout often sees only part of a thing
            scale = random.uniform(1.0, 1.7)
            reach = 0.5 * (scale - 0.75)
        else:
            scale = random.uniform(0.45, 1.0) if random.random() < 0.6 else random.uniform(0.75, 1)
            reach = 0.5 * (1 - scale) * (1 if random.random() < 0.5 else 0.3) + 0.03
        return self._part(
            0.5 + random.uniform(-reach, reach), 0.5 + random.uniform(-reach, reach), scale
        )

    def _part(self, x: float, y: float, scale: float) -> Part:
        random, icon = self.random, self._icon()
        record = self.records[icon]
        flips = record["kind"] in ("emoji", "clip art") and not any(
            word in record["name"] for word in UNFLIPPED
        )
        angle = random.uniform(-0.25, 0.25) if random.random() < 0.3 else 0.0
        return Part(icon, x, y, scale, angle, flips and random.random() < 0.5)

    def _pair(self) -> tuple[tuple[Part, Part], str]:
        random = self.random
        layout = random.choices(("left", "above", "big"), (0.5, 0.25, 0.25))[0]
        if layout == "big":
            big = self._part(self._near(0.5, 0.1), self._near(0.5, 0.1), random.uniform(0.7, 0.95))
            x, y = random.choice((0.22, 0.78)), random.choice((0.22, 0.78))
            small = self._part(self._near(x, 0.05), self._near(y, 0.05), random.uniform(0.32, 0.48))
            return (big, small), layout
        sides = random.uniform(0.38, 0.56), random.uniform(0.38, 0.56)
        along = self._near(0.26, 0.04), self._near(0.74, 0.04)
        across = self._near(0.5, 0.14), self._near(0.5, 0.14)
        columns, rows = (along, across) if layout == "left" else (across, along)
        first, second = map(self._part, columns, rows, sides)
        return (first, second), layout

    def _near(self, place: float, reach: float) -> float:
        return place + self.random.uniform(-reach, reach)

    def _maybe_tinted(self, part: Part, chance: float = 0.08) -> Part:
        record = self.records[part.icon]
        tint = record["tint"]
        if tint is None or tint[1] < 0.3 or self._is_person(record):
            return part
        if self.random.random() > chance:
            return part
        colours = [name for name in TINTS if name not in (record["colour"], part.colour)]
        return replace(part, colour=self.random.choice(colours))

    @staticmethod
    def _is_person(record: dict) -> bool:
        return record["kind"] == "skin tone" or bool(PEOPLE & set(record["name"].split()))

    def _colour(self, part: Part) -> str | None:
        record = self.records[part.icon]
        return part.colour or (None if self._is_person(record) else record["colour"])

    def _background(self, parts: tuple[Part, ...]) -> Background:
        random, draw = self.random, self.random.random()
        taken = {self._colour(part) for part in parts}
        if draw < 0.42 and "white" not in taken:
            return plain("white")
        if draw < 0.76:
            name = random.choice([name for name in PLAIN if not taken & set(name.split())])
            return plain(name, self._jittered(COLOURS[name], 14))
        if draw < 0.87:
            return self._gradient()
        return self._scenery(random.choice(list(SCENERY)))

    def _jittered(self, colour: tuple[float, ...], spread: float) -> tuple[float, ...]:
        return tuple(min(255.0, max(0.0, c + self.random.gauss(0, spread))) for c in colour)

    def _gradient(self) -> Background:
        first, second = self.random.sample(list(COLOURS), 2)
        ends = COLOURS[first], COLOURS[second]
        name = f"{first} and {second} gradient"
        phrases = (
            f"on {article(name)}",
            f"on {article(name)} background",
            "on a gradient background",
        )
        angle = self.random.uniform(0, 2 * math.pi)
        return Background(name, phrases, (ends[0], ends[1], ends[1], ends[1]), 1.0, angle)

    def _scenery(self, name: str) -> Background:
        phrases, stops = SCENERY[name]
        shifted = tuple(self._jittered(stop, 12) for stop in stops)
        return Background(name, phrases, shifted, self.random.uniform(0.45, 0.75))

    def _variant(self, scene: Scene) -> Scene:
        """The same scene with another background, another colour, or another second thing."""
        random, kind = self.random, self.random.random()
        parts = scene.parts
        if kind < 0.4:
            tinted = tuple(self._maybe_tinted(part, 1.0) for part in parts[:1]) + parts[1:]
            if tinted != parts:
                return replace(scene, parts=tinted)
        if kind < 0.65 and len(parts) == 2:
            other = replace(parts[1], icon=self._icon(), colour=None)
            return replace(scene, parts=(parts[0], other))
        background = self._background(parts)
        if background.name == scene.background.name:
            background = self._scenery(random.choice(list(SCENERY)))
        return replace(scene, background=background)

    # Captions

    def _sample(self, scene: Scene) -> Sample:
        random = self.random
        things = [self._depicted(part) for part in scene.parts]
        claims, phrases = [], []
        for part, thing in zip(scene.parts, things, strict=True):
            term = self._term(part, thing)
            chance = 0.95 if scene.explicit or part.colour else 0.35
            colour = thing.colour if random.random() < chance else None
            claims.append((term, colour))
            phrases.append(describe_thing(term, colour, self._size(scene, part), random))
        told = random.random() < self._chance_of_background(scene, things)
        phrase = random.choice(scene.background.phrases) if told else ""
        background = scene.background.name if told else None
        if phrase == "on a gradient background":
            background = "gradient"
        caption = sentence(join_things(phrases, scene.layout, random), phrase, random)
        return Sample(scene, caption, Claim(tuple(claims), background), things)

    @staticmethod
    def _chance_of_background(scene: Scene, things: list[Depicted]) -> float:
        """The probability that the caption mentions the background."""
        if scene.explicit:
            return 0.95
        if scene.background.name == "white":
            return 0.12
        return 0.4 if any(thing.colour == "white" for thing in things) else 0.95

    def _depicted(self, part: Part) -> Depicted:
        name = self.records[part.icon]["name"]
        return Depicted(
            bare_name(name) if part.colour else name,
            self._loose[part.icon],
            self._colour(part),
            is_recoloured=part.colour is not None,
        )

    def _term(self, part: Part, thing: Depicted) -> str:
        """The thing's name, or in a fifth of cases an alias or a keyword."""
        record, draw = self.records[part.icon], self.random.random()
        if draw < 0.17 and record["aliases"]:
            return self.random.choice(record["aliases"])
        if draw < 0.22 and record["words"]:
            return self.random.choice(record["words"])
        return thing.name

    def _size(self, scene: Scene, part: Part) -> str | None:
        if self.random.random() > 0.25:
            return None
        if len(scene.parts) == 2 and scene.layout != "big":
            return None
        return "small" if part.scale < 0.55 else "big" if part.scale > 0.85 else None

    @staticmethod
    def agreement(samples: list[Sample]) -> Tensor:
        """int8 [n, n]: whether caption j holds for picture i: 1 yes, -1 no, 0 perhaps.

        A caption always holds for its own picture.
        """
        n = len(samples)
        matrix = np.full((n, n), -1, np.int8)
        pictures_of: dict[str, set[int]] = defaultdict(set)
        for i, sample in enumerate(samples):
            for thing in sample.things:
                for term in (thing.name, *thing.loose):
                    pictures_of[term].add(i)
        for j, sample in enumerate(samples):
            for i in set.intersection(*(pictures_of[term] for term, _ in sample.claim.things)):
                other = samples[i]
                matrix[i, j] = holds(sample.claim, other.things, other.scene.background.name)
            matrix[j, j] = 1
        return torch.from_numpy(matrix)

    # Pictures

    def scene(self, icon: int, second: int | None = None, background: str = "white") -> Scene:
        """One icon large in the middle, or two side by side, on a named plain colour."""
        if second is None:
            return Scene((Part(icon),), plain(background))
        parts = Part(icon, x=0.27, scale=0.5), Part(second, x=0.73, scale=0.5)
        return Scene(parts, plain(background))

    def compose(self, scenes: list[Scene], size: int | None = None) -> Tensor:
        """The pictures of the scenes, float32 [n, 3, size, size] in [0, 1]."""
        size = size or self.size
        canvas = _paint([scene.background for scene in scenes], size)
        for layer in range(max(len(scene.parts) for scene in scenes)):
            rows = [i for i, scene in enumerate(scenes) if len(scene.parts) > layer]
            drawn = self._draw([scenes[i].parts[layer] for i in rows], size)
            canvas[rows] = canvas[rows] * (1 - drawn[:, 3:]) + drawn[:, :3]
        return canvas.clamp_(0, 1)

    def _draw(self, parts: list[Part], size: int) -> Tensor:
        """Each part alone on a transparent frame: premultiplied RGBA [n, 4, size, size]."""
        order = np.argsort([part.icon for part in parts])  # ascending reads suit a memory map
        pictures = np.empty((len(parts), 4, icons.SIZE, icons.SIZE), np.uint8)
        for i in order:
            pictures[i] = self.pictures[parts[i].icon].transpose(2, 0, 1)
        rgba = torch.from_numpy(pictures).float().div_(255)
        for i, part in enumerate(parts):
            if part.colour:
                rgba[i, :3] = retint(rgba[i, :3], self.records[part.icon]["tint"], part.colour)
        rgba[:, :3] *= rgba[:, 3:]
        drawn = torch.zeros(len(parts), 4, size, size)
        levels = [self._level(part, size) for part in parts]
        for level in sorted(set(levels)):
            rows = [i for i, found in enumerate(levels) if found == level]
            source = F.avg_pool2d(rgba[rows], 2**level) if level else rgba[rows]
            theta = torch.stack([_placement(parts[i]) for i in rows])
            grid = F.affine_grid(theta, [len(rows), 4, size, size], align_corners=False)
            drawn[rows] = F.grid_sample(source, grid, align_corners=False)
        return drawn

    @staticmethod
    def _level(part: Part, size: int) -> int:
        """The mip level whose icon is at most 2.4 times the size drawn."""
        shrink = icons.SIZE / (part.scale * size)
        return min(4, max(0, int(math.log2(max(1.0, shrink / 1.2)))))


def _placement(part: Part) -> Tensor:
    """The affine map [2, 3] from frame to icon coordinates, both in [-1, 1]."""
    cos, sin = math.cos(part.angle) / part.scale, math.sin(part.angle) / part.scale
    x, y = 2 * part.x - 1, 2 * part.y - 1
    sign = -1 if part.flip else 1
    return torch.tensor(
        [[sign * cos, sign * sin, -sign * (cos * x + sin * y)], [-sin, cos, sin * x - cos * y]]
    )


def _paint(backgrounds: list[Background], size: int) -> Tensor:
    """The backgrounds alone, [n, 3, size, size] in [0, 1]."""
    stops = torch.tensor([background.stops for background in backgrounds]) / 255
    horizon = torch.tensor([background.horizon for background in backgrounds]).view(-1, 1, 1, 1)
    angle = torch.tensor([background.angle for background in backgrounds]).view(-1, 1, 1, 1)
    axis = torch.linspace(-1, 1, size)
    rows, columns = axis.view(1, 1, -1, 1), axis.view(1, 1, 1, -1)
    reach = angle.cos().abs() + angle.sin().abs()
    along = 0.5 + 0.5 * (rows * angle.cos() + columns * angle.sin()) / reach
    near = (along / horizon).clamp(0, 1)
    far = ((along - horizon) / (1 - horizon).clamp(min=1e-3)).clamp(0, 1)
    colour = [stops[:, i].view(-1, 3, 1, 1) for i in range(4)]
    above = torch.lerp(colour[0], colour[1], near)
    return torch.where(along < horizon, above, torch.lerp(colour[2], colour[3], far))


def retint(rgb: Tensor, tint: list[float], colour: str) -> Tensor:
    """Recolour an icon [3, H, W] in [0, 1] so that its dominant colour `tint` becomes `colour`.

    Turns the hue and scales saturation and value, so shading, outlines and white stay.
    """
    channels = icons.hsv(rgb.permute(1, 2, 0).numpy())
    hue, saturation, value = torch.from_numpy(channels).unbind(-1)
    target = TINTS[colour][0] / 360, TINTS[colour][1], TINTS[colour][2]
    coloured = (saturation / max(tint[1], 0.05)).clamp(
        0, 1
    )  # how much of that colour each pixel has
    hue = (hue + target[0] - tint[0]) % 1
    saturation = (saturation * target[1] / tint[1]).clamp(0, 1)
    scaled = (value * target[2] / max(tint[2], 0.05)).clamp(0, 1)
    return from_hsv(hue, saturation, torch.lerp(value, scaled, coloured))


def from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """sRGB [3, ...] in [0, 1] of hue, saturation and value in [0, 1]."""
    offsets = torch.tensor([5.0, 3.0, 1.0]).view(-1, *[1] * hue.dim())
    k = (offsets + hue * 6) % 6
    return value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1)


def main() -> None:
    """Fetch and render the icons of both splits; existing files are kept."""
    for split in icons.SETS:
        icons.build(split)


if __name__ == "__main__":
    main()
