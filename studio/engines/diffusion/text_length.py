"""How many tokens a prompt has, and what of it a text encoder cannot read. No torch."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from studio.engines.diffusion.brackets import Sections
from studio.engines.diffusion.chunks import ROOM, Encode, chunks_of
from studio.engines.diffusion.prompt_grammar import parse_negative
from studio.engines.prompt_parts import Length
from studio.models import clip_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
MOST_STRETCHES = 24  # of a prompt that changes in each step


def prompt_length(
    text: str,
    steps: int = 20,
    tokenizer: Path | None = None,
    inversions: dict[str, int] | None = None,
    room: int = ROOM,
) -> Length | None:
    """The tokens of one of the prompts that AND joins, or of a negative prompt.

    They fill as many chunks as they need. Of a prompt that changes over the steps, the longest
    that it gets counts. `cut_off` is what the tokenizer has no tokens for.

    tokenizer: a folder in diffusers' format; without its TOKENIZER_FILE, CLIP's published tokenizer
    is meant. inversions, room: as for `chunks_of`.
    Returns None if no tokenizer is there. Raises BadInput as `parse_negative` does.
    """
    own = _own(tokenizer)
    if own is None and clip_text.encode("") is None:
        return None
    encode = _encode_by(own) if own else _encode_as_published
    (condition,) = parse_negative(text).conditions
    ends = condition.tree.ends(steps)[:MOST_STRETCHES]
    said = dict.fromkeys(condition.tree.at(end, steps) for end in ends)
    counted = [chunks_of(sections, encode, inversions, room) for sections in said]
    tokens, chunks = max((sum(map(len, chunks)), len(chunks)) for chunks in counted)
    unread = dict.fromkeys(word for sections in said for word in _unread(sections, own))
    return Length(tokens, chunks * room, " ".join(unread))


def _encode_as_published(text: str) -> list[int]:
    return clip_text.encode(text) or []


def _encode_by(tokenizer: "Tokenizer") -> Encode:
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def _unread(sections: Sections, tokenizer: "Tokenizer | None") -> list[str]:
    """The pieces of text that become the token for the unknown; CLIP's own has tokens for all."""
    if tokenizer is None:
        return []
    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "")
    found = []
    for piece in (piece for section in sections for piece in section):
        read = tokenizer.encode(piece.text, add_special_tokens=False)
        pairs = zip(read.ids, read.offsets, strict=True)
        found += [piece.text[start:end] for token, (start, end) in pairs if token == unknown]
    return found


def _own(folder: Path | None) -> "Tokenizer | None":
    path = folder / TOKENIZER_FILE if folder else None
    try:
        return _read(path, path.stat().st_mtime_ns) if path else None
    except OSError:
        return None


@lru_cache(maxsize=4)
def _read(path: Path, mtime_ns: int) -> "Tokenizer | None":
    """mtime_ns: of the file, so that a changed one is read again."""
    try:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(path))
    except Exception:  # a damaged file raises Exception itself; a run says what is wrong
        return None
