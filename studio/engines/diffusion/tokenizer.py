"""CLIP's tokeniser without any file of the weights: its vocabulary is in the `clip` package."""

from functools import cache
from typing import Any

from studio.models.clip_package import clip_tokenizer

END = "<|endoftext|>"


@cache
def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Tokens with their numbers, and the pairs to merge in their order."""
    own = clip_tokenizer()
    ranked = sorted(own.bpe_ranks.items(), key=lambda item: item[1])
    return dict(own.encoder), [pair for pair, _ in ranked]


def published_tokenizer(positions: int, pad: str = END) -> Any:
    """transformers' CLIPTokenizer. positions: tokens of a text with its marks. pad: fills it up."""
    from transformers import CLIPTokenizer

    vocabulary, merges = clip_vocabulary()
    pairs: Any = merges  # the library names another type than it takes
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, pad_token=pad, model_max_length=positions)
