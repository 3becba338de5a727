"""Loading VQGAN and CLIP, and the tensor maths of VQGAN-CLIP: quantising, losses, moves."""

import io
import math
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Self, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field, ValidationError, model_validator
from taming.modules.diffusionmodules.model import Decoder, Encoder
from taming.modules.vqvae.quantize import GumbelQuantize, VectorQuantizer2
from torch import Tensor, nn

from studio.base.errors import BadInput
from studio.engines.clip.perceptor import (
    CLIP_MEAN,
    CLIP_STD,
    Perceptor,
    find_clip_model,
    load_clip_model,
    prompt_loss,
)
from studio.engines.device import Precision
from studio.engines.fast.frozen import decoder_conv, frozen_decoder
from studio.engines.gradients import clamp_with_gradient, replace_gradient
from studio.models.catalogue import read_config
from studio.models.weight_files import StateDict, as_float32, misfits, read_state_dict
from studio.models.without_memory import without_memory

__all__ = [  # beside what is here, CLIP, which engines share
    "CLIP_MEAN",
    "CLIP_STD",
    "VQGAN",
    "DDConfig",
    "GumbelVQGAN",
    "Perceptor",
    "VQGANParams",
    "clamp_with_gradient",
    "find_clip_model",
    "load_clip_model",
    "load_vqgan_model",
    "move_picture",
    "mse_weight_at",
    "prompt_loss",
    "random_latent",
    "replace_gradient",
    "tv_loss",
    "vector_quantize",
]

VQ_MODEL = "taming.models.vqgan.VQModel"
GUMBEL_VQ = "taming.models.vqgan.GumbelVQ"
NET2NET = "taming.models.cond_transformer.Net2NetTransformer"


# --- VQGAN -----------------------------------------------------------------------------------


class DDConfig(BaseModel):
    """What a yaml says about encoder and decoder, within the sizes of a real model."""

    ch: int = Field(ge=1, le=1024)
    ch_mult: list[Annotated[int, Field(ge=1, le=64)]] = Field(min_length=1, max_length=8)
    num_res_blocks: int = Field(ge=0, le=16)
    attn_resolutions: list[int]
    resolution: int = Field(ge=1, le=16_384)
    z_channels: int = Field(ge=1, le=16_384)
    in_channels: int = Field(ge=3, le=3)
    out_ch: int = Field(ge=3, le=3)
    resamp_with_conv: bool = True

    @model_validator(mode="after")
    def _levels_fit_together(self) -> Self:
        if not self.num_res_blocks and any(factor != 1 for factor in self.ch_mult[:-1]):
            raise ValueError("without num_res_blocks, all of ch_mult but the last must be 1")
        return self


class VQGANParams(BaseModel):
    """`params` of a VQModel or GumbelVQ, without those that only training needs."""

    embed_dim: int = Field(ge=1, le=16_384)
    n_embed: int = Field(ge=1, le=4_194_304)
    ddconfig: DDConfig


