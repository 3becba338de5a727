"""Seconds of an upscaled picture, beside the `ncnn` package with the same weights and threads.

    python benchmarks/upscale.py [--models animevideov3 x4plus-anime x4plus] [--size 512]
                                 [--turns 3] [--threads 1]

Both take turns in one process, so that other work on the machine slows both. The least of the turns
counts. ncnn gets the picture as a whole, as its examples do; ours goes through the tiles of the
product. CPU seconds hold where other programs take the processors, seconds where none does.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from studio.base.paths import ASSETS_DIR
from studio.engines.device import pick_device
from studio.models import enlarging, upscalers
from studio.models.upscaler_networks import load

SIZES = {"animevideov3": 512, "x4plus-anime": 128, "x4plus": 96}
SCALE = 4


class Taken(NamedTuple):
    """What a picture took. cpu: seconds of all threads together."""

    seconds: float
    cpu: float


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print a line for each model."""
    args = _parse(argv)
    torch.set_num_threads(args.threads)
    print(
        "model            size  threads   ours s   ncnn s   ratio   ours CPU s   ncnn CPU s  ratio"
    )
    for name in args.models:
        size = args.size or SIZES[name]
        ours, theirs = compare(name, picture(size), args.turns, args.threads)
        print(
            f"{name:14} {size:6} {args.threads:8} {ours.seconds:8.2f} {theirs.seconds:8.2f}"
            f" {theirs.seconds / ours.seconds:7.2f} {ours.cpu:12.2f} {theirs.cpu:12.2f}"
            f" {theirs.cpu / ours.cpu:7.2f}",
            flush=True,
        )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = list(upscalers.PUBLISHED)
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--size", type=int, help="side of the picture, in pixels")
    parser.add_argument("--turns", type=int, default=3, help="turns that each takes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(argv)


def picture(side: int) -> np.ndarray:
    """A picture [side, side, 3] with edges and soft parts: random blots."""
    small = np.random.default_rng(0).integers(0, 256, (max(2, side // 16),) * 2 + (3,), np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def compare(name: str, pixels: np.ndarray, turns: int, threads: int) -> tuple[Taken, Taken]:
    """What ours and ncnn's took at their best."""
    ways = (_ours(name, pixels), _ncnns(name, pixels, threads))
    taken = [[_timed(way) for way in ways] for _ in range(turns)]
    ours, theirs = zip(*taken, strict=True)
    return min(ours), min(theirs)


def _timed(work: Callable[[], Any]) -> Taken:
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return Taken(time.perf_counter() - began, time.process_time() - cpu)


def _ours(name: str, pixels: np.ndarray) -> Callable[[], Any]:
    network = load(upscalers.get(name, ASSETS_DIR), pick_device())

    def enlarge() -> None:
        for _ in enlarging.bands(pixels, network, Fraction(SCALE)):
            pass

    return enlarge


def _ncnns(name: str, pixels: np.ndarray, threads: int) -> Callable[[], Any]:
    ncnn: Any = importlib.import_module("ncnn")  # its types are not told
    net = ncnn.Net()
    net.opt.num_threads = threads
    param = upscalers.get(name, ASSETS_DIR).path
    net.load_param(str(param))
    net.load_model(str(param.with_suffix(".bin")))

    def enlarge() -> np.ndarray:
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / 255
        extractor = net.create_extractor()
        extractor.input("data", ncnn.Mat(planes))
        made = np.array(extractor.extract("output")[1])
        return (made.clip(0, 1) * 255).round().astype(np.uint8)

    return enlarge


if __name__ == "__main__":
    main()
