"""How CLIP reads a text: its tokens, and how many it can read. Never imports torch.

Of a checkpoint, only the shape of one tensor is read.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from studio.models.clip_package import clip_tokenizer
from studio.models.pickle_shapes import Holder, Shape, read_shapes

PUBLISHED_CONTEXT = 77  # of each of OpenAI's models
MARKS = 2  # one token marks the start, one the end
POSITIONS = "positional_embedding"  # [context length, width]


def encode(text: str) -> list[int] | None:
    """The tokens of a text without the marks; None if the `clip` package is not there."""
    try:
        return clip_tokenizer().encode(text)
    except ModuleNotFoundError:
        return None


def decode(tokens: list[int]) -> str:
    """The text of tokens that `encode` gave, in CLIP's lower case."""
    return clip_tokenizer().decode(tokens).strip()


def room(checkpoint: Path | None) -> int | None:
    """How many tokens of a text a CLIP reads, without the marks.

    checkpoint: None for one of OpenAI's models. Returns None if the file does not tell.
    """
    if checkpoint is None:
        return PUBLISHED_CONTEXT - MARKS
    try:
        length = _context_length(checkpoint, checkpoint.stat().st_mtime_ns)
    except OSError:
        return None
    return length - MARKS if length else None


@lru_cache(maxsize=16)
def _context_length(checkpoint: Path, mtime_ns: int) -> int | None:
    """mtime_ns: of the file, so that a changed checkpoint is read again."""
    try:
        root = read_shapes(checkpoint)
    except Exception:  # a damaged file breaks its readers in many ways; a run says how
        return None
    return _first_side(_attributes(root))


def _first_side(found: dict[Any, Any]) -> int | None:
    """Of the positions' shape, at the top or among the weights of a training checkpoint."""
    shape = found.get(POSITIONS) or _attributes(found.get("state_dict")).get(POSITIONS)
    return shape.sides[0] if isinstance(shape, Shape) and len(shape.sides) == 2 else None


def _attributes(holder: Any) -> dict[Any, Any]:
    if isinstance(holder, Holder):
        return vars(holder)
    return holder if isinstance(holder, dict) else {}
