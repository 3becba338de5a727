"""Which device a run computes on."""

import platform

import torch

from errors import BadInput


def pick_device(gpu: int | None = None) -> torch.device:
    """The GPU of that number; without one the first GPU, else MPS, else the CPU.

    Raises BadInput for a number that names no GPU, listing those present.
    """
    if gpu is not None:
        return _numbered(gpu)
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def describe(device: torch.device) -> str:
    """What to call the device when speaking to a person."""
    if device.type == "cuda":
        return f"GPU {device.index or 0} ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return "Apple GPU"
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def _numbered(gpu: int) -> torch.device:
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if 0 <= gpu < present:
        return torch.device("cuda", gpu)
    names = [f"{n} ({torch.cuda.get_device_name(n)})" for n in range(present)]
    there = f"There are: {', '.join(names)}." if names else "No numbered GPU is present."
    raise BadInput(f"There is no GPU {gpu}. {there} Leave out --gpu to take the best device.")
