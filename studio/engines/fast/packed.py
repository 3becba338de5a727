"""Products and convolutions by weights that oneDNN has packed, in float32 or bfloat16.

PyTorch made these operators for torch.compile; they are tried before they are used (see
`guarded`). Packed weights stay on the CPU and can be neither copied nor saved.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.engines.fast.guarded import Guarded, whole_numbers


class PackedKernels:
    """A convolution's weights [out, in, h, w] and bias [out] of one dtype, and perhaps a ReLU.

    The best packing depends on the input size. The weights are packed again for each new size: with
    the packing for another size, a convolution may take a hundred times as long. Only the packed
    weights are kept.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        stride: int,
        padding: int,
        rectifies: bool = False,
    ) -> None:
        self.weight, self.bias = weight, bias
        self.stride, self.padding, self.rectifies = stride, padding, rectifies
        self.packed_for: tuple[torch.Size, int] | None = None  # inputs of which shape and padding

    def plain_weight(self) -> Tensor:
        """The weights as they were given."""
        return self.weight if self.packed_for is None else self.weight.to_dense()

    def convolve(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """The convolution of pictures [N, in, H, W]; `added` is added before the ReLU."""
        # Another order than in EightBitKernels.
        geometry = [self.padding] * 2, [self.stride] * 2, [1, 1], 1
        if self.packed_for != (x.shape, self.padding):
            pack = torch.ops.mkldnn._reorder_convolution_weight
            self.weight = pack(self.plain_weight(), *geometry, x.shape)
            self.packed_for = x.shape, self.padding
        convolve, known = torch.ops.mkldnn._convolution_pointwise, (self.weight, self.bias)
        if added is None:
            after = "relu" if self.rectifies else "none"
            return convolve(x, *known, *geometry, after, [], "")
        after = "relu" if self.rectifies else None
        return convolve.binary(x, added, *known, *geometry, "add", 1.0, after, [], "")


class PackedMatrix:
    """Weights [out, in] and bias [out] of one dtype. Only the packed weights are kept.

    Inputs of any size have the same packing.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias, self.is_packed = weight, bias, False

    def plain_weight(self) -> Tensor:
        """The weights as they were given."""
        return self.weight.to_dense() if self.is_packed else self.weight

    def times(self, rows: Tensor) -> Tensor:
        """Products [..., out] of rows [..., in]."""
        if not self.is_packed:
            count = rows.numel() // rows.shape[-1]
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, count)
            self.is_packed = True
        return torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, "none", [], "")


# --- Whether they can be trusted ---------------------------------------------------------------

GEOMETRIES = ((1, 1, 3), (1, 0, 1), (2, 1, 3))  # stride, padding, side of the kernels


def convolve_plainly(
    x: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None, stride: int, padding: int
) -> Tensor:
    """A convolution in float32; `added` is added to it, before a ReLU."""
    y = F.conv2d(x.float(), weight.float(), bias.float(), stride, padding)
    return y.to(x.dtype) if added is None else (y + added.float()).relu().to(x.dtype)


def _convolve_packed(
    x: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None, stride: int, padding: int
) -> Tensor:
    kernels = PackedKernels(weight, bias, stride, padding, rectifies=added is not None)
    return kernels.convolve(x, added)


def _examples_of_pictures(dtype: torch.dtype) -> Iterator[tuple[Tensor | int | None, ...]]:
    """Convolutions alone, and with a sum and a ReLU after them."""
    for stride, padding, side in GEOMETRIES:
        x = whole_numbers(2, 16, 8, 6, most=1).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        weight = whole_numbers(8, 16, side, side, most=2).to(dtype)
        bias = whole_numbers(1, 8, most=3)[0].to(dtype)
        y = convolve_plainly(x, weight, bias, None, stride, padding)
        yield x, weight, bias, None, stride, padding
        yield x, weight, bias, y.roll(1), stride, padding


def _examples_of_rows(dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
    weight, bias = whole_numbers(7, 20, most=2).to(dtype), whole_numbers(1, 7, most=3)[0].to(dtype)
    yield whole_numbers(5, 20, most=1).to(dtype), weight, bias
    yield whole_numbers(6, 20, most=1).to(dtype).view(2, 3, 20), weight, bias


def _convolutions(dtype: torch.dtype) -> Guarded:
    return Guarded(
        "convolution by packed weights",
        quick=_convolve_packed,
        plain=convolve_plainly,
        examples=lambda: _examples_of_pictures(dtype),
    )


def _products(dtype: torch.dtype) -> Guarded:
    return Guarded(
        "product by packed weights",
        quick=lambda rows, weight, bias: PackedMatrix(weight, bias).times(rows),
        plain=F.linear,
        examples=lambda: _examples_of_rows(dtype),
    )


# Processors without AVX-512 have those of float32 alone.
packed_convolutions = _convolutions(torch.bfloat16)
packed_products = _products(torch.bfloat16)
packed_float_convolutions = _convolutions(torch.float32)
packed_float_products = _products(torch.float32)


def can_pack(dtype: torch.dtype) -> bool:
    """Whether packed weights of that dtype can be trusted here, in convolutions and products."""
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return packed_convolutions.probe() and packed_products.probe()
    return (
        dtype == torch.float32
        and packed_float_convolutions.probe()
        and packed_float_products.probe()
    )
