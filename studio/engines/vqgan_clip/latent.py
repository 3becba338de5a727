"""The latent that a run optimises, with its optimiser: into a checkpoint, and out of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from studio.base.errors import BadInput
from studio.engines.device import is_lack_of_memory
from studio.engines.vqgan_clip.optimisers import optimiser_of


class Unfit(BadInput):
    """A state that is not one of this kind of run, at this size, with these weights."""


class Latent:
    """z [1, d, h, w], moved by an optimiser, and the anchor that it may be held near: its start."""

    def __init__(self, z: Tensor, step_size: float, optimiser: str = "Adam") -> None:
        """Begin at z, with a fresh optimiser, which is given by its name.

        z is laid out in memory as a checkpoint brings it back, or sums would round differently.
        step_size: may be set to another one between two steps.
        """
        z = z.detach().clone(memory_format=torch.contiguous_format)
        self.z, self.anchor = z.requires_grad_(), z.detach().clone()
        self.step_size = step_size
        self._name, self._optimiser = optimiser, optimiser_of(optimiser, self.z)

    @torch.no_grad()
    def move(self) -> None:
        """Take a step of the optimiser along z's gradient."""
        self._optimiser.move(self.step_size)

    def state(self) -> dict[str, Any]:
        """z, anchor and, after the first step, moments, in copies that stay on the device."""
        return {
            "z": self.z.detach().clone(),
            "mse_target": self.anchor.clone(),
            self._key: self._optimiser.state(),
        }

    @property
    def _key(self) -> str:
        """Each optimiser's state has a name of its own, so that no other takes it up."""
        return self._name.lower()

    def restored(self, state: Mapping[str, Any]) -> Self:
        """The latent of a state, of the same size on the same device. Raises Unfit."""
        latent = self.continued(state)
        latent.anchor = self._tensor(state, "mse_target")
        return latent

    def continued(self, state: Mapping[str, Any]) -> Self:
        """Like `restored`, but anchored at its own z, where a run begins. Raises Unfit.

        The moments of another optimiser mean something else; then this one's begin afresh.
        """
        latent = type(self)(self._tensor(state, "z"), self.step_size, self._name)
        if known := state.get(self._key):
            latent._optimiser.load(self._like(latent._optimiser.example(), known))
        return latent

    def _like(self, example: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        """An optimiser's state from a checkpoint, with the types and shapes of an example.

        Raises Unfit for moments of another shape, and in Python's ways for anything else.
        """
        steps = float(known["step"])
        if not steps >= 1:
            raise ValueError(f"its optimiser took {steps:g} steps")
        kind = type(example["step"])
        count = torch.tensor(steps) if kind is Tensor else kind(steps)
        return {n: self._tensor(known, n) for n in example if n != "step"} | {"step": count}

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
