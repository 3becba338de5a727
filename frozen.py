"""Decoder and CLIP as the loop needs them: frozen, and therefore quicker and smaller.

Their weights never change, and gradients are wanted at their input alone. So nothing is kept for
the gradients of weights; batch norms become part of the convolutions before them; doubling a
picture and convolving it is one transposed convolution; a norm and its SiLU keep only what came in.
The functions give what the networks of taming-transformers and OpenAI's CLIP give, up to rounding,
in the precision `dtype`.
"""

import copy
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from clip.model import (
    AttentionPool2d,
    Bottleneck,
    ModifiedResNet,
    ResidualAttentionBlock,
    VisionTransformer,
)
from taming.modules.diffusionmodules import model as taming
from torch import Tensor, nn

QUICK_GELU = 1.702  # CLIP's GELU is x sigmoid(1.702 x)
SMALL = 1024  # pixels; with fewer, a norm in bfloat16 may take a CPU four times as long
SHORT = 4096  # tokens; up to here a CPU attends quicker by plain products than by torch's kernel


def own(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy in `dtype`, never a view of a file that was mapped."""
    return weight.detach().to(dtype, copy=True)


# --- Convolutions ------------------------------------------------------------------------------


class _Convolve(torch.autograd.Function):
    """A convolution whose gradient goes to its input alone, so that it keeps no input."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int):
        ctx.save_for_backward(weight)
        ctx.shape, ctx.stride, ctx.padding = x.shape, stride, padding
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (weight,) = ctx.saved_tensors
        if weight.shape[-1] == ctx.stride == 1:  # a product, several times as quick on a CPU
            grad = (grad.permute(0, 2, 3, 1) @ weight.flatten(1)).permute(0, 3, 1, 2)
        else:
            grad = _gradient_at_input(grad, weight, ctx.shape, ctx.stride, ctx.padding)
        return grad, None, None, None, None


def _gradient_at_input(
    grad: Tensor, weight: Tensor, shape: torch.Size, stride: int, padding: int
) -> Tensor:
    """As `torch.nn.grad.conv2d_input`, of which a CPU fills an input that only lends its shape."""
    if grad.device.type != "cpu":
        return torch.nn.grad.conv2d_input(shape, weight, grad, stride, padding)
    x = torch.empty(shape, dtype=grad.dtype, memory_format=torch.channels_last)
    geometry = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1)
    wanted = [True, False, False]  # of input, weight and bias
    found = torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry, wanted)
    return found[0]


class _ConvolveHalving(torch.autograd.Function):
    """A convolution from 2h x 2w to h x w; the gradient goes to its input alone."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, quarters: Tensor):
        ctx.save_for_backward(quarters)
        return F.conv2d(x, weight, bias, stride=2, padding=1)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (quarters,) = ctx.saved_tensors
        return F.pixel_shuffle(F.conv2d(F.pad(grad, (0, 1, 0, 1)), quarters), 2), None, None, None


class _ConvolveDoubled(torch.autograd.Function):
    """A transposed convolution from h x w to 2h x 2w; the gradient goes to its input alone."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None):
        ctx.save_for_backward(weight)
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (weight,) = ctx.saved_tensors
        return F.conv2d(grad, weight, stride=2, padding=1), None, None


class Conv(nn.Module):
    """A frozen convolution with channels last, of pictures [B, C, H, W]."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        super().__init__()
        weight = own(weight, dtype).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if bias is None else own(bias, dtype))
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return _Convolve.apply(x, self.weight, self.bias, self.stride, self.padding)


class HalvingConv(Conv):
    """A 3x3 convolution that halves pictures with even sides, as the first one of CLIP's ResNets.

    Its gradient is a convolution too, by 2x2 kernels, of which each gives a quarter of the pixels:
    those in even or odd rows and columns. With few channels, as there, that takes a CPU down to
    half the time of torch's own.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__(weight, bias, dtype, stride=2, padding=1)
        # Row 2o of the input meets row 1 of the kernel at output o, row 2o + 1 meets 2 there and 0
        # at o + 1; so the kernel, padded to 4x4, falls into 2x2 of them.
        spread = F.pad(weight, (1, 0, 1, 0)).unflatten(3, (2, 2)).unflatten(2, (2, 2)).flip(2, 4)
        quarters = own(spread.permute(1, 3, 5, 0, 2, 4).flatten(0, 2), dtype)  # [4 in, out, 2, 2]
        self.register_buffer("quarters", quarters.contiguous(memory_format=torch.channels_last))

    def forward(self, x: Tensor) -> Tensor:
        return _ConvolveHalving.apply(x, self.weight, self.bias, self.quarters)


