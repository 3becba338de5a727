"""Files that appear whole or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch


def publish(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    with beside.open("wb") as file:
        write(file)
    beside.replace(path)


def publish_tensors(content: dict[str, Any], path: Path) -> None:
    """torch.save, whole or not at all."""
    publish(path, lambda file: torch.save(content, file))
