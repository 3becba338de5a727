"""What the denoiser reads of a prompt: its text encoders' hidden states, by weight."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from studio.base.errors import BadInput, shortened
from studio.engines.diffusion import tensors
from studio.engines.diffusion.brackets import Sections
from studio.engines.diffusion.chunks import Slot, chunks_of
from studio.engines.diffusion.inversions import Inversion, tensors_of
from studio.models.safetensors_header import read_header

MARKS = 2  # start and end


class Encoded(NamedTuple):
    """hidden: [chunks * 77, width]. pooled: [width], where an encoder has a projection."""

    hidden: Tensor
    pooled: Tensor | None = None


@dataclass(frozen=True)
class Reader:
    """A tokenizer and its text encoder, of the classes of transformers' CLIP.

    inversions: textual inversions by the names that stand for them, [vectors, width] each.
    Raises BadInput for one that is of another width, or longer than a chunk.
    """

    tokenizer: Any
    model: Any
    inversions: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, vectors in self.inversions.items():
            _check_inversion(name, vectors, self.width, self.room)

    @property
    def width(self) -> int:
        """Of the vectors that stand for tokens."""
        return self.model.get_input_embeddings().weight.shape[1]

    @property
    def room(self) -> int:
        """How many tokens of text a chunk has."""
        read = self.model.config.max_position_embeddings
        return min(self.tokenizer.model_max_length, read) - MARKS

    def chunks(self, sections: Sections) -> list[list[Slot]]:
        """A prompt as this encoder reads it."""
        counts = {name: len(vectors) for name, vectors in self.inversions.items()}
        return chunks_of(sections, self._tokens, counts, self.room)

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids


def _check_inversion(name: str, vectors: Tensor, width: int, room: int) -> None:
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise BadInput(
            f"The embedding '{shortened(name)}' has vectors of {vectors.shape[-1]} numbers, but"
            f" these weights read {width}: it is for another base. Take it out of the prompt."
        )
    if not 0 < len(vectors) <= room:
        raise BadInput(
            f"The embedding '{shortened(name)}' has {len(vectors)} vectors. At most {room} can be"
            " read. Take it out of the prompt."
        )


@torch.no_grad()
def encode(
    sections: Sections, readers: Sequence[Reader], *, skipped: int = 0, is_xl: bool = False
) -> Encoded:
    """What the text encoders say of a prompt, side by side; `pooled` is of its first chunk.

    skipped: how many of an encoder's last layers are left out, as diffusers' `clip_skip` counts.
    is_xl: read as SDXL does, one layer before that and without the last norm.
    Weights multiply hidden states; then each chunk gets back the mean that it had.
    Raises BadInput if an encoder has too few layers.
    """
    chunks = [reader.chunks(sections) for reader in readers]
    most = max(map(len, chunks))
    found = [
        _encode_by(reader, own + [[]] * (most - len(own)), skipped, is_xl)
        for reader, own in zip(readers, chunks, strict=True)
    ]
    hidden = torch.cat([one.hidden for one in found], dim=-1)
    pooled = next((one.pooled for one in found if one.pooled is not None), None)
    return Encoded(hidden.flatten(0, 1), pooled)


def vectors_of(inversion: Inversion) -> list[Tensor]:
    """The vectors of a textual inversion [vectors, width], for each text encoder.

    Raises BadInput for a pickle that is damaged, or holds more than data.
    """
    if inversion.path.suffix == ".safetensors":
        header = read_header(inversion.path)
        found = {key: tensors.read_one(header, key, torch.float32) for key in inversion.keys}
    else:
        found = tensors_of(_data_in(inversion.path))
    shapes = zip(inversion.keys, inversion.shapes, strict=True)
    return [found[key].detach().float().reshape(shape) for key, shape in shapes]


def _data_in(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises whatever it likes
        raise BadInput(
            f"{path} cannot be read as data: {shortened(error)}. Get the textual inversion as"
            " .safetensors."
        ) from None


def lengthened(hidden: Tensor, length: int, empty: Tensor) -> Tensor:
    """A prompt's hidden states, brought to a length by those of the empty prompt: one chunk."""
    return torch.cat([hidden, *[empty] * ((length - len(hidden)) // len(empty))])


def _encode_by(reader: Reader, chunks: list[list[Slot]], skipped: int, is_xl: bool) -> Encoded:
    """`hidden` keeps its chunks apart here: [chunks, 77, width]."""
    model, layer = reader.model, skipped + is_xl
    if layer >= model.config.num_hidden_layers:
        raise BadInput(
            f"CLIP skip leaves out {skipped} layers, but the text encoder has only"
            f" {model.config.num_hidden_layers}. Choose less."
        )
    device = model.get_input_embeddings().weight.device
    tokens, mask = _tokens(reader, chunks)
    masks = getattr(model.config, "use_attention_mask", False)
    with _inversions_in(reader, chunks):
        output = model(
            tokens.to(device),
            attention_mask=mask.to(device) if masks else None,
            output_hidden_states=layer > 0,
        )
    hidden = output.hidden_states[-(layer + 1)] if layer else output.last_hidden_state
    if layer and not is_xl:
        hidden = _last_norm(model)(hidden)
    pooled = getattr(output, "text_embeds", None)
    return Encoded(_weighted(hidden, chunks), None if pooled is None else pooled[0])


def _tokens(reader: Reader, chunks: list[list[Slot]]) -> tuple[Tensor, Tensor]:
    """Tokens with start, end and padding, and where the padding is not: [chunks, 77] each."""
    tokenizer, rows, masks = reader.tokenizer, [], []
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    padding = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    for chunk in chunks:
        row, missing = [start, *(slot.token for slot in chunk), end], reader.room - len(chunk)
        rows.append(row + [padding] * missing)
        masks.append([1] * len(row) + [0] * missing)
    return torch.tensor(rows), torch.tensor(masks)


@contextmanager
def _inversions_in(reader: Reader, chunks: list[list[Slot]]) -> Iterator[None]:
    """Within it, the encoder reads the vectors of textual inversions in their places."""
    places = [
        (row, column, reader.inversions[slot.vector[0]][slot.vector[1]])
        for row, chunk in enumerate(chunks)
        for column, slot in enumerate(chunk, start=1)
        if slot.vector
    ]

    def put(layer: nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
        embedded = embedded.clone()
        for row, column, vector in places:
            embedded[row, column] = vector.to(embedded)
        return embedded

    layer = reader.model.get_input_embeddings()
    hook = layer.register_forward_hook(put) if places else None
    try:
        yield
    finally:
        if hook:
            hook.remove()


def _last_norm(model: Any) -> nn.Module:
    """An encoder without a projection is its own text model."""
    return getattr(model, "text_model", model).final_layer_norm


def _weighted(hidden: Tensor, chunks: list[list[Slot]]) -> Tensor:
    """Hidden states [chunks, 77, width] times the weights, with the mean of each chunk restored.

    Padding, start and end have the weight 1.
    """
    if all(slot.weight == 1 for chunk in chunks for slot in chunk):
        return hidden
    weights = torch.ones(hidden.shape[:2])
    for row, chunk in enumerate(chunks):
        weights[row, 1 : len(chunk) + 1] = torch.tensor([slot.weight for slot in chunk])
    weights = weights.to(hidden.device)[..., None]
    states = hidden.float()
    weighed = states * weights
    before, after = (value.mean((1, 2), keepdim=True) for value in (states, weighed))
    scale = torch.where(after == 0, 1, before / after)
    has_weights = (weights != 1).any(1, keepdim=True)
    return torch.where(has_weights, weighed * scale, states).to(hidden.dtype)
