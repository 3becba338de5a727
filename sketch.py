"""A sketch to start from: blots of plain colour, laid one by one where CLIP likes the picture best.

CLIP's gradient hardly tells what to draw where nothing is, and is easily led astray. Plain blots
leave little to be fooled by, so a search among random ones finds the colours of what is asked, and
about its shapes, from which the run goes on. Such a search without gradients, for triangles, is in
Tian, Ha 2022, "Modern Evolution Strategies for Creativity"; ours is greedy, and takes a moment.
"""

from collections.abc import Callable
from itertools import combinations, permutations

import torch
from torch import Tensor

WHITE = 0
COLOURS = torch.tensor(
    [
        [0.97, 0.97, 0.97],
        [0.55, 0.55, 0.55],
        [0.12, 0.12, 0.14],
        [0.85, 0.20, 0.20],
        [0.95, 0.55, 0.20],
        [0.95, 0.82, 0.25],
        [0.30, 0.65, 0.30],
        [0.35, 0.75, 0.90],
        [0.25, 0.40, 0.80],
        [0.60, 0.35, 0.75],
        [0.95, 0.60, 0.70],
        [0.55, 0.38, 0.25],
    ]
)
BLOTS = 12  # laid after the first ones, where they help
TRIES = 32  # random blots for each, and as many changes to the best of them
GAIN = 0.005  # by which the mean cosine similarity must grow
EDGE = 0.15  # from a tenth of a blot's colour to nine tenths, in half sides
# What a sketch begins with: the ground's colour and one blot in the middle, or two side by side on
# white. A blot is a row: x, y, two radii, angle (radians), colour. Lengths are in half sides of the
# largest square in the middle of the picture.
BEGINNINGS = [
    *(
        (ground, [[0.0, 0, 0.5, 0.5, 0, blot]])
        for ground, blot in permutations(range(len(COLOURS)), 2)
    ),
    *(
        (WHITE, [[-0.45, 0, 0.35, 0.35, 0, left], [0.45, 0, 0.35, 0.35, 0, right]])
        for left, right in combinations(range(WHITE + 1, len(COLOURS)), 2)
    ),
]
# Mean cosine similarities by which white ground, and one blot, are given preference: a prompt that
# wants colours behind things, or two things, is nearer to them by more than that.
WHITE_LEAD, ONE_LEAD = 0.1, 0.05


def sketch(similarity: Callable[[Tensor], Tensor], side: int, height: int, width: int) -> Tensor:
    """A picture [3, height, width] in [0, 1], found by how similar smaller ones are to a wish.

    similarity: from pictures [N, 3, side, side] to mean cosine similarities [N].
    """
    ground, beginning = _beginning(similarity, side)
    blots = torch.tensor(beginning)
    canvas = paint(ground, blots, side, side)
    best = float(similarity(canvas[None]))

    def improved(tried: Tensor) -> tuple[float, Tensor, Tensor]:
        seen = lay(canvas, tried)
        found = similarity(seen)
        row = int(found.argmax())
        return float(found[row]), seen[row], tried[row]

    for _ in range(BLOTS):
        first = improved(random_blots(TRIES))
        second = improved(_changes(first[2], TRIES))
        found, seen, blot = max(first, second, key=lambda tried: tried[0])
        if found > best + GAIN:
            best, canvas, blots = found, seen, torch.cat([blots, blot[None]])
    return paint(ground, blots, height, width)


def _beginning(similarity: Callable[[Tensor], Tensor], side: int) -> tuple[int, list[list[float]]]:
    pictures = [paint(ground, torch.tensor(blots), side, side) for ground, blots in BEGINNINGS]
    leads = [
        WHITE_LEAD * (ground == WHITE) + ONE_LEAD * (len(blots) == 1)
        for ground, blots in BEGINNINGS
    ]
    return BEGINNINGS[int((similarity(torch.stack(pictures)) + torch.tensor(leads)).argmax())]


def random_blots(count: int) -> Tensor:
    """Blots [count, 6] of any colour, round and long, about the middle."""
    places = 1.3 * (torch.rand(count, 2) - 0.5)
    radii = 0.12 + 0.45 * torch.rand(count, 2) ** 1.5
    angles, colours = torch.pi * torch.rand(count, 1), torch.randint(len(COLOURS), (count, 1))
    return torch.cat([places, radii, angles, colours], dim=1)


def _changes(blot: Tensor, count: int) -> Tensor:
    """Blots [count, 6] that are like one [6], a quarter of them of another colour."""
    changed = blot.repeat(count, 1)
    changed[:, :2] += 0.12 * torch.randn(count, 2)
    changed[:, 2:4] = (changed[:, 2:4] * torch.exp(0.3 * torch.randn(count, 2))).clamp(min=0.05)
    changed[:, 4] += 0.4 * torch.randn(count)
    other = torch.randint(len(COLOURS), (count,)).float()
    changed[:, 5] = torch.where(torch.rand(count) < 0.25, other, changed[:, 5])
    return changed


def paint(ground: int, blots: Tensor, height: int, width: int) -> Tensor:
    """The picture [3, height, width] of blots [N, 6], one over the other, on plain ground."""
    picture = COLOURS[ground].view(3, 1, 1).expand(3, height, width)
    for blot in blots:
        picture = lay(picture, blot[None])[0]
    return picture


def lay(canvas: Tensor, blots: Tensor) -> Tensor:
    """Copies [N, 3, H, W] of a canvas [3, H, W], each with one of blots [N, 6] on it."""
    height, width = canvas.shape[-2:]
    half = min(height, width) / 2
    x, y, across, along, angle, colour = blots.view(-1, 6, 1, 1).unbind(1)
    right = (torch.arange(width) + 0.5 - width / 2) / half - x
    down = ((torch.arange(height) + 0.5 - height / 2) / half)[:, None] - y
    cos, sin = angle.cos(), angle.sin()
    away = torch.hypot((cos * right + sin * down) / across, (cos * down - sin * right) / along)
    share = torch.sigmoid((1 - away) * torch.minimum(across, along) * (4.4 / EDGE))
    return torch.lerp(canvas, COLOURS[colour.flatten().long()][:, :, None, None], share[:, None])
