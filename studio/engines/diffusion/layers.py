"""The layers of a model by diffusers' names, with their weights' shapes: from headers, no torch.

Single files have names of their own for the denoiser's layers, and so have some LoRAs. Both tables
follow from how many levels the denoiser has, and how many layers each.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from studio.base.files import read_json
from studio.engines.diffusion.folders import weight_files
from studio.engines.diffusion.weights import (
    CLIP,
    OPEN_CLIP,
    UNET,
    XL_CLIP,
    XL_OPEN_CLIP,
    Weights,
)
from studio.models.clip_text import MARKS, PUBLISHED_CONTEXT
from studio.models.safetensors_header import Header, read_header

Shapes = Mapping[str, tuple[int, ...]]  # of the weights, by the layers' names
DENOISER, TEXT, TEXT_2 = "unet", "text_encoder", "text_encoder_2"
WEIGHT = ".weight"
TOKENS, POSITIONS = "embeddings.token_embedding", "embeddings.position_embedding"
AROUND = {  # diffusers' names and those of the original layout
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "time_embedding.cond_proj": "time_embed.cond_proj",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OPEN_CLIP_LAYER = {  # a layer's parts in OpenCLIP, and the parts of CLIP that each holds
    "attn.in_proj_weight": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.out_proj.weight": ("self_attn.out_proj",),
    "mlp.c_fc.weight": ("mlp.fc1",),
    "mlp.c_proj.weight": ("mlp.fc2",),
}


class ModelLayers:
    """Of some weights. Raises BadInput for a damaged file."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    @cached_property
    def parts(self) -> Mapping[str, Shapes]:
        """The layers of denoiser and text encoders, the latter without `text_model.`."""
        header = self._weights.header
        denoiser = _denoiser_in(header) if header else _of_part(self._weights, DENOISER)
        return {DENOISER: denoiser, **self._texts}

    @cached_property
    def by_any_name(self) -> Mapping[str, Mapping[str, str]]:
        """The layers of each part, by all names that LoRAs have for them, dots as underscores."""
        found = {}
        for part, shapes in self.parts.items():
            names = {name: name for name in shapes}
            if part == DENOISER:
                names |= {original: name for name, original in _originals(shapes)}
            found[part] = {name.replace(".", "_"): layer for name, layer in names.items()}
        return found

    @property
    def text_room(self) -> int:
        """How many tokens of text a chunk has, without the marks."""
        told = [shapes[POSITIONS][0] for shapes in self._texts.values() if POSITIONS in shapes]
        if not self._weights.header:
            path = self._weights.path / "tokenizer" / "tokenizer_config.json"
            length = read_json(path).get("model_max_length") if path.is_file() else None
            told += [length] if isinstance(length, int) else []
        return min(told, default=PUBLISHED_CONTEXT) - MARKS

    @property
    def text_widths(self) -> list[int]:
        """Of the vectors that stand for tokens, for each text encoder."""
        return [shapes[TOKENS][1] for shapes in self._texts.values() if TOKENS in shapes]

    @cached_property
    def _texts(self) -> Mapping[str, Shapes]:
        if self._weights.header:
            return _texts_in(self._weights.header)
        found = {part: _of_part(self._weights, part) for part in (TEXT, TEXT_2)}
        return {part: shapes for part, shapes in found.items() if shapes}


def _of_part(weights: Weights, part: str) -> Shapes:
    if not (weights.path / part).is_dir():
        return {}
    found = {}
    for file in weight_files(weights.path, part):
        found |= _shapes(read_header(file), "")
    return {name.removeprefix("text_model."): shape for name, shape in found.items()}


def _shapes(header: Header, prefix: str) -> dict[str, tuple[int, ...]]:
    return {
        name.removeprefix(prefix).removesuffix(WEIGHT): entry.shape
        for name, entry in header.tensors.items()
        if name.startswith(prefix) and name.endswith(WEIGHT)
    }


def _denoiser_in(header: Header) -> Shapes:
    original = _shapes(header, UNET)
    names = dict(_diffusers_names(original))
    return {names[name]: shape for name, shape in original.items() if name in names}