class DoublingConv(nn.Module):
    """Nearest-neighbour doubling and then a 3x3 convolution, as one.

    Each output pixel sees only 2x2 of the pixels before doubling: those under the 3x3 kernel
    spread by a 2x2 box. That is a transposed convolution by the 4x4 kernel of the two, with 4/9 of
    the work.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        weight = conv.weight.float()
        spread = sum(F.pad(weight, (x, 1 - x, y, 1 - y)) for x in (0, 1) for y in (0, 1))
        weight = own(spread.flip(2, 3).transpose(0, 1), dtype)  # [in, out, 4, 4]
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", own(conv.bias, dtype))

    def forward(self, x: Tensor) -> Tensor:
        return _ConvolveDoubled.apply(x, self.weight, self.bias)


class _Pool(torch.autograd.Function):
    """The means of squares of `size` pixels; their gradient spreads evenly, by one copy."""

    @staticmethod
    def forward(ctx, x: Tensor, size: int):
        ctx.size = size
        return F.avg_pool2d(x, size)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return F.interpolate(grad / ctx.size**2, scale_factor=float(ctx.size)), None


class Pool(nn.Module):
    """Means of squares of `size` pixels, of pictures whose sides are multiples of it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return _Pool.apply(x, self.size)


def frozen_conv(conv: nn.Conv2d, dtype: torch.dtype, norm: nn.BatchNorm2d | None = None) -> Conv:
    """The convolution, with the batch norm that follows it, where there is one, taken in."""
    weight, bias = conv.weight, conv.bias
    if norm is not None:
        scale = norm.weight.float() * torch.rsqrt(norm.running_var.float() + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        weight = weight.float() * scale[:, None, None, None]
        bias = shift if bias is None else bias * scale + shift
    if (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (2, 2), (1, 1)):
        return HalvingConv(weight, bias, dtype)
    return Conv(weight, bias, dtype, conv.stride[0], conv.padding[0])


# --- Group norm with SiLU ----------------------------------------------------------------------


class _NormSiLU(torch.autograd.Function):
    """silu(group_norm(x)): the gradient goes to x alone, and x is all that is kept.

    With y = scale x + shift for each channel, g the gradient at y and n elements a group,
    dx = scale g - (sum(weight g) + x' sum(weight g x')) rstd / n, where x' is the normalised x and
    the sums run over the group (Wu, He 2018, "Group Normalization").
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float):
        y, mean, rstd = _group_norm(x, weight, bias, groups, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.groups, ctx.eps = groups, eps
        return F.silu(y, inplace=True)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight, bias, mean, rstd = ctx.saved_tensors
        batch, channels, height, width = x.shape
        by_group = (batch, ctx.groups, channels // ctx.groups)

        def by_channel(values: Tensor) -> Tensor:
            return values.expand(by_group).reshape(batch, channels, 1, 1).to(x.dtype)

        weight, bias = (part.float().view(1, *by_group[1:]) for part in (weight, bias))
        mean, rstd = mean.float().view(*by_group[:2], 1), rstd.float().view(*by_group[:2], 1)
        y = torch.addcmul(by_channel(bias - mean * rstd * weight), x, by_channel(rstd * weight))
        grad = torch.ops.aten.silu_backward.grad_input(grad, y, grad_input=y)
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


def _group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised x, channels last, and mean and 1/std of each group."""
    batch, channels, height, width = x.shape
    dtype = x.dtype
    if x.device.type == "cpu" and height * width < SMALL:
        x, weight, bias = x.float(), weight.float(), bias.float()
    y, mean, rstd = torch.native_group_norm(
        x, weight, bias, batch, channels, height * width, groups, eps
    )
    return y.to(dtype).contiguous(memory_format=torch.channels_last), mean, rstd


def _channel_sums(x: Tensor) -> Tensor:
    """Sums over rows and columns, [B, C] in float32; each row's sum may round to x's precision."""
    return x.permute(0, 2, 3, 1).sum(2).float().sum(1)


class NormSiLU(nn.Module):
    """A frozen group norm, then SiLU, of pictures [B, C, H, W]."""

    def __init__(self, norm: nn.GroupNorm, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", own(norm.weight, dtype))
        self.register_buffer("bias", own(norm.bias, dtype))
        self.groups, self.eps = norm.num_groups, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return _NormSiLU.apply(x, self.weight, self.bias, self.groups, self.eps)


# --- The decoder of taming-transformers --------------------------------------------------------


def frozen_decoder(decoder: taming.Decoder, dtype: torch.dtype) -> nn.Sequential:
    """A VQGAN's decoder: latents [B, z, h, w] to pictures [B, 3, h f, w f], channels last."""
    return nn.Sequential(*_decoder_layers(decoder, dtype))


def _decoder_layers(decoder: taming.Decoder, dtype: torch.dtype) -> Iterable[nn.Module]:
    yield frozen_conv(decoder.conv_in, dtype)
    yield ResidualBlock(decoder.mid.block_1, dtype)
    yield SpatialAttention(decoder.mid.attn_1, dtype)
    yield ResidualBlock(decoder.mid.block_2, dtype)
    for level in reversed(decoder.up):
        for number, block in enumerate(level.block):
            yield ResidualBlock(block, dtype)
            if len(level.attn):
                yield SpatialAttention(level.attn[number], dtype)
        if hasattr(level, "upsample"):
            yield _doubling(level.upsample, dtype)
    yield NormSiLU(decoder.norm_out, dtype)
    yield frozen_conv(decoder.conv_out, dtype)


def _doubling(upsample: taming.Upsample, dtype: torch.dtype) -> nn.Module:
    if upsample.with_conv:
        return DoublingConv(upsample.conv, dtype)
    return nn.Upsample(scale_factor=2.0, mode="nearest")


class ResidualBlock(nn.Module):
    """Norm, SiLU and convolution twice, beside the way straight through."""

    def __init__(self, block: taming.ResnetBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.change = nn.Sequential(
            NormSiLU(block.norm1, dtype),
            frozen_conv(block.conv1, dtype),
            NormSiLU(block.norm2, dtype),
            frozen_conv(block.conv2, dtype),
        )
        same = block.in_channels == block.out_channels
        self.straight = nn.Identity() if same else frozen_conv(block.nin_shortcut, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x).add_(self.straight(x))


class SpatialAttention(nn.Module):
    """Every position of [B, C, h, w] attends to all others, beside the way straight through."""

    def __init__(self, block: taming.AttnBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm = copy.deepcopy(block.norm).to(dtype)
        ways = (block.q, block.k, block.v)
        weight = torch.cat([way.weight for way in ways])
        self.qkv = Conv(weight, torch.cat([way.bias for way in ways]), dtype)
        self.out = frozen_conv(block.proj_out, dtype)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 1).reshape(batch, 1, -1, 3, channels)
        seen = attend(*qkv.unbind(3))  # [B, 1, h w, C]
        return self.out(seen.view(batch, height, width, channels).permute(0, 3, 1, 2)).add_(x)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d)) v, for q [B, heads, n, d] and k, v [B, heads, m, d]."""
    repeatable = q.device.type == "cpu" or torch.are_deterministic_algorithms_enabled()
    if k.shape[-2] > SHORT or not repeatable:
        return F.scaled_dot_product_attention(q, k, v)
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1) @ v


# --- CLIP's sight ------------------------------------------------------------------------------


def frozen_visual(visual: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The part of a CLIP that sees: normalised pictures [N, 3, S, S] to features [N, D]."""
    kinds = {ModifiedResNet: frozen_resnet, VisionTransformer: FrozenViT}
    return kinds[type(visual)](visual, dtype)


def frozen_resnet(visual: ModifiedResNet, dtype: torch.dtype) -> nn.Sequential:
    """CLIP's ResNet."""
    stem = [(visual.conv1, visual.bn1), (visual.conv2, visual.bn2), (visual.conv3, visual.bn3)]
    levels = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
    return nn.Sequential(
        *(part for conv, norm in stem for part in (frozen_conv(conv, dtype, norm), nn.ReLU(True))),
        Pool(2),
        *(FrozenBottleneck(block, dtype) for level in levels for block in level),
        FrozenAttentionPool(visual.attnpool, dtype),
    )


class FrozenBottleneck(nn.Module):
    """A block of CLIP's ResNet without its batch norms."""

    def __init__(self, block: Bottleneck, dtype: torch.dtype) -> None:
        super().__init__()
        pool = Pool(block.stride) if block.stride > 1 else nn.Identity()
        self.change = nn.Sequential(
            frozen_conv(block.conv1, dtype, block.bn1),
            nn.ReLU(True),
            frozen_conv(block.conv2, dtype, block.bn2),
            nn.ReLU(True),
            pool,
            frozen_conv(block.conv3, dtype, block.bn3),
        )
        self.straight = nn.Identity()
        if block.downsample is not None:
            _, conv, norm = block.downsample
            self.straight = nn.Sequential(pool, frozen_conv(conv, dtype, norm))

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x).add_(self.straight(x)).relu_()


