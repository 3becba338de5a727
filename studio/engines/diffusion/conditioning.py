"""What the denoiser is told of the prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from studio.engines.diffusion.models import TextEncoder


@dataclass(frozen=True)
class Text:
    """A text as the denoiser reads it.

    tokens: [1, T, D]. pooled: the whole text [1, P], of SDXL.
    """

    tokens: Tensor
    pooled: Tensor | None = None

    @property
    def nothing(self) -> "Text":
        """As many zeros: what SDXL reads where nothing is to be avoided."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return Text(torch.zeros_like(self.tokens), pooled)


@dataclass(frozen=True)
class Conditioning:
    """The prompt, and what to move away from."""

    prompt: Text
    avoid: Text


def conditioning(
    encoders: Sequence[TextEncoder], prompt: str, avoid: str, clip_skip: int
) -> Conditioning:
    """What the networks read in two texts. Tokens beyond what they can read are left out.

    As in diffusers' pipelines, layers are skipped for the prompt alone.
    """
    positive = encode(encoders, prompt, clip_skip)
    if len(encoders) > 1 and not avoid.strip():
        return Conditioning(positive, positive.nothing)
    return Conditioning(positive, encode(encoders, avoid, 0))


@torch.no_grad()
def encode(encoders: Sequence[TextEncoder], text: str, clip_skip: int) -> Text:
    """A text as one encoder reads it (Stable Diffusion), or as two do side by side (SDXL)."""
    if len(encoders) == 1:
        return Text(_last_layer(encoders[0], text, clip_skip))
    outputs = [_output(encoder, text) for encoder in encoders]
    tokens = torch.cat([out.hidden_states[-(clip_skip + 2)] for out in outputs], dim=-1)
    return Text(tokens, outputs[-1].text_embeds)


def _last_layer(encoder: TextEncoder, text: str, clip_skip: int) -> Tensor:
    output = _output(encoder, text)
    if not clip_skip:
        return output.last_hidden_state
    network = getattr(encoder.network, "text_model", encoder.network)
    return network.final_layer_norm(output.hidden_states[-(clip_skip + 1)])


def _output(encoder: TextEncoder, text: str) -> Any:
    tokens = tokens_of(encoder, text).to(encoder.network.device)
    return encoder.network(tokens, output_hidden_states=True)


def tokens_of(encoder: TextEncoder, text: str) -> Tensor:
    """Numbers [1, T] of a text's tokens, cut off or filled up to what the network reads."""
    length = encoder.network.config.max_position_embeddings
    length = min(length, encoder.tokenizer.model_max_length)
    return encoder.tokenizer(
        text, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids


def length_warning(encoders: Sequence[TextEncoder], text: str) -> str:
    """A sentence for the person if the end of a text is not read; "" if all of it is."""
    encoder = encoders[0]
    read = tokens_of(encoder, text)[0]
    count = len(encoder.tokenizer(text, verbose=False).input_ids)
    if count <= len(read):
        return ""
    return (
        f"The prompt has {count - 2} tokens, and the text encoder reads {len(read) - 2} of them."
        " The rest has no effect."
    )
