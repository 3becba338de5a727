"""Which device a run gets, and what happens to its memory."""

import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from studio.base.errors import BadInput
from studio.engines import device


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Pretend to be a machine with so many GPUs, with or without an Apple GPU."""

    def pretend(gpus: int, apple: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: f"Card {gpu}")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)

    return pretend


@pytest.mark.parametrize(
    ("gpus", "apple", "wanted", "picked"),
    [
        (0, False, None, "cpu"),
        (0, True, None, "mps"),
        (2, False, None, "cuda:0"),
        (2, True, None, "cuda:0"),
        (2, False, 1, "cuda:1"),
    ],
)
def test_picks_the_best_device(
    machine, monkeypatch, gpus: int, apple: bool, wanted, picked: str
) -> None:
    machine(gpus, apple)
    monkeypatch.setenv(device.CUBLAS_WORKSPACE, "")  # so that pytest restores it
    monkeypatch.delenv(device.CUBLAS_WORKSPACE)
    assert device.pick_device(wanted) == torch.device(picked)
    assert (device.CUBLAS_WORKSPACE in os.environ) == picked.startswith("cuda")


@pytest.mark.parametrize(("gpus", "wanted"), [(0, 0), (2, 2), (2, -1)])
def test_a_number_without_a_gpu_lists_those_present(machine, gpus: int, wanted: int) -> None:
    machine(gpus)
    with pytest.raises(BadInput, match=f"no GPU {wanted}") as caught:
        device.pick_device(wanted)
    for gpu in range(gpus):
        assert f"{gpu} (Card {gpu})" in str(caught.value)


def test_describes_a_device_in_words(machine) -> None:
    machine(2)
    assert device.describe(torch.device("cuda", 1)) == "GPU 1 (Card cuda:1)"
    assert device.describe(torch.device("mps")) == "Apple GPU"
    assert device.describe(torch.device("cpu")).startswith("CPU (")


@pytest.mark.parametrize(
    ("flags", "has_onednn", "bfloat16", "eight_bits"),
    [
        ({"avx2", "fma"}, True, False, False),
        ({"avx512_vnni"}, True, False, True),
        ({"avx512_vnni"}, False, False, False),
        ({"avx512_vnni", "avx512_bf16"}, True, True, True),
        ({"avx512_vnni", "avx512_bf16"}, False, True, False),
        ({"avx512_vnni", "amx_bf16", "amx_int8"}, True, True, True),
        ({"avx_vnni"}, True, False, False),
    ],
)
def test_the_precision_is_one_that_the_cpu_is_quick_in(
    flags: set[str],
    has_onednn: bool,
    bfloat16: bool,
    eight_bits: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: has_onednn)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    precision = device.compute_precision(torch.device("cpu"))
    assert precision == (dtype, eight_bits)
    assert precision.packed == (bfloat16 and eight_bits)
    assert device.compute_precision(torch.device("mps")) == (torch.float32, False)


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_gpus_do_not_use_onednn(has_bfloat16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset({"avx512_vnni", "avx512_bf16"}))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    dtype = torch.bfloat16 if has_bfloat16 else torch.float32
    precision = device.compute_precision(torch.device("cuda"))
    assert precision == (dtype, False) and not precision.packed


ROOT = Path(__file__).resolve().parents[1]
RESIDENT_AFTER_FREEING = """
import os, sys, torch
from studio.engines import device
page = os.sysconf("SC_PAGE_SIZE")
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * page
for keep in sys.argv[1:]:
    device.keep_freed_memory(keep == "kept")
    device.release_freed_memory()
    before = resident()
    torch.ones(25_000_000)
    print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="elsewhere nothing is asked for")
def test_freed_memory_is_kept_or_goes_back() -> None:
    wanted = ["kept", "given back", "kept"]
    command = [sys.executable, "-c", RESIDENT_AFTER_FREEING, *wanted]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    left = [int(line) for line in told.splitlines()]
    assert [size > 90e6 for size in left] == [True, False, True]
    assert left[1] < 10e6


# --- Free memory ---------------------------------------------------------------------------------


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Pretend to be a machine with 8 GB to spare, in a container or not."""
    monkeypatch.setattr(device, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(device, "CGROUP", tmp_path)
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n\nOdd\n")

    def pretend(**files: str) -> None:
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text)

    return pretend


def test_free_memory_of_a_machine(linux) -> None:
    assert device.free_memory(torch.device("cpu")) == 8_000_000 * 1024


@pytest.mark.parametrize("limit, free", [("3000\n", 3000 - 2500 + 700), ("max\n", 8_192_000_000)])
def test_free_memory_of_a_container_is_what_its_limit_leaves(linux, limit: str, free: int) -> None:
    linux(memory_max=limit, memory_current="2500\n", memory_stat="anon 9\ninactive_file 700\n")
    assert device.free_memory(torch.device("cpu")) == free


def test_unknown_free_memory_is_infinite(linux, tmp_path: Path) -> None:
    (tmp_path / "meminfo").unlink()
    assert device.free_memory(torch.device("cpu")) == math.inf
    assert device.free_memory(torch.device("mps")) == math.inf


def test_free_memory_of_a_gpu_counts_what_this_process_keeps(machine, monkeypatch) -> None:
    machine(1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (500, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda gpu: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda gpu: 100)
    assert device.free_memory(torch.device("cuda", 0)) == 700
