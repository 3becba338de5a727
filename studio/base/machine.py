"""This machine's processor and memory, without torch."""

import math
import os
import platform
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path


@cache
def this_machine() -> str:
    """A name that no other machine has, safe in file names."""
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in platform.node()) or "machine"
    return f"{name}-{uuid.getnode():012x}"


@cache
def cpu_flags() -> frozenset[str]:
    """The CPU's features, in Linux's words; empty where the system does not say."""
    try:
        return frozenset(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return frozenset()


def machine_memory() -> float:
    """Bytes of memory that this machine has, or that its container allows."""
    with suppress(OSError, ValueError):
        return float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return math.inf
