"""Tiny seeded diffusion models in diffusers' format and in single files; pictures of 64x64."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from studio.engines.diffusion.tokenizer import published_tokenizer

VOCABULARY = 49_408
NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}


def tiny_sd(**changes: Any) -> StableDiffusionPipeline:
    """Stable Diffusion 1 with few channels: f = 8, SIDE pixels. changes: of the denoiser."""
    torch.manual_seed(0)
    prediction = changes.pop("prediction_type", "epsilon")
    act = changes.pop("act", "quick_gelu")
    return StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(text_config(32, act=act)).eval(),
        tokenizer=published_tokenizer(77, **({"pad": "!"} if act == "gelu" else {})),
        unet=tiny_unet(cross_attention_dim=32, **changes),
        scheduler=PNDMScheduler(**NOISE, prediction_type=prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tiny_xl(**changes: Any) -> StableDiffusionXLPipeline:
    """SDXL with few channels."""
    torch.manual_seed(0)
    told = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 256 * 6 + 32,
        "use_linear_projection": True,
        "attention_head_dim": (1, 1),
        "transformer_layers_per_block": (1, 2),
    }
    return StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(text_config(32)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text_config(32, act="gelu")).eval(),
        tokenizer=published_tokenizer(77),
        tokenizer_2=published_tokenizer(77, pad="!"),
        unet=tiny_unet(cross_attention_dim=64, **told, **changes),
        scheduler=PNDMScheduler(**NOISE),
        add_watermarker=False,
    )


def tiny_unet(**changes: Any) -> UNet2DConditionModel:
    config = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 8,
    }
    return UNet2DConditionModel(**(config | changes)).eval()


def tiny_vae() -> AutoencoderKL:
    blocks = 4
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        block_out_channels=[32] * blocks,
        down_block_types=["DownEncoderBlock2D"] * blocks,
        up_block_types=["UpDecoderBlock2D"] * blocks,
        layers_per_block=1,
        latent_channels=4,
        sample_size=64,
    ).eval()


def text_config(width: int, act: str = "quick_gelu") -> CLIPTextConfig:
    """One head, as CLIPs have one for each 64 channels."""
    return CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=1,
        hidden_act=act,
        max_position_embeddings=77,
        projection_dim=width,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )


def write(pipeline: Any, folder: Path, recommended: dict[str, Any] | None = None) -> None:
    """Save a pipeline in diffusers' format. recommended: settings that suit it."""
    pipeline.save_pretrained(folder)
    if recommended:
        (folder / "studio.yaml").write_text(json.dumps({"recommended": recommended}))


# --- single files of the original layout -----------------------------------------------------

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
AROUND = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "time_embedding.cond_proj": "time_embed.cond_proj",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def write_single_file(pipeline: Any, path: Path, leave_out: str = "-", **extra: Any) -> None:
    """Save a pipeline in the original layout of Stable Diffusion.

    leave_out: tensors whose names begin so. extra: tensors and, as `metadata`, texts.
    """
    metadata = extra.pop("metadata", None)
    tensors = original_names(pipeline) | extra
    kept = {n: t.contiguous().clone() for n, t in tensors.items() if not n.startswith(leave_out)}
    save_file(kept, path, metadata=metadata)


def original_names(pipeline: Any) -> dict[str, torch.Tensor]:
    found = {}
    layers = pipeline.unet.config.layers_per_block
    for name, tensor in pipeline.unet.state_dict().items():
        found[f"model.diffusion_model.{_unet_name(name, layers, pipeline.unet)}"] = tensor
    blocks = len(pipeline.vae.config.block_out_channels)
    for name, tensor in pipeline.vae.state_dict().items():
        name = _vae_name(name, blocks)
        if ".attn_1." in name and name.endswith("weight") and tensor.ndim == 2:
            tensor = tensor[:, :, None, None]
        found[f"first_stage_model.{name}"] = tensor
    second = getattr(pipeline, "text_encoder_2", None)
    is_open = pipeline.text_encoder.config.hidden_act == "gelu"
    first = "conditioner.embedders.0.transformer." if second else "cond_stage_model.transformer."
    states = pipeline.text_encoder.state_dict()
    if is_open:
        found |= _open_clip(states, "cond_stage_model.model.", extra_layer=True)
    else:
        found |= {
            f"{first}text_model.{n.removeprefix('text_model.')}": t for n, t in states.items()
        }
    if second:
        found |= _open_clip(second.state_dict(), "conditioner.embedders.1.model.")
    return found


