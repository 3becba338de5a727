"""Products of whole numbers of eight bits, for frozen weights on CPUs with VNNI instructions.

Such CPUs multiply those twice as quickly as bfloat16. Every token, or batch of pictures, has a
scale of its own, by its largest number, and so do the weights of each output; sums are exact, and
are rounded to the precision of what came in. SwitchBack (Wortsman et al. 2023, "Stable and
low-precision training for large-scale vision-language models") trained CLIPs so, forwards and for
the gradients at inputs, as well as in bfloat16 to a tenth of a percent. Where we differ: its
weights share one scale, and it has no convolutions.

oneDNN's packed weights stay on the CPU and can be neither copied nor saved.
"""

import torch
from torch import Tensor

ZERO_POINT = 128  # as oneDNN's quick products want numbers without a sign
LARGEST = 126  # of 127, as a quotient may round up


class Matrix:
    """Weights [out, in] in eight bits, packed for oneDNN."""

    def __init__(self, weight: Tensor) -> None:
        quantised, self.scale = _quantise_weight(weight)
        self.zero_points = torch.zeros(len(quantised), dtype=torch.long)
        self.packed = torch.ops.onednn.qlinear_prepack(quantised, None)

    def times(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows [n, in] the products [n, out], and scales [n, 1] by which to multiply them."""
        scale = (_absmax(rows, 1) / LARGEST).clamp_(min=torch.finfo(rows.dtype).tiny)
        product = torch.ops.onednn.qlinear_pointwise(
            _quantise(rows / scale), 1.0, ZERO_POINT, self.packed, self.scale, self.zero_points,
            None, 1.0, 0, rows.dtype, "none", [], "",
        )  # fmt: skip
        return product, scale


class Kernels:
    """A convolution's weights [out, in, h, w] in eight bits, packed for oneDNN.

    How they are packed best hangs on the pictures' size, so that the first pictures decide. Others,
    of another size, get the same numbers, up to a tenth slower (by 1x1 kernels, a third).
    """

    def __init__(self, weight: Tensor, stride: int = 1, padding: int = 0) -> None:
        self.quantised, self.scale = _quantise_weight(weight)
        self.zero_points = torch.zeros(len(weight), dtype=torch.long)
        self.geometry = ([stride] * 2, [padding] * 2, [1, 1], 1)
        self.packed: Tensor | None = None

    def convolve(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """What the convolution makes of pictures [N, in, H, W]; bias: [out] in float32."""
        if self.packed is None:
            self.packed = torch.ops.onednn.qconv_prepack(
                self.quantised, self.scale, 1.0, ZERO_POINT, *self.geometry, x.shape
            )
            self.quantised = None
        in_memory = x.permute(0, 2, 3, 1).flatten()
        scale = max(float(_absmax(in_memory, 0)) / LARGEST, torch.finfo(x.dtype).tiny)
        return torch.ops.onednn.qconv2d_pointwise(
            _quantise(x * (1 / scale)), scale, ZERO_POINT, self.packed, self.scale,
            self.zero_points, bias, *self.geometry, 1.0, 0, x.dtype, "none", [], "",
        )  # fmt: skip


def _absmax(x: Tensor, dim: int) -> Tensor:
    """The size of the largest number along `dim`, which stays."""
    # Without a sign, floats are in the order of their bits, which a CPU compares far quicker.
    bits = {2: torch.int16, 4: torch.int32}[x.element_size()]
    return x.abs().view(bits).amax(dim, keepdim=True).view(x.dtype)


def _quantise(x: Tensor) -> Tensor:
    """x, which is overwritten, rounded to whole numbers about ZERO_POINT of one byte each."""
    return x.round_().to(torch.int8).view(torch.uint8).bitwise_xor_(ZERO_POINT)


def _quantise_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [out, ...] as whole numbers of eight bits, and the scale of each output, [out]."""
    rows = weight.detach().float().flatten(1)
    scale = (rows.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    quantised = (rows / scale[:, None]).round().to(torch.int8)
    return quantised.view(weight.shape).contiguous(), scale
