"""What a `.safetensors` file says of its tensors, read without them. Never imports torch."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from studio.base.errors import BadInput
from studio.models.catalogue import check_checkpoint

MAX_HEADER_BYTES = 100_000_000  # that the format allows
BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16}
BITS |= {"I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8}


class Entry(NamedTuple):
    """A tensor of a file. dtype: by the format's names. begin, end: bytes from the file's start."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """A file's tensors by their names, and its metadata, which are texts."""

    path: Path
    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; () if there is none of that name."""
        entry = self.tensors.get(name)
        return entry.shape if entry else ()

    def has(self, prefix: str) -> bool:
        """Whether some tensor's name begins so."""
        return any(name.startswith(prefix) for name in self.tensors)


def read_header(path: Path) -> Header:
    """Raises BadInput for a file that is damaged, cut short, or of another format."""
    check_checkpoint(path)
    try:
        return _read_header(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{path} is damaged: {error}. Download it again.") from None


@lru_cache(maxsize=64)
def _read_header(path: Path, modified_ns: int) -> Header:
    """modified_ns: of the file, so that a changed one is read again."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise ValueError("its header is too large")
        content = json.loads(file.read(length))
        size = file.seek(0, 2)
    metadata = content.pop("__metadata__", None) or {}
    tensors = {name: _entry(name, told, 8 + length, size) for name, told in content.items()}
    return Header(path, tensors, metadata)


def _entry(name: str, told: Mapping[str, Any], start: int, size: int) -> Entry:
    begin, end = (start + int(offset) for offset in told["data_offsets"])
    shape = tuple(int(side) for side in told["shape"])
    if not start <= begin <= end <= size:
        raise ValueError(f"it is cut short, before the end of '{name}'")
    if told["dtype"] not in BITS:
        raise ValueError(f"'{name}' is of the unknown type {told['dtype']}")
    if math.prod(shape) * BITS[told["dtype"]] != 8 * (end - begin) or min(shape, default=0) < 0:
        raise ValueError(f"'{name}' does not have the size that its shape tells")
    return Entry(told["dtype"], shape, begin, end)
