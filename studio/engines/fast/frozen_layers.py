"""Layers whose weights never change: gradients go to their inputs alone.

Nothing is kept for the gradients of weights. The layers give what torch's own layers give, up to
rounding to `dtype`, or to eight bits (see `onednn`) where their names say so.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio.engines.device import Precision
from studio.engines.fast.onednn import EightBitKernels, EightBitMatrix
from studio.engines.fast.operators import (
    input_gradient,
    input_gradient_plainly,
    norm_with_moments,
    relu_gradient,
    silu_gradient,
)
from studio.engines.fast.packed import PackedKernels, packed_convolutions

SMALL = 1024  # pixels; up to here, torch's own norms in float32 are up to twice as quick on a CPU
SHORT = 4096  # tokens; up to here, plain products are quicker on a CPU than torch's kernel


def own(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy in `dtype`, never a view of a file that was mapped."""
    return weight.detach().to(dtype, copy=True)


class _FrozenOperator(torch.autograd.Function):
    """A layer applied to x, and the gradient at x, for which x need not be kept."""

    @staticmethod
    def forward(ctx, x: Tensor, added: Tensor | None, layer: "FrozenLayer"):
        y = layer.result(x, added)
        ctx.layer, ctx.shape = layer, x.shape
        if layer.rectifies:
            ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        if ctx.layer.rectifies:
            grad = relu_gradient(grad, *ctx.saved_tensors)
        at_added = grad if ctx.needs_input_grad[1] else None
        return ctx.layer.gradient(grad, ctx.shape), at_added, None


class FrozenLayer(nn.Module):
    """A linear operator, perhaps with bias and ReLU, that computes its own gradient."""

    rectifies = False

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """The layer applied to x. added: of the result's shape, is added before the ReLU."""
        return _FrozenOperator.apply(x, added, self)

    def result(self, x: Tensor, added: Tensor | None) -> Tensor:
        """The result of `forward`, without its gradient."""
        y = self.compute(x)
        if added is not None:
            y += added
        return y.relu_() if self.rectifies else y

    def compute(self, x: Tensor) -> Tensor:
        """The operator, with its bias, applied to x."""
        raise NotImplementedError

    def gradient(self, grad: Tensor, shape: torch.Size) -> Tensor:
        """The gradient at x, of that shape, from the gradient before the ReLU."""
        raise NotImplementedError


# --- Convolutions ------------------------------------------------------------------------------


class Conv(FrozenLayer):
    """A convolution with channels last, of pictures [B, C, H, W]."""

    stride = 1
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        precision: Precision,
        padding: int = 0,
        rectifies: bool = False,
    ) -> None:
        super().__init__()
        weight = own(weight, precision.dtype).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", own(bias, precision.dtype))
        self.padding, self.rectifies = padding, rectifies
        self.kernels: PackedKernels | None = None
        if precision.packed and packed_convolutions.probe():
            self.kernels = PackedKernels(weight, self.bias, self.stride, padding, rectifies)

    def result(self, x: Tensor, added: Tensor | None) -> Tensor:
        if self.kernels is not None:
            return self.kernels.convolve(x, added)
        return super().result(x, added)

    def compute(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def gradient(self, grad: Tensor, shape: torch.Size) -> Tensor:
        if self.weight.shape[-1] == 1:  # a product, several times as quick on a CPU
            return (grad.permute(0, 2, 3, 1) @ self.weight.flatten(1)).permute(0, 3, 1, 2)
        if grad.device.type != "cpu":
            return input_gradient_plainly(grad, self.weight, shape, self.padding)
        return input_gradient(grad, self.weight, shape, self.padding)


class EightBitGradientConv(Conv):
    """A convolution of stride 1, with its gradient by products of eight bits."""

    def __init__(
        self, weight: Tensor, bias: Tensor, precision: Precision, padding: int = 0
    ) -> None:
        super().__init__(weight, bias, precision, padding)
        self.turned = _turned_kernels(weight, padding)

    def gradient(self, grad: Tensor, shape: torch.Size) -> Tensor:
        return self.turned.convolve(grad)


class EightBitConv(FrozenLayer):
    """A convolution of stride 1 by products of eight bits, with its gradient."""

    bias: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor, padding: int = 0, rectifies: bool = False
    ) -> None:
        super().__init__()
        self.kernels = EightBitKernels(weight, 1, padding)
        self.turned = _turned_kernels(weight, padding)
        self.register_buffer("bias", own(bias, torch.float32))
        self.rectifies = rectifies

    def compute(self, x: Tensor) -> Tensor:
        return self.kernels.convolve(x, self.bias)

    def gradient(self, grad: Tensor, shape: torch.Size) -> Tensor:
        return self.turned.convolve(grad)


