"""The rough time and memory of a run, told before it starts. No torch here.

A step takes a fixed time, and beyond that a time in proportion to its multiply-adds, those of the
decoder and of CLIP. The first guess depends on how quickly this machine multiplies small matrices.
Earlier runs on the same device correct it: they tell how much longer than guessed a step takes, and
how long a run takes to begin. Runs with the same weights count first.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput
from studio.base.machine import cpu_flags, machine_memory
from studio.engines.clip.work import CLIP_MACS, CUTOUTS_AT_A_TIME, clip_macs
from studio.engines.estimate import Estimate
from studio.engines.processor_speed import THREADS_GAIN, kind_of, product_speed, threads_in
from studio.engines.upscaling_time import upscaling_seconds
from studio.engines.vqgan_clip import growth
from studio.engines.vqgan_clip.slice_plan import first_size
from studio.models.catalogue import find_weights, first_stage
from studio.settings.run_settings import RunSettings

PASSES = 2  # forward and backward; frozen weights need no gradient
PUBLISHED_WIDTH = 128  # `ch` of every published VQGAN
DECODER_MACS_PER_PIXEL = 1.93e6  # of vqgan_imagenet_f16's decoder; proportional to ch squared
# Measured with the bundled weights on one thread, from 64x64 to 512x512 pixels, with 12 and with 64
# cutouts. Guesses from these figures were off by a fifth at most.
STEP_SECONDS = {"cpu": 0.025, "gpu": 0.01}  # of a step, whatever its size
LOADING_SECONDS = 8.0  # at published width; proportional to ch squared
PRODUCT_SPEED = 46e9  # multiply-adds per second on the machine of these measurements
MACS_PER_PRODUCT_MAC = {True: 5.0, False: 2.0}  # of a step: with eight-bit products, and without
GPU_MACS_PER_SECOND = 5e12
EIGHT_BITS_FLAG = "avx512_vnni"
MIN_STEPS = 10  # a shorter run says little about speed
MAX_RUNS = 5

# Memory: counted on the decoder of vqgan_imagenet_f16 and on ViT-B/32, and rounded up. GPUs are
# taken to compute in bfloat16; CPUs may have to in float32.
BASE_BYTES = {"cpu": 0.8e9, "gpu": 0.8e9}
WEIGHTS_BYTES = {"cpu": 0.9e9, "gpu": 0.5e9}  # VQGAN and CLIP of published width
BYTES_PER_PIXEL = {"cpu": 8e3, "gpu": 4.5e3}  # activations at published width; goes with ch
BYTES_PER_CUTOUT = {"cpu": 40e6, "gpu": 24e6}  # of ViT-B/32; goes with CLIP's multiply-adds
# Of a picture that is made in tiles: for a tile's pixels as above, but freed memory is given back;
# and for all pixels the picture, its gradient, what CLIP sees of it, its latent, and what film,
# files and checkpoint take.
BYTES_PER_TILE_PIXEL = 5e3
BYTES_PER_PIXEL_IN_TILES = 90
BYTES_PER_PIXEL_AROUND_SLICES = 50  # of a picture of slices, besides what a slice takes
TILE_WORK = 1.8  # multiply-adds of the decoder in tiles, which overlap and are decoded twice
SIDES = 32  # a size that is proposed has sides that are multiples of so many pixels
PERCENT = 100


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
    known = _comparable(settings, widths, device, past)
    per_step = _guessed_step(settings, widths, device)
    per_step *= statistics.median(slower for slower, _ in known) if known else 1
    steps = settings["num_steps"]
    around = _seconds_to_begin(settings, widths, known) + _upscaling(settings, widths, device)
    return Estimate(
        seconds_per_step=per_step,
        seconds=around + per_step * steps if steps > 0 else None,
        memory_bytes=memory_bytes(settings, widths, device),
        measured=bool(known),
        too_large=""
        if kind_of(device) == "gpu"
        else too_large(settings, widths, device, machine_memory()),
    )


def decoder_widths(assets_dir: Path) -> dict[str, int]:
    """`ch`, the decoder's width, of each VQGAN in the folder whose yaml says it."""
    widths = {}
    for name, weights in find_weights(assets_dir).items():
        with suppress(BadInput, KeyError, TypeError, ValueError):
            widths[name] = int(first_stage(weights.config())["params"]["ddconfig"]["ch"])
    return widths


