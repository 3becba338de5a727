"""Weights in ncnn's format: NAME.param lists the layers, NAME.bin holds their numbers in order.

Facts from ncnn's documentation of its file format: after two lines (a magic number; how many layers
and blobs), each line is a layer: its type, its name, the numbers of its inputs and outputs, their
names, and parameters as KEY=VALUE. A convolution's weights begin with a tag that tells their type.
Both files are read as data.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from studio.base.errors import BadInput

MAGIC = "7767517"
TAG = struct.Struct("<I")
FLOAT32, FLOAT16 = 0, 0x01306B47  # tags
OUTPUTS, KERNEL, HAS_BIAS, NUMBERS = "0", "1", "5", "6"  # a convolution's parameters
ALIGNMENT = 4  # bytes


@dataclass(frozen=True)
class Layer:
    """A layer with its weights. parameters: by ncnn's numbers, as text."""

    kind: str
    parameters: Mapping[str, str]
    weights: tuple[Tensor, ...] = ()


def read(param: Path) -> list[Layer]:
    """The layers of a network in the order in which they compute. Raises BadInput."""
    try:
        numbers = _Numbers(param.with_suffix(".bin").read_bytes())
        layers = [_with_weights(layer, numbers) for layer in _layers(param.read_text("ascii"))]
        numbers.check_all_read()
    except OSError as error:
        raise BadInput(f"{param} cannot be read: {error.strerror or error}.") from None
    except (ValueError, KeyError, struct.error) as error:
        raise BadInput(f"{param} does not hold an upscaler's weights: {error}.") from None
    return layers


def _layers(text: str) -> Iterator[Layer]:
    magic, _, *lines = text.splitlines()
    if magic.strip() != MAGIC:
        raise ValueError("its first line is not ncnn's")
    for line in lines:
        kind, _, inputs, outputs, *words = line.split()
        pairs = (word.partition("=") for word in words[int(inputs) + int(outputs) :])
        yield Layer(kind, {key: value for key, _, value in pairs})


def _with_weights(layer: Layer, numbers: "_Numbers") -> Layer:
    told = layer.parameters
    if layer.kind == "Convolution":
        out, side = int(told[OUTPUTS]), int(told[KERNEL])
        kernels = numbers.tagged(int(told[NUMBERS])).view(out, -1, side, side)
        bias = numbers.plain(out) if int(told.get(HAS_BIAS, 0)) else torch.zeros(out)
        return Layer(layer.kind, told, (kernels, bias))
    if layer.kind == "PReLU":
        return Layer(layer.kind, told, (numbers.plain(int(told[OUTPUTS])),))
    return layer


class _Numbers:
    """The numbers of a .bin file, read one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def plain(self, count: int, dtype: str = "<f4") -> Tensor:
        """The next numbers, as float32."""
        found = np.frombuffer(self._data, dtype, count, self._at).astype(np.float32)
        if not np.isfinite(found).all():
            raise ValueError("it holds numbers that are not finite")
        self._at += -(-count * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT
        return torch.from_numpy(found)

    def tagged(self, count: int) -> Tensor:
        """The next numbers, whose type their tag tells."""
        (tag,) = TAG.unpack_from(self._data, self._at)
        self._at += TAG.size
        if tag not in (FLOAT32, FLOAT16):
            raise ValueError(f"its numbers are of the unknown type {tag:#x}")
        return self.plain(count, "<f2" if tag == FLOAT16 else "<f4")

    def check_all_read(self) -> None:
        """Raises ValueError where numbers are left over."""
        if self._at != len(self._data):
            raise ValueError(f"{len(self._data) - self._at} bytes are left over")
