"""The libraries' classes that weights may be built of, and from which of their values.

A configuration comes from a stranger. Only what is on these lists is taken from it: other values
could name code to fetch, such as `attn_implementation` and `auto_map`.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

WHERE = {
    "UNet2DConditionModel": "diffusers.models.unets.unet_2d_condition",
    "AutoencoderKL": "diffusers.models.autoencoders.autoencoder_kl",
    "VQModel": "diffusers.models.autoencoders.vq_model",
    "StableDiffusionSafetyChecker": "diffusers.pipelines.stable_diffusion.safety_checker",
    "CLIPTextModel": "transformers",
    "CLIPTextModelWithProjection": "transformers",
}
OF_CLIP = (
    *("hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "hidden_act"),
    *("num_attention_heads", "layer_norm_eps", "attention_dropout", "vocab_size"),
    *("max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id"),
    *("num_channels", "image_size", "patch_size", "logit_scale_init_value"),
)
PARTS_OF_CLIP = ("text_config", "vision_config")


def get(name: str) -> Any:
    """The class of that name."""
    return getattr(import_module(WHERE[name]), name)


def build(kind: Any, config: Mapping[str, Any]) -> Any:
    """A network of one of these classes, by what a configuration tells of it."""
    if hasattr(kind, "from_config"):
        public = {name: value for name, value in config.items() if not name.startswith("_")}
        return kind.from_config(public)
    return kind(kind.config_class(**_of_clip(config)))


def _of_clip(config: Mapping[str, Any]) -> dict[str, Any]:
    inner = {name: _of_clip(config[name]) for name in PARTS_OF_CLIP if config.get(name)}
    return {name: config[name] for name in OF_CLIP if name in config} | inner
