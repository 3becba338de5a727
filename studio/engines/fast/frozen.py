"""Decoder and CLIP as the loop needs them: frozen, and therefore quicker and smaller.

Batch norms, sums and ReLUs become part of the convolutions before them. Doubling a picture and
convolving it is one transposed convolution. A norm and its SiLU keep only their input for the
gradient, except for small pictures. The frozen networks give what those of taming-transformers and
OpenAI's CLIP give, up to rounding to a `Precision`. With eight bits, CLIP multiplies eight-bit
numbers in those layers where that is quicker. In the decoder, only the gradient does, because
people look at its pictures.
"""

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from taming.modules.diffusionmodules import model as taming
from torch import Tensor, nn

from studio.engines.device import Precision
from studio.engines.fast.frozen_layers import (
    Conv,
    DoublingConv,
    EightBitConv,
    EightBitGradientConv,
    EightBitGradientDoublingConv,
    EightBitLinear,
    FrozenLayer,
    HalvingConv,
    Linear,
    NormSiLU,
    Patches,
    Pool,
    attend,
    attend_once,
    doubled_kernels,
    own,
)
from studio.engines.fast.onednn import eight_bit_convolutions, eight_bit_products
from studio.engines.fast.operators import probe_gradients

if TYPE_CHECKING:
    from clip.model import (
        AttentionPool2d,
        Bottleneck,
        ModifiedResNet,
        ResidualAttentionBlock,
        VisionTransformer,
    )

QUICK_GELU = 1.702  # CLIP's GELU is x sigmoid(1.702 x)
WORTHWHILE = 128  # multiply-adds per number in or out; eight bits save time from here on


def _pays_in_eight_bits(weight: Tensor, precision: Precision) -> bool:
    """Whether products with weights [out, in, ...] can save more time than quantising takes."""
    if not precision.eight_bits or weight.numel() < WORTHWHILE * sum(weight.shape[:2]):
        return False
    return (eight_bit_products if weight.dim() == 2 else eight_bit_convolutions).probe()


# --- The decoder of taming-transformers --------------------------------------------------------


def frozen_decoder(decoder: taming.Decoder, precision: Precision) -> nn.Sequential:
    """A VQGAN's decoder: latents [B, z, h, w] to pictures [B, 3, h f, w f], channels last."""
    probe_gradients()
    return nn.Sequential(*_decoder_layers(decoder, precision))


def _decoder_layers(decoder: taming.Decoder, precision: Precision) -> Iterable[nn.Module]:
    mid: Any = decoder.mid  # a bare Module that holds blocks, as each level is
    levels: Any = decoder.up
    yield decoder_conv(decoder.conv_in, precision)
    yield ResidualBlock(mid.block_1, precision)
    yield SpatialAttention(mid.attn_1, precision)
    yield ResidualBlock(mid.block_2, precision)
    for level in reversed(levels):
        for number, block in enumerate(level.block):
            yield ResidualBlock(block, precision)
            if len(level.attn):
                yield SpatialAttention(level.attn[number], precision)
        if hasattr(level, "upsample"):
            yield _doubling(level.upsample, precision)
    yield NormSiLU(decoder.norm_out, precision.dtype)
    yield decoder_conv(decoder.conv_out, precision)


def decoder_conv(conv: nn.Conv2d, precision: Precision) -> Conv:
    """A convolution of stride 1."""
    assert conv.bias is not None
    kind = EightBitGradientConv if _pays_in_eight_bits(conv.weight, precision) else Conv
    return kind(conv.weight, conv.bias, precision, int(conv.padding[0]))


def _doubling(upsample: taming.Upsample, precision: Precision) -> nn.Module:
    if not upsample.with_conv:
        return nn.Upsample(scale_factor=2.0, mode="nearest")
    weight, bias = upsample.conv.weight, upsample.conv.bias
    assert bias is not None
    pays = _pays_in_eight_bits(weight, precision)
    kind = EightBitGradientDoublingConv if pays else DoublingConv
    return kind(doubled_kernels(weight), bias, precision.dtype)


class ResidualBlock(nn.Module):
    """Norm, SiLU and convolution twice, added to the input (or to a 1x1 convolution of it)."""

    def __init__(self, block: taming.ResnetBlock, precision: Precision) -> None:
        super().__init__()
        self.change = nn.Sequential(
            NormSiLU(block.norm1, precision.dtype),
            decoder_conv(block.conv1, precision),
            NormSiLU(block.norm2, precision.dtype),
        )
        self.last = decoder_conv(block.conv2, precision)
        same = block.in_channels == block.out_channels
        self.straight = nn.Identity() if same else decoder_conv(block.nin_shortcut, precision)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.change(x), self.straight(x))


