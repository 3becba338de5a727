"""The networks of upscalers: published architectures with weights that were read as data.

Real-ESRGAN (Wang et al. 2021, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure
Synthetic Data") publishes two architectures: SRVGGNetCompact (animevideov3) and RRDBNet (x4plus).
The classes are spandrel's, which also knows the architectures of other files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio.base.errors import BadInput, shortened
from studio.models import ncnn_weights
from studio.models.fast_upscalers import RRDB, Compact, Forward, quick
from studio.models.ncnn_weights import Layer
from studio.models.side_by_side import Pulse, nothing
from studio.models.upscalers import SCALES, Upscaler
from studio.models.weight_files import read_state_dict

KEYS = ("state_dict", "params_ema", "params-ema", "params", "model_state_dict", "model", "net")
PRELU = "PReLU"  # a kind of layer, which of the published networks SRVGGNetCompact alone has
CONVS_PER_BLOCK = 15  # of an RRDB: three dense blocks of five
ENDS = ("conv_up1", "conv_up2", "conv_hr", "conv_last")  # after the blocks of an RRDBNet
MOST_MARGIN = 96  # pixels; an RRDBNet sees further, but what is there changes nothing by 1/255
MARGIN_OF_OTHERS = 48
BICUBIC_SIGHT = 2  # pixels
SIDE, SIDE_OF_RRDB, SIDE_OF_OTHERS = 480, 288, 192  # of a tile


@dataclass(frozen=True)
class Network:
    """An upscaling network.

    enlarge: pictures [1, 3, H, W] in [0, 1] to [1, 3, H scale, W scale], float32 on the CPU; it
    calls its pulse at least several times a second.
    margin: how many pixels around a tile make a difference to it.
    side: of a tile, such that a tile fits into a few hundred MB.
    """

    scale: int
    margin: int
    side: int
    enlarge: Forward


def load(upscaler: Upscaler, device: torch.device) -> Network:
    """The network of an upscaler, ready to compute. Raises BadInput."""
    if upscaler.is_published and (compact := published_compact(upscaler.path, device)):
        margin = compact.sight + BICUBIC_SIGHT
        return Network(compact.scale, margin, SIDE, _on(device, compact))
    found = descriptor(upscaler)
    module = found.model.eval().requires_grad_(False).to(device)
    forward = quick(module)
    if forward is None:
        forward = _with_pulse(found)
        return Network(found.scale, MARGIN_OF_OTHERS, SIDE_OF_OTHERS, _on(device, forward))
    side = SIDE_OF_RRDB if isinstance(forward, RRDB) else SIDE
    return Network(found.scale, _margin(module), side, _on(device, forward))


def descriptor(upscaler: Upscaler) -> Any:
    """spandrel's network of an upscaler. Raises BadInput with spandrel's reason."""
    import spandrel

    path = upscaler.path
    state = published(path) if upscaler.is_published else _floats(read_state_dict(path, KEYS), path)
    try:
        found = spandrel.ModelLoader().load_from_state_dict(spandrel.canonicalize_state_dict(state))
    except MemoryError:
        raise
    except Exception as error:  # each architecture fails in its own way at strange weights
        said = shortened(str(error) or type(error).__name__, 200).rstrip(".")
        raise BadInput(f"{path} cannot be used as an upscaler. spandrel said: {said}.") from None
    channels = found.input_channels, found.output_channels
    if not isinstance(found, spandrel.ImageModelDescriptor) or channels != (3, 3):
        raise BadInput(f"{path} is not an upscaler for colour pictures (RGB).")
    if not 1 < found.scale <= max(SCALES):
        raise BadInput(f"{path} makes pictures {found.scale} times as large; give one for 2 to 8.")
    return found


def published(param: Path) -> dict[str, Tensor]:
    """The weights of a file in ncnn's format by the names of Real-ESRGAN. Raises BadInput."""
    layers = _layers(param)
    is_compact = any(layer.kind == PRELU for layer in layers)
    names = [f"body.{n}" for n in range(len(layers))] if is_compact else _rrdb_names(layers)
    return {
        f"{name}.{key}": tensor
        for name, layer in zip(names, layers, strict=True)
        for key, tensor in zip(("weight", "bias"), layer.weights, strict=False)
    }


def published_compact(param: Path, device: torch.device) -> Compact | None:
    """An SRVGGNetCompact from a file in ncnn's format; None for another network. Raises BadInput.

    It takes no spandrel, whose import would take longer than most pictures.
    """
    layers = _layers(param)
    slopes = [layer.weights[0].to(device) for layer in layers if layer.kind == PRELU]
    convs = [tuple(part.to(device) for part in x.weights) for x in layers if x.kind != PRELU]
    return Compact(convs, slopes) if slopes else None


def _layers(param: Path) -> list[Layer]:
    """Those with weights."""
    layers = [layer for layer in ncnn_weights.read(param) if layer.weights]
    if not layers:
        raise BadInput(f"{param} holds no weights.")
    return layers


def _rrdb_names(layers: Sequence[Layer]) -> list[str]:
    count = len(layers) - len(ENDS) - 2
    blocks = [
        f"body.{n // CONVS_PER_BLOCK}.rdb{n % CONVS_PER_BLOCK // 5 + 1}.conv{n % 5 + 1}"
        for n in range(count)
    ]
    return ["conv_first", *blocks, "conv_body", *ENDS]


def _floats(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors with all floats in float32. Raises BadInput where not finite."""
    found = {k: t.float() if t.is_floating_point() else t.clone() for k, t in tensors.items()}
    if wrong := next((k for k, t in found.items() if not t.isfinite().all()), None):
        raise BadInput(f"{path} is damaged: '{wrong}' holds values that are not finite.")
    return found


def _margin(module: nn.Module) -> int:
    sights = (max(p.kernel_size) // 2 for p in module.modules() if isinstance(p, nn.Conv2d))
    return min(sum(sights) + BICUBIC_SIGHT, MOST_MARGIN)


def _with_pulse(found: Any) -> Forward:
    """spandrel's network, which pads the picture as it needs. The pulse is before each layer."""
    pulses: list[Pulse] = []

    def before_layer(*_: Any) -> None:
        pulses[-1]()

    for layer in found.model.modules():
        if not any(layer.children()):
            layer.register_forward_pre_hook(before_layer)

    def forward(x: Tensor, pulse: Pulse) -> Tensor:
        pulses[:] = [pulse]
        return found(x)

    return forward


def _on(device: torch.device, forward: Forward) -> Forward:
    def enlarge(x: Tensor, pulse: Pulse = nothing) -> Tensor:
        with torch.inference_mode():
            return forward(x.to(device), pulse).float().cpu()

    return enlarge


def passes(native: int, scale: int) -> list[Fraction]:
    """By how much each pass of a network enlarges, so that all passes together make `scale`.

    A pass is reduced to less than the network makes where that is enough. x8 is x4 and then x2.
    """
    if native >= scale:
        return [Fraction(scale)]
    if scale == max(SCALES):
        return [*passes(native, 4), *passes(native, 2)]
    return [Fraction(native), Fraction(scale, native)]


def reduced(x: Tensor, wanted: Fraction, made: int) -> Tensor:
    """Pictures that were enlarged `made` times, at `wanted` times the original size.

    Bicubic, as in the published network for x2 and x3, which is that for x4 with this at its end.
    """
    if wanted == made:
        return x
    size = [int(side * wanted / made) for side in x.shape[2:]]
    return F.interpolate(x, size, mode="bicubic", antialias=2 * wanted < made)
