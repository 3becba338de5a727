"""Products of eight bits by weights that oneDNN has packed.

PyTorch made these operators for torch.compile; they are tried before they are used (see
`guarded`). Packed weights stay on the CPU and can be neither copied nor saved.

CPUs with VNNI instructions multiply eight-bit integers twice as quickly as bfloat16. Every token,
or batch of pictures, has its own scale, set by its largest number. So do the weights of each
output. Sums are exact, and are rounded to the precision of the input. SwitchBack (Wortsman et al.
2023, "Stable and low-precision training for large-scale vision-language models") trained CLIPs in
this way, both forwards and for the gradients at inputs, and came within a tenth of a percent of
bfloat16. Where we differ: in SwitchBack the weights share one scale, and there are no convolutions.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from studio.engines.fast.guarded import Guarded, whole_numbers
from studio.engines.fast.packed import GEOMETRIES, convolve_plainly

ZERO_POINT = 128  # oneDNN's quick products want unsigned numbers
LARGEST = 126  # of 127, as a quotient may round up


class EightBitMatrix:
    """Weights [out, in] in eight bits."""

    def __init__(self, weight: Tensor) -> None:
        quantised, self.scale = _quantise_weight(weight)
        self.zero_points = torch.zeros(len(quantised), dtype=torch.long)
        self.packed = torch.ops.onednn.qlinear_prepack(quantised, None)

    def times(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Unscaled products [n, out] of rows [n, in], and the scales [n, 1] to multiply them by."""
        sizes = rows.abs()
        scale = (_largest(sizes, (1,)) / LARGEST).clamp_(min=torch.finfo(rows.dtype).tiny)
        quantised = _quantise(torch.div(rows, scale, out=sizes))
        product = torch.ops.onednn.qlinear_pointwise(
            quantised, 1.0, ZERO_POINT, self.packed, self.scale, self.zero_points,
            None, 1.0, 0, rows.dtype, "none", [], "",
        )  # fmt: skip
        return product, scale


class EightBitKernels:
    """A convolution's weights [out, in, h, w] in eight bits.

    The best packing depends on the input size, and the first input decides. Inputs of another size
    give the same numbers up to a tenth more slowly (with 1x1 kernels, up to a third).
    """

    def __init__(self, weight: Tensor, stride: int = 1, padding: int = 0) -> None:
        self.quantised, self.scale = _quantise_weight(weight)
        self.zero_points = torch.zeros(len(weight), dtype=torch.long)
        self.geometry = ([stride] * 2, [padding] * 2, [1, 1], 1)
        self.packed: Tensor | None = None

    def convolve(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """The convolution of pictures [N, in, H, W]; bias: [out] in float32."""
        if self.packed is None:
            self.packed = torch.ops.onednn.qconv_prepack(
                self.quantised, self.scale, 1.0, ZERO_POINT, *self.geometry, x.shape
            )
            self.quantised = None
        sizes = x.abs()
        scale = max(float(_largest(sizes)) / LARGEST, torch.finfo(x.dtype).tiny)
        quantised = _quantise(torch.mul(x, 1 / scale, out=sizes))
        return torch.ops.onednn.qconv2d_pointwise(
            quantised, scale, ZERO_POINT, self.packed, self.scale,
            self.zero_points, bias, *self.geometry, 1.0, 0, x.dtype, "none", [], "",
        )  # fmt: skip


def _largest(sizes: Tensor, dims: tuple[int, ...] = ()) -> Tensor:
    """The largest of non-negative numbers along `dims`, which are kept; () for all dimensions."""
    # Non-negative floats have the order of their bits, which a CPU compares far more quickly.
    bits = {2: torch.int16, 4: torch.int32}[sizes.element_size()]
    return sizes.view(bits).amax(dims, keepdim=True).view(sizes.dtype)


def _quantise(x: Tensor) -> Tensor:
    """x, rounded to whole numbers of one byte each around ZERO_POINT. Overwrites x."""
    return x.round_().to(torch.int8).view(torch.uint8).bitwise_xor_(ZERO_POINT)


def _quantise_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [out, ...] as eight-bit integers, and the scale of each output, [out]."""
    rows = weight.detach().float().flatten(1)
    scale = (rows.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    quantised = (rows / scale[:, None]).round().to(torch.int8)
    return quantised.view(weight.shape).contiguous(), scale


# --- Whether they can be trusted ---------------------------------------------------------------


def _multiply_bytes(rows: Tensor, weight: Tensor) -> Tensor:
    product, scale = EightBitMatrix(weight).times(rows)
    return product * scale


def _examples_of_rows() -> Iterator[tuple[Tensor, ...]]:
    for dtype in (torch.float32, torch.bfloat16):
        yield whole_numbers(5, 64, most=LARGEST).to(dtype), whole_numbers(7, 64, most=127)


def _convolve_bytes(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    return EightBitKernels(weight, stride, padding).convolve(x, bias)


def _examples_of_pictures() -> Iterator[tuple[Tensor | int, ...]]:
    bias = whole_numbers(1, 8, most=1000)[0]
    for dtype in (torch.float32, torch.bfloat16):
        for stride, padding, side in GEOMETRIES:
            x = whole_numbers(2, 16, 8, 6, most=LARGEST).to(dtype)
            weight = whole_numbers(8, 16, side, side, most=127)
            yield x.contiguous(memory_format=torch.channels_last), weight, bias, stride, padding


eight_bit_products = Guarded(
    "product of eight bits",
    quick=_multiply_bytes,
    plain=lambda rows, weight: (rows.float() @ weight.T).to(rows.dtype),
    examples=_examples_of_rows,
)
eight_bit_convolutions = Guarded(
    "convolution of eight bits",
    quick=_convolve_bytes,
    plain=lambda x, weight, bias, *geometry: convolve_plainly(x, weight, bias, None, *geometry),
    examples=_examples_of_pictures,
)
