"""LoRAs (Hu et al. 2021) in `assets/loras/`, told by their headers alone. Never imports torch.

A LoRA adds the product of two small matrices, `up` and `down`, to some weights of a model. Files
name the weights in several ways: those of kohya's scripts, which most web UIs read, those of
diffusers, and those of peft.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput, shortened
from studio.engines.diffusion.folders import PICKLES
from studio.engines.diffusion.layers import DENOISER, TEXT, TEXT_2, ModelLayers
from studio.engines.diffusion.prompt_grammar import Lora
from studio.engines.diffusion.weights import Weights
from studio.models.safetensors_header import Header, read_header

FOLDER = "loras"  # in `assets/`
SUFFIX = ".safetensors"
NAMED_AT_MOST = 20
# What the names of a part's tensors begin with, dots as underscores; the longest first.
PREFIXES = {
    "lora_unet_": DENOISER,
    "lora_te1_": TEXT,
    "lora_te2_": TEXT_2,
    "lora_te_": TEXT,
    "base_model_model_": DENOISER,
    "unet_": DENOISER,
    "text_encoder_2_": TEXT_2,
    "text_encoder_": TEXT,
}
# How names end: the layer, then the matrix.
_MATRIX = re.compile(
    r"(?P<layer>.+?)(?:[._]lora(?:_linear_layer)?[._](?P<way>down|up|mid|A|B)(?:\.\w+)?\.weight"
    r"|\.(?P<alpha>alpha))"
)
WAYS = {"A": "down", "B": "up"}
OLDER = (  # of diffusers' names, at the end of a layer's
    *(("self_attn.to_out", "self_attn.out_proj"), ("self_attn.to_q", "self_attn.q_proj")),
    *(("self_attn.to_k", "self_attn.k_proj"), ("self_attn.to_v", "self_attn.v_proj")),
    *(("attn1.to_out", "attn1.to_out.0"), ("attn2.to_out", "attn2.to_out.0")),
)
OTHER_KINDS = {  # parts of names that no plain LoRA has
    "model.diffusion_model.": "a whole model, which goes into assets/",
    "hada_": "a LoHa",
    "lokr_": "a LoKr",
    "oft_": "an OFT",
    "dora_scale": "a DoRA",
    "lora_magnitude_vector": "a DoRA",
    ".diff": "the difference of whole weights",
    "on_input": "an (IA)³",
    "lora_transformer_": "a LoRA of Flux or Stable Diffusion 3",
    "transformer.": "a LoRA of a model with transformers",
    "double_blocks": "a LoRA of Flux",
    "emb_params": "a textual inversion, which goes into assets/embeddings/",
}
BASES = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}
READS_TEXT = re.compile(r"attn2[._]to_[kv]$")


@dataclass(frozen=True)
class Delta:
    """What a LoRA adds to a layer's weights: the names of its tensors in the file.

    told_alpha: what the file's metadata say where there is no tensor for it.
    """

    part: str
    layer: str
    down: str
    up: str
    mid: str | None = None
    alpha: str | None = None
    told_alpha: float | None = None


@dataclass(frozen=True)
class LoraFile:
    """A LoRA that fits some weights. deltas: by diffusers' names of the layers."""

    lora: Lora
    header: Header
    deltas: Sequence[Delta]

    def weight(self, part: str) -> float:
        """How strongly it works in a part of the model."""
        return self.lora.weight if part == DENOISER else self.lora.text_weight

    def of(self, part: str) -> list[Delta]:
        """What it adds to that part; nothing if its weight is 0."""
        return [delta for delta in self.deltas if delta.part == part and self.weight(part)]


def find_loras(assets_dir: Path) -> dict[str, Path]:
    """The files in `assets/loras/` by their names, which are those in prompts."""
    return {path.stem: path for path in sorted((assets_dir / FOLDER).glob(f"*{SUFFIX}"))}


