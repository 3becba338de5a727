"""Other autoencoders than the weights' own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_diffusion
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from studio.base.errors import BadInput
from studio.engines.diffusion.models import Models
from studio.engines.diffusion.run import DiffusionRun
from studio.engines.diffusion.settings import DiffusionSettings
from studio.engines.diffusion.vaes import OF_WEIGHTS, find_vaes, get_vae
from studio.engines.diffusion.weights import get_weights

CPU = torch.device("cpu")


class Run:
    """Stands for a run that asks for models."""


@pytest.fixture(scope="module")
def other() -> AutoencoderKL:
    torch.manual_seed(5)
    return tiny_diffusion.tiny_vae()


@pytest.fixture
def assets(tmp_path: Path, other: AutoencoderKL) -> Path:
    """Weights as a folder and as a file without an autoencoder; another VAE in each layout."""
    pipeline = tiny_diffusion.tiny_sd()
    tiny_diffusion.write(pipeline, tmp_path / "tiny")
    tiny_diffusion.write_single_file(
        pipeline, tmp_path / "bare.safetensors", leave_out="first_stage_model."
    )
    other.save_pretrained(tmp_path / "vae/folder")
    (tmp_path / "vae/folder/diffusion_pytorch_model.safetensors").rename(
        tmp_path / "vae/folder/diffusion_pytorch_model.fp16.safetensors"
    )
    save_file(other.state_dict(), tmp_path / "vae/by_diffusers.safetensors")
    pipeline.register_modules(vae=other)
    names = tiny_diffusion.original_names(pipeline)
    prefix = "first_stage_model."
    inside = {n.removeprefix(prefix): t for n, t in names.items() if n.startswith(prefix)}
    save(inside, tmp_path / "vae/original.safetensors")
    save({prefix + n: t for n, t in inside.items()}, tmp_path / "vae/within.safetensors")
    return tmp_path


def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)


def same_weights(ours: Any, theirs: Any) -> bool:
    found, wanted = ours.state_dict(), theirs.state_dict()
    return found.keys() == wanted.keys() and all(torch.equal(found[n], wanted[n]) for n in wanted)


@pytest.mark.parametrize("weights", ["tiny", "bare"])
@pytest.mark.parametrize("name", ["folder", "by_diffusers", "original", "within"])
def test_another_vae_takes_the_place_of_the_weights_own(
    name: str, weights: str, assets: Path, other: AutoencoderKL
) -> None:
    models = Models(Run(), get_weights(assets, weights, name), CPU, torch.float32)
    models.check()
    vae = models.decoder()
    assert same_weights(vae, other)
    assert vae.config.scaling_factor == pytest.approx(0.18215)
    assert models.weights.factor == 8


def test_pictures_are_those_of_the_other_vae(assets: Path, other: AutoencoderKL) -> None:
    def drawn(**how: Any) -> np.ndarray:
        given = {"text_input": "a heart", "Xdim": 64, "ydim": 64, "num_steps": 1, "seed": 1}
        settings = DiffusionSettings(**(given | {"weights": "tiny"} | how))
        run = DiffusionRun(settings, assets_dir=assets, device=CPU)
        run.load_model()
        run.model_init()
        (picture,) = run.iterate().pictures
        return picture

    pipeline = tiny_diffusion.tiny_sd()
    pipeline.register_modules(vae=other)
    tiny_diffusion.write(pipeline, assets / "whole")
    own, changed = drawn(), drawn(vae="folder")
    assert not np.array_equal(own, changed)
    assert np.array_equal(changed, drawn(weights="whole"))
    assert np.array_equal(own, drawn())  # warm models are not mixed up


def test_vaes_are_found_by_name(assets: Path) -> None:
    assert list(find_vaes(assets)) == ["by_diffusers", "folder", "original", "within"]
    with pytest.raises(BadInput, match=r"no VAE named 'x'.*There are: by_diff.*'of the weights'"):
        get_vae(assets, "x")
    (assets / "vae/evil.pt").write_bytes(b"")
    with pytest.raises(BadInput, match="is a pickle"):
        get_vae(assets, "evil")


def without_reading(path: Path) -> None:
    """Leave only the header of a file: whoever reads numbers gets zeros."""
    data = path.read_bytes()
    kept = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(data[:kept] + bytes(len(data) - kept))


def test_a_vae_for_other_latents_is_refused(assets: Path) -> None:
    wide = AutoencoderKL(**(dict(tiny_diffusion.tiny_vae().config) | {"latent_channels": 16}))
    save(wide.state_dict(), assets / "vae/flux.safetensors")
    without_reading(assets / "vae/flux.safetensors")
    with pytest.raises(BadInput, match=r"flux is for other latents.*16 channels where they have 4"):
        get_weights(assets, "tiny", "flux")
    scaled = AutoencoderKL(**(dict(tiny_diffusion.tiny_vae().config) | {"scaling_factor": 0.13025}))
    scaled.save_pretrained(assets / "vae/xl")
    with pytest.raises(BadInput, match=r"0\.13025 as its scale where they have 0\.18215"):
        get_weights(assets, "tiny", "xl")
    small = tiny_diffusion.tiny_vae().config | {"block_out_channels": [32] * 2}
    small |= {"down_block_types": ["DownEncoderBlock2D"] * 2}
    small |= {"up_block_types": ["UpDecoderBlock2D"] * 2}
    save(AutoencoderKL(**small).state_dict(), assets / "vae/f2.safetensors")
    with pytest.raises(BadInput, match=r"2 px a position where they have 8"):
        get_weights(assets, "tiny", "f2")
    (assets / "vae/original.safetensors").rename(assets / "vae/sdxl_vae.safetensors")
    with pytest.raises(BadInput, match=r"sdxl_vae is for other latents.*by its name"):
        get_weights(assets, "tiny", "sdxl_vae")


def test_what_is_no_vae_is_refused(assets: Path) -> None:
    save_file({"decoder.layers.0.weight": torch.zeros(2)}, assets / "vae/taesd.safetensors")
    with pytest.raises(BadInput, match=r"holds no VAE: it has 1 tensors such as decoder\.layers"):
        get_vae(assets, "taesd")
    config = assets / "vae/folder/config.json"
    config.write_text(config.read_text().replace("AutoencoderKL", "AutoencoderTiny"))
    with pytest.raises(BadInput, match=r"holds a AutoencoderTiny, which is no VAE"):
        get_vae(assets, "folder")


def test_weights_without_a_vae_say_so(assets: Path) -> None:
    with pytest.raises(BadInput, match=r"lacks its autoencoder.*choose a VAE in assets/vae/"):
        get_weights(assets, "bare")
    with pytest.raises(BadInput, match="lacks its autoencoder"):
        get_weights(assets, "bare", OF_WEIGHTS)