def _texts_in(header: Header) -> dict[str, Shapes]:
    found: dict[str, Shapes] = {}
    first = next((p for p in (XL_CLIP, CLIP) if header.has(p)), None)
    if first:
        shapes = _shapes(header, first)
        found[TEXT] = {n.removeprefix("text_model."): shape for n, shape in shapes.items()}
    for prefix, part in ((OPEN_CLIP, TEXT), (XL_OPEN_CLIP, TEXT_2)):
        if header.has(prefix):
            found[part] = dict(_of_open_clip(header, prefix))
    return found


def _of_open_clip(header: Header, prefix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield TOKENS, header.shape(f"{prefix}token_embedding{WEIGHT}")
    yield POSITIONS, header.shape(f"{prefix}positional_embedding")
    blocks = f"{prefix}transformer.resblocks."
    found = [name.removeprefix(blocks) for name in header.tensors if name.startswith(blocks)]
    last = max((int(name.split(".")[0]) for name in found), default=0)
    for name in found:
        number, _, part = name.partition(".")
        if prefix == OPEN_CLIP and int(number) == last:
            continue  # Stable Diffusion 2 reads what the last layer but one tells
        inside = OPEN_CLIP_LAYER.get(part, ())
        for layer in inside:
            side, *rest = header.shape(f"{blocks}{name}")
            yield f"encoder.layers.{number}.{layer}", (side // len(inside), *rest)


# --- the denoiser's two ways of naming -----------------------------------------------------------


def _originals(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """diffusers' names with those of the original layout; an upsampler has two candidates."""
    names = list(names)
    levels = {name.split(".")[1] for name in names if name.startswith("down_blocks.")}
    layers = {n.split(".")[3] for n in names if n.startswith("down_blocks.0.resnets.")}
    pairs = list(_pairs(len(levels), len(layers)))
    return _renamed(names, pairs, RESNET)


def _diffusers_names(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names of the original layout with diffusers' ones."""
    names = list(names)
    ends = sorted(int(n.split(".")[1]) for n in names if n.endswith(".0.op"))
    inputs = {int(n.split(".")[1]) for n in names if n.startswith("input_blocks.")}
    pairs = list(_pairs(len(ends) + 1, ends[0] - 1 if ends else max(inputs, default=0)))
    inside = {theirs: ours for ours, theirs in RESNET.items()}
    return _renamed(names, [(theirs, ours) for ours, theirs in pairs], inside)


def _renamed(
    names: Iterable[str], beginnings: Iterable[tuple[str, str]], inside: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Names with those that other beginnings give them. inside: of a ResNet block's parts."""
    for name in names:
        for old, new in beginnings:
            if f"{name}.".startswith(old):
                inner = name[len(old) :]
                if ".resnets." in old + new:
                    inner = inside.get(inner, inner)
                yield name, f"{new}{inner}".strip(".")


def _pairs(levels: int, layers: int) -> Iterator[tuple[str, str]]:
    """What names begin with in either layout; each ends with a dot."""
    for ours, theirs in AROUND.items():
        yield f"{ours}.", f"{theirs}."
    for place, (kind, number) in enumerate((("resnets", 0), ("attentions", 0), ("resnets", 1))):
        yield f"mid_block.{kind}.{number}.", f"middle_block.{place}."
    for level in range(levels):
        first = level * (layers + 1)
        for layer in range(layers + 1):
            down, up = f"input_blocks.{first + layer + 1}", f"output_blocks.{first + layer}"
            if layer < layers:
                yield f"down_blocks.{level}.resnets.{layer}.", f"{down}.0."
                yield f"down_blocks.{level}.attentions.{layer}.", f"{down}.1."
            yield f"up_blocks.{level}.resnets.{layer}.", f"{up}.0."
            yield f"up_blocks.{level}.attentions.{layer}.", f"{up}.1."
        last = first + layers
        yield f"down_blocks.{level}.downsamplers.0.conv.", f"input_blocks.{last + 1}.0.op."
        for place in (1, 2):  # behind the attention, if there is one
            yield f"up_blocks.{level}.upsamplers.0.conv.", f"output_blocks.{last}.{place}.conv."
