"""What the denoiser is told of the prompts, step by step."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from studio.engines.diffusion.brackets import Sections, parse_brackets
from studio.engines.diffusion.embeddings import Reader, encode, lengthened
from studio.engines.diffusion.prompt_grammar import Condition, parse_negative, parse_prompt

NOTHING: Sections = parse_brackets("").at(1, 1)


@dataclass(frozen=True)
class Text:
    """A text as the denoiser reads it.

    tokens: [1, T, D]. pooled: the whole text [1, P], of SDXL.
    """

    tokens: Tensor
    pooled: Tensor | None = None


class Wish(NamedTuple):
    """A text to follow. A negative weight repels."""

    text: Text
    weight: float = 1.0


@dataclass(frozen=True)
class Conditioning:
    """The prompts to follow, and what to move away from: texts of one length."""

    wishes: Sequence[Wish]
    avoid: Text

    @property
    def prompt(self) -> Text:
        """The first of the prompts."""
        return self.wishes[0].text


@dataclass(frozen=True)
class Script:
    """What the denoiser is told over a run. stretches: each holds up to a step, from 1 on."""

    stretches: Sequence[tuple[int, Conditioning]]

    def at(self, step: int) -> Conditioning:
        """What it is told in a step, which counts from 1."""
        return next(told for last, told in self.stretches if step <= last)


def script(
    readers: Sequence[Reader], prompt: str, negative: str, *, clip_skip: int, steps: int
) -> Script:
    """What text encoders make of the two texts over so many steps.

    As in diffusers' pipelines, layers are skipped for the prompt alone, and SDXL reads zeros where
    nothing is to be avoided. Raises BadInput if CLIP skip leaves no layer.
    """
    conditions = parse_prompt(prompt).conditions
    (avoided,) = parse_negative(negative).conditions
    wished = _Encoder(readers, clip_skip)
    repelled = _Encoder(readers, 0)
    is_nothing = len(readers) > 1 and not negative.strip()

    def told(step: int) -> Conditioning:
        texts = [wished.text(condition.tree.at(step, steps)) for condition in conditions]
        avoid = repelled.text(avoided.tree.at(step, steps))
        *texts, avoid = _at_one_length([*texts, avoid], wished, repelled)
        weights = (condition.weight for condition in conditions)
        return Conditioning(list(map(Wish, texts, weights)), _zeros(avoid) if is_nothing else avoid)

    return Script([(last, told(last)) for last in _ends([*conditions, avoided], steps)])


def _ends(conditions: Iterable[Condition], steps: int) -> list[int]:
    """The steps after which one of the prompts may say something else; then the last one."""
    return sorted({end for condition in conditions for end in condition.tree.ends(steps)})


class _Encoder:
    """Encodes each thing that a prompt says once."""

    def __init__(self, readers: Sequence[Reader], skipped: int) -> None:
        self._readers, self._skipped = readers, skipped
        self._known: dict[Sections, Text] = {}

    def text(self, sections: Sections) -> Text:
        if sections not in self._known:
            found = encode(
                sections, self._readers, skipped=self._skipped, is_xl=len(self._readers) > 1
            )
            pooled = None if found.pooled is None else found.pooled[None]
            self._known[sections] = Text(found.hidden[None], pooled)
        return self._known[sections]

    def lengthened(self, text: Text, length: int) -> Text:
        """The text with as many tokens as that; what is added says nothing."""
        if text.tokens.shape[1] == length:
            return text
        nothing = self.text(NOTHING).tokens[0]
        return Text(lengthened(text.tokens[0], length, nothing)[None], text.pooled)


def _at_one_length(texts: Sequence[Text], wished: _Encoder, repelled: _Encoder) -> list[Text]:
    """The texts, the last of which is to be avoided, lengthened by what each reads of nothing."""
    most = max(text.tokens.shape[1] for text in texts)
    encoders = [wished] * (len(texts) - 1) + [repelled]
    return [encoder.lengthened(t, most) for t, encoder in zip(texts, encoders, strict=True)]


def _zeros(text: Text) -> Text:
    pooled = None if text.pooled is None else torch.zeros_like(text.pooled)
    return Text(torch.zeros_like(text.tokens), pooled)
