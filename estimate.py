"""Roughly how long a run will take and how much memory, told before it starts. No torch here.

The work of a step is counted in multiply-adds of the decoder and of CLIP. The speed is what earlier
runs on the same device reached, those with the same weights first; without any, a typical one.
"""

import math
import os
import statistics
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import BadInput
from settings import CUTOUTS_AT_A_TIME, RunSettings
from weights import find_weights, first_stage

PASSES = 2  # forward and backward; frozen weights want no gradient
PUBLISHED_WIDTH = 128  # `ch` of every published VQGAN
DECODER_MACS_PER_PIXEL = 1.93e6  # counted on vqgan_imagenet_f16's decoder; goes with ch squared
SMALL_CLIP_MACS = 0.08e9  # a picture through the bundled CLIP
CLIP_MACS = {  # a picture through the visual tower, counted on OpenAI's models
    "RN50": 5.8e9,
    "RN101": 9.5e9,
    "RN50x4": 20.6e9,
    "RN50x16": 72.9e9,
    "RN50x64": 260.1e9,
    "ViT-B/32": 4.4e9,
    "ViT-B/16": 17.6e9,
    "ViT-L/14": 81.0e9,
    "ViT-L/14@336px": 191.0e9,
}
CPU_MACS_PER_SECOND = 50e9  # each core
GPU_MACS_PER_SECOND = 5e12
MIN_STEPS = 10  # a shorter run says little about speed
MAX_RUNS = 5

# Memory: counted on the decoder of vqgan_imagenet_f16 and on ViT-B/32, and rounded up. GPUs are
# taken to compute in bfloat16; CPUs may have to in float32.
BASE_BYTES = {"cpu": 0.8e9, "gpu": 0.8e9}
WEIGHTS_BYTES = {"cpu": 0.9e9, "gpu": 0.5e9}  # VQGAN and CLIP of published width
BYTES_PER_PIXEL = {"cpu": 8e3, "gpu": 4.5e3}  # activations at published width; goes with ch
BYTES_PER_CUTOUT = {"cpu": 40e6, "gpu": 24e6}  # of ViT-B/32; goes with CLIP's multiply-adds
SIDES = 32  # a size that is proposed has sides that are multiples of so many pixels


@dataclass(frozen=True)
class Estimate:
    """seconds_per_step; seconds in all, None for an endless run; memory_bytes at the peak.

    measured: whether earlier runs on this device are behind it. too_large: what to say where the
    machine has less memory; "" where it has enough, or a GPU computes, of which it is not known.
    """

    seconds_per_step: float
    seconds: float | None
    memory_bytes: float
    measured: bool
    too_large: str = ""


def estimate(
    chosen: RunSettings,
    widths: Mapping[str, int],
    device: str,
    past: Iterable[Mapping[str, Any]],
) -> Estimate:
    """What a run with the settings `chosen` will take.

    widths: as `decoder_widths` gives them. device: in words, as in `details.json`.
    past: details of earlier runs, the newest first.
    """
    settings = chosen.model_dump()
    speeds = _speeds(settings, widths, device, past)
    speed = statistics.median(speeds) if speeds else _typical_speed(device)
    per_step = macs_per_step(settings, widths) * _steps_per_frame(settings) / speed
    steps = settings["num_steps"]
    return Estimate(
        seconds_per_step=per_step,
        seconds=per_step * steps if steps > 0 else None,
        memory_bytes=memory_bytes(settings, widths, device),
        measured=bool(speeds),
        too_large=""
        if _kind(device) == "gpu"
        else too_large(settings, widths, device, machine_memory()),
    )


def decoder_widths(assets_dir: Path) -> dict[str, int]:
    """`ch`, the decoder's width, of each VQGAN in the folder whose yaml says it."""
    widths = {}
    for name, weights in find_weights(assets_dir).items():
        with suppress(BadInput, KeyError, TypeError, ValueError):
            widths[name] = int(first_stage(weights.config())["params"]["ddconfig"]["ch"])
    return widths


def in_words(estimate: Estimate, device: str) -> str:
    """For the person, as rough as it is."""
    memory = f"{estimate.memory_bytes / 1e9:.1f} GB of memory"
    if estimate.seconds is None:
        time = f"about {duration(estimate.seconds_per_step)} a step until you stop it"
    else:
        time = f"about {duration(estimate.seconds)}"
    basis = "by your earlier runs" if estimate.measured else "a first guess"
    place = f" on {device}" if device else ""
    return f"Roughly: {time} and {memory}{place} ({basis}). {estimate.too_large}".rstrip()


