"""How long upscaling what a run makes takes, for estimates. No torch here."""

from collections.abc import Mapping
from typing import Any

from studio.engines.processor_speed import THREADS_GAIN, kind_of, product_speed, threads_in
from studio.models.upscalers import SMALL
from studio.settings.common import ALWAYS

# Multiply-adds for a pixel of the picture: parameters of animevideov3, which upscales flat art, and
# of x4plus, whose last layers see the enlarged picture.
FLAT_ART_MACS, MACS = 0.62e6, 21e6
MACS_PER_PRODUCT_MAC = 2.0  # in the time of one of those that measure the machine
GPU_MACS_PER_SECOND = 5e12
TWICE = 8  # the scale that takes a second pass, over a picture four times as wide and high


def upscaling_seconds(settings: Mapping[str, Any], device: str, *, is_flat_art: bool) -> float:
    """A guess of the seconds at the end of a run. device: in words.

    is_flat_art: whether the weights draw such pictures. Live pictures are left out.
    """
    scale = settings.get("upscale") or (ALWAYS if settings.get("upscale_always") else 0)
    if not scale:
        return 0.0
    sides = settings["Xdim"], settings["ydim"]
    each = FLAT_ART_MACS if is_flat_art or max(sides) <= SMALL else MACS
    work = sides[0] * sides[1] * each * (1 + ALWAYS**2 if scale == TWICE else 1)
    if settings.get("upscale_always"):
        work *= 1 + max(0, settings["num_steps"])  # the film has a frame for each step
    if kind_of(device) == "gpu":
        return work / GPU_MACS_PER_SECOND
    return work / (product_speed() * MACS_PER_PRODUCT_MAC * threads_in(device) ** THREADS_GAIN)
