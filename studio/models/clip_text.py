"""How CLIP reads a text: its tokens, and how many it can read. Never imports torch.

Of a checkpoint, only the shape of one tensor is read.
"""

import pickle
import zipfile
from collections import OrderedDict
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from studio.models.clip_package import clip_tokenizer

PUBLISHED_CONTEXT = 77  # of each of OpenAI's models
MARKS = 2  # one token marks the start, one the end
POSITIONS = "positional_embedding"  # [context length, width]
MAX_PICKLE_BYTES = 10_000_000


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
        with zipfile.ZipFile(checkpoint) as archive:
            names = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            record = archive.getinfo(next(names))
            if record.file_size > MAX_PICKLE_BYTES:
                return None
            root = _ShapeReader(BytesIO(archive.read(record))).load()
    except Exception:  # a damaged file breaks its readers in many ways; a run says how
        return None
    return _first_side(_attributes(root))


def _first_side(found: dict[Any, Any]) -> int | None:
    """Of the positions' shape, at the top or among the weights of a training checkpoint."""
    shape = found.get(POSITIONS) or _attributes(found.get("state_dict")).get(POSITIONS)
    return shape.sides[0] if isinstance(shape, _Shape) and len(shape.sides) == 2 else None


def _attributes(holder: Any) -> dict[Any, Any]:
    if isinstance(holder, _Holder):
        return vars(holder)
    return holder if isinstance(holder, dict) else {}


class _Shape:
    """Stands for a tensor."""

    def __init__(self, storage: object, offset: object, sides: tuple[int, ...], *_: object) -> None:
        self.sides = sides


class _Holder:
    """Stands for an object of any other class. It takes any state and does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


class _ShapeReader(pickle.Unpickler):
    """Reads a checkpoint's pickle without its numbers. No name in it means anything but a stub."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        is_tensor = (module, name) == ("torch._utils", "_rebuild_tensor_v2")
        return _Shape if is_tensor else _Holder

    def persistent_load(self, pid: Any) -> None:
        return None
