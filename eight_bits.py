"""Products of whole numbers of eight bits, for frozen weights on CPUs with VNNI instructions.

Such CPUs multiply those twice as quickly as bfloat16. Every token, or batch of pictures, is counted
in a unit of its own, by its largest number, and so are the weights of each output; sums are exact.
SwitchBack (Wortsman et al. 2023, "Stable and low-precision training for large-scale vision-language
models") trained CLIPs so, forwards and for the gradients at inputs, as well as in bfloat16 to a
tenth of a percent. Where we differ: its weights share one unit, and it has no convolutions.
"""

import torch
from torch import Tensor

MIDDLE = 128  # stands for zero, as oneDNN's quick products want numbers without a sign
LARGEST = 126  # of 127, as a quotient may round up


class Matrix:
    """Weights [out, in] in eight bits, packed for oneDNN."""

    def __init__(self, weight: Tensor) -> None:
        whole, self.scale = _by_output(weight)
        self.zero = torch.zeros(len(whole), dtype=torch.long)
        self.packed = torch.ops.onednn.qlinear_prepack(whole, None)

    def times(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows [n, in] the products [n, out], each row in its own unit, and the units [n, 1]."""
        unit = (_largest(rows, 1) / LARGEST).clamp_(min=torch.finfo(rows.dtype).tiny)
        product = torch.ops.onednn.qlinear_pointwise(
            _whole(rows / unit), 1.0, MIDDLE, self.packed, self.scale, self.zero, None,
            1.0, 0, rows.dtype, "none", [], "",
        )  # fmt: skip
        return product, unit


class Kernels:
    """A convolution's weights [out, in, h, w] in eight bits, packed for oneDNN.

    How they are packed best hangs on the pictures' size, so that the first pictures decide.
    Others, of another size, get the same numbers, hardly slower.
    """

    def __init__(self, weight: Tensor, stride: int = 1, padding: int = 0) -> None:
        self.whole, self.scale = _by_output(weight)
        self.zero = torch.zeros(len(weight), dtype=torch.long)
        self.geometry = ([stride] * 2, [padding] * 2, [1, 1], 1)
        self.packed: Tensor | None = None

    def convolve(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """What the convolution makes of pictures [N, in, H, W]; bias: [out] in float32."""
        if self.packed is None:
            self.packed = torch.ops.onednn.qconv_prepack(
                self.whole, self.scale, 1.0, MIDDLE, *self.geometry, x.shape
            )
            del self.whole
        in_memory = x.permute(0, 2, 3, 1).flatten()
        unit = max(float(_largest(in_memory, 0)) / LARGEST, torch.finfo(x.dtype).tiny)
        return torch.ops.onednn.qconv2d_pointwise(
            _whole(x * (1 / unit)), unit, MIDDLE, self.packed, self.scale, self.zero, bias,
            *self.geometry, 1.0, 0, x.dtype, "none", [], "",
        )  # fmt: skip


def _largest(x: Tensor, dim: int) -> Tensor:
    """The size of the largest number along `dim`, which stays."""
    # Without a sign, floats are in the order of their bits, which a CPU compares far quicker.
    bits = {2: torch.int16, 4: torch.int32}[x.element_size()]
    return x.abs().view(bits).amax(dim, keepdim=True).view(x.dtype)


def _whole(x: Tensor) -> Tensor:
    """x, which is overwritten, rounded to whole numbers about MIDDLE of one byte each."""
    return x.round_().to(torch.int8).view(torch.uint8).bitwise_xor_(MIDDLE)


def _by_output(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [out, ...] as whole numbers of eight bits, and the unit of each output, [out]."""
    rows = weight.detach().float().flatten(1)
    unit = (rows.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    whole = (rows / unit[:, None]).round().to(torch.int8)
    return whole.view(weight.shape).contiguous(), unit
