"""One `.safetensors` file of the original layout: its parts by diffusers' and transformers' names.

The configurations follow from the shapes of the tensors, so nothing has to be fetched. What shapes
do not tell (heads, activations, the latent's scale) is as in the published models.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from studio.engines.diffusion.weights import (
    CLIP,
    OPEN_CLIP,
    UNET,
    XL_CLIP,
    XL_OPEN_CLIP,
    Family,
)
from studio.models.safetensors_header import Header

HEADS = 8  # of Stable Diffusion 1 at each level; later families have heads of HEAD_WIDTH
HEAD_WIDTH = 64
TIME_EMBEDDING = 256  # of each of the six numbers that SDXL is told of sizes
GUIDANCE_INPUT = "time_embed.cond_proj.weight"

StateDict = Mapping[str, Tensor]


def unet_config(header: Header, family: Family) -> dict[str, Any]:
    """The configuration of diffusers' UNet2DConditionModel."""
    levels = list(_levels(header))
    channels = [level["channels"] for level in levels]
    depths = [level["depth"] for level in levels]
    context = next(
        entry.shape[1]
        for name, entry in header.tensors.items()
        if name.startswith(UNET) and name.endswith("attn2.to_k.weight")
    )
    is_linear = any(
        len(entry.shape) == 2 for name, entry in header.tensors.items() if "proj_in.weight" in name
    )
    config = {
        "sample_size": 64,
        "in_channels": header.shape(f"{UNET}input_blocks.0.0.weight")[1],
        "out_channels": header.shape(f"{UNET}out.2.weight")[0],
        "block_out_channels": channels,
        "down_block_types": ["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(depths)],
        "layers_per_block": levels[0]["resnets"],
        "transformer_layers_per_block": [max(1, depth) for depth in depths],
        "attention_head_dim": [max(1, c // HEAD_WIDTH) for c in channels] if is_linear else HEADS,
        "cross_attention_dim": context,
        "use_linear_projection": is_linear,
    }
    if guidance := header.shape(f"{UNET}{GUIDANCE_INPUT}"):
        config["time_cond_proj_dim"] = guidance[1]
    if told := header.shape(f"{UNET}label_emb.0.0.weight"):
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": TIME_EMBEDDING,
            "projection_class_embeddings_input_dim": told[1],
        }
    return config


def _levels(header: Header) -> Iterator[dict[str, int]]:
    """Of each level of the denoiser: its channels, resnets, and transformer layers."""
    level, number = {"channels": 0, "resnets": 0, "depth": 0}, 1
    while header.has(f"{UNET}input_blocks.{number}."):
        block = f"{UNET}input_blocks.{number}."
        if header.has(f"{block}0.op."):
            yield level
            level = {"channels": 0, "resnets": 0, "depth": 0}
        else:
            level["channels"] = header.shape(f"{block}0.out_layers.3.weight")[0]
            level["resnets"] += 1
            inside = re.compile(re.escape(f"{block}1.transformer_blocks.") + r"(\d+)\.")
            found = {m[1] for name in header.tensors if (m := inside.match(name))}
            level["depth"] = len(found)
        number += 1
    yield level


def text_prefixes(family: Family) -> list[str]:
    """What the names of each text encoder's tensors begin with."""
    return {"sd1": [CLIP], "sd2": [OPEN_CLIP], "sdxl": [XL_CLIP, XL_OPEN_CLIP]}[family]


def text_config(header: Header, prefix: str) -> dict[str, Any]:
    """The configuration of transformers' CLIPTextModel, with or without projection."""
    is_open = prefix in (OPEN_CLIP, XL_OPEN_CLIP)
    if is_open:
        vocabulary, width = header.shape(f"{prefix}token_embedding.weight")
        positions = header.shape(f"{prefix}positional_embedding")[0]
        layer, inner = f"{prefix}transformer.resblocks.", "mlp.c_fc.weight"
    else:
        inside = f"{prefix}text_model." if header.has(f"{prefix}text_model.") else prefix
        vocabulary, width = header.shape(f"{inside}embeddings.token_embedding.weight")
        positions = header.shape(f"{inside}embeddings.position_embedding.weight")[0]
        layer, inner = f"{inside}encoder.layers.", "mlp.fc1.weight"
    layers = 1 + max(
        int(name.removeprefix(layer).split(".")[0])
        for name in header.tensors
        if name.startswith(layer)
    )
    projection = header.shape(f"{prefix}text_projection")
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": header.shape(f"{layer}0.{inner}")[0],
        "max_position_embeddings": positions,
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        # Stable Diffusion 2 reads what the last layer but one tells.
        "num_hidden_layers": layers - 1 if prefix == OPEN_CLIP else layers,
        "hidden_act": "gelu" if is_open else "quick_gelu",
        "projection_dim": projection[1] if projection else width,
        "eos_token_id": 2,  # as published: the end is the token with the largest number
        "bos_token_id": 0,
        "pad_token_id": 1,
    }


def unet_weights(tensors: StateDict, config: Mapping[str, Any]) -> StateDict:
    """The denoiser's tensors by diffusers' names."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    converted = convert_ldm_unet_checkpoint(dict(tensors), config)
    if f"{UNET}{GUIDANCE_INPUT}" in tensors:
        converted["time_embedding.cond_proj.weight"] = tensors[f"{UNET}{GUIDANCE_INPUT}"]
    return converted


def vae_weights(tensors: StateDict, prefix: str, config: Mapping[str, Any]) -> StateDict:
    """The autoencoder's tensors by diffusers' names, which some files have already."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    if any(name.startswith("encoder.down_blocks.") for name in named):
        return named
    return convert_ldm_vae_checkpoint(named, config)


def text_weights(tensors: StateDict, prefix: str, width: int) -> StateDict:
    """A text encoder's tensors by transformers' names."""
    if prefix in (OPEN_CLIP, XL_OPEN_CLIP):
        return dict(_from_open_clip(tensors, prefix, width))
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


OPEN_CLIP_NAMES = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
OPEN_CLIP_PARTS = {
    "transformer.resblocks.": "text_model.encoder.layers.",
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
    ".attn.": ".self_attn.",
}


def _from_open_clip(tensors: StateDict, prefix: str, width: int) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        name = name.removeprefix(prefix)
        if name == "text_projection":
            yield "text_projection.weight", tensor.T.contiguous()
        elif name in OPEN_CLIP_NAMES:
            yield OPEN_CLIP_NAMES[name], tensor
        elif name.startswith("transformer.resblocks."):
            for old, new in OPEN_CLIP_PARTS.items():
                name = name.replace(old, new)
            if ".in_proj_" in name:
                for part, piece in zip("qkv", tensor.split(width), strict=True):
                    yield name.replace("in_proj_", f"{part}_proj."), piece.clone()
            else:
                yield name, tensor
