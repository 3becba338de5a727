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
from settings import RunSettings
from weights import find_weights, first_stage

PASSES = 3  # forward, and twice as much backward
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

BASE_BYTES = {"cpu": 1.0e9, "gpu": 1.2e9}
WEIGHTS_BYTES = 1.0e9  # VQGAN and CLIP of published width
BYTES_PER_PIXEL = 25e3  # activations at published width; goes with ch
BYTES_PER_CUTOUT = 20e6  # activations of ViT-B/32; goes with CLIP's multiply-adds


@dataclass(frozen=True)
class Estimate:
    """seconds_per_step; seconds in all, None for an endless run; memory_bytes at the peak.

    measured: whether earlier runs on this device are behind it.
    """

    seconds_per_step: float
    seconds: float | None
    memory_bytes: float
    measured: bool


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
    return f"Roughly: {time} and {memory}{f' on {device}' if device else ''} ({basis})."


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
    """Peak memory of the worker's process, or of the GPU."""
    width = _width(settings, widths)
    weights = WEIGHTS_BYTES * width**2
    picture = settings["Xdim"] * settings["ydim"] * BYTES_PER_PIXEL * width
    clip_scale = _clip_macs(settings) / CLIP_MACS["ViT-B/32"]
    return BASE_BYTES[_kind(device)] + weights + picture + settings["cutn"] * (
        BYTES_PER_CUTOUT * clip_scale
    )


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