def macs_per_step(settings: Mapping[str, Any], widths: Mapping[str, int]) -> float:
    """Multiply-adds of one optimisation step."""
    pixels = settings["Xdim"] * settings["ydim"]
    decoder = pixels * DECODER_MACS_PER_PIXEL * _width(settings, widths) ** 2
    decoder *= TILE_WORK if pixels > _pixels_at_once(settings) else 1
    return PASSES * (decoder + settings["cutn"] * clip_macs(settings["clip_model"]))


def memory_bytes(settings: Mapping[str, Any], widths: Mapping[str, int], device: str) -> float:
    """Peak memory of the worker's process, or of the GPU. device: in words."""
    if _has_slices(settings):
        around = settings["Xdim"] * settings["ydim"] * BYTES_PER_PIXEL_AROUND_SLICES
        return memory_bytes(worked_on(settings), widths, device) + around
    kind, width = kind_of(device), _width(settings, widths)
    picture = settings["Xdim"] * settings["ydim"]
    if is_large(settings):
        tile = _pixels_at_once(settings) * BYTES_PER_TILE_PIXEL * width
        picture = tile + picture * BYTES_PER_PIXEL_IN_TILES
    else:
        picture *= BYTES_PER_PIXEL[kind] * width
    cutouts = min(settings["cutn"], CUTOUTS_AT_A_TIME) * BYTES_PER_CUTOUT[kind]
    cutouts *= clip_macs(settings["clip_model"]) / CLIP_MACS["ViT-B/32"]
    return BASE_BYTES[kind] + WEIGHTS_BYTES[kind] * width**2 + picture + cutouts


