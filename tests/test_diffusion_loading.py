"""Weights of the engine Diffusion: folders and single files, told apart and loaded offline."""

import json
import pickle
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_diffusion
import torch
from safetensors.torch import save_file

from studio.base.errors import BadInput
from studio.engines.diffusion.models import Models
from studio.engines.diffusion.tokenizer import published_tokenizer
from studio.engines.diffusion.weights import (
    default_weights,
    find_weights,
    get_weights,
    read_weights,
)
from studio.models.clip_package import clip_tokenizer

CPU = torch.device("cpu")
TEXTS = ("a red heart", "Zwölf Boxkämpfer, 123!", "", "an emoji 🙂 of two cats'")
SD2 = {"act": "gelu", "use_linear_projection": True, "attention_head_dim": (1, 1)}
KINDS: dict[str, Any] = {
    "sd1": tiny_diffusion.tiny_sd,
    "sd1-inpainting": lambda: tiny_diffusion.tiny_sd(in_channels=9),
    "sd1-lcm": lambda: tiny_diffusion.tiny_sd(time_cond_proj_dim=32),
    "sd2": lambda: tiny_diffusion.tiny_sd(**SD2),
    "sdxl": tiny_diffusion.tiny_xl,
    "sdxl-inpainting": lambda: tiny_diffusion.tiny_xl(in_channels=9),
}