class SpatialAttention(nn.Module):
    """Every position of [B, C, h, w] attends to all positions; the result is added to the input."""

    def __init__(self, block: taming.AttnBlock, precision: Precision) -> None:
        super().__init__()
        self.norm = copy.deepcopy(block.norm).to(precision.dtype)
        ways: Any = (block.q, block.k, block.v)
        weight = torch.cat([way.weight for way in ways])
        # Without eight bits, as the gradients at q, k and v may differ in size.
        self.qkv = Conv(weight, torch.cat([way.bias for way in ways]), precision)
        self.out = decoder_conv(block.proj_out, precision)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 1).reshape(batch, 1, -1, 3, channels)
        seen = attend(*qkv.unbind(3))  # [B, 1, h w, C]
        return self.out(seen.view(batch, height, width, channels).permute(0, 3, 1, 2), x)


# --- The image encoder of CLIP -----------------------------------------------------------------


def frozen_visual(visual: nn.Module, precision: Precision) -> nn.Module:
    """The image encoder of a CLIP: normalised pictures [N, 3, S, S] to features [N, D]."""
    probe_gradients()
    kinds = {"ModifiedResNet": frozen_resnet, "VisionTransformer": FrozenViT}
    return kinds[type(visual).__name__](visual, precision)


def frozen_resnet(visual: "ModifiedResNet", precision: Precision) -> nn.Sequential:
    """CLIP's ResNet."""
    stem = ((visual.conv1, visual.bn1), (visual.conv2, visual.bn2), (visual.conv3, visual.bn3))
    levels: Any = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
    return nn.Sequential(
        *(clip_conv(conv, norm, precision, rectifies=True) for conv, norm in stem),
        Pool(2),
        *(FrozenBottleneck(block, precision) for level in levels for block in level),
        FrozenAttentionPool(visual.attnpool, precision),
    )


def clip_conv(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, precision: Precision, rectifies: bool = False
) -> FrozenLayer:
    """The convolution with the batch norm, and perhaps the ReLU, that follow it, as one layer."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.float() * torch.rsqrt(norm.running_var.float() + norm.eps)
    weight = conv.weight.float() * scale[:, None, None, None]
    bias = norm.bias - norm.running_mean * scale
    if conv.stride == (2, 2):
        return HalvingConv(weight, bias, precision, rectifies)
    if _pays_in_eight_bits(conv.weight, precision):
        return EightBitConv(weight, bias, int(conv.padding[0]), rectifies)
    return Conv(weight, bias, precision, int(conv.padding[0]), rectifies)


class FrozenBottleneck(nn.Module):
    """A block of CLIP's ResNet without its batch norms."""

    def __init__(self, block: "Bottleneck", precision: Precision) -> None:
        super().__init__()
        pool = Pool(block.stride) if block.stride > 1 else nn.Identity()
        self.change = nn.Sequential(
            clip_conv(block.conv1, block.bn1, precision, rectifies=True),
            clip_conv(block.conv2, block.bn2, precision, rectifies=True),
            pool,
        )
        self.widen = clip_conv(block.conv3, block.bn3, precision, rectifies=True)
        self.straight = nn.Identity()
        if block.downsample is not None:
            parts: Any = block.downsample
            _, conv, norm = parts
            self.straight = nn.Sequential(pool, clip_conv(conv, norm, precision))

    def forward(self, x: Tensor) -> Tensor:
        return self.widen(self.change(x), self.straight(x))


class FrozenAttentionPool(nn.Module):
    """The mean of all positions attends to them, and to itself."""

    places: Tensor

    def __init__(self, pool: "AttentionPool2d", precision: Precision) -> None:
        super().__init__()
        self.heads = pool.num_heads
        self.register_buffer("places", own(pool.positional_embedding, precision.dtype))
        self.q, self.out = (
            _linear(part.weight, part.bias, precision) for part in (pool.q_proj, pool.c_proj)
        )
        self.k, self.v = (
            Linear(part.weight, part.bias, precision.dtype) for part in (pool.k_proj, pool.v_proj)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)  # [N, h w, C]
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1) + self.places
        return self.out(attend_once(self.q(x[:, 0]), x, self.k, self.v, self.heads))


