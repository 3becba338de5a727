"""Spots of plain colour on plain ground, from which a run may begin: CLIP says which are nearest.

CLIP's gradient hardly tells what to draw where nothing is. From about the right colours in about
the right places, shapes grow, and stay where they are.
"""

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
# Of one spot or two; in units of half the picture's shorter side.
RADIUS = {1: 0.5, 2: 0.35}
CENTRES = {1: (0.0,), 2: (-0.45, 0.45)}
EDGE = 0.27  # from a tenth of the spot's colour to nine tenths
# Indices of the colours of the ground and of one spot, or of two on white.
CHOICES: list[tuple[int, ...]] = [
    *permutations(range(len(COLOURS)), 2),
    *((WHITE, *pair) for pair in combinations(range(1, len(COLOURS)), 2)),
]
# Mean cosine similarities by which white ground, and one spot, are given preference: a prompt that
# wants colours behind things, or two things, is nearer to them by more than that.
WHITE_LEAD, ONE_LEAD = 0.1, 0.05


def paint(choice: tuple[int, ...], height: int, width: int, shift: Tensor | None = None) -> Tensor:
    """The picture [3, height, width] in [0, 1] of one of CHOICES.

    shift: how far [2] to the right and down all of it goes, in units of half the shorter side.
    """
    ground, *spots = choice
    right, down = (0.0, 0.0) if shift is None else shift.tolist()
    half = min(height, width) / 2
    x = (torch.arange(width) + 0.5 - width / 2) / half - right
    y = (torch.arange(height) + 0.5 - height / 2) / half - down
    picture = COLOURS[ground].view(3, 1, 1).expand(3, height, width)
    for centre, spot in zip(CENTRES[len(spots)], spots, strict=True):
        away = ((x - centre).square() + y[:, None].square()).sqrt()
        share = torch.sigmoid((RADIUS[len(spots)] - away) * (4.4 / EDGE))
        picture = torch.lerp(picture, COLOURS[spot].view(3, 1, 1), share)
    return picture


def choose(similarity: Tensor) -> tuple[int, ...]:
    """The best of CHOICES, by how similar [len(CHOICES)] their pictures are to what is asked."""
    leads = [WHITE_LEAD * (c[0] == WHITE) + ONE_LEAD * (len(c) == 2) for c in CHOICES]
    return CHOICES[int((similarity.cpu() + torch.tensor(leads)).argmax())]