class Run:
    """Stands for a run that asks for models."""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("loading wants the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def same_weights(ours: torch.nn.Module, theirs: torch.nn.Module) -> bool:
    found, wanted = ours.state_dict(), theirs.state_dict()
    return found.keys() == wanted.keys() and all(torch.equal(found[n], wanted[n]) for n in wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_file_is_what_it_was_made_of(kind: str, tmp_path: Path) -> None:
    pipeline = KINDS[kind]()
    tiny_diffusion.write_single_file(pipeline, tmp_path / "tiny.safetensors")
    weights = get_weights(tmp_path, "tiny")
    assert weights.family == kind.partition("-")[0]
    assert weights.is_inpainting == ("inpainting" in kind)
    assert weights.knows_guidance == ("lcm" in kind)
    assert weights.factor == 8
    models = Models(Run(), weights, CPU, torch.float32)
    assert same_weights(models.denoiser(), pipeline.unet)
    assert same_weights(models.decoder(), pipeline.vae)
    encoders = models.text_encoders()
    assert same_weights(encoders[0].model, pipeline.text_encoder)
    if weights.family == "sdxl":
        assert same_weights(encoders[1].model, pipeline.text_encoder_2)
    for name in ("unet", "vae"):
        loaded = {"unet": models.denoiser(), "vae": models.decoder()}[name].config
        wanted = getattr(pipeline, name).config
        keys = ("block_out_channels", "down_block_types", "up_block_types", "layers_per_block")
        assert [list(np.ravel(loaded[k])) for k in keys] == [
            list(np.ravel(wanted[k])) for k in keys
        ]


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_a_folder_is_what_it_was_made_of(kind: str, tmp_path: Path) -> None:
    pipeline = KINDS[kind]()
    tiny_diffusion.write(pipeline, tmp_path / "tiny")
    weights = get_weights(tmp_path, "tiny")
    models = Models(Run(), weights, CPU, torch.float32)
    assert same_weights(models.denoiser(), pipeline.unet)
    assert same_weights(models.decoder(), pipeline.vae)
    assert same_weights(
        models.text_encoders()[-1].model,
        list(pipeline.components.values())[2 if kind == "sdxl" else 1],
    )
    half = Models(Run(), weights, CPU, torch.bfloat16).denoiser()
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_older_names_of_the_attention_are_understood(tmp_path: Path) -> None:
    pipeline = tiny_diffusion.tiny_sd()
    tiny_diffusion.write(pipeline, tmp_path / "tiny")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, tensor in pipeline.vae.state_dict().items():
        for new, word in old.items():
            name = name.replace(f".{new}.", f".{word}.")
        state[name] = tensor.contiguous()
    save_file(state, tmp_path / "tiny/vae/diffusion_pytorch_model.safetensors")
    models = Models(Run(), get_weights(tmp_path, "tiny"), CPU, torch.float32)
    assert same_weights(models.decoder(), pipeline.vae)


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokeniser_is_clips(text: str) -> None:
    tokens = published_tokenizer(77)(text).input_ids
    assert tokens == [49406, *clip_tokenizer().encode(text), 49407]


PREDICTIONS = {  # what a file says: whether it predicts v
    "a name of 768 pixels": ("v2-1_768-ema-pruned", {}, "v_prediction"),
    "a name of 512 pixels": ("512-base-ema", {}, "epsilon"),
    "metadata": ("any", {"metadata": {"modelspec.prediction_type": "epsilon"}}, "epsilon"),
    "metadata of v": ("any-base", {"metadata": {"modelspec.prediction_type": "v"}}, "v_prediction"),
    "a key": ("my-base", {"v_pred": torch.zeros(0)}, "v_prediction"),
    "turbo": ("sd_turbo", {}, "epsilon"),
}


@pytest.mark.parametrize("case", PREDICTIONS)
def test_what_stable_diffusion_2_predicts(case: str, tmp_path: Path) -> None:
    name, extra, wanted = PREDICTIONS[case]
    path = tmp_path / f"{name}.safetensors"
    tiny_diffusion.write_single_file(tiny_diffusion.tiny_sd(**SD2), path, **extra)
    assert read_weights(path).scheduler["prediction_type"] == wanted


PARTS = {
    "model.diffusion_model.": "an autoencoder",
    "first_stage_model.": "lacks its autoencoder",
    "cond_stage_model.": "a denoiser",
    "model.diffusion_model.out.2.weight": "lacks its model.diffusion_model.out.2.weight",
}


@pytest.mark.parametrize("part", PARTS)
def test_a_file_with_parts_missing_is_refused(part: str, tmp_path: Path) -> None:
    path = tmp_path / "part.safetensors"
    tiny_diffusion.write_single_file(tiny_diffusion.tiny_sd(), path, leave_out=part)
    with pytest.raises(BadInput, match=PARTS[part]):
        read_weights(path)


def test_a_tensor_missing_inside_is_refused_before_numbers_are_read(tmp_path: Path) -> None:
    path, lost = tmp_path / "part.safetensors", "model.diffusion_model.middle_block.0.in_layers.2"
    tiny_diffusion.write_single_file(tiny_diffusion.tiny_sd(), path, leave_out=lost)
    models = Models(Run(), read_weights(path), CPU, torch.float32)
    with pytest.raises(BadInput, match=r"mid_block\.resnets\.0\.conv1\.weight is missing"):
        models.denoiser()


UNKNOWN = {
    "lora_unet_down_blocks_0.lora_down.weight": "a LoRA",
    "double_blocks.0.img_attn.norm.key_norm.scale": "a Flux model",
    "joint_blocks.0.context_block.adaLN_modulation.1.bias": "a Stable Diffusion 3 model",
    "control_model.time_embed.0.weight": "a ControlNet",
    "my.tensor": "a file of 1 tensors such as my.tensor",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_files_of_other_kinds_are_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({name: torch.zeros(2, 2)}, path)
    with pytest.raises(BadInput, match=UNKNOWN[name]):
        get_weights(tmp_path, "other")
    assert find_weights(tmp_path) == {}


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    tiny_diffusion.write_single_file(tiny_diffusion.tiny_sd(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BadInput, match="cut short"):
        read_weights(path)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("/tmp/executed-by-a-pickle"),)


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin"])
def test_pickles_are_refused_unread(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"evil{suffix}").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(BadInput, match="is a pickle"):
        get_weights(tmp_path, "evil")
    assert not Path("/tmp/executed-by-a-pickle").exists()


def test_a_folder_of_pickles_is_refused(tmp_path: Path) -> None:
    tiny_diffusion.write(tiny_diffusion.tiny_sd(), tmp_path / "tiny")
    weights = tmp_path / "tiny/unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(BadInput, match="is a pickle"):
        get_weights(tmp_path, "tiny")


def test_a_folder_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "flux").mkdir()
    index = {"transformer": ["diffusers", "FluxTransformer2DModel"], "vae": ["diffusers", "X"]}
    (tmp_path / "flux/model_index.json").write_text(json.dumps(index))
    with pytest.raises(BadInput, match=r"lacks unet, text_encoder; it has: transformer, vae"):
        get_weights(tmp_path, "flux")


def test_without_weights_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no diffusion weights.*download-weights"):
        default_weights(tmp_path)
    with pytest.raises(BadInput, match=r"named 'nothing'.*There are: none"):
        get_weights(tmp_path, "nothing")
    with pytest.raises(BadInput, match=r"not in \S+ yet.*command line: --weights a/sd-turbo"):
        get_weights(tmp_path, "a/sd-turbo")
