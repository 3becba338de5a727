"""Files that appear whole or not at all, from what writes into an open file."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from studio.base.files import atomic_write


def publish(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Put what `write` writes at `path`, whole or not at all. Raises OSError."""
    buffer = io.BytesIO()
    write(buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, buffer.getvalue())


def publish_tensors(content: dict[str, Any], path: Path) -> None:
    """torch.save, whole or not at all."""
    publish(path, lambda file: torch.save(content, file))