def get_loras(loras: Iterable[Lora], weights: Weights, assets_dir: Path) -> list[LoraFile]:
    """The files of a prompt's LoRAs. Raises BadInput for one that is not there or does not fit."""
    there, layers = find_loras(assets_dir), ModelLayers(weights)
    return [_fitting(lora, _path(lora.name, there, assets_dir), weights, layers) for lora in loras]


def _path(name: str, there: Mapping[str, Path], assets_dir: Path) -> Path:
    in_any_case = {other.lower(): path for other, path in there.items()}
    if path := there.get(name) or in_any_case.get(name.lower()):
        return path
    folder = assets_dir / FOLDER
    pickles = {p.stem: p for p in folder.glob("*") if p.suffix in PICKLES}
    if pickle := pickles.get(name):
        raise BadInput(
            f"The LoRA {pickle} is a pickle, which could run code: LoRAs are read as .safetensors"
            " only. Get it in that format, or convert it."
        )
    raise BadInput(
        f"There is no LoRA '{shortened(name)}' in {folder}. There are: {_listed(there)}. Put its"
        " .safetensors file there, or take it out of the prompt."
    )


def _fitting(lora: Lora, path: Path, weights: Weights, layers: ModelLayers) -> LoraFile:
    header = read_header(path)
    deltas = read_deltas(header)
    if odd := _odd_one(header, deltas, layers):
        raise BadInput(
            f"The LoRA '{shortened(lora.name)}' is for another base than {weights.name}:"
            f" {_misfit(header, deltas, odd, layers)} LoRAs that fit:"
            f" {_listed(_those_that_fit(path.parent, layers))}."
        )
    named = (replace(d, layer=layers.by_any_name[d.part][d.layer]) for d in deltas)
    return LoraFile(lora, header, list(named))


def _those_that_fit(folder: Path, layers: ModelLayers) -> Iterator[str]:
    for path in sorted(folder.glob(f"*{SUFFIX}"))[:NAMED_AT_MOST]:
        with suppress(BadInput):
            header = read_header(path)
            if not _odd_one(header, read_deltas(header), layers):
                yield path.stem


def _odd_one(header: Header, deltas: Sequence[Delta], layers: ModelLayers) -> Delta | None:
    """A part of a LoRA that does not fit the model."""
    return next((delta for delta in deltas if not _fits(header, delta, layers)), None)


def _fits(header: Header, delta: Delta, layers: ModelLayers) -> bool:
    """Whether the product of the matrices has as many numbers as the weights, in their order."""
    shape = _shape(delta, layers)
    down, up = header.shape(delta.down), header.shape(delta.up)
    inner = header.shape(delta.mid) if delta.mid else down  # a mid has the kernel
    if min(map(len, (shape, down, up, inner))) < 2 or up[1] != inner[0]:
        return False
    if delta.mid and (len(inner) < 3 or inner[1] != down[0] or math.prod(down[2:]) != 1):
        return False
    is_as_wide = (up[0], down[1]) == shape[:2] and math.prod(up[2:]) == 1
    return is_as_wide and math.prod(inner[2:]) == math.prod(shape[2:])


def _shape(delta: Delta, layers: ModelLayers) -> tuple[int, ...]:
    """Of the weights that it changes; () if there are none."""
    layer = layers.by_any_name.get(delta.part, {}).get(delta.layer)
    return layers.parts[delta.part][layer] if layer else ()


def _misfit(header: Header, deltas: Sequence[Delta], odd: Delta, layers: ModelLayers) -> str:
    """Why that part of it does not fit, in words."""
    theirs, ours = _base_of(header, deltas), _base_of_model(layers)
    if theirs and theirs != ours:
        return f"it is for {theirs}{f', and they are of {ours}' if ours else ''}."
    shape = _shape(odd, layers)
    if not shape:
        return f"they have no layer {shortened(odd.layer)} in a {odd.part}."
    sizes = "x".join(map(str, (*header.shape(odd.up)[:1], *header.shape(odd.down)[1:])))
    return f"its layer {shortened(odd.layer)} is {sizes}, and theirs {'x'.join(map(str, shape))}."


