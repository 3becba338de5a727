"""The rough time and memory of a run, told before it starts. No torch here.

The work is that of the denoiser and of the decoder. The first guess depends on how quickly this
machine multiplies; earlier runs on the same device correct it.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from studio.base.errors import BadInput
from studio.base.machine import cpu_flags, machine_memory
from studio.engines.clip.work import clip_macs
from studio.engines.diffusion.clip_prompts import denoiser_prompt
from studio.engines.diffusion.prompt_grammar import parse_prompt
from studio.engines.diffusion.samplers import SAMPLERS
from studio.engines.diffusion.settings import DiffusionSettings
from studio.engines.diffusion.weights import Weights
from studio.engines.estimate import Estimate
from studio.engines.processor_speed import THREADS_GAIN, kind_of, product_speed, threads_in
from studio.engines.upscaling_time import upscaling_seconds

HALF_FLAGS = {"avx512_bf16", "amx_bf16"}
# Counted on Stable Diffusion 1.5 and SDXL: multiply-adds for each parameter of the denoiser and
# each position of the latent, and for each pixel of the decoder, which go with its width squared.
MACS_PER_PARAMETER = 0.09
DECODER_MACS_PER_PIXEL, DECODER_WIDTH = 4.7e6, 128
# How many multiply-adds the networks do in the time of one of those that measure the machine.
MACS_PER_PRODUCT_MAC = {False: 1.2, True: 2.4}  # in full and in half precision
GPU_MACS_PER_SECOND = 3e13
STEP_SECONDS = {"cpu": 0.02, "gpu": 0.01}  # of an evaluation, whatever its size
LOADING_BYTES_PER_SECOND = 5e8
MIN_STEPS, MAX_RUNS = 5, 5
MOVING = ("num_steps", "strength", "skip_timesteps", "hires_scale", "hires_strength")  # settings
GRADIENT = 1.5  # what the gradient of a network takes, in times of its answer

BASE_BYTES = 0.6e9  # Python with its libraries
TEXT_PARAMETERS = {"sd1": 123e6, "sd2": 340e6, "sdxl": 818e6}
DECODER_PARAMETERS = 84e6
GUIDED_BYTES_PER_PIXEL = 16_000  # in half precision, with all that a gradient needs
# Of the larger of two peaks: a step of the denoiser, or the last decoding.
DENOISER_BYTES_PER_PIXEL, DECODER_BYTES_PER_PIXEL = 1200, 4200  # in half precision, at width 128


def estimate(
    settings: DiffusionSettings, weights: Weights, device: str, past: Iterable[Mapping[str, Any]]
) -> Estimate:
    """What a run takes. device: in words. past: details of earlier runs, the newest first."""
    slower = _slower(settings, weights, device, past)
    seconds = guessed_seconds(settings.model_dump(), weights, device) * (slower or 1)
    needed = memory_bytes(settings, weights, is_half(settings, weights, device))
    limit = machine_memory()
    lacks = kind_of(device) == "cpu" and needed > limit
    around = _upscaling(settings, weights, device) + (0 if slower else _loading_seconds(weights))
    return Estimate(
        seconds_per_step=seconds / settings.num_steps,
        seconds=seconds + around,
        memory_bytes=needed,
        measured=slower is not None,
        too_large=_too_large(limit) if lacks else "",
    )


def is_half(settings: DiffusionSettings, weights: Weights, device: str) -> bool:
    """Whether the networks compute with 16 bits, as far as known before torch is there."""
    if settings.precision != "auto":
        return settings.precision == "half"
    has_half = kind_of(device) == "gpu" or bool(HALF_FLAGS & cpu_flags())
    return has_half and weights.is_large


def memory_bytes(settings: DiffusionSettings, weights: Weights, half: bool) -> float:
    """Peak memory of the worker's process, or of the GPU."""
    each = 2 if half else 4
    narrow = weights.decoder_width / DECODER_WIDTH
    beside = TEXT_PARAMETERS[weights.family] + DECODER_PARAMETERS
    held = weights.parameters + (beside if weights.is_large else 0)
    pixels = math.prod(settings.full_size(weights.factor)) * each / 2
    per_pixel = max(DENOISER_BYTES_PER_PIXEL, DECODER_BYTES_PER_PIXEL)
    if settings.clip_guidance:
        per_pixel = GUIDED_BYTES_PER_PIXEL
    return BASE_BYTES + held * each + pixels * per_pixel * narrow


