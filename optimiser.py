"""The optimiser of the latent: Adam, at one scale or at several at once."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq")


class LatentAdam:
    """Moves a latent z [1, d, h, w] against its gradient by Adam (Kingma, Ba 2015).

    With several scales the latent is the sum of a grid of its own size and of coarser ones, each
    half as fine as the one before and spread bilinearly, and each has an Adam of its own, which
    goes by the mean gradient of the areas. Whole areas then move as readily as single positions
    do, so that shapes form rather than patterns (as in the decorrelated spaces of Olah et al. 2017,
    "Feature Visualization").
    """

    def __init__(self, z: Tensor, step_size: float, scales: int) -> None:
        """Begin with moments of zero. Scales beyond a grid of 1 x 1 would be the same again."""
        self._z = z
        self._moves = [torch.zeros_like(z[..., :h, :w]) for h, w in _sizes(z, scales)]
        self._adam = torch.optim.Adam(self._moves, lr=step_size)

    @torch.no_grad()
    def step(self) -> None:
        """Take a step on all scales by the gradient that z has, and forget that gradient."""
        for move in self._moves:
            move.zero_().grad = F.adaptive_avg_pool2d(self._z.grad, move.shape[-2:])
        self._z.grad = None
        self._adam.step()
        finest, *coarser = self._moves
        self._z += finest
        for move in coarser:
            self._z += F.interpolate(move, self._z.shape[-2:], mode="bilinear")

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the moments of all scales and the number of steps; empty before the first."""
        states = [self._adam.state[move] for move in self._moves if self._adam.state[move]]
        state = {f"{name}_{i}": s[name].clone() for i, s in enumerate(states) for name in MOMENTS}
        return state | {"step": states[0]["step"].clone()} if states else {}

    def fits(self, state: Mapping[str, Any]) -> bool:
        """Whether those moments are of as many scales and of their sizes."""
        wanted = {f"{name}_{i}": m.shape for i, m in enumerate(self._moves) for name in MOMENTS}
        found = {name: getattr(value, "shape", None) for name, value in state.items()}
        return found.pop("step", None) is not None and found == wanted

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with moments, as numpy arrays, that fit."""
        for i, move in enumerate(self._moves):
            moments = {
                name: torch.tensor(state[f"{name}_{i}"], dtype=move.dtype, device=move.device)
                for name in MOMENTS
            }
            self._adam.state[move] = moments | {"step": torch.tensor(float(state["step"]))}


def _sizes(z: Tensor, scales: int) -> list[tuple[int, int]]:
    height, width = z.shape[-2:]
    useful = math.ceil(math.log2(max(height, width))) + 1
    return [
        (math.ceil(height / 2**scale), math.ceil(width / 2**scale))
        for scale in range(min(scales, useful))
    ]
