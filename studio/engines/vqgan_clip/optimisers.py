"""What moves a latent along its gradient: Adam, and others for those who choose them.

Adam is torch's function: the class `torch.optim.Adam` imports torch's compiler, more than a second
before each first picture. The others are classes of torch and of pytorch-optimizer, imported when
they are used.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam

MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam, each of the latent's shape
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Kingma and Ba 2015, "Adam", as torch.optim.Adam has them

# "module:class", and what differs from the library's defaults. XibQGAN-CLIP's DiffGrad is this one.
CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "AdamW": ("torch.optim:AdamW", {}),
    "Adagrad": ("torch.optim:Adagrad", {}),
    "Adamax": ("torch.optim:Adamax", {}),
    "DiffGrad": ("pytorch_optimizer:DiffGrad", {"eps": 1e-9, "weight_decay": 1e-9}),
    "AdamP": ("pytorch_optimizer:AdamP", {}),
    "RAdam": ("torch.optim:RAdam", {}),
    "RMSprop": ("torch.optim:RMSprop", {}),
}

State = dict[str, Any]  # by name: tensors of the latent's shape, and the number of steps


class Optimiser(Protocol):
    """Moves one tensor z, which has a gradient.

    `state` is what it gathered in its steps, in copies; nothing before the first step.
    `load` takes such a state; its values have the types and shapes of `example`.
    """

    def move(self, step_size: float) -> None:
        """Take a step along z's gradient."""
        ...

    def state(self) -> State: ...

    def example(self) -> State: ...

    def load(self, state: Mapping[str, Any]) -> None: ...


def optimiser_of(name: str, z: Tensor) -> Optimiser:
    """A fresh optimiser of z. name: Adam, or one of CLASSES."""
    return _Adam(z) if name == "Adam" else _OfLibrary(z, *CLASSES[name])


class _Adam:
    def __init__(self, z: Tensor) -> None:
        self._z = z
        self._state = self.example()

    def move(self, step_size: float) -> None:
        gradient = self._z.grad
        assert gradient is not None, "nothing was differentiated"
        averages, squares = ([self._state[name]] for name in MOMENTS)
        adam(
            [self._z],
            [gradient],
            averages,
            squares,
            [],
            [self._state["step"]],
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=step_size,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )

    def state(self) -> State:
        return _copied(self._state) if self._state["step"] else {}

    def example(self) -> State:
        zeros = {name: torch.zeros_like(self._z, requires_grad=False) for name in MOMENTS}
        return {"step": torch.tensor(0.0), **zeros}

    def load(self, state: Mapping[str, Any]) -> None:
        self._state = dict(state)


class _OfLibrary:
    """torch's classes count steps beside the moments, pytorch-optimizer's in the group."""

    def __init__(self, z: Tensor, address: str, how: Mapping[str, Any]) -> None:
        module, _, name = address.partition(":")
        self._kind, self._how = getattr(import_module(module), name), how
        self._z, self._own = z, self._of(z)

    def _of(self, z: Tensor) -> torch.optim.Optimizer:
        return self._kind([z], **self._how)

    def move(self, step_size: float) -> None:
        self._own.param_groups[0]["lr"] = step_size
        self._own.step()

    def state(self) -> State:
        return _gathered(self._own, self._z)

    def example(self) -> State:
        z = torch.zeros_like(self._z).requires_grad_()
        z.grad = torch.zeros_like(z)
        twin = self._of(z)
        twin.step()
        return _gathered(twin, z)

    def load(self, state: Mapping[str, Any]) -> None:
        own = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        counts = {name: value for name, value in state.items() if name not in own}
        self._own.state[self._z] = own
        self._own.param_groups[0].update(counts)


def _gathered(optimiser: torch.optim.Optimizer, z: Tensor) -> State:
    own, group = optimiser.state[z], optimiser.param_groups[0]
    counted = {"step": group["step"]} if "step" in group else {}
    return _copied(counted | own) if own else {}


def _copied(state: Mapping[str, Any]) -> State:
    return {n: value.clone() if isinstance(value, Tensor) else value for n, value in state.items()}
