"""The networks of a diffusion model, ready to compute: loaded, or still warm."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from studio.base.errors import BadInput
from studio.base.files import read_json
from studio.engines.clip.perceptor import Perceptor, load_clip_model
from studio.engines.device import compute_precision
from studio.engines.diffusion import classes, single_file, tensors
from studio.engines.diffusion.embeddings import Reader
from studio.engines.diffusion.folders import CLASSES, INDEX, weight_files
from studio.engines.diffusion.layers import DENOISER, TEXT, TEXT_2
from studio.engines.diffusion.loras import LoraFile
from studio.engines.diffusion.merging import merge
from studio.engines.diffusion.safety import Checker, extractor
from studio.engines.diffusion.settings import Precision
from studio.engines.diffusion.tokenizer import published_tokenizer
from studio.engines.diffusion.vaes import Vae, of_file, vae_config
from studio.engines.diffusion.weights import (
    CHECKER,
    EXTRACTOR,
    OPEN_CLIP,
    UNET,
    XL_OPEN_CLIP,
    Weights,
)
from studio.engines.warm import FileStamp, file_stamp, warm
from studio.models.safetensors_header import Header, read_header

ENGINE = "Diffusion"  # as the list of engines has it

TEXTS = "text encoders"  # a slot of warm models

T = TypeVar("T")
StateDict = Mapping[str, Tensor]

_checked: deque[tuple[FileStamp, ...]] = deque(maxlen=16)  # weights that were found whole


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
    """Finds the networks of some weights for a run. loras: merged into them."""

    run: object
    weights: Weights
    device: torch.device
    dtype: torch.dtype
    loras: Sequence[LoraFile] = ()

    def check(self) -> None:
        """Raises BadInput if a part is missing or does not fit, before any numbers are read."""
        stamps = self._stamps(*self.weights.files, *(self.weights.vae or self.weights).files)
        if stamps not in _checked:
            self._loader.check()
            _checked.append(stamps)

    def denoiser(self) -> Any:
        """diffusers' UNet2DConditionModel. Raises BadInput."""
        return self._get("denoiser", [DENOISER], lambda: self._merged(DENOISER, DENOISER))

    def decoder(self) -> Any:
        """The autoencoder: diffusers' AutoencoderKL or VQModel. Raises BadInput."""
        files = self.weights.vae.files if self.weights.vae else None
        return self._get("autoencoder", ["vae"], lambda: self._load("vae"), files)

    def text_encoders(self) -> list[Reader]:
        """One, or two for SDXL. Raises BadInput."""
        parts = self._loader.text_names()
        return self._get(TEXTS, parts, self._load_text_encoders)

    def safety_checker(self) -> Checker:
        """Only where the weights bring one. Raises BadInput."""
        folder = self.weights.path
        return self._get(
            "safety checker",
            [CHECKER],
            lambda: Checker(self._load(CHECKER), extractor(folder / EXTRACTOR), self.dtype),
        )

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

    def _load_text_encoders(self) -> list[Reader]:
        names = self._loader.text_names()
        return [
            Reader(self._loader.tokenizer(name), self._merged(name, part))
            for name, part in zip(names, (TEXT, TEXT_2), strict=False)
        ]

    def _merged(self, name: str, part: str) -> Any:
        """A network with what LoRAs add to that part of the model."""
        network = self._load(name)
        merge(network, part, self.loras)
        return network

    def _load(self, part: str) -> Any:
        return self._loader.part(part).load(self.device, self.dtype)

    @property
    def _loader(self) -> "_Loader":
        _quieten()
        return (_FileLoader if self.weights.header else _FolderLoader)(self.weights)

    @staticmethod
    def _stamps(*files: Path) -> tuple[FileStamp, ...]:
        return tuple(map(file_stamp, files))

    def _get(
        self,
        slot: str,
        parts: Sequence[str],
        load: Callable[[], T],
        files: Sequence[Path] | None = None,
    ) -> T:
        """parts: that will be in memory. files: of the network, if not those of the weights."""
        stamps = self._stamps(*(self.weights.files if files is None else files))
        numbers = sum(self._loader.part(part).parameters for part in parts)
        changed = [DENOISER] if DENOISER in parts else [TEXT, TEXT_2] if slot == TEXTS else []
        merged = tuple(
            (file_stamp(lora.header.path), part, lora.weight(part))
            for lora in self.loras
            for part in changed
            if lora.of(part)
        )
        key, needs = (stamps, self.dtype, merged), float(numbers * self.dtype.itemsize)
        return warm.get(ENGINE, slot, key, load, run=self.run, device=self.device, needs=needs)


