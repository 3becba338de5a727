"""Single files with the names and shapes of published weights, told apart by their headers alone.

The files are as large as the published ones, but sparse: they hold a header and no numbers.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_diffusion
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from studio.base.errors import BadInput
from studio.engines.diffusion.models import Models
from studio.engines.diffusion.settings import DiffusionSettings
from studio.engines.diffusion.single_file import text_config, text_prefixes, unet_config
from studio.engines.diffusion.weights import find_weights, read_weights

CPU = torch.device("cpu")
BITS = {"F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32}
CROSS, PLAIN = "CrossAttn{}Block2D", "{}Block2D"
SD1 = {
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [CROSS.format("Down")] * 3 + [PLAIN.format("Down")],
    "up_block_types": [PLAIN.format("Up")] + [CROSS.format("Up")] * 3,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SD2 = SD1 | {
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
XL = {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": [PLAIN.format("Down")] + [CROSS.format("Down")] * 2,
    "up_block_types": [CROSS.format("Up")] * 2 + [PLAIN.format("Up")],
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
CLIP_L |= {"num_attention_heads": 12, "hidden_act": "quick_gelu", "vocab_size": 49408}
CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23}
CLIP_H |= {"num_attention_heads": 16, "hidden_act": "gelu", "vocab_size": 49408}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
CLIP_G |= {"num_attention_heads": 20, "hidden_act": "gelu", "vocab_size": 49408}
CLIP_G |= {"projection_dim": 1280}


class Run:
    """Stands for a run that asks for models."""


class Pipeline:
    """The networks of a published model, without memory."""

    def __init__(self, unet: dict[str, Any], *texts: dict[str, Any]) -> None:
        with torch.device("meta"):
            self.unet = UNet2DConditionModel(**unet)
            self.vae = AutoencoderKL(**VAE)
            self.text_encoder = CLIPTextModel(CLIPTextConfig(**texts[0]))
            if len(texts) > 1:
                self.text_encoder_2 = CLIPTextModelWithProjection(CLIPTextConfig(**texts[1]))


def made(kind: str) -> Pipeline:
    family, _, more = kind.partition("-")
    unet = {"sd1": SD1, "sd2": SD2, "sdxl": XL}[family]
    unet = unet | ({"in_channels": 9} if more == "inpainting" else {})
    unet |= {"time_cond_proj_dim": 256} if more == "lcm" else {}
    texts = {"sd1": [CLIP_L], "sd2": [CLIP_H], "sdxl": [CLIP_L, CLIP_G]}[family]
    return Pipeline(unet, *texts)


BESIDE: dict[str, dict[str, tuple[str, list[int]]]] = {  # what published files hold besides
    "sd1": {
        "betas": ("F32", [1000]),
        "alphas_cumprod": ("F32", [1000]),
        "model_ema.decay": ("F32", []),
        "model_ema.num_updates": ("I32", []),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": ("I64", [1, 77]),
    },
    "sd2": {
        "betas": ("F32", [1000]),
        "cond_stage_model.model.logit_scale": ("F32", []),
        "cond_stage_model.model.attn_mask": ("F32", [77, 77]),
    },
    "sdxl": {
        "denoiser.sigmas": ("F32", [1000]),
        "conditioner.embedders.1.model.logit_scale": ("F32", []),
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": ("I64", [1, 77]),
    },
}


def published(kind: str, path: Path, dtype: str, ema: bool = False, leave_out: str = "-") -> Path:
    """A file as it is published, without numbers. ema: with averaged weights besides."""
    names = tiny_diffusion.original_names(made(kind))
    entries = {name: (dtype, list(t.shape)) for name, t in names.items()}
    entries |= BESIDE[kind.partition("-")[0]]
    if ema:
        entries |= {_averaged(n): e for n, e in entries.items() if n.startswith("model.diff")}
    return write(path, {n: e for n, e in entries.items() if not n.startswith(leave_out)})


def _averaged(name: str) -> str:
    return f"model_ema.{name.removeprefix('model.').replace('.', '')}"


def write(path: Path, entries: dict[str, tuple[str, list[int]]]) -> Path:
    header, end = {}, 0
    for name, (dtype, shape) in entries.items():
        begin, end = end, end + math.prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


FILES = {  # name of the file: kind, dtype, averaged weights, what is told of it
    "v1-5-pruned-emaonly": ("sd1", "F32", False, (512, 4, "epsilon")),
    "v1-5-pruned": ("sd1", "F32", True, (512, 4, "epsilon")),
    "merged-fp16": ("sd1", "F16", False, (512, 4, "epsilon")),
    "sd-v1-5-inpainting": ("sd1-inpainting", "F32", False, (512, 9, "epsilon")),
    "lcm-distilled": ("sd1-lcm", "F16", False, (512, 4, "epsilon")),
    "v2-1_512-ema-pruned": ("sd2", "F16", False, (512, 4, "epsilon")),
    "512-base-ema": ("sd2", "F32", True, (512, 4, "epsilon")),
    "v2-1_768-ema-pruned": ("sd2", "F32", False, (768, 4, "v_prediction")),
    "512-inpainting-ema": ("sd2-inpainting", "F32", False, (512, 9, "epsilon")),
    "sd_turbo": ("sd2", "F16", False, (512, 4, "epsilon")),
    "sd_xl_base_1.0": ("sdxl", "F16", False, (1024, 4, "epsilon")),
    "sd_xl_turbo_1.0_fp16": ("sdxl", "F16", False, (512, 4, "epsilon")),
    "sdxl-inpainting": ("sdxl-inpainting", "BF16", False, (1024, 9, "epsilon")),
}


@pytest.mark.parametrize("name", FILES)
def test_published_files_are_told_apart(name: str, tmp_path: Path) -> None:
    kind, dtype, ema, (side, channels, prediction) = FILES[name]
    path = published(kind, tmp_path / f"{name}.safetensors", dtype, ema)
    weights = read_weights(path)
    assert (weights.family, weights.factor) == (kind.partition("-")[0], 8)
    assert weights.recommended["Xdim"] == side
    assert weights.in_channels == channels
    assert weights.scheduler["prediction_type"] == prediction
    assert weights.knows_guidance == kind.endswith("-lcm")
    assert (weights.recommended.get("num_steps") == 4) == ("turbo" in name or "lcm" in name)
    Models(Run(), weights, CPU, torch.float32).check()
    unet = {"sd1": SD1, "sd2": SD2, "sdxl": XL}[weights.family]
    told = unet_config(weights.header, weights.family)  # type: ignore[arg-type]
    for key, value in unet.items():
        assert told[key] == value or key == "transformer_layers_per_block", key
    if weights.family == "sdxl":
        assert told["transformer_layers_per_block"] == [1, 2, 10]
    texts = {"sd1": [CLIP_L], "sd2": [CLIP_H], "sdxl": [CLIP_L, CLIP_G]}[weights.family]
    for prefix, wanted in zip(text_prefixes(weights.family), texts, strict=True):
        told = text_config(weights.header, prefix)  # type: ignore[arg-type]
        assert {key: told[key] for key in wanted} == wanted


def no_reading(*_: Any) -> None:
    raise AssertionError("it reads numbers")


LOST = {
    "model.diffusion_model.output_blocks.3.1.proj_out.weight": r"attentions\.0\.proj_out\.weight",
    "first_stage_model.decoder.mid.block_1.conv1.weight": r"resnets\.0\.conv1\.weight is missing",
    "cond_stage_model.transformer.text_model.encoder.layers.5.mlp.fc1.weight": r"fc1\.weight is mi",
    "cond_stage_model.": r"is a denoiser, not a whole diffusion model",
    "first_stage_model.": r"lacks its autoencoder",
    "model.diffusion_model.": "is an autoencoder, not a whole",
}


@pytest.mark.parametrize("lost", LOST)
def test_missing_parts_are_named_before_anything_loads(
    lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.engines.diffusion.tensors.read", no_reading)
    path = published("sd1", tmp_path / "part.safetensors", "F16", leave_out=lost)
    with pytest.raises(BadInput, match=LOST[lost]):
        Models(Run(), read_weights(path), CPU, torch.float32).check()


def test_a_run_checks_all_parts_before_it_loads_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.engines.diffusion.run import DiffusionRun

    monkeypatch.setattr("studio.engines.diffusion.tensors.read", no_reading)
    lost = "model.diffusion_model.middle_block.0.in_layers.2.weight"
    published("sd1", tmp_path / "part.safetensors", "F16", leave_out=lost)
    settings = DiffusionSettings(text_input="a heart", weights="part")
    run = DiffusionRun(settings, assets_dir=tmp_path, device=CPU)
    with pytest.raises(BadInput, match=r"mid_block\.resnets\.0\.conv1\.weight is missing"):
        run.load_model()


UNET_KEY = "model.diffusion_model.input_blocks.0.0.weight"
OTHERS: dict[str, tuple[dict[str, tuple[str, list[int]]], str]] = {
    "SDXL's refiner": (
        {
            UNET_KEY: ("F16", [384, 4, 3, 3]),
            "conditioner.embedders.0.model.text_projection": ("F16", [1280, 1280]),
            "first_stage_model.encoder.conv_in.weight": ("F16", [128, 3, 3, 3]),
        },
        "an SDXL refiner",
    ),
    "a depth model": (
        {
            UNET_KEY: ("F16", [320, 5, 3, 3]),
            "model.diffusion_model.out.2.weight": ("F16", [4, 320, 3, 3]),
            "model.diffusion_model.time_embed.0.weight": ("F16", [1280, 320]),
            "cond_stage_model.model.ln_final.weight": ("F16", [1024]),
            "first_stage_model.encoder.conv_in.weight": ("F16", [128, 3, 3, 3]),
            "first_stage_model.decoder.conv_in.weight": ("F16", [512, 4, 3, 3]),
        },
        "a depth-to-image model",
    ),
    "the denoiser of LCM alone": (
        {"down_blocks.0.resnets.0.conv1.weight": ("F16", [320, 320, 3, 3])},
        "one part of a model in diffusers' format",
    ),
    "a VAE": (
        {"encoder.conv_in.weight": ("F16", [128, 3, 3, 3]), "decoder.x": ("F16", [1])},
        "enc",
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_kinds_are_refused_by_name(what: str, tmp_path: Path) -> None:
    entries, words = OTHERS[what]
    path = write(tmp_path / "other.safetensors", entries)
    with pytest.raises(BadInput, match=words):
        read_weights(path)
    assert find_weights(tmp_path) == {}


def test_averaged_weights_are_not_mixed_in(tmp_path: Path) -> None:
    pipeline = tiny_diffusion.tiny_sd()
    names = tiny_diffusion.original_names(pipeline)
    ema: dict[str, Tensor] = {
        _averaged(n): torch.zeros_like(t) for n, t in names.items() if n.startswith("model.diff")
    }
    tiny_diffusion.write_single_file(pipeline, tmp_path / "tiny.safetensors", **ema)
    weights = read_weights(tmp_path / "tiny.safetensors")
    assert weights.parameters == sum(p.numel() for p in pipeline.unet.parameters())
    loaded = Models(Run(), weights, CPU, torch.float32).denoiser().state_dict()
    wanted = pipeline.unet.state_dict()
    assert all(torch.equal(loaded[name], wanted[name]) for name in wanted)
