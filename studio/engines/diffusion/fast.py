"""diffusers' networks with layers that are quicker on a CPU, and give the same numbers.

Convolutions and products take packed weights (see `studio.engines.fast.packed`) and channels last:
torch packs the weights at each call, which takes longer than a convolution of 8x8 positions. A
decoder's upsampling takes 4/9 of the multiply-adds. Attention in bfloat16 takes plain products, a
few tokens at a time.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio.engines.fast.packed import PackedKernels, PackedMatrix, can_pack

SCORES = 2**21  # that are computed at once: as many as a cache holds
ROOM = 2**23  # scores up to which all heads are computed at once


def quickened(network: Any) -> Any:
    """A UNet or an autoencoder of diffusers, which gets quick layers where they can be trusted.

    It stays on the CPU; its weights can be neither saved nor changed any more. A network that has
    quick layers stays as it is.
    """
    first = next(network.parameters())
    if first.device.type != "cpu":
        return network
    if hasattr(network, "decoder"):
        _activate_in_place(network.get_submodule("decoder"))
    if can_pack(first.dtype):
        _pack(network)
    if first.dtype == torch.bfloat16:
        _attend_plainly(network)
    return network


def _activate_in_place(decoder: nn.Module) -> None:
    """Save a tensor at full size: activations follow norms, whose results nothing else uses."""
    for part in decoder.modules():
        if isinstance(part, nn.SiLU):
            part.inplace = True


# --- Packed weights ----------------------------------------------------------------------------


class PackedConv2d(nn.Conv2d):
    """A convolution by packed weights."""

    kernels: PackedKernels

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The weights as they were given."""
        return self.kernels.plain_weight()

    def forward(self, input: Tensor) -> Tensor:
        return _convolve(self.kernels, input, self)


class PackedLinear(nn.Linear):
    """A product by packed weights."""

    matrix: PackedMatrix

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The weights as they were given."""
        return self.matrix.plain_weight()

    def forward(self, input: Tensor) -> Tensor:
        if _wants_gradient(input):
            return F.linear(input, self.weight, self.bias)
        return self.matrix.times(input)


def _pack(network: nn.Module) -> None:
    if hasattr(network, "decoder"):  # those of a UNet may have to make odd sizes
        _double_quickly(network.get_submodule("decoder"))
    for layer in list(network.modules()):
        if type(layer) is nn.Linear:
            matrix = PackedMatrix(layer.weight.detach(), _detached(layer.bias))
            _become(layer, PackedLinear, matrix=matrix)
        elif type(layer) is nn.Conv2d and _is_plain(layer):
            _become(layer, PackedConv2d, kernels=_kernels(layer, layer.weight.detach()))


def _become(layer: nn.Module, kind: type, **parts: Any) -> None:
    """Let a layer be of another class, which holds its weights packed."""
    del layer.weight
    layer.__class__ = kind
    for name, part in parts.items():
        setattr(layer, name, part)


def _is_plain(layer: nn.Conv2d) -> bool:
    """Whether PackedKernels know its geometry."""
    sides = (layer.stride, layer.padding)
    return (
        all(isinstance(pair, tuple) and pair[0] == pair[1] for pair in sides)
        and (layer.groups, layer.dilation) == (1, (1, 1))
        and layer.padding_mode in ("zeros", "circular")
    )


def _kernels(layer: nn.Conv2d, weight: Tensor) -> PackedKernels:
    return PackedKernels(weight, _detached(layer.bias), layer.stride[0], int(layer.padding[0]))


def _detached(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()


def _convolve(kernels: PackedKernels, x: Tensor, layer: nn.Conv2d) -> Tensor:
    """By kernels that stand for a layer's; its edges meet, or zeros are around them."""
    kernels.padding = int(layer.padding[0])
    if layer.padding_mode == "circular":
        x = F.pad(x, [kernels.padding] * 4, mode="circular")
        kernels.padding = 0
    if _wants_gradient(x):
        return F.conv2d(x, kernels.plain_weight(), kernels.bias, kernels.stride, kernels.padding)
    return kernels.convolve(x.contiguous(memory_format=torch.channels_last))


def _wants_gradient(x: Tensor) -> bool:
    """Whether a gradient is to flow back to x, which operators on packed weights do not know."""
    return torch.is_grad_enabled() and x.requires_grad


# --- Upsampling --------------------------------------------------------------------------------


