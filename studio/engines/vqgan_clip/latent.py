"""The latent that a run optimises, with its optimiser: into a checkpoint, and out of it.

The optimiser is torch's Adam as a function: the class `torch.optim.Adam` imports torch's compiler,
more than a second before each first picture.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

from studio.base.errors import BadInput
from studio.engines.device import is_lack_of_memory

MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam, each of the latent's shape
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Kingma and Ba 2015, "Adam", as torch.optim.Adam has them


class Unfit(BadInput):
    """A state that is not one of this kind of run, at this size, with these weights."""


class Latent:
    """z [1, d, h, w], moved by Adam, and the anchor that it may be held near: where it began."""

    def __init__(self, z: Tensor, step_size: float) -> None:
        """Begin at z, with a fresh optimiser.

        z is laid out in memory as a checkpoint brings it back, or sums would round differently.
        step_size: may be set to another one between two steps.
        """
        z = z.detach().clone(memory_format=torch.contiguous_format)
        self.z, self.anchor = z.requires_grad_(), z.detach().clone()
        self.step_size = step_size
        self._adam = {name: torch.zeros_like(self.anchor) for name in MOMENTS}
        self._adam["step"] = torch.tensor(0.0)

    @torch.no_grad()
    def move(self) -> None:
        """Take a step of Adam along z's gradient."""
        gradient = self.z.grad
        assert gradient is not None, "nothing was differentiated"
        averages, squares = ([self._adam[name]] for name in MOMENTS)
        adam(
            [self.z],
            [gradient],
            averages,
            squares,
            [],
            [self._adam["step"]],
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self.step_size,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )

    def state(self) -> dict[str, Any]:
        """z, anchor and, after the first step, moments, in copies that stay on the device."""
        moments = self._adam if self._adam["step"] else {}
        return {
            "z": self.z.detach().clone(),
            "mse_target": self.anchor.clone(),
            "adam": {name: value.clone() for name, value in moments.items()},
        }

    def restored(self, state: Mapping[str, Any]) -> Self:
        """The latent of a state, of the same size on the same device. Raises Unfit."""
        latent = self.continued(state)
        latent.anchor = self._tensor(state, "mse_target")
        return latent

    def continued(self, state: Mapping[str, Any]) -> Self:
        """Like `restored`, but anchored at its own z, where a run begins. Raises Unfit."""
        latent = type(self)(self._tensor(state, "z"), self.step_size)
        if state.get("adam"):
            count = {"step": torch.tensor(float(state["adam"]["step"]))}
            latent._adam = count | {name: self._tensor(state["adam"], name) for name in MOMENTS}
        return latent

    def _tensor(self, values: Mapping[str, Any], name: str) -> Tensor:
        array, shape = values.get(name), tuple(self.z.shape)
        if not isinstance(array, np.ndarray) or array.shape != shape:
            found = getattr(array, "shape", "none")
            raise Unfit(_misfit(f"its {name} is {found}, this run's {shape}"))
        return torch.tensor(array, dtype=torch.float32, device=self.z.device)


@contextmanager
def misfit_explained() -> Iterator[None]:
    """Raise Unfit for whatever goes wrong inside: a stranger's checkpoint may hold anything."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        if is_lack_of_memory(error):
            raise
        raise Unfit(_misfit(f"{type(error).__name__} {error}")) from None


def _misfit(reason: str) -> str:
    return (
        f"The checkpoint does not fit: {reason}. Continue from the run's picture instead: delete"
        " the checkpoint."
    )