class FrozenViT(nn.Module):
    """CLIP's vision transformer.

    Only the first token of its last block is read, so the last block computes only that one.
    """

    places: Tensor
    out: Tensor

    def __init__(self, visual: "VisionTransformer", precision: Precision) -> None:
        super().__init__()
        dtype = precision.dtype
        self.patches = Patches(visual.conv1, dtype)
        places = own(visual.positional_embedding, torch.float32)
        places[0] += visual.class_embedding
        self.register_buffer("places", places.to(dtype))
        self.norm_before = _frozen_norm(visual.ln_pre, dtype)
        resblocks: Any = visual.transformer.resblocks
        *blocks, last = resblocks
        self.blocks = nn.Sequential(*(TransformerBlock(block, precision) for block in blocks))
        self.last = LastTransformerBlock(last, dtype)
        self.norm_after = _frozen_norm(visual.ln_post, dtype)
        self.register_buffer("out", own(visual.proj, dtype))

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.pad(self.patches(x), (0, 0, 1, 0))
        tokens = self.blocks(self.norm_before(tokens + self.places))
        return self.norm_after(self.last(tokens)) @ self.out


class TransformerBlock(nn.Module):
    """Every token of [N, n, C] attends to all, then two layers."""

    def __init__(self, block: "ResidualAttentionBlock", precision: Precision) -> None:
        super().__init__()
        self.heads = block.attn.num_heads
        self.norm = _frozen_norm(block.ln_1, precision.dtype)
        self.qkv = _linear(block.attn.in_proj_weight, block.attn.in_proj_bias, precision)
        self.refine = Refine(block, precision)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1))  # [N, n, 3, heads, d]
        q, k, v = qkv.permute(2, 0, 3, 1, 4).contiguous().unbind(0)
        return self.refine(attend(q, k, v).transpose(1, 2).flatten(2), x)


class LastTransformerBlock(nn.Module):
    """A block whose first token alone is wanted: [N, n, C] to [N, C]."""

    def __init__(self, block: "ResidualAttentionBlock", dtype: torch.dtype) -> None:
        super().__init__()
        self.heads = block.attn.num_heads
        self.norm = _frozen_norm(block.ln_1, dtype)
        weights, biases = block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3)
        ways = zip(weights, biases, strict=True)
        self.q, self.k, self.v = (Linear(weight, bias, dtype) for weight, bias in ways)
        self.refine = Refine(block, Precision(dtype))  # one token per cutout takes no time

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        seen = attend_once(self.q(normed[:, 0]), normed, self.k, self.v, self.heads)
        return self.refine(seen, x[:, 0])


class Refine(nn.Module):
    """The layers that follow the attention in a transformer's block, for tokens [..., C]."""

    def __init__(self, block: "ResidualAttentionBlock", precision: Precision) -> None:
        super().__init__()
        self.out = _linear(block.attn.out_proj.weight, block.attn.out_proj.bias, precision)
        self.norm = _frozen_norm(block.ln_2, precision.dtype)
        # x sigmoid(1.702 x) = silu(1.702 x) / 1.702; the layers around it absorb both factors.
        mlp: Any = block.mlp
        widen, narrow = mlp.c_fc, mlp.c_proj
        self.widen = _linear(
            widen.weight.float() * QUICK_GELU, widen.bias.float() * QUICK_GELU, precision
        )
        self.narrow = _linear(narrow.weight.float() / QUICK_GELU, narrow.bias, precision)

    def forward(self, seen: Tensor, x: Tensor) -> Tensor:
        x = self.out(seen) + x
        return self.narrow(F.silu(self.widen(self.norm(x)))) + x


def _linear(weight: Tensor, bias: Tensor, precision: Precision) -> Linear | EightBitLinear:
    kind = EightBitLinear if _pays_in_eight_bits(weight, precision) else Linear
    return kind(weight, bias, precision.dtype)


def _frozen_norm(norm: nn.LayerNorm, dtype: torch.dtype) -> nn.LayerNorm:
    """torch's own layer norm, which needs no copy in float32 to compute in float32."""
    frozen = nn.LayerNorm(list(norm.normalized_shape), norm.eps)
    frozen.load_state_dict(norm.state_dict())
    return frozen.to(dtype)