class DoublingConv2d(nn.Conv2d):
    """Nearest doubling and a 3x3 convolution, as a 2x2 convolution for each quarter of the pixels.

    Of the three rows that a kernel meets, two are the same row of the small picture. So their
    weights are summed beforehand, and likewise for columns.
    """

    quarters: list[PackedKernels]

    def forward(self, input: Tensor) -> Tensor:
        n, _, height, width = input.shape
        shape = n, self.out_channels, 2 * height, 2 * width
        doubled = input.new_empty(shape).contiguous(memory_format=torch.channels_last)
        for number, kernels in enumerate(self.quarters):
            row, column = divmod(number, 2)
            found = _convolve(kernels, input, self)  # one row and one column too many
            quarter = found[:, :, row : row + height, column : column + width]
            doubled[:, :, row::2, column::2] = quarter
        return doubled


def _double_quickly(decoder: nn.Module) -> None:
    from diffusers.models.upsampling import Upsample2D

    lists = [part for part in decoder.modules() if isinstance(part, nn.ModuleList)]
    for upsamplers in lists:
        for number, layer in enumerate(upsamplers):
            if not isinstance(layer, Upsample2D) or layer.norm is not None:
                continue
            conv: Any = layer.conv
            if type(conv) is nn.Conv2d and conv.kernel_size == (3, 3) and _is_plain(conv):
                _become(conv, DoublingConv2d, quarters=_quarters(conv))
                upsamplers[number] = conv


def _quarters(conv: nn.Conv2d) -> list[PackedKernels]:
    """The kernels that give even or odd rows, and of these even or odd columns."""
    weight = conv.weight.detach().float()
    return [
        _kernels(conv, _summed(_summed(weight, 2, row), 3, column).to(conv.weight.dtype))
        for row in (0, 1)
        for column in (0, 1)
    ]


def _summed(weight: Tensor, dim: int, odd: int) -> Tensor:
    """Three rows or columns of kernels as two: those that meet the same row of a small picture."""
    first, middle, last = weight.unbind(dim)
    return torch.stack([first + middle, last] if odd else [first, middle + last], dim)


# --- Attention ---------------------------------------------------------------------------------


class PlainAttention:
    """Attention of diffusers' `Attention` by products whose scores stay in the cache.

    torch's own kernel multiplies bfloat16 no more quickly than float32, unless a CPU has AMX. Each
    query's scores are the same but for a constant, if the keys' mean is taken from the keys; they
    are smaller then, and bfloat16 rounds them less (Zhang et al. 2025, "SageAttention").
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """The result for tokens [B, N, D] or a picture [B, D, H, W]. Masks are not supported."""
        assert attention_mask is None and temb is None
        x, shape = hidden_states, hidden_states.shape
        if len(shape) == 4:
            x = x.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            x = attn.group_norm(x.transpose(1, 2)).transpose(1, 2)
        given = x if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(x), attn.to_k(given), attn.to_v(given)
        found = attn.to_out[0](attend(q, k, v, attn.heads))
        if len(shape) == 4:
            found = found.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            found = found + hidden_states
        return found / attn.rescale_output_factor if attn.rescale_output_factor != 1 else found


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of [B, N, heads · d] with [B, M, heads · d]."""
    if _wants_gradient(q) or _wants_gradient(k):
        q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    q = q * (q.shape[-1] // heads) ** -0.5
    k = k - k.mean(1, keepdim=True)
    q, k, v = (
        x.unflatten(2, (heads, -1)).transpose(1, 2).flatten(0, 1).contiguous() for x in (q, k, v)
    )
    few = len(q) * q.shape[1] * k.shape[1] <= ROOM
    found = (_attend_at_once if few else _attend_by_parts)(q, k, v)
    return found.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


def _attend_at_once(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(1, 2)
    return torch.softmax(scores, -1, out=scores) @ v


def _attend_by_parts(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    found = torch.empty_like(q)
    rows = max(1, SCORES // k.shape[1])
    for head in range(len(q)):
        for part, into in zip(q[head].split(rows), found[head].split(rows), strict=True):
            scores = part @ k[head].T
            torch.mm(torch.softmax(scores, -1, out=scores), v[head], out=into)
    return found


def _attend_plainly(network: nn.Module) -> None:
    from diffusers.models.attention_processor import Attention, AttnProcessor2_0

    for layer in network.modules():
        if isinstance(layer, Attention) and type(layer.processor) is AttnProcessor2_0:
            known: Any = layer
            parts = known.spatial_norm, known.norm_q, known.norm_k
            if parts == (None, None, None) and not known.norm_cross:
                known.processor = PlainAttention()
