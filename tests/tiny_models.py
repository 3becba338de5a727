"""Tiny seeded weights in the published formats, for tests: a few ms a step at 32x32 or 64x64.

The numbers are random, so the pictures mean nothing; shapes, files and gradients are real.
"""

import io
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
import yaml
from clip.model import CLIP, convert_weights
from taming.modules.diffusionmodules.model import Decoder, Encoder
from taming.modules.vqvae.quantize import GumbelQuantize, VectorQuantizer2
from torch import nn

VOCABULARY = 49_408
RECOMMENDED = {"clip_model": "tiny_clip", "step_size": 0.1, "cutn": 4, "cut_pow": 0.5}
LIGHTNING_CALLBACK = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"


def write_tiny_assets(folder: Path) -> None:
    """Write tiny_f8.yaml, tiny_f8.ckpt and tiny_clip.pt into `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    write_vqgan(folder, "tiny_f8", vq_config(recommended=RECOMMENDED))
    torch.save(clip_state_dict(), folder / "tiny_clip.pt")


# --- VQGAN -----------------------------------------------------------------------------------


def vq_config(recommended: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A VQModel's yaml: f = 8, 64 codes of 4 channels, which lie close together."""
    params = {"embed_dim": 4, "n_embed": 64, "ddconfig": ddconfig(**changes), "lossconfig": LOSS}
    config = {"model": _model("taming.models.vqgan.VQModel", params)}
    return config | ({"recommended": recommended} if recommended else {})


def gumbel_config(**changes: Any) -> dict[str, Any]:
    """A GumbelVQ's yaml: as wide as its z channels, like the published one."""
    params = {
        "kl_weight": 1e-8,
        "embed_dim": 32,
        "n_embed": 64,
        "monitor": "val/rec_loss",
        "temperature_scheduler_config": {
            "target": "taming.lr_scheduler.LambdaWarmUpCosineScheduler",
            "params": {"warm_up_steps": 0, "lr_min": 1.8e-4, "lr_max": 1.0, "lr_start": 1.0},
        },
        "ddconfig": ddconfig(**changes),
        "lossconfig": LOSS,
    }
    return {"model": _model("taming.models.vqgan.GumbelVQ", params)}


def net2net_config(**changes: Any) -> dict[str, Any]:
    """A Net2NetTransformer's yaml, whose first stage is a VQModel."""
    transformer = {
        "target": "taming.modules.transformer.mingpt.GPT",
        "params": {"vocab_size": 64, "block_size": 512, "n_layer": 24, "n_head": 16},
    }
    params = {
        "first_stage_key": "image",
        "cond_stage_key": "depth",
        "transformer_config": transformer,
        "first_stage_config": vq_config(**changes)["model"],
        "cond_stage_config": vq_config(**changes)["model"],
    }
    return {"model": _model("taming.models.cond_transformer.Net2NetTransformer", params)}


LOSS = {
    "target": "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator",
    "params": {"disc_conditional": False, "disc_in_channels": 3, "disc_start": 0},
}


def _model(target: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"base_learning_rate": 4.5e-6, "target": target, "params": params}


def ddconfig(**changes: Any) -> dict[str, Any]:
    """The sizes of encoder and decoder."""
    return {
        "double_z": False,
        "z_channels": 32,
        "resolution": 64,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [8],
        "dropout": 0.0,
    } | changes


class TamingVQGAN(nn.Module):
    """taming's own modules, put together as in its model classes: the reference for loaders."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        model = config["model"]
        stage = model["params"].get("first_stage_config", model)
        params, self.is_gumbel = stage["params"], stage["target"].endswith("GumbelVQ")
        ddconfig, width = params["ddconfig"], params["embed_dim"]
        with redirect_stdout(io.StringIO()):
            self.encoder, self.decoder = Encoder(**ddconfig), Decoder(**ddconfig)
        self.quant_conv = nn.Conv2d(ddconfig["z_channels"], width, 1)
        self.post_quant_conv = nn.Conv2d(width, ddconfig["z_channels"], 1)
        if self.is_gumbel:
            self.quantize = GumbelQuantize(ddconfig["z_channels"], width, params["n_embed"])
        else:
            self.quantize = VectorQuantizer2(params["n_embed"], width, beta=0.25)
            nn.init.normal_(self.quantize.embedding.weight)


def seeded_vqgan(config: dict[str, Any], seed: int = 0) -> TamingVQGAN:
    """A TamingVQGAN with random weights, the same ones for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TamingVQGAN(config).eval().requires_grad_(False)


def checkpoint_of(vqgan: TamingVQGAN, prefix: str = "") -> dict[str, Any]:
    """A checkpoint as Lightning saves it, with weights that generating does not need."""
    extras = {
        "loss.perceptual_loss.net.slice1.0.weight": torch.zeros(4, 3, 3, 3),
        "loss.discriminator.main.0.bias": torch.zeros(8),
    }
    if prefix:
        extras["transformer.tok_emb.weight"] = torch.zeros(64, 8)
        extras["cond_stage_model.encoder.conv_in.bias"] = torch.zeros(32)
    state_dict = {f"{prefix}{key}": value for key, value in (vqgan.state_dict() | extras).items()}
    return {"epoch": 3, "global_step": 1200, "state_dict": state_dict}


def write_vqgan(folder: Path, name: str, config: dict[str, Any], seed: int = 0) -> TamingVQGAN:
    """Write NAME.yaml and NAME.ckpt, Lightning's pickled callback included."""
    vqgan = seeded_vqgan(config, seed)
    prefix = "first_stage_model." if "first_stage_config" in config["model"]["params"] else ""
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with lightning_callback() as callback:
        state = {"best_model_score": torch.tensor(0.5), "best_model_path": "epoch=3.ckpt"}
        torch.save(
            checkpoint_of(vqgan, prefix) | {"callbacks": {callback: state}}, folder / f"{name}.ckpt"
        )
    return vqgan


@contextmanager
def lightning_callback() -> Iterator[type]:
    """A class that pickles under the name of Lightning's ModelCheckpoint."""
    module_name, _, class_name = LIGHTNING_CALLBACK.rpartition(".")
    parts = module_name.split(".")
    names = [".".join(parts[: n + 1]) for n in range(len(parts))]
    before = {name: sys.modules.get(name) for name in names}
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    callback = type(class_name, (), {"__module__": module_name})
    setattr(sys.modules[module_name], class_name, callback)
    try:
        yield callback
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


# --- CLIP ------------------------------------------------------------------------------------


def clip_state_dict(
    resnet: bool = False, context_length: int = 16, vision_layers: int = 1
) -> dict[str, Any]:
    """An OpenAI CLIP's state dict in half precision, as published: 32 px input, 64 channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIP(
            embed_dim=64,
            image_resolution=32,
            vision_layers=(vision_layers,) * 4 if resnet else vision_layers,
            vision_width=4 if resnet else 64,
            vision_patch_size=None if resnet else 8,
            context_length=context_length,
            vocab_size=VOCABULARY,
            transformer_width=64,
            transformer_heads=1,
            transformer_layers=1,
        )
        if not resnet:
            nn.init.normal_(model.visual.class_embedding, std=0.1)
        model.logit_scale.data.fill_(2.0)
    convert_weights(model)
    return model.state_dict()
