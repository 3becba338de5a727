"""Tensors from `.safetensors` files, one at a time, in the precision that is wanted.

A file is read, not mapped: pages of a mapped file would count as memory of the process.
"""

from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from studio.base.errors import BadInput, shortened
from studio.models.safetensors_header import Header

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
POSITIONS = "position_ids"  # a buffer of text encoders that counts from 0; older files hold it
NAMED_AT_MOST = 3

Module = TypeVar("Module", bound=nn.Module)


def shapes(header: Header, prefix: str = "") -> dict[str, Tensor]:
    """Of each tensor whose name begins so, one without numbers."""
    return {
        name: torch.empty(entry.shape, dtype=DTYPES[entry.dtype], device="meta")
        for name, entry in header.tensors.items()
        if name.startswith(prefix)
    }


def read(header: Header, dtype: torch.dtype, prefix: str = "") -> dict[str, Tensor]:
    """Each tensor whose name begins so; floats in `dtype`. Raises BadInput for a file cut short."""
    return dict(_read(header, dtype, prefix))


def read_one(header: Header, name: str, dtype: torch.dtype) -> Tensor:
    """The tensor of that name, as `read` reads it."""
    with header.path.open("rb") as file:
        return _read_one(file, header, name, dtype)


def _read(header: Header, dtype: torch.dtype, prefix: str) -> Iterator[tuple[str, Tensor]]:
    with header.path.open("rb") as file:
        for name in header.tensors:
            if name.startswith(prefix):
                yield name, _read_one(file, header, name, dtype)


def _read_one(file: BufferedReader, header: Header, name: str, dtype: torch.dtype) -> Tensor:
    entry = header.tensors[name]
    data = bytearray(entry.end - entry.begin)
    file.seek(entry.begin)
    if file.readinto(data) != len(data):
        raise BadInput(f"{header.path} is cut short. Download it again.")
    stored = DTYPES[entry.dtype]
    flat = torch.frombuffer(data, dtype=stored) if data else torch.empty(0, dtype=stored)
    tensor = flat.reshape(entry.shape)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def filled(
    build: Callable[[], Module],
    given: Mapping[str, Tensor],
    path: Path,
    device: torch.device,
) -> Module:
    """A module with these weights, ready to compute. Raises BadInput where some do not fit.

    build: makes the module; without memory, so nothing is drawn at random only to be replaced.
    """
    module = empty(build)
    module.load_state_dict(fitting(module, given, path), strict=False, assign=True)
    _count_positions(module)
    module.requires_grad_(False).eval()
    return module if device.type == "cpu" else module.to(device)


def empty(build: Callable[[], Module]) -> Module:
    """The module that `build` makes, without memory."""
    with torch.device("meta"):
        return build()


def fitting(module: nn.Module, given: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Of the tensors given, those of the module. Raises BadInput, naming what does not fit."""
    wanted = module.state_dict()
    found = {_spelt_as(name, wanted): tensor for name, tensor in given.items()}
    wrong = [f"{name} is missing" for name in wanted if name not in found]
    wrong += [
        f"{name} is {list(found[name].shape)} where {list(tensor.shape)} is wanted"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if wrong:
        said = "; ".join(shortened(phrase, 160) for phrase in wrong[:NAMED_AT_MOST])
        more = f" (and {len(wrong) - NAMED_AT_MOST} more)" if len(wrong) > NAMED_AT_MOST else ""
        raise BadInput(f"{path} does not hold the whole {type(module).__name__}: {said}{more}.")
    return {name: found[name] for name in wanted}


OLDER_NAMES = {  # of the autoencoder's attention, in published weights
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}


def _spelt_as(name: str, wanted: Mapping[str, Tensor]) -> str:
    """The name of a tensor as this version of the libraries spells it."""
    for old, new in OLDER_NAMES.items():
        name = name if name in wanted else name.replace(old, new)
    if name in wanted:
        return name
    without = name.removeprefix("text_model.")
    return without if without in wanted else f"text_model.{name}"


def _count_positions(module: nn.Module) -> None:
    for part in module.modules():
        buffer = part._buffers.get(POSITIONS)
        if buffer is not None and buffer.is_meta:
            part._buffers[POSITIONS] = torch.arange(buffer.shape[-1]).expand(1, -1)