def _turned_kernels(weight: Tensor, padding: int) -> EightBitKernels:
    """Kernels for the gradient of a convolution of stride 1: its own, turned by 180 degrees."""
    return EightBitKernels(weight.flip(2, 3).transpose(0, 1), 1, weight.shape[-1] - 1 - padding)


class HalvingConv(Conv):
    """A 3x3 convolution that halves pictures with even sides, as the first one of CLIP's ResNets.

    Its gradient is a convolution too, by 2x2 kernels. Each of them gives a quarter of the pixels:
    those in even or odd rows and columns. With few channels, as in CLIP, this is up to twice as
    quick on a CPU as torch's own gradient.
    """

    stride = 2
    quarters: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor, precision: Precision, rectifies: bool = False
    ) -> None:
        super().__init__(weight, bias, precision, 1, rectifies)
        # Row 2o of the input meets row 1 of the kernel at output o. Row 2o + 1 meets row 2 at
        # output o, and row 0 at o + 1. So the kernel, padded to 4x4, falls into four 2x2 kernels.
        spread = F.pad(weight, (1, 0, 1, 0)).unflatten(3, (2, 2)).unflatten(2, (2, 2)).flip(2, 4)
        quarters = own(spread.permute(1, 3, 5, 0, 2, 4).flatten(0, 2), precision.dtype)
        self.register_buffer("quarters", quarters.contiguous(memory_format=torch.channels_last))

    def gradient(self, grad: Tensor, shape: torch.Size) -> Tensor:
        return F.pixel_shuffle(F.conv2d(F.pad(grad, (0, 1, 0, 1)), self.quarters), 2)


class DoublingConv(FrozenLayer):
    """Nearest-neighbour doubling and then a 3x3 convolution, as one.

    Each output pixel sees only 2x2 of the pixels before doubling. So both steps are one transposed
    convolution, by the 3x3 kernel spread by a 2x2 box to 4x4, with 4/9 of the work.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        """weight: the 4x4 kernels that `doubled_kernels` makes of 3x3 ones."""
        super().__init__()
        kernels = own(weight, dtype).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", kernels)
        self.register_buffer("bias", own(bias, dtype))

    def compute(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1)

    def gradient(self, grad: Tensor, shape: torch.Size) -> Tensor:
        return F.conv2d(grad, self.weight, stride=2, padding=1)


class EightBitGradientDoublingConv(DoublingConv):
    """A DoublingConv with its gradient by products of eight bits."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        super().__init__(weight, bias, dtype)
        self.kernels = EightBitKernels(weight, 2, 1)

    def gradient(self, grad: Tensor, shape: torch.Size) -> Tensor:
        return self.kernels.convolve(grad)


def doubled_kernels(weight: Tensor) -> Tensor:
    """3x3 kernels [out, in, 3, 3] for doubled pixels, spread by a 2x2 box: [in, out, 4, 4]."""
    weight = weight.float()
    places = ((x, 1 - x, y, 1 - y) for x in (0, 1) for y in (0, 1))
    spread = sum((F.pad(weight, place) for place in places), start=torch.zeros(()))
    return spread.flip(2, 3).transpose(0, 1)