def duration(seconds: float) -> str:
    """Seconds in words, as rough as one would say it."""
    if seconds < 1:
        return f"{seconds:.1g} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def macs_per_step(settings: Mapping[str, Any], widths: Mapping[str, int]) -> float:
    """Multiply-adds of one optimisation step."""
    decoder = settings["Xdim"] * settings["ydim"] * DECODER_MACS_PER_PIXEL
    decoder *= _width(settings, widths) ** 2
    return PASSES * (decoder + settings["cutn"] * _clip_macs(settings))


def memory_bytes(settings: Mapping[str, Any], widths: Mapping[str, int], device: str) -> float:
    """Peak memory of the worker's process, or of the GPU. device: in words."""
    kind, width = _kind(device), _width(settings, widths)
    picture = settings["Xdim"] * settings["ydim"] * BYTES_PER_PIXEL[kind] * width
    cutouts = min(settings["cutn"], CUTOUTS_AT_A_TIME) * BYTES_PER_CUTOUT[kind]
    cutouts *= _clip_macs(settings) / CLIP_MACS["ViT-B/32"]
    return BASE_BYTES[kind] + WEIGHTS_BYTES[kind] * width**2 + picture + cutouts


def machine_memory() -> float:
    """Bytes of memory that this machine has, or that its container allows."""
    with suppress(OSError, ValueError):
        return float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def size_that_fits(
    settings: Mapping[str, Any], widths: Mapping[str, int], device: str, limit: float
) -> tuple[int, int] | None:
    """The largest width and height of about the same shape that take at most `limit` bytes."""
    nothing = memory_bytes({**settings, "Xdim": 0, "ydim": 0}, widths, device)
    picture = memory_bytes(settings, widths, device) - nothing
    scale = math.sqrt(max(limit - nothing, 0) / picture)
    width, height = (int(settings[side] * scale) // SIDES * SIDES for side in ("Xdim", "ydim"))
    return (width, height) if min(width, height) >= 2 * SIDES else None


def too_large(
    settings: Mapping[str, Any], widths: Mapping[str, int], device: str, limit: float
) -> str:
    """A sentence that says so where a run takes more than `limit` bytes, else ""."""
    needed = memory_bytes(settings, widths, device)
    if needed <= limit:
        return ""
    sentence = f"That is more memory than the {limit / 1e9:.0f} GB that there are"
    size = size_that_fits(settings, widths, device, limit)
    return f"{sentence}: {size[0]}x{size[1]} would fit." if size else f"{sentence}."


def _speeds(
    settings: Mapping[str, Any],
    widths: Mapping[str, int],
    device: str,
    past: Iterable[Mapping[str, Any]],
) -> list[float]:
    """Multiply-adds per second of the latest comparable runs."""
    same, other = [], []
    for details in past:
        speed = _speed(details, widths) if details.get("device") == device else None
        if speed:
            (same if _models(details) == _models(settings) else other).append(speed)
    return (same or other)[:MAX_RUNS]


def _speed(details: Mapping[str, Any], widths: Mapping[str, int]) -> float | None:
    try:
        if details["num_steps"] < MIN_STEPS or details["vqgan_ckpt"] not in widths:
            return None
        work = macs_per_step(details, widths) * _steps_per_frame(details)
        speed = work * float(details["steps_per_second"])
        return speed if 0 < speed < math.inf else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None  # an older layout, or a run that never got that far


def _models(settings: Mapping[str, Any]) -> tuple[Any, Any]:
    return settings.get("vqgan_ckpt"), settings.get("clip_model")


def _steps_per_frame(settings: Mapping[str, Any]) -> int:
    return settings["transform_interval"] if settings.get("use_scrolling_zooming") else 1


def _width(settings: Mapping[str, Any], widths: Mapping[str, int]) -> float:
    return widths.get(settings["vqgan_ckpt"], PUBLISHED_WIDTH) / PUBLISHED_WIDTH


def _clip_macs(settings: Mapping[str, Any]) -> float:
    return CLIP_MACS.get(settings["clip_model"], SMALL_CLIP_MACS)


def _kind(device: str) -> str:
    return "gpu" if "gpu" in device.lower() else "cpu"


def _typical_speed(device: str) -> float:
    return {"cpu": CPU_MACS_PER_SECOND * (os.cpu_count() or 1), "gpu": GPU_MACS_PER_SECOND}[
        _kind(device)
    ]