class FrozenAttentionPool(nn.Module):
    """The mean of all positions attends to them, and to itself."""

    def __init__(self, pool: AttentionPool2d, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads = pool.num_heads
        self.register_buffer("places", own(pool.positional_embedding, dtype))
        self.q, self.k, self.v, self.out = (
            Linear.of(part, dtype) for part in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)  # [N, h w, C]
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1) + self.places
        return self.out(attend_once(self.q(x[:, 0]), x, self.k, self.v, self.heads))


def attend_once(q: Tensor, x: Tensor, k: "Linear", v: "Linear", heads: int) -> Tensor:
    """Attention of one query each [N, C] to the keys and values of tokens x [N, m, C]: [N, C].

    Without computing either: q (K x) = (q K) x, sum(a V x) = V sum(a x) for weights a that sum to
    1, and a constant that K's bias adds to all scores does not change them.
    """
    q = q.unflatten(-1, (heads, -1)).transpose(0, 1)  # [heads, N, d]
    to_k, to_v = (layer.weight.unflatten(0, (heads, -1)) for layer in (k, v))  # [heads, d, C]
    q = (q * q.shape[-1] ** -0.5 @ to_k).transpose(0, 1).contiguous()  # [N, heads, C]
    # Tokens first, or the gradient would copy q the other way round.
    weights = (x @ q.transpose(1, 2)).softmax(1)  # [N, m, heads]
    seen = weights.transpose(1, 2) @ x
    seen = seen.transpose(0, 1) @ to_v.transpose(1, 2)  # [heads, N, d]
    return seen.transpose(0, 1).flatten(1) + v.bias


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention of q [N, n, C] to k, v [N, m, C], the channels divided among the heads."""
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    return attend(q, k, v).transpose(1, 2).flatten(2)


class FrozenViT(nn.Module):
    """CLIP's vision transformer.

    Of its last block only the first token is read, so only that one is computed there.
    """

    def __init__(self, visual: VisionTransformer, dtype: torch.dtype) -> None:
        super().__init__()
        self.patches = Patches(visual.conv1, dtype)
        places = own(visual.positional_embedding, torch.float32)
        places[0] += visual.class_embedding
        self.register_buffer("places", places.to(dtype))
        self.norm_before = _frozen_norm(visual.ln_pre, dtype)
        *blocks, last = visual.transformer.resblocks
        self.blocks = nn.Sequential(*(TransformerBlock(block, dtype) for block in blocks))
        self.last = TransformerBlock(last, dtype)
        self.norm_after = _frozen_norm(visual.ln_post, dtype)
        self.register_buffer("out", own(visual.proj, dtype))

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.pad(self.patches(x), (0, 0, 1, 0))
        tokens = self.blocks(self.norm_before(tokens + self.places))
        return self.norm_after(self.last.first(tokens)) @ self.out


class Patches(nn.Module):
    """A convolution whose windows lie side by side, as one product: tokens [N, n, C].

    In bfloat16 its gradient takes a CPU a tenth of the time of torch's own.
    """

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


class TransformerBlock(nn.Module):
    """Attention and two layers, for tokens [N, n, C]."""

    def __init__(self, block: ResidualAttentionBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads, self.width = block.attn.num_heads, block.attn.embed_dim
        self.norm1, self.norm2 = (_frozen_norm(n, dtype) for n in (block.ln_1, block.ln_2))
        ways = zip(block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3))
        self.q, self.k, self.v = (Linear(weight, bias, dtype) for weight, bias in ways)
        self.out = Linear.of(block.attn.out_proj, dtype)
        # x sigmoid(1.702 x) = silu(1.702 x) / 1.702, and the layers around take the factors in.
        widen, narrow = block.mlp.c_fc, block.mlp.c_proj
        self.widen = Linear(
            widen.weight.float() * QUICK_GELU, widen.bias.float() * QUICK_GELU, dtype
        )
        self.narrow = Linear(narrow.weight.float() / QUICK_GELU, narrow.bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        seen = _attend(self.q(normed), self.k(normed), self.v(normed), self.heads)
        return self._refine(self.out(seen) + x)

    def first(self, x: Tensor) -> Tensor:
        """The first token alone, [N, C]."""
        normed = self.norm1(x)
        seen = attend_once(self.q(normed[:, 0]), normed, self.k, self.v, self.heads)
        return self._refine(self.out(seen) + x[:, 0])

    def _refine(self, x: Tensor) -> Tensor:
        return self.narrow(F.silu(self.widen(self.norm2(x)))) + x


class Linear(nn.Module):
    """A frozen linear layer."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", own(weight, dtype))
        self.register_buffer("bias", own(bias, dtype))

    @classmethod
    def of(cls, layer: nn.Linear, dtype: torch.dtype) -> "Linear":
        return cls(layer.weight, layer.bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def _frozen_norm(norm: nn.LayerNorm, dtype: torch.dtype) -> nn.LayerNorm:
    """torch's own layer norm, which needs no copy in float32 to compute in float32."""
    frozen = nn.LayerNorm(norm.normalized_shape, norm.eps)
    frozen.load_state_dict(norm.state_dict())
    return frozen.to(dtype)