class Pool(FrozenLayer):
    """Means of squares of `size` pixels, of pictures whose sides are multiples of it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def compute(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.size)

    def gradient(self, grad: Tensor, shape: torch.Size) -> Tensor:
        return F.interpolate(grad / self.size**2, scale_factor=float(self.size))  # by one copy


# --- Group norm with SiLU ----------------------------------------------------------------------


class _NormSiLU(torch.autograd.Function):
    """silu(group_norm(x)): the gradient goes to x alone, and only x is kept for it.

    With y = scale x + shift for each channel, g the gradient at y and n elements per group,
    dx = scale g - (sum(weight g) + x' sum(weight g x')) rstd / n, where x' is the normalised x and
    the sums run over the group (Wu, He 2018, "Group Normalization").
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float):
        y, mean, rstd = norm_with_moments(x, weight, bias, groups, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.groups = groups
        return F.silu(y.contiguous(memory_format=torch.channels_last), inplace=True)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, bias, mean, rstd = ctx.saved_tensors
        batch, channels, height, width = x.shape
        by_group = (batch, ctx.groups, channels // ctx.groups)

        def by_channel(values: Tensor) -> Tensor:
            return values.expand(by_group).reshape(batch, channels, 1, 1).to(x.dtype)

        weight, bias = (part.float().view(1, *by_group[1:]) for part in (weight, bias))
        mean, rstd = mean.float().view(*by_group[:2], 1), rstd.float().view(*by_group[:2], 1)
        y = torch.addcmul(by_channel(bias - mean * rstd * weight), x, by_channel(rstd * weight))
        grad = silu_gradient(grad, y)
        product = grad * x
        of_grad = _channel_sums(grad).view(by_group)
        of_product = (_channel_sums(product).view(by_group) - mean * of_grad) * rstd
        count = height * width * by_group[2]
        level = (weight * of_grad).sum(-1, keepdim=True) / count
        slope = (weight * of_product).sum(-1, keepdim=True) / count * rstd
        scale, by_x = by_channel(weight * rstd), by_channel(-slope * rstd)
        constant = by_channel((slope * mean - level) * rstd)
        found = torch.addcmul(constant, grad, scale, out=product).addcmul_(x, by_x)
        return found, None, None, None, None


def _channel_sums(x: Tensor) -> Tensor:
    """Sums over rows and columns, [B, C] in float32; sums of rows may round to x's precision."""
    return x.permute(0, 2, 3, 1).sum(2).float().sum(1)


class NormSiLU(nn.Module):
    """A frozen group norm, then SiLU, of pictures [B, C, H, W]."""

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: nn.GroupNorm, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", own(norm.weight, dtype))
        self.register_buffer("bias", own(norm.bias, dtype))
        self.groups, self.eps = norm.num_groups, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.shape[2] * x.shape[3] <= SMALL:
            weight, bias = self.weight.float(), self.bias.float()
            y = F.silu(F.group_norm(x.float(), self.groups, weight, bias, self.eps))
            return y.to(x.dtype).contiguous(memory_format=torch.channels_last)
        return _NormSiLU.apply(x, self.weight, self.bias, self.groups, self.eps)


# --- Tokens ------------------------------------------------------------------------------------


class Linear(nn.Module):
    """A frozen linear layer."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", own(weight, dtype))
        self.register_buffer("bias", own(bias, dtype))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class EightBitLinear(FrozenLayer):
    """A linear layer by products of eight bits, with its gradient."""

    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.matrix, self.transposed = EightBitMatrix(weight), EightBitMatrix(weight.T)
        self.register_buffer("bias", own(bias, dtype))

    def compute(self, x: Tensor) -> Tensor:
        product, scale = self.matrix.times(x.flatten(0, -2))
        return torch.addcmul(self.bias, product, scale).unflatten(0, x.shape[:-1])

    def gradient(self, grad: Tensor, shape: torch.Size) -> Tensor:
        product, scale = self.transposed.times(grad.flatten(0, -2))
        return product.mul_(scale).view(shape)


class Patches(nn.Module):
    """A convolution whose windows do not overlap, as one product: tokens [N, n, C].

    In bfloat16 on a CPU, its gradient takes a tenth of the time of torch's own gradient.
    """

    weight: Tensor

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        (self.side,) = set(conv.kernel_size)
        weight = conv.weight.permute(0, 2, 3, 1).flatten(1)
        self.register_buffer("weight", own(weight, dtype))

    def forward(self, x: Tensor) -> Tensor:
        side = self.side
        patches = x.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # [N, 3, h, side, w, side]
        patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        return F.linear(patches, self.weight)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d)) v, for q [B, heads, n, d] and k, v [B, heads, m, d]."""
    repeatable = q.device.type == "cpu" or torch.are_deterministic_algorithms_enabled()
    if k.shape[-2] > SHORT or not repeatable:
        return F.scaled_dot_product_attention(q, k, v)
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1) @ v


def attend_once(q: Tensor, x: Tensor, k: Linear, v: Linear, heads: int) -> Tensor:
    """Attention of one query each [N, C] to the keys and values of tokens x [N, m, C]: [N, C].

    Neither keys nor values are computed: q (K x) = (q K) x, and sum(a V x) = V sum(a x) for weights
    a that sum to 1. K's bias adds the same constant to all scores, which changes no weight.
    """
    q = q.unflatten(-1, (heads, -1)).transpose(0, 1)  # [heads, N, d]
    to_k, to_v = (layer.weight.unflatten(0, (heads, -1)) for layer in (k, v))  # [heads, d, C]
    q = (q * q.shape[-1] ** -0.5 @ to_k).transpose(0, 1).contiguous()  # [N, heads, C]
    # Tokens come first, or the gradient would copy a transposed q.
    weights = (x @ q.transpose(1, 2)).softmax(1)  # [N, m, heads]
    seen = weights.transpose(1, 2) @ x
    seen = seen.transpose(0, 1) @ to_v.transpose(1, 2)  # [heads, N, d]
    return seen.transpose(0, 1).flatten(1) + v.bias
