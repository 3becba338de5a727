"""What a checkpoint of torch says of its tensors, read without them. Never imports torch.

No name in the pickle means anything but a stub, so nothing in the file is executed.
"""

import pickle
import zipfile
from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from typing import Any

MAX_PICKLE_BYTES = 10_000_000
DATA = {  # names that stand for data, beside the storages
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
}


class Shape:
    """Stands for a tensor. sides: how long it is along each axis."""

    def __init__(self, storage: object, offset: object, sides: tuple[int, ...], *_: object) -> None:
        self.sides = sides


class Holder:
    """Stands for an object of any other class. It takes any state and does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


class NotData(Exception):
    """A pickle that names something to call. str() gives the name."""


def read_shapes(path: Path, *, is_strict: bool = False) -> Any:
    """What is at the top of a checkpoint, with Shapes for tensors; None for a huge one.

    is_strict: raise NotData if it names anything but data. A damaged file raises errors of many
    kinds.
    """
    with zipfile.ZipFile(path) as archive:
        names = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        record = archive.getinfo(next(names))
        if record.file_size > MAX_PICKLE_BYTES:
            return None
        return _ShapeReader(BytesIO(archive.read(record)), is_strict).load()


class _ShapeReader(pickle.Unpickler):
    """Reads a checkpoint's pickle without its numbers."""

    def __init__(self, file: BytesIO, is_strict: bool) -> None:
        super().__init__(file)
        self._is_strict = is_strict

    def find_class(self, module: str, name: str) -> Any:
        is_storage = module == "torch" and name.endswith("Storage")
        if self._is_strict and (module, name) not in DATA and not is_storage:
            raise NotData(f"{module}.{name}")
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): Shape,
            ("torch._utils", "_rebuild_parameter"): _first,
        }
        return known.get((module, name), Holder)

    def persistent_load(self, pid: Any) -> None:
        return None


def _first(data: Any, *_: object) -> Any:
    return data
