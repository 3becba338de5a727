"""A sampler at work on one picture: diffusers' scheduler, its place in the steps, and its state."""

import inspect
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio.engines.diffusion.samplers import SAMPLERS, SamplerName

# What steps change in diffusers' schedulers, for all samplers together.
CHANGING = (
    *("_step_index", "model_outputs", "timestep_list", "lower_order_nums", "last_sample"),
    *("this_order", "sample", "derivatives", "prev_derivative", "dt", "ets", "counter"),
    *("cur_model_output", "cur_sample", "is_scale_input_called"),
)


LEAST_PICTURE = 0.05  # sqrt(a): with less, hardly anything can be said of the picture


class Schedule:
    """A scheduler set to some number of steps, of which the first few may be left out.

    A step has one or two evaluations of the denoiser. timesteps: those of all evaluations that are
    left. num_steps: of the whole schedule. first_step: how many of them are left out.
    """

    def __init__(
        self,
        sampler: SamplerName,
        config: Mapping[str, Any],
        num_steps: int,
        first_step: int = 0,
    ) -> None:
        self.num_steps, self.first_step = num_steps, first_step
        self._order = SAMPLERS[sampler].evaluations
        self.scheduler = _scheduler(sampler, config)
        self.scheduler.set_timesteps(num_steps)
        skipped = first_step * self._order
        self.timesteps: Tensor = self.scheduler.timesteps[skipped:]
        if skipped and hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(skipped)
        takes = inspect.signature(self.scheduler.step).parameters
        self._takes_generator = "generator" in takes

    def copy(self) -> "Schedule":
        """The same, to be taken on without changing this one."""
        twin = copy(self)
        twin.scheduler = copy(self.scheduler)
        for name in CHANGING:
            if isinstance(value := vars(self.scheduler).get(name), list):
                setattr(twin.scheduler, name, value.copy())
        return twin

    def evaluations(self, step: int) -> range:
        """The places in `timesteps` that a step works off. step: counted from 0.

        Where there is one evaluation more than steps, as with PNDM, the first step has it.
        """
        taken = step - self.first_step
        if taken < 0:
            return range(0)
        extra = len(self.timesteps) - (self.num_steps - self.first_step) if self._order == 1 else 0
        begin = 0 if taken == 0 else taken * self._order + extra
        return range(begin, min(len(self.timesteps), (taken + 1) * self._order + extra))

    def begin(self, noise: Tensor) -> Tensor:
        """The latent that the first step begins with, where there is only noise."""
        return noise * self.scheduler.init_noise_sigma

    def noised(self, clean: Tensor, noise: Tensor, place: int) -> Tensor:
        """A clean latent as noisy as the sampler expects it before that evaluation."""
        return self.scheduler.add_noise(clean, noise, self.timesteps[place : place + 1])

    def scaled(self, latent: Tensor, place: int) -> Tensor:
        """The latent as the denoiser takes it."""
        return self.scheduler.scale_model_input(latent, self.timesteps[place])

    def move(
        self, predicted: Tensor, latent: Tensor, place: int, generator: torch.Generator
    ) -> Tensor:
        """The latent after the evaluation. predicted: what the denoiser says."""
        more: dict[str, Any] = {"generator": generator} if self._takes_generator else {}
        time = self.timesteps[place]
        return self.scheduler.step(predicted, time, latent, return_dict=False, **more)[0]

    def without_noise(self, predicted: Tensor, scaled: Tensor, place: int) -> Tensor:
        """What the denoiser takes for the clean latent; all samplers scale to the same noise.

        x0 = (x - sqrt(1 - a) eps) / sqrt(a), or sqrt(a) x - sqrt(1 - a) v (Salimans, Ho 2022).
        """
        a = self._share_of_picture(place)
        kind = self.scheduler.config.prediction_type
        if kind == "v_prediction":
            return a.sqrt() * scaled - (1 - a).sqrt() * predicted
        if kind == "sample":
            return predicted
        return (scaled - (1 - a).sqrt() * predicted) / a.sqrt().clamp(min=1e-3)

    def with_noise(self, predicted: Tensor, change: Tensor, place: int) -> Tensor:
        """What the denoiser says, if it finds more noise than it did. change: in units of it."""
        a = self._share_of_picture(place)
        root = a.sqrt().clamp(min=LEAST_PICTURE)
        kind = self.scheduler.config.prediction_type
        if kind == "v_prediction":
            return predicted + change / root
        if kind == "sample":
            return predicted - change * (1 - a).sqrt() / root
        return predicted + change

    def noise_level(self, place: int) -> float:
        """sqrt(1 - a): the share of noise in a scaled latent."""
        return float((1 - self._share_of_picture(place)).sqrt())

    def _share_of_picture(self, place: int) -> Tensor:
        """a in x = sqrt(a) picture + sqrt(1 - a) noise."""
        products = self.scheduler.alphas_cumprod
        time = float(self.timesteps[place])
        low = int(np.clip(np.floor(time), 0, len(products) - 1))
        high = min(low + 1, len(products) - 1)
        return products[low] + (products[high] - products[low]) * (time - low)

    def state(self) -> dict[str, Any]:
        """What steps have changed, in copies."""
        inside = vars(self.scheduler)
        return {name: _kept(inside[name]) for name in CHANGING if name in inside}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a state; fails in torch's ways where it is none."""
        for name in CHANGING:
            if name in state:
                setattr(self.scheduler, name, _as_was(state[name]))


def _scheduler(sampler: SamplerName, config: Mapping[str, Any]) -> Any:
    """diffusers' scheduler of that name, with what the weights say of noise and of predictions."""
    import diffusers

    chosen = SAMPLERS[sampler]
    kind = getattr(diffusers, chosen.class_name)
    karras = {"use_karras_sigmas": False} if not chosen.config else {}
    known = inspect.signature(kind.__init__).parameters
    wanted = {name: v for name, v in {**karras, **chosen.config}.items() if name in known}
    return kind.from_config(dict(config), **wanted)


def _kept(value: Any) -> Any:
    """A value for a checkpoint, which knows arrays, numbers, texts and dicts of them."""
    if isinstance(value, list):
        return {"length": len(value)} | {str(n): _kept(item) for n, item in enumerate(value)}
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, np.generic):
        return value.item()
    return "none" if value is None else value


def _as_was(kept: Any) -> Any:
    if isinstance(kept, Mapping):
        items: Sequence[Any] = [_as_was(kept[str(n)]) for n in range(int(kept["length"]))]
        return list(items)
    if isinstance(kept, np.ndarray):
        return torch.from_numpy(kept.copy())
    return None if isinstance(kept, str) else kept