def _base_of(header: Header, deltas: Sequence[Delta]) -> str | None:
    """By the width of the text that the denoiser reads, else by the number of text encoders."""
    widths = (header.shape(d.down)[1:2] for d in deltas if READS_TEXT.search(d.layer))
    bases = [BASES[width[0]] for width in widths if width and width[0] in BASES]
    has_two = any(delta.part == TEXT_2 for delta in deltas)
    return bases[0] if bases else BASES[2048] if has_two else None


def _base_of_model(layers: ModelLayers) -> str | None:
    shapes = layers.parts[DENOISER].items()
    return next((BASES.get(shape[1]) for name, shape in shapes if READS_TEXT.search(name)), None)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return (", ".join(map(shortened, names[:NAMED_AT_MOST])) or "none") + more


# --- one file ------------------------------------------------------------------------------------


def read_deltas(header: Header) -> list[Delta]:
    """What a LoRA adds to which layers, named with underscores. Raises BadInput for other files."""
    layers: dict[tuple[str, str], dict[str, str]] = {}
    for name in header.tensors:
        match = _MATRIX.fullmatch(name)
        if match is None:
            raise _no_lora(header, name)
        way = match["alpha"] or WAYS.get(match["way"], match["way"])
        layers.setdefault(_place(match["layer"]), {})[way] = name
    if not layers:
        raise _no_lora(header)
    told = _metadata(header)
    return [_delta(header, *place, found, told) for place, found in layers.items()]


def _delta(
    header: Header, part: str, layer: str, found: Mapping[str, str], told: Mapping[str, Any]
) -> Delta:
    missing = [way for way in ("down", "up") if way not in found]
    if missing:
        raise BadInput(
            f"The LoRA {header.path} lacks the matrix '{missing[0]}' of its layer"
            f" {shortened(layer)}; it has: {', '.join(found)}. Download it again."
        )
    if "alpha" in found and math.prod(header.shape(found["alpha"])) != 1:
        raise _no_lora(header, found["alpha"])
    return Delta(part, layer, **found, told_alpha=_told_alpha(told, part, layer))


def _place(text: str) -> tuple[str, str]:
    """The part of the model and the layer that a tensor's name tells; dots become underscores."""
    text = text.replace(".processor.", ".")
    for old, new in OLDER:
        if text.endswith(old):
            text = text.removesuffix(old) + new
    name = text.replace(".", "_")
    for prefix, part in PREFIXES.items():
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            return part, name if part == DENOISER else name.removeprefix("text_model_")
    return DENOISER, name


def _metadata(header: Header) -> Mapping[str, Any]:
    """What diffusers writes of a LoRA: peft's configuration of each part."""
    try:
        told = json.loads(header.metadata.get("lora_adapter_metadata", "{}"))
    except (AttributeError, TypeError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _told_alpha(told: Mapping[str, Any], part: str, layer: str) -> float | None:
    pattern = told.get(f"{part}.alpha_pattern")
    own = (
        value
        for name, value in (pattern.items() if isinstance(pattern, dict) else ())
        if f"_{layer}".endswith(f"_{name.replace('.', '_')}")
    )
    value = next(own, told.get(f"{part}.lora_alpha"))
    return float(value) if isinstance(value, int | float) else None


def _no_lora(header: Header, name: str = "") -> BadInput:
    names = [name, *header.tensors]
    kinds = (what for part, what in OTHER_KINDS.items() if any(part in n for n in names))
    odd = f"a file with the tensor {shortened(name)}" if name else "an empty file"
    return BadInput(
        f"{header.path} is {next(kinds, odd)}, not a LoRA that the studio can read. It reads LoRAs"
        " of kohya's and of diffusers' formats, for linear layers and convolutions."
    )