def guessed_seconds(settings: Mapping[str, Any], weights: Weights, device: str) -> float:
    """A guess of the seconds of all steps, without the loading."""
    kind = kind_of(device)
    small, large = _moves(settings)
    passes = _passes(settings, weights)
    pixels = settings["Xdim"] * settings["ydim"]
    work = small * _move_macs(settings, weights, pixels, passes)
    pixels *= settings.get("hires_scale", 1) ** 2
    work += large * _move_macs(settings, weights, pixels, passes)
    work = (work + _decoder_macs(weights, pixels)) * settings["pictures"]
    fixed = STEP_SECONDS[kind] * (small + large) * passes * settings["pictures"]
    if kind == "gpu":
        return fixed + work / GPU_MACS_PER_SECOND
    half = bool(HALF_FLAGS & cpu_flags()) and weights.is_large
    speed = product_speed() * MACS_PER_PRODUCT_MAC[half] * threads_in(device) ** THREADS_GAIN
    return fixed + work / speed


def _passes(settings: Mapping[str, Any], weights: Weights) -> int:
    """How often the denoiser answers to move a latent once: for each text that it is told."""
    prompt, clip_guidance = settings.get("text_input") or "", settings.get("clip_guidance") or 0
    joined = len(parse_prompt(denoiser_prompt(str(prompt), clip_guidance)).conditions)
    is_guided = settings["guidance_scale"] > 1 and not weights.knows_guidance
    return joined + (is_guided or joined > 1)


def _move_macs(settings: Mapping[str, Any], weights: Weights, pixels: float, passes: int) -> float:
    """Multiply-adds of moving a latent once. passes: of the denoiser.

    CLIP guidance adds the denoiser's gradient, and a picture with all that CLIP sees of it.
    """
    denoising = passes * MACS_PER_PARAMETER * weights.parameters * pixels / weights.factor**2
    if not settings.get("clip_guidance"):
        return denoising
    seeing = settings["cutn"] * clip_macs(settings["clip_model"])
    return (denoising + _decoder_macs(weights, pixels) + seeing) * (1 + GRADIENT)


def _decoder_macs(weights: Weights, pixels: float) -> float:
    return DECODER_MACS_PER_PIXEL * pixels * (weights.decoder_width / DECODER_WIDTH) ** 2


def _moves(settings: Mapping[str, Any]) -> tuple[int, int]:
    """How often each latent is moved: small, and at the full size of the hires fix."""
    known = {name: settings[name] for name in MOVING if name in settings}
    planned = DiffusionSettings.model_construct(**known)
    skipped = planned.skipped_steps if settings.get("init_image") is not None else 0
    each = SAMPLERS[settings["sampler"]].evaluations
    return (planned.small_steps - skipped) * each, planned.hires_steps * each


def _upscaling(settings: DiffusionSettings, weights: Weights, device: str) -> float:
    width, height = settings.full_size(weights.factor)
    values = {**settings.model_dump(), "Xdim": width, "ydim": height}
    each = upscaling_seconds(values, device, is_flat_art=not weights.is_large)
    return each * settings.pictures


def _loading_seconds(weights: Weights) -> float:
    return sum(path.stat().st_size for path in weights.files) / LOADING_BYTES_PER_SECOND


def _slower(
    settings: DiffusionSettings,
    weights: Weights,
    device: str,
    past: Iterable[Mapping[str, Any]],
) -> float | None:
    """How many times longer than guessed the latest runs with these weights took, if known."""
    found = []
    for details in past:
        if details.get("device") != device or details.get("weights") != settings.weights:
            continue
        try:
            steps, speed = details["num_steps"], float(details["steps_per_second"])
            if steps >= MIN_STEPS and speed > 0:
                planned = {**details, "num_steps": details.get("planned_num_steps") or steps}
                found.append(steps / speed / guessed_seconds(planned, weights, device))
        except (KeyError, TypeError, ValueError, ArithmeticError, BadInput):
            continue  # a run of an older layout, or one that never got that far
        if len(found) == MAX_RUNS:
            break
    return statistics.median(found) if found else None


def _too_large(limit: float) -> str:
    return (
        f"That is more memory than the {limit / 1e9:.0f} GB available: choose a smaller size or"
        " smaller weights."
    )