def _unet_name(name: str, layers: int, unet: Any) -> str:
    for ours, theirs in AROUND.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    side, number, kind, place, *rest = name.split(".")
    if side == "mid_block":
        kind, place, rest = number, kind, [place, *rest]
        at = 1 if kind == "attentions" else 2 * int(place)
        return f"middle_block.{at}.{_inner(kind, rest)}"
    block, layer = int(number), int(place)
    if side == "down_blocks":
        at = 1 + block * (layers + 1) + (layers if kind == "downsamplers" else layer)
        inner = f"0.op.{rest[-1]}" if kind == "downsamplers" else None
        return f"input_blocks.{at}." + (inner or _placed(kind, rest))
    at = block * (layers + 1) + (layers if kind == "upsamplers" else layer)
    if kind == "upsamplers":
        has_attention = hasattr(unet.up_blocks[block], "attentions")
        return f"output_blocks.{at}.{2 if has_attention else 1}.conv.{rest[-1]}"
    return f"output_blocks.{at}.{_placed(kind, rest)}"


def _placed(kind: str, rest: list[str]) -> str:
    return f"{'1' if kind == 'attentions' else '0'}.{_inner(kind, rest)}"


def _inner(kind: str, rest: list[str]) -> str:
    if kind == "attentions":
        return ".".join(rest)
    return ".".join([RESNET[rest[0]], *rest[1:]])


def _vae_name(name: str, blocks: int) -> str:
    parts = name.split(".")
    if parts[0] in ("quant_conv", "post_quant_conv"):
        return name
    coder, part, *rest = parts
    if part == "conv_norm_out":
        return ".".join([coder, "norm_out", *rest])
    if part == "mid_block":
        kind, number, inner, *end = rest
        if kind == "resnets":
            inner = inner.replace("conv_shortcut", "nin_shortcut")
            return ".".join([coder, "mid", f"block_{int(number) + 1}", inner, *end])
        names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}
        end = [word for word in end if word != "0"]
        return ".".join([coder, "mid", "attn_1", names[inner], *end])
    if part in ("down_blocks", "up_blocks"):
        number, kind, layer, inner, *end = rest
        level = number if part == "down_blocks" else str(blocks - 1 - int(number))
        way = part.removesuffix("_blocks")
        if kind != "resnets":
            return ".".join([coder, way, level, f"{way}sample", inner, *end])
        inner = inner.replace("conv_shortcut", "nin_shortcut")
        return ".".join([coder, way, level, "block", layer, inner, *end])
    return name


def _open_clip(
    states: dict[str, torch.Tensor], prefix: str, extra_layer: bool = False
) -> dict[str, torch.Tensor]:
    """extra_layer: with a last layer that is not used, as in Stable Diffusion 2."""
    states = {name.removeprefix("text_model."): tensor for name, tensor in states.items()}
    found = {
        "positional_embedding": states["embeddings.position_embedding.weight"],
        "token_embedding.weight": states["embeddings.token_embedding.weight"],
        "ln_final.weight": states["final_layer_norm.weight"],
        "ln_final.bias": states["final_layer_norm.bias"],
    }
    if "text_projection.weight" in states:
        found["text_projection"] = states["text_projection.weight"].T
    count = 1 + max(int(n.split(".")[2]) for n in states if n.startswith("encoder.layers."))
    for number in range(count + extra_layer):
        layer = f"encoder.layers.{min(number, count - 1)}."
        block = f"transformer.resblocks.{number}."
        for end in ("weight", "bias"):
            parts = [states[f"{layer}self_attn.{p}_proj.{end}"] for p in "qkv"]
            found[f"{block}attn.in_proj_{end}"] = torch.cat(parts)
            for ours, theirs in OPEN_CLIP.items():
                found[f"{block}{theirs}.{end}"] = states[f"{layer}{ours}.{end}"]
    return {f"{prefix}{name}": tensor for name, tensor in found.items()}