@dataclass(frozen=True)
class _Part:
    """A network in files, which may hold more.

    convert: from the tensors whose names begin with prefix to those that the network has.
    """

    path: Path
    kind: Any
    config: Mapping[str, Any]
    headers: Sequence[Header]
    prefix: str = ""
    convert: Callable[[StateDict], StateDict] = lambda found: found

    @property
    def parameters(self) -> int:
        """How many numbers it has, by the headers."""
        return sum(
            math.prod(entry.shape)
            for header in self.headers
            for name, entry in header.tensors.items()
            if name.startswith(self.prefix)
        )

    def check(self) -> None:
        """Raises BadInput if tensors are missing or do not fit; reads no numbers."""
        found: dict[str, Tensor] = {}
        for header in self.headers:
            found |= tensors.shapes(header, self.prefix)
        tensors.fitting(tensors.empty(self._build), self._converted(found), self.path)

    def load(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The network, ready to compute. Raises BadInput."""
        found: dict[str, Tensor] = {}
        for header in self.headers:
            found |= tensors.read(header, dtype, self.prefix)
        return tensors.filled(self._build, self._converted(found), self.path, device)

    def _converted(self, found: StateDict) -> StateDict:
        try:
            return self.convert(found)
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            name = self.kind.__name__
            raise BadInput(f"{self.path} does not hold the whole {name}: {error}.") from None

    def _build(self) -> Any:
        return _built(self.kind, self.config, self.path)


@dataclass(frozen=True)
class _Loader:
    """Finds the parts of some weights by diffusers' names of them."""

    weights: Weights

    def check(self) -> None:
        """Raises BadInput if a part is missing or broken, before anything is read."""
        checker = [CHECKER] if self.weights.checker == "there" else []
        for name in ("unet", "vae", *self.text_names(), *checker):
            self.part(name).check()

    def part(self, name: str) -> _Part:
        """Raises BadInput."""
        vae = self.weights.vae
        return _other_vae(vae, self.weights) if vae and name == "vae" else self._own(name)

    def text_names(self) -> list[str]:
        """Of the text encoders."""
        raise NotImplementedError

    def tokenizer(self, name: str) -> Any:
        """That of a text encoder. Raises BadInput."""
        raise NotImplementedError

    def _own(self, name: str) -> _Part:
        raise NotImplementedError


class _FolderLoader(_Loader):
    """diffusers' format: a folder for each part, with its config.json."""

    def text_names(self) -> list[str]:
        index = read_json(self.weights.path / INDEX)
        names = ("text_encoder", "text_encoder_2")
        return [n for n in names if isinstance(index.get(n), list) and index[n][-1]]

    def tokenizer(self, name: str) -> Any:
        from transformers import CLIPTokenizer

        folder = self.weights.path / name.replace("text_encoder", "tokenizer")
        try:
            return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # a broken file makes the library raise whatever it likes
            reason = (str(error).strip().splitlines() or [""])[0][:160]
            raise BadInput(
                f"{folder} holds no tokeniser of CLIP. Copy the weights again. The reader said:"
                f" {type(error).__name__} {reason}".rstrip()
            ) from None

    def _own(self, name: str) -> _Part:
        return _of_folder(self.weights.path / name, read_json(self.weights.path / INDEX)[name][-1])


def _of_folder(folder: Path, named: str) -> _Part:
    headers = list(map(read_header, weight_files(folder, "")))
    return _Part(folder, classes.get(named), read_json(folder / "config.json"), headers)


class _FileLoader(_Loader):
    """One file of the original layout."""

    def text_names(self) -> list[str]:
        return ["text_encoder", "text_encoder_2"][: len(self._prefixes)]

    def tokenizer(self, name: str) -> Any:
        prefix = self._prefix(name)
        pad = {"pad": "!"} if prefix in (OPEN_CLIP, XL_OPEN_CLIP) else {}
        positions = single_file.text_config(self._header, prefix)["max_position_embeddings"]
        return published_tokenizer(positions, **pad)

    @property
    def _header(self) -> Header:
        assert self.weights.header
        return self.weights.header

    @property
    def _prefixes(self) -> list[str]:
        return single_file.text_prefixes(self.weights.family)

    def _prefix(self, name: str) -> str:
        return self._prefixes[name == "text_encoder_2"]

    def _own(self, name: str) -> _Part:
        if name == "vae":
            return _other_vae(of_file(self._header), self.weights)
        convert: Callable[[StateDict], StateDict]
        if name == "unet":
            prefix, named = UNET, "UNet2DConditionModel"
            config = single_file.unet_config(self._header, self.weights.family)
            convert = partial(single_file.unet_weights, config=config)
        else:
            prefix = self._prefix(name)
            config = single_file.text_config(self._header, prefix)
            named = CLASSES["text_encoder_2" if prefix == XL_OPEN_CLIP else "text_encoder"][0]
            width = config["hidden_size"]
            convert = partial(single_file.text_weights, prefix=prefix, width=width)
        kind = classes.get(named)
        return _Part(self.weights.path, kind, config, [self._header], prefix, convert)


def _other_vae(vae: Vae, weights: Weights) -> _Part:
    """The autoencoder in a file or folder of its own, or among others in a file."""
    if not vae.header:
        return _of_folder(vae.path, vae.kind)
    config = vae_config(vae.header, vae.prefix, weights.latent[1])
    convert = partial(single_file.vae_weights, prefix=vae.prefix, config=config)
    return _Part(vae.path, classes.get(vae.kind), config, [vae.header], vae.prefix, convert)


def _quieten() -> None:
    """Libraries log advice for programmers, which a person cannot follow."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_diffusers.set_verbosity_error()
    of_transformers.set_verbosity_error()


def _built(kind: Any, config: Mapping[str, Any], path: Path) -> Any:
    """A network of a library's class by its configuration. Raises BadInput for a broken one."""
    try:
        return classes.build(kind, config)
    except Exception as error:  # odd values make the libraries raise errors of any kind
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        raise BadInput(
            f"{path} has a configuration that {kind.__name__} does not take: {reason}"
        ) from None
