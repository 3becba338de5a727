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
    return StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(text_config(32)).eval(),
        tokenizer=published_tokenizer(77),
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
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 8 * 6 + 32,
        "use_linear_projection": True,
        "attention_head_dim": (2, 4),
        "transformer_layers_per_block": (1, 2),
    }
    return StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(text_config(32)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text_config(32)).eval(),
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


def text_config(width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
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
