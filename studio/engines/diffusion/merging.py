"""LoRAs merged into the weights of a network as it is loaded.

So a run with a LoRA is as quick as one without. A run without it loads the network once more.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from studio.engines.diffusion import tensors
from studio.engines.diffusion.loras import Delta, LoraFile

TEXT_MODEL = "text_model."  # around a text encoder's layers, in some versions of the library


@torch.no_grad()
def merge(network: nn.Module, part: str, loras: Iterable[LoraFile]) -> None:
    """Add to a part of the model what the LoRAs do: W + weight · alpha / rank · up · down."""
    for lora in loras:
        for delta in lora.of(part):
            layer = _layer(network, delta.layer)
            added = lora.weight(part) * _product(delta, _matrices(lora, delta))
            old = layer.weight
            new = old.float() + added.to(old.device).reshape(old.shape)
            layer.weight = nn.Parameter(new.to(old.dtype), requires_grad=False)


def _layer(network: nn.Module, name: str) -> Any:
    has_around = any(n.startswith(TEXT_MODEL) for n, _ in network.named_modules())
    return network.get_submodule(f"{TEXT_MODEL}{name}" if has_around else name)


def _matrices(lora: LoraFile, delta: Delta) -> dict[str, Tensor]:
    names = {"down": delta.down, "up": delta.up, "mid": delta.mid, "alpha": delta.alpha}
    return {
        way: tensors.read_one(lora.header, name, torch.float32)
        for way, name in names.items()
        if name
    }


def _product(delta: Delta, given: dict[str, Tensor]) -> Tensor:
    """[out, in] and the kernel, if there is one."""
    down, up, rank = given["down"], given["up"].flatten(1), len(given["down"])
    alpha = float(given["alpha"]) if "alpha" in given else delta.told_alpha
    scale = 1.0 if alpha is None else alpha / rank
    if "mid" in given:
        # LoCon's Tucker decomposition: the kernel is between two 1x1 convolutions.
        mid = torch.einsum("im...,mn->in...", given["mid"], down.flatten(1))
        return scale * torch.einsum("oi,i...->o...", up, mid)
    return scale * (up @ down.flatten(1))
