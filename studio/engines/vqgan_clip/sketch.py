"""Sketches to start from: rough pictures of the prompts, drawn in one pass.

The wish is what the prompts ask for together, as one CLIP embedding. On an empty picture, CLIP's
gradient says little about what to draw, and is easily led astray. So a small network draws the
beginning. It was trained (`training/train_sketcher.py`) to draw what captions say, like the prior
and decoder of Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP
Latents". But it is a plain regression, so sketches are rough wherever drawings of one caption
differ. The run adds the rest.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio.base.errors import BadInput
from studio.models.weight_files import StateDict, as_float32, misfits, read_state_dict
from studio.models.without_memory import without_memory

SIDE = 32  # of a sketch, pixels
MAX_HANDS = 64  # all hands draw at once
SCALE = 16.0  # of the unit embeddings, so that their components are about 1
WIDTH = 768
CHANNELS = (192, 192, 128)  # at 4x4, and then at twice the side before


class Sketcher(nn.Module):
    """Draws an embedding in any of the hands (styles) that it learnt from."""

    def __init__(self, embed_dim: int, hands: int) -> None:
        super().__init__()
        self.hands = nn.Embedding(hands, WIDTH)
        self.read = nn.Linear(embed_dim, WIDTH)
        self.think = nn.Linear(WIDTH, WIDTH)
        self.ground = nn.Linear(WIDTH, CHANNELS[0] * 16)
        self.levels = nn.ModuleList(map(_Level, CHANNELS, CHANNELS[1:]))
        self.colour = nn.Conv2d(CHANNELS[-1], 3 * 4, 3, padding=1)

    def forward(self, embeddings: Tensor, hands: Tensor) -> Tensor:
        """Pictures [N, 3, 32, 32], about in [0, 1], of unit embeddings [N, D] by hands [N]."""
        wish = F.silu(self.read(SCALE * embeddings) + self.hands(hands))
        wish = F.silu(wish + self.think(wish))
        x = self.ground(wish).unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last)
        for level in self.levels:
            x = level(x, wish)
        return 0.5 + F.pixel_shuffle(self.colour(x), 2)

    @torch.no_grad()
    def draw(self, embedding: Tensor) -> Tensor:
        """A unit embedding [1, D] by every hand: [hands, 3, 32, 32] in [0, 1]."""
        hands = torch.arange(self.hands.num_embeddings, device=embedding.device)
        return self(embedding.expand(len(hands), -1), hands).clamp(0, 1)


class _Level(nn.Module):
    """Doubles the side of a picture, with the wish in mind."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, padding=1)
        self.norm = nn.GroupNorm(8, after)
        self.wish = nn.Linear(WIDTH, after)
        self.second = nn.Conv2d(after, after, 3, padding=1)

    def forward(self, x: Tensor, wish: Tensor) -> Tensor:
        x = F.interpolate(self.norm(self.first(x)), scale_factor=2.0)
        x = F.silu(x + self.wish(wish)[:, :, None, None])
        return F.silu(x + self.second(x))


def load_sketcher(path: Path, embed_dim: int) -> Sketcher:
    """The Sketcher of unit embeddings [N, embed_dim]: float32, no gradients. Raises BadInput."""
    state = read_state_dict(path)
    table = state.get("hands.weight", torch.empty(0))
    hands = len(table) if table.dim() == 2 else 0
    if not 1 <= hands <= MAX_HANDS:
        raise BadInput(_unfit(path, f"hands.weight is {list(table.shape)}"))
    with without_memory():
        sketcher = Sketcher(embed_dim, hands)
    _check_fit(sketcher, state, path)
    sketcher.load_state_dict(as_float32(state, path), assign=True)
    return sketcher.eval().requires_grad_(False)


def _check_fit(sketcher: Sketcher, state: StateDict, path: Path) -> None:
    problems = misfits(sketcher.state_dict(), state)
    whole = [name for name, part in state.items() if not part.is_floating_point()]
    problems += [f"{name} holds no fractions" for name in whole]
    if problems:
        raise BadInput(_unfit(path, "; ".join(problems[:3])))


def _unfit(path: Path, reason: str) -> str:
    return (
        f"{path} is not a sketcher for the CLIP beside it ({reason}). Get both again from the same"
        " place, or switch 'Start from a sketch' off."
    )


def fit(sketch: Tensor, height: int, width: int) -> Tensor:
    """A square sketch [1, 3, S, S] in the middle of [1, 3, height, width]; its edges continue."""
    side = min(height, width)
    square = F.interpolate(sketch, side, mode="bicubic", antialias=True).clamp(0, 1)
    left, top = (width - side) // 2, (height - side) // 2
    beside = (left, width - side - left, top, height - side - top)
    return F.pad(square, beside, mode="replicate")
