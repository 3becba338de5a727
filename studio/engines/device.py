"""Which device a run computes on, and the memory that it has."""

import ctypes
import math
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch

from studio.base.errors import BadInput, RunFailed
from studio.base.machine import cpu_flags

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of glibc's mallopt
LARGEST_THRESHOLD, MMAP_MAX = 2**25, 2**16  # bytes, the most it may be; blocks, the default
CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")  # of Linux
CGROUP_TAKEN = "memory.current"

CPU_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
CPU_INT8_FLAG = "avx512_vnni"


def pick_device(gpu: int | None = None) -> torch.device:
    """The GPU of that number; without one the first GPU, else MPS, else the CPU.

    Raises BadInput for a number that names no GPU, listing those present.
    """
    if gpu is not None or torch.cuda.is_available():
        return _numbered(gpu or 0)
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


class Precision(NamedTuple):
    """What networks compute in: floats of `dtype`, and perhaps products in eight bits."""

    dtype: torch.dtype
    eight_bits: bool = False

    @property
    def packed(self) -> bool:
        """Whether weights of `dtype` are packed too, which pays with bfloat16.

        CPUs that multiply in eight bits have oneDNN, which packs them.
        """
        return self.eight_bits and self.dtype == torch.bfloat16


FULL_PRECISION = Precision(torch.float32)


def compute_precision(device: torch.device) -> Precision:
    """bfloat16 where the device has it, else float32; products of eight bits on CPUs with VNNI.

    It depends on the machine alone. A precision that the device only emulates would be slower.
    """
    flags = cpu_flags() if device.type == "cpu" else frozenset()
    has_bfloat16 = bool(CPU_BF16_FLAGS & flags)
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    dtype = torch.bfloat16 if has_bfloat16 else torch.float32
    eight_bits = CPU_INT8_FLAG in flags and torch.backends.mkldnn.is_available()
    return Precision(dtype, eight_bits)


def keep_freed_memory(keep: bool) -> None:
    """Let this process reuse the memory that it frees; call it before large tensors come and go.

    glibc returns every large block to the system, which clears its pages when they are fetched
    again: at 256x256 that takes ten times as long as copying it. But kept blocks leave
    gaps, which double the memory of large pictures. With `keep` false, blocks over 32 MiB go back:
    where memory is short, that is better than steps a fifth quicker. Without glibc, nothing
    happens.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        libc.mallopt(M_MMAP_MAX, 0 if keep else MMAP_MAX)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def total_memory(device: torch.device) -> int | None:
    """Bytes of memory that a GPU has; None for other devices."""
    if device.type != "cuda":
        return None
    return torch.cuda.get_device_properties(device).total_memory


def free_memory(device: torch.device) -> float:
    """Bytes that a run could take on the device; infinite if that is not known.

    For a CPU: what is free on the machine, or in its container if that is less. Memory that this
    process has freed but kept counts as free only on a GPU.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(free + kept)
    if device.type == "cpu":
        return min(_free_in_machine(), _free_in_container())
    return math.inf


def _free_in_machine() -> float:
    with suppress(OSError, ValueError, KeyError):
        return 1024.0 * int(_named_values(MEMINFO)["MemAvailable:"])
    return math.inf


def _free_in_container() -> float:
    """By cgroups version 2. Files that were read lately count as taken, but make way."""
    with suppress(OSError, ValueError, KeyError):
        limit, taken = (int((CGROUP / name).read_text()) for name in ("memory.max", CGROUP_TAKEN))
        return float(limit - taken + int(_named_values(CGROUP / "memory.stat")["inactive_file"]))
    return math.inf


def _named_values(path: Path) -> dict[str, str]:
    """The second word of each line by its first."""
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {words[0]: words[1] for words in lines if len(words) > 1}


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether the CPU or a GPU ran out of memory, by what Python and torch raise then."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in said or "allocate memory" in said
    )


@contextmanager
def lack_explained(explanation: Callable[[], str]) -> Iterator[None]:
    """If memory runs out inside, raise RunFailed, with what a person should lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        raise RunFailed(explanation()) from None


def release_freed_memory() -> None:
    """Return the memory that was freed so far to the system, where that is possible."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Inside it, a GPU uses algorithms that give the same bytes every time. A CPU always does.

    torch is told only where that changes something: it then imports its compiler.
    """
    if not wanted or torch.are_deterministic_algorithms_enabled():
        yield
        return
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def describe(device: torch.device) -> str:
    """What messages call the device."""
    if device.type == "cuda":
        return f"GPU {device.index or 0} ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return "Apple GPU"
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def _numbered(gpu: int) -> torch.device:
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if 0 <= gpu < present:
        # cuBLAS is repeatable only with a workspace of a fixed size. It reads this when it is first
        # used, which may be long before a run that must be repeatable. So the variable stays.
        os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")
        return torch.device("cuda", gpu)
    names = [f"{n} ({torch.cuda.get_device_name(n)})" for n in range(present)]
    there = f"There are: {', '.join(names)}." if names else "No numbered GPU is present."
    raise BadInput(f"There is no GPU {gpu}. {there} Leave out --gpu to take the best device.")