class VQGAN(nn.Module):
    """taming-transformers' encoder, decoder and quantiser, put together as in its VQModel.

    One position of the latent covers f = 2^(levels - 1) pixels of the picture, along each axis.
    """

    def __init__(self, params: VQGANParams) -> None:
        super().__init__()
        ddconfig = params.ddconfig.model_dump() | {"double_z": False, "dropout": 0.0}
        z_channels, width = params.ddconfig.z_channels, params.embed_dim
        with redirect_stdout(io.StringIO()):  # the decoder prints its shape
            self.encoder, self.decoder = Encoder(**ddconfig), Decoder(**ddconfig)
        self.quant_conv = nn.Conv2d(z_channels, width, 1)
        self.post_quant_conv = nn.Conv2d(width, z_channels, 1)
        self.quantize = self._quantiser(params)

    def _quantiser(self, params: VQGANParams) -> Any:
        return VectorQuantizer2(params.n_embed, params.embed_dim, beta=0.25)

    @property
    def codebook(self) -> Tensor:
        """The code vectors, [n, d]."""
        return self.quantize.embedding.weight

    def encode(self, x: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [-1, 1] to latents before quantisation, [B, d, H/f, W/f]."""
        return self.quant_conv(self.encoder(x))

    def decode(self, z_q: Tensor) -> Tensor:
        """Code vectors [B, d, h, w] to pictures [B, 3, h f, w f], about in [-1, 1]."""
        return self.decoder(self.post_quant_conv(z_q.to(self.post_quant_conv.weight.dtype)))

    def quicken(self, precision: Precision) -> Self:
        """Decode in that precision, by frozen networks with gradients at their input alone."""
        self.post_quant_conv = decoder_conv(cast("nn.Conv2d", self.post_quant_conv), precision)
        self.decoder = frozen_decoder(cast("Decoder", self.decoder), precision)
        return self


class GumbelVQGAN(VQGAN):
    """taming-transformers' GumbelVQ. Its encoder gives a logit for each code, not a vector."""

    def _quantiser(self, params: VQGANParams) -> nn.Module:
        return GumbelQuantize(params.ddconfig.z_channels, params.embed_dim, params.n_embed)

    @property
    def codebook(self) -> Tensor:
        """The code vectors, [n, d]."""
        return self.quantize.embed.weight

    def encode(self, x: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in [-1, 1] to the likeliest code vectors, [B, d, H/f, W/f]."""
        logits = self.quantize.proj(self.quant_conv(self.encoder(x)))
        return F.embedding(logits.argmax(dim=1), self.codebook).permute(0, 3, 1, 2)


MODEL_CLASSES = {VQ_MODEL: VQGAN, GUMBEL_VQ: GumbelVQGAN}


def load_vqgan_model(config_path: Path | str, checkpoint_path: Path | str) -> VQGAN:
    """The VQGAN that a yaml describes, with its weights: float32 on the CPU, no gradients.

    Takes the targets VQModel and GumbelVQ, and Net2NetTransformer, whose first stage is the VQGAN.
    Only what generating needs is built; losses and transformers in the checkpoint stay unread.
    Raises BadInput where yaml or checkpoint is broken, or where they do not belong together.
    """
    config_path, checkpoint_path = Path(config_path), Path(checkpoint_path)
    target, params, prefix = _describe_vqgan(read_config(config_path), config_path)
    model = _on_meta_device(MODEL_CLASSES[target], params, config_path)
    tensors = _needed_tensors(model, read_state_dict(checkpoint_path), prefix)
    _check_fit(model, tensors, prefix, config_path, checkpoint_path)
    model.load_state_dict(as_float32(tensors, checkpoint_path), assign=True)
    return model.eval().requires_grad_(False)


def _describe_vqgan(config: Mapping[str, Any], path: Path) -> tuple[str, VQGANParams, str]:
    """target, params and the prefix of its keys in the checkpoint."""
    stage, prefix = config["model"], ""
    if stage.get("target") == NET2NET:
        stage, prefix = stage["params"].get("first_stage_config"), "first_stage_model."
    target = stage.get("target") if isinstance(stage, dict) else None
    if target not in MODEL_CLASSES:
        known = ", ".join([*MODEL_CLASSES, NET2NET])
        raise BadInput(f"{path} is for the model '{target}'. Models that can be loaded: {known}.")
    try:
        params = VQGANParams.model_validate(stage.get("params"))
    except ValidationError as error:
        raise BadInput(f"{path} is not a usable VQGAN configuration: {_problems(error)}.") from None
    if target == GUMBEL_VQ and stage["params"].get("remap"):
        raise BadInput(f"{path} remaps the codes of a GumbelVQ, which cannot be loaded.")
    return target, params, prefix


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'params'}: {problem['msg'].lower()},"
        f" found {str(problem['input'])[:60]}"
        for problem in error.errors()[:5]
    )


def _on_meta_device(kind: type[VQGAN], params: VQGANParams, path: Path) -> VQGAN:
    """The model without memory for its weights, to check its shapes first."""
    try:
        with without_memory():
            return kind(params)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{path} describes a model that cannot work: {reason}.") from None


def _needed_tensors(model: VQGAN, state_dict: StateDict, prefix: str) -> StateDict:
    parts = tuple(f"{prefix}{name}." for name, _ in model.named_children())
    unneeded = f"{prefix}quantize.used"  # a table of codes that only transformers look at
    return {
        key.removeprefix(prefix): tensor
        for key, tensor in state_dict.items()
        if key.startswith(parts) and key != unneeded
    }


def _check_fit(
    model: VQGAN, tensors: StateDict, prefix: str, config_path: Path, checkpoint_path: Path
) -> None:
    problems = [f"{prefix}{problem}" for problem in misfits(model.state_dict(), tensors)]
    if not problems:
        return
    more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
    raise BadInput(
        f"{checkpoint_path} does not belong to {config_path}: {'; '.join(problems[:3])}{more}."
        " Download both again from the same place."
    )


# --- Latents and losses ------------------------------------------------------------------------


def vector_quantize(z: Tensor, codebook: Tensor) -> Tensor:
    """Each position of z [B, d, h, w] becomes the nearest of the codes [n, d].

    Straight-through: the gradient passes to z unchanged (van den Oord et al. 2017, "Neural Discrete
    Representation Learning", section 3.2). |z|^2 is the same for all codes, so the nearest one has
    the least |e|^2 - 2 z e.
    """
    flat = z.detach().permute(0, 2, 3, 1)
    nearest = (codebook.square().sum(dim=1) - 2 * flat @ codebook.T).argmin(dim=-1)
    return replace_gradient(F.embedding(nearest, codebook).permute(0, 3, 1, 2), z)


def random_latent(codebook: Tensor, height: int, width: int) -> Tensor:
    """A latent [1, d, height, width] of random codes."""
    tokens = torch.randint(len(codebook), (1, height, width)).to(codebook.device)
    return F.embedding(tokens, codebook).permute(0, 3, 1, 2).contiguous()


def tv_loss(z: Tensor) -> Tensor:
    """Isotropic total variation of z [B, d, h, w], by position (Rudin, Osher, Fatemi 1992).

    The steps to the right and down are squared and averaged over the channels; the loss is the mean
    of the root over all positions. Past the edge there is no step.
    """
    across, down = F.pad(z.diff(dim=-1), (0, 1)), F.pad(z.diff(dim=-2), (0, 0, 0, 1))
    return ((across.square() + down.square()).mean(dim=1) + 1e-8).sqrt().mean()


def mse_weight_at(step: int, weight: float, decay: float, decay_steps: int) -> float:
    """The MSE weight after `step` optimisation steps: `decay` nearer to zero every `decay_steps`.

    It stops at zero, from either side. With decay_steps 0 it never changes.
    """
    moves = step // decay_steps if decay_steps else 0
    return math.copysign(max(abs(weight) - decay * moves, 0.0), weight)


def move_picture(
    picture: Tensor, translation_x: float, translation_y: float, rotation: float, zoom: float
) -> Tensor:
    """Move pictures [B, C, H, W] with wrap-around.

    Grow by `zoom` and turn by `rotation` degrees counter-clockwise, both about the centre; then
    shift by translation_x pixels to the right and translation_y down. What leaves on one side
    enters on the other, and a picture that shrinks is tiled.
    """
    height, width = picture.shape[-2:]
    angle = math.radians(rotation)
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) - (height - 1) / 2 - translation_y,
        torch.arange(width, dtype=torch.float64) - (width - 1) / 2 - translation_x,
        indexing="ij",
    )
    source_x = cos * x - sin * y + (width - 1) / 2
    source_y = sin * x + cos * y + (height - 1) / 2
    return _sample_wrapped(picture, source_x.to(torch.float32), source_y.to(torch.float32))


def _sample_wrapped(picture: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear samples at pixel coordinates x, y [h, w] of a picture that repeats itself."""
    height, width = picture.shape[-2:]
    x, y = x.to(picture.device), y.to(picture.device)
    left, top = x.floor(), y.floor()
    across, down = x - left, y - top
    columns = [(left.long() + n) % width for n in (0, 1)]
    rows = [(top.long() + n) % height for n in (0, 1)]
    upper = torch.lerp(picture[..., rows[0], columns[0]], picture[..., rows[0], columns[1]], across)
    lower = torch.lerp(picture[..., rows[1], columns[0]], picture[..., rows[1], columns[1]], across)
    return torch.lerp(upper, lower, down)
