"""The networks of a diffusion model, ready to compute: loaded, or still warm."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from studio.base.errors import BadInput
from studio.base.files import read_json
from studio.engines.clip.perceptor import Perceptor, load_clip_model
from studio.engines.device import compute_precision
from studio.engines.diffusion import single_file, tensors
from studio.engines.diffusion.settings import Precision
from studio.engines.diffusion.tokenizer import published_tokenizer
from studio.engines.diffusion.weights import (
    OPEN_CLIP,
    UNET,
    XL_OPEN_CLIP,
    Weights,
    decoder_prefix,
    weight_files,
)
from studio.engines.warm import file_stamp, warm
from studio.models.safetensors_header import read_header

ENGINE = "diffusion"

T = TypeVar("T")


class TextEncoder(NamedTuple):
    """A tokeniser with the network that reads its tokens."""

    tokenizer: Any
    network: Any


def chosen_dtype(wanted: Precision, weights: Weights, device: torch.device) -> torch.dtype:
    """What the networks compute in. It depends on the settings and the machine alone."""
    quick = compute_precision(device).dtype
    if wanted == "auto":
        return quick if weights.is_large else torch.float32
    if wanted == "full":
        return torch.float32
    return quick if quick != torch.float32 else torch.bfloat16


@dataclass(frozen=True)
class Models:
    """Finds the networks of some weights for a run."""

    run: object
    weights: Weights
    device: torch.device
    dtype: torch.dtype

    def denoiser(self) -> Any:
        """diffusers' UNet2DConditionModel. Raises BadInput."""
        return self._get("denoiser", lambda: self._load().unet())

    def decoder(self) -> Any:
        """The autoencoder: diffusers' AutoencoderKL or VQModel. Raises BadInput."""
        return self._get("autoencoder", lambda: self._load().vae())

    def text_encoders(self) -> list[TextEncoder]:
        """One, or two for SDXL. Raises BadInput."""
        return self._get("text encoders", lambda: self._load().text_encoders())

    def perceptor(self, path: Path) -> Perceptor:
        """The CLIP that guides. Raises BadInput."""
        precision = compute_precision(self.device)
        return warm.get(
            ENGINE,
            "CLIP",
            (file_stamp(path), precision),
            lambda: load_clip_model(path, precision).to(self.device),
            run=self.run,
            device=self.device,
        )

    def _load(self) -> "_Loader":
        _quieten()
        kind = _FileLoader if self.weights.header else _FolderLoader
        return kind(self.weights, self.device, self.dtype)

    def _get(self, slot: str, load: Callable[[], T]) -> T:
        stamps = tuple(map(file_stamp, self.weights.files))
        needs = sum(stamp.size for stamp in stamps) / 2 if slot == "denoiser" else 0.0
        key = stamps, self.dtype
        return warm.get(ENGINE, slot, key, load, run=self.run, device=self.device, needs=needs)


@dataclass(frozen=True)
class _Loader:
    weights: Weights
    device: torch.device
    dtype: torch.dtype

    def unet(self) -> nn.Module:
        raise NotImplementedError

    def vae(self) -> nn.Module:
        raise NotImplementedError

    def text_encoders(self) -> list[TextEncoder]:
        raise NotImplementedError


class _FolderLoader(_Loader):
    """diffusers' format: a folder for each part, with its config.json."""

    def unet(self) -> nn.Module:
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        return self._part("unet", UNet2DConditionModel)

    def vae(self) -> nn.Module:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.autoencoders.vq_model import VQModel

        classes = {"AutoencoderKL": AutoencoderKL, "VQModel": VQModel}
        return self._part("vae", classes[self._index()["vae"][-1]])

    def text_encoders(self) -> list[TextEncoder]:
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        classes = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
        index = self._index()
        parts = [part for part in classes if isinstance(index.get(part), list) and index[part][-1]]
        return [
            TextEncoder(self._tokenizer(part.replace("text_encoder", "tokenizer")), network)
            for part in parts
            for network in [self._part(part, classes[part])]
        ]

    def _index(self) -> dict[str, Any]:
        return read_json(self.weights.path / "model_index.json")

    def _tokenizer(self, part: str) -> Any:
        from transformers import CLIPTokenizer

        folder = self.weights.path / part
        try:
            return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # a broken file makes the library raise whatever it likes
            reason = (str(error).strip().splitlines() or [""])[0][:160]
            raise BadInput(
                f"{folder} holds no tokeniser of CLIP. Copy the weights again. The reader said:"
                f" {type(error).__name__} {reason}".rstrip()
            ) from None

    def _part(self, part: str, kind: Any) -> Any:
        config = read_json(self.weights.path / part / "config.json")
        given = {}
        for file in weight_files(self.weights.path, part):
            given |= tensors.read(read_header(file), self.dtype)
        folder = self.weights.path / part
        return tensors.filled(lambda: _built(kind, config, folder), given, folder, self.device)


class _FileLoader(_Loader):
    """One file of the original layout."""

    @property
    def _header(self) -> Any:
        assert self.weights.header
        return self.weights.header

    def unet(self) -> nn.Module:
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        config = single_file.unet_config(self._header, self.weights.family)
        return self._part(
            UNet2DConditionModel, config, UNET, lambda t: single_file.unet_weights(t, config)
        )

    def vae(self) -> nn.Module:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        config = single_file.vae_config(self._header, self.weights.family)
        prefix = decoder_prefix(self._header)
        return self._part(
            AutoencoderKL, config, prefix, lambda t: single_file.vae_weights(t, config)
        )

    def text_encoders(self) -> list[TextEncoder]:
        return [self._text(prefix) for prefix in single_file.text_prefixes(self.weights.family)]

    def _text(self, prefix: str) -> TextEncoder:
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        config = single_file.text_config(self._header, prefix)
        kind = CLIPTextModelWithProjection if prefix == XL_OPEN_CLIP else CLIPTextModel
        width = config["hidden_size"]
        network = self._part(
            kind, config, prefix, lambda t: single_file.text_weights(t, prefix, width)
        )
        pad = {"pad": "!"} if prefix in (OPEN_CLIP, XL_OPEN_CLIP) else {}
        return TextEncoder(published_tokenizer(config["max_position_embeddings"], **pad), network)

    def _part(self, kind: Any, config: dict[str, Any], prefix: str, convert: Any) -> Any:
        path = self.weights.path

        def build() -> Any:
            return _built(kind, config, path)

        # First without numbers: what does not fit is said before gigabytes are read.
        try:
            converted = convert(tensors.shapes(self._header, prefix))
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            raise BadInput(f"{path} does not hold the whole {kind.__name__}: {error}.") from None
        tensors.fitting(tensors.empty(build), converted, path)
        given = convert(tensors.read(self._header, self.dtype, prefix))
        return tensors.filled(build, given, path, self.device)


def _quieten() -> None:
    """Libraries log advice for programmers, which a person cannot follow."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_diffusers.set_verbosity_error()
    of_transformers.set_verbosity_error()


def _built(kind: Any, config: dict[str, Any], path: Path) -> Any:
    """A network of a library's class by its configuration. Raises BadInput for a broken one."""
    try:
        if hasattr(kind, "from_config"):
            return kind.from_config(config)
        return kind(kind.config_class(**config))
    except Exception as error:  # odd values make the libraries raise errors of any kind
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        raise BadInput(
            f"{path} has a configuration that {kind.__name__} does not take: {reason}"
        ) from None
