"""From files of weights to tensors: `.ckpt`, `.pt`, `.safetensors`, TorchScript archives.

A file of weights is data: nothing in it ever runs. (Checkpoints of runs are in `studio.runs`.)
"""

import io
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from studio.base.errors import BadInput

# What Lightning pickles beside the weights; read as an empty class of that name.
LIGHTNING = ("pytorch_lightning.", "lightning.", "lightning_fabric.")
MAX_STUBS = 32

StateDict = dict[str, Tensor]


def read_state_dict(path: Path, keys: Sequence[str] = ("state_dict",)) -> StateDict:
    """Every tensor of a file of weights by its name, on the CPU, as stored.

    Takes the formats of `torch.save` (today's zip files and the older ones) with the weights under
    the first of `keys` that is there or at the top, `.safetensors`, and TorchScript archives, of
    which only the numbers are read. Zip files are mapped, not read, so unused weights cost no
    memory. Raises BadInput, in one line, for anything else and for pickles that name code.
    """
    try:
        return _plain_tensors(_read(path), path, keys)
    except BadInput:
        raise
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        raise BadInput(_refusal(path, error)) from None
    except Exception as error:  # a damaged file breaks its readers in many ways
        raise BadInput(_unreadable(path, error)) from None


def as_float32(tensors: StateDict, path: Path) -> StateDict:
    """Copies in float32 that no longer depend on the file. Raises BadInput where not finite."""
    copies = {}
    for key, tensor in tensors.items():
        copies[key] = tensor.to(torch.float32, copy=True).contiguous()
        if not copies[key].isfinite().all():
            raise BadInput(f"{path} is damaged: '{key}' holds values that are not finite.")
    return copies


def misfits(wanted: StateDict, found: StateDict) -> list[str]:
    """What is wrong with the names and shapes of the tensors found, a phrase each."""
    return [
        *(f"{key} is missing" for key in wanted if key not in found),
        *(f"{key} is not expected" for key in found if key not in wanted),
        *(
            f"{key} is {list(found[key].shape)} where {list(tensor.shape)} is wanted"
            for key, tensor in wanted.items()
            if key in found and found[key].shape != tensor.shape
        ),
    ]


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    if not zipfile.is_zipfile(path):
        _refuse_bombs(path.read_bytes())
        return _torch_load(path, mmap=False)
    if _is_torchscript(path):
        return read_torchscript(path)
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            _refuse_compressed(record)
            if record.filename.endswith("data.pkl"):
                _refuse_bombs(archive.read(record))
    return _torch_load(path, mmap=True)


def _refuse_compressed(record: zipfile.ZipInfo) -> None:
    """Refuse a compressed record: a small file could fill the memory."""
    if record.compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError(f"{record.filename} is compressed, which PyTorch never does")


def _refuse_bombs(pickled: bytes) -> None:
    """Refuse bytearrays: torch's checked loader makes them at any size that the file states."""
    if b"bytearray\n" in pickled:
        raise pickle.UnpicklingError("GLOBAL builtins.bytearray")


def _torch_load(path: Path, *, mmap: bool, stubs: tuple[str, ...] = ()) -> Any:
    """Read by torch's checked loader, with a stub for each Lightning class that it refuses."""
    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals([(LightningStub, name) for name in stubs]),
        ):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        name = _refused_name(error)
        if not name.startswith(LIGHTNING) or name in stubs or len(stubs) == MAX_STUBS:
            raise
        return _torch_load(path, mmap=mmap, stubs=(*stubs, name))


class LightningStub:
    """Stands for a class of Lightning. It takes any state and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "LightningStub":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _plain_tensors(content: Any, path: Path, keys: Sequence[str]) -> StateDict:
    if isinstance(content, Mapping):
        inner = (content[key] for key in keys if isinstance(content.get(key), Mapping))
        content = next(inner, content)
    if not isinstance(content, Mapping):
        raise BadInput(f"{path} holds a {type(content).__name__}, not a model's weights.")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise BadInput(f"{path} holds no weights: there is no tensor in it.")
    size = path.stat().st_size
    for key, tensor in tensors.items():
        if not _is_backed(tensor, size):
            raise BadInput(f"{path} is damaged: '{key}' claims more numbers than the file holds.")
    return tensors


def _is_backed(tensor: Tensor, file_size: int) -> bool:
    """Whether each element has its own bytes in the file, so a copy is not larger than it."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    there = min(tensor.untyped_storage().nbytes(), file_size)
    return tensor.numel() * tensor.element_size() <= there


def _refused_name(error: Exception) -> str:
    found = re.search(r"GLOBAL (\S+)", str(error))
    return found[1] if found else ""


def _refusal(path: Path, error: Exception) -> str:
    if name := _refused_name(error):
        return (
            f"{path} was refused: it names {name}, which would run code when loaded and is not part"
            " of a model's weights. Get the checkpoint from its publisher."
        )
    return _unreadable(path, error)


def _unreadable(path: Path, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [""])[0][:160]
    return (
        f"{path} cannot be read as a checkpoint ({_what_it_is(path)}). Download or copy it again."
        f" The reader said: {type(error).__name__} {reason}".rstrip()
    )


def _what_it_is(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(512).lstrip().lower()
        size = path.stat().st_size
    except OSError as error:
        return error.strerror or "unreadable"
    if not size:
        return "the file is empty"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page"
    if start.startswith(b"pk\x03\x04"):
        return f"it is damaged or cut short at {size:,} bytes"
    return f"{size:,} bytes of something else, or cut short"


# --- TorchScript -----------------------------------------------------------------------------


def read_torchscript(path: Path) -> StateDict:
    """The parameters and buffers of a TorchScript archive, without running it.

    OpenAI publishes CLIP in this format. `torch.jit.load` would run the archive's own code, which
    can write files. But the numbers lie beside the code, in a pickle of nested attributes and one
    record of bytes per tensor, so only these are read.
    """
    with zipfile.ZipFile(path) as archive:
        record = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        root = _TorchScriptUnpickler(archive, record.removesuffix("data.pkl")).load()
    return dict(_named_tensors(root, seen=set()))


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


class _ScriptObject:
    """Any object of an archive. Only its attributes matter."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


class _TorchScriptUnpickler(pickle.Unpickler):
    """Knows tensors, storages and attribute holders, and refuses all other names."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self.archive, self.folder = archive, folder
        self.storages: dict[str, Tensor] = {}
        super().__init__(io.BytesIO(self._record("data.pkl")))

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _ScriptObject
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, _ = pid
        if key not in self.storages:
            data = bytearray(self._record(f"data/{key}"))
            self.storages[key] = torch.frombuffer(data, dtype=dtype)
        return self.storages[key]

    def _record(self, name: str) -> bytes:
        record = self.archive.getinfo(f"{self.folder}{name}")
        _refuse_compressed(record)
        return self.archive.read(record)


_STORAGE_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
}


def _rebuild_tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _named_tensors(holder: Any, seen: set[int], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor under its first name. A module that appears twice is searched once."""
    seen.add(id(holder))
    for name, value in vars(holder).items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _ScriptObject) and id(value) not in seen:
            yield from _named_tensors(value, seen, f"{prefix}{name}.")