def size_that_fits(
    settings: Mapping[str, Any], widths: Mapping[str, int], device: str, limit: float
) -> tuple[int, int] | None:
    """The largest width and height of about the same shape that take at most `limit` bytes."""
    for scale in reversed(range(1, PERCENT + 1)):
        sides = {s: settings[s] * scale // PERCENT // SIDES * SIDES for s in ("Xdim", "ydim")}
        if memory_bytes({**settings, **sides}, widths, device) <= limit:
            width, height = sides.values()
            return (width, height) if min(width, height) >= 2 * SIDES else None
    return None


def too_large(
    settings: Mapping[str, Any], widths: Mapping[str, int], device: str, limit: float
) -> str:
    """A sentence that says so if a run takes more than `limit` bytes, else ""."""
    needed = memory_bytes(settings, widths, device)
    if needed <= limit:
        return ""
    sentence = f"That is more memory than the {limit / 1e9:.0f} GB available"
    size = size_that_fits(settings, widths, device, limit)
    return f"{sentence}: {size[0]}x{size[1]} would fit." if size else f"{sentence}."


def _comparable(
    settings: Mapping[str, Any],
    widths: Mapping[str, int],
    device: str,
    past: Iterable[Mapping[str, Any]],
) -> list[tuple[float, float | None]]:
    """Of the latest comparable runs: how many times longer than guessed a step took, and the
    seconds that the run took to begin, if known.
    """
    same, other = [], []
    for details in past:
        slower = _slower(details, widths, device) if details.get("device") == device else None
        if slower:
            found = (slower, _beginning(details, widths))
            (same if _models(details) == _models(settings) else other).append(found)
    return (same or other)[:MAX_RUNS]


def _slower(details: Mapping[str, Any], widths: Mapping[str, int], device: str) -> float | None:
    try:
        if details["num_steps"] < MIN_STEPS or details["vqgan_ckpt"] not in widths:
            return None
        guessed = _guessed_step(details, widths, device)
        slower = 1 / (guessed * float(details["steps_per_second"]))
        return slower if 0 < slower < math.inf else None
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None  # an older layout, or a run that never got that far


def _beginning(details: Mapping[str, Any], widths: Mapping[str, int]) -> float | None:
    """The seconds of a run outside its steps and its upscaling; most are before the first step."""
    with suppress(KeyError, TypeError, ValueError):
        began, ended = (datetime.fromisoformat(details[n]) for n in ("start_time", "end_time"))
        steps = details["num_steps"] / details["steps_per_second"]
        others = steps + _upscaling(details, widths, str(details["device"]))
        return max(0.0, (ended - began).total_seconds() - others)
    return None


def _upscaling(settings: Mapping[str, Any], widths: Mapping[str, int], device: str) -> float:
    is_narrow = _width(settings, widths) < 1  # as weights for flat art are
    return upscaling_seconds(settings, device, is_flat_art=is_narrow)


def _seconds_to_begin(
    settings: Mapping[str, Any],
    widths: Mapping[str, int],
    known: Sequence[tuple[float, float | None]],
) -> float:
    beginnings = [seconds for _, seconds in known if seconds is not None]
    if known:
        return statistics.median(beginnings) if beginnings else 0.0
    return LOADING_SECONDS * _width(settings, widths) ** 2


def _guessed_step(settings: Mapping[str, Any], widths: Mapping[str, int], device: str) -> float:
    """A guess of the seconds of a step (with scrolling: a frame), the mean over a run's sizes."""
    parts = _sizes_and_steps(settings)
    seconds = sum(
        steps * _guessed_step_at({**settings, "Xdim": size[0], "ydim": size[1]}, widths, device)
        for size, steps in parts
    )
    return seconds / sum(steps for _, steps in parts)


def _guessed_step_at(settings: Mapping[str, Any], widths: Mapping[str, int], device: str) -> float:
    """A guess of the seconds that this machine takes for a step at the size of the settings."""
    work, kind = macs_per_step(settings, widths), kind_of(device)
    if kind == "gpu":
        seconds = STEP_SECONDS[kind] + work / GPU_MACS_PER_SECOND
    else:
        product, threads = product_speed(), threads_in(device)
        speed = product * MACS_PER_PRODUCT_MAC[EIGHT_BITS_FLAG in cpu_flags()]
        speed *= threads**THREADS_GAIN
        seconds = STEP_SECONDS[kind] * PRODUCT_SPEED / product + work / speed
    return seconds * _steps_per_frame(settings)


def _models(settings: Mapping[str, Any]) -> tuple[Any, Any]:
    return settings.get("vqgan_ckpt"), settings.get("clip_model")


def _steps_per_frame(settings: Mapping[str, Any]) -> int:
    return settings["transform_interval"] if settings.get("use_scrolling_zooming") else 1


def _width(settings: Mapping[str, Any], widths: Mapping[str, int]) -> float:
    return widths.get(settings["vqgan_ckpt"], PUBLISHED_WIDTH) / PUBLISHED_WIDTH


def _has_slices(settings: Mapping[str, Any]) -> bool:
    return settings.get("slices") == "nine"


def worked_on(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings with the size of what is worked on at a time: the picture's, or a slice's."""
    if not _has_slices(settings):
        return settings
    sides = {side: math.ceil(settings[side] / 2) for side in ("Xdim", "ydim")}
    return {**settings, **sides, "slices": "one"}


def is_large(settings: Mapping[str, Any]) -> bool:
    """Whether a picture of these settings is made in tiles."""
    grow_from = settings.get("grow_from") or 0
    return growth.is_large(settings["Xdim"], settings["ydim"], grow_from)


def _pixels_at_once(settings: Mapping[str, Any]) -> int:
    """How many pixels of the picture are decoded together: those of a tile, or all."""
    width, height = settings["Xdim"], settings["ydim"]
    if not is_large(settings):
        return width * height
    return min(width, growth.TILE) * min(height, growth.TILE)


def _sizes_and_steps(settings: Mapping[str, Any]) -> list[tuple[growth.Size, int]]:
    """The sizes that a run goes through, and how many steps each takes; endless ones count once."""
    size, steps = (settings["Xdim"], settings["ydim"]), settings["num_steps"]
    if _has_slices(settings):
        return _slices_and_steps(settings)
    begins_large = settings.get("init_image") or settings.get("use_scrolling_zooming")
    if begins_large or steps < 1 or "grow_steps" not in settings:
        return [(size, 1)]
    sizes = growth.sizes(*size, 1, settings.get("grow_from") or 0)
    firsts = growth.first_steps(len(sizes), settings["grow_steps"])
    ends = [min(steps, first) for first in [*firsts[1:], steps]]
    return [(s, end - min(steps, first)) for s, first, end in zip(sizes, firsts, ends, strict=True)]


def _slices_and_steps(settings: Mapping[str, Any]) -> list[tuple[growth.Size, int]]:
    """As `_sizes_and_steps`, of the small picture and of the slices."""
    of_slice, steps = worked_on(settings), settings["num_steps"]
    composing = 0 if settings.get("init_image") or steps < 1 else settings.get("grow_steps", 0)
    composing = min(composing, max(steps, 0))
    small = first_size(settings["Xdim"], settings["ydim"], 1, settings.get("grow_from") or 0)
    rest = max(1, steps) - composing
    return [(small, composing), ((of_slice["Xdim"], of_slice["ydim"]), rest)]
