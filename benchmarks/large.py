"""Memory, seconds and seams of large pictures.

    python benchmarks/large.py [--size 512 2048x1024 ...] [--models bundled full]
                               [--steps 150] [--grow-steps 120] [--slices nine] [--save FOLDER]

Each size has a process of its own, which makes one picture as generate.py does, film and
checkpoints included. Models are as in step.py. Memory is the peak of that process, and how much of
it is above the process with its weights loaded. A seam is measured by the mean absolute difference
of neighbouring pixels across the lines where tiles begin and end to count, and across all others:
1 means that nobody can tell them apart. Beside it stands the same ratio with the other lines within
NEAR pixels alone, as what a picture shows is not spread evenly. Both compare lines that are whole
positions of the latent apart, as a VQGAN's picture has a grid of its own. A picture of one tile has
no seams. With nine slices, the lines where slices begin and end are measured instead, beside lines
that are whole positions apart in the small picture that was enlarged; --grow-steps has no effect
then, as the steps are shared out.
"""

import argparse
import itertools
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from step import MODELS, models_there

NEAR = 48  # pixels on either side of a border
PROMPT = "a red car on a green background"


def main() -> None:
    args = _parse()
    if args.serve:
        print(json.dumps(made(args, args.serve)))
        return
    print("models        size  seconds  last s/step  peak MiB  above weights  seams  near ones")
    for models, folder, assets_dir in models_there(args.models):
        for size in args.size:
            found = _in_a_process(args, size, assets_dir, folder)
            print(
                f"{models:9}{size:>9}{found['seconds']:9.0f}{found['last_step']:13.2f}"
                f"{found['peak_mib']:10.0f}{found['peak_mib'] - found['weights_mib']:15.0f}"
                f"{found['seams']:7.2f}{found['near']:11.2f}",
                flush=True,
            )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", nargs="+", default=["512", "1024"], help="SIDE or WIDTHxHEIGHT")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["bundled"])
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--grow-steps", type=int, default=120)
    parser.add_argument("--slices", choices=("one", "nine"), default="one")
    parser.add_argument("--cutn", type=int, help="cutouts, if not what the weights recommend")
    parser.add_argument("--save", type=Path, help="where to keep the runs")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--assets-dir", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_a_process(
    args: argparse.Namespace, size: str, assets_dir: Path, folder: Path
) -> dict[str, Any]:
    command = [sys.executable, __file__, "--serve", size, "--assets-dir", str(assets_dir)]
    command += ["--prompt", args.prompt, "--steps", str(args.steps)]
    command += ["--grow-steps", str(args.grow_steps), "--save", str(args.save or folder)]
    command += ["--slices", args.slices]
    command += ["--cutn", str(args.cutn)] if args.cutn else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def made(args: argparse.Namespace, size: str) -> dict[str, Any]:
    """Make a picture in this process, and measure."""
    from studio.making.execute import execute
    from studio.making.prepare import Request, prepare
    from studio.making.submit import submit

    width, _, height = size.partition("x")
    given = {"text_input": args.prompt, "num_steps": args.steps, "grow_steps": args.grow_steps}
    given |= {"Xdim": width, "ydim": height or width, "set_seed": True, "seed": 1}
    given |= {"cutn": args.cutn} if args.cutn else {}
    given |= {"slices": args.slices}
    plan = prepare(Request(given, args.save, args.assets_dir))
    weights_mib, keeps_them_warm = _with_weights(plan.settings, args.assets_dir)
    moments = [time.perf_counter()]
    folder = submit(plan, "running")
    execute(
        folder,
        assets_dir=args.assets_dir,
        on_step=lambda step: moments.append(time.perf_counter()),
    )
    del keeps_them_warm
    factor = factor_of(plan.settings, args.assets_dir)
    if args.slices == "nine":
        factor *= _enlarged(plan.settings, factor)
    seams, near = seams_of(folder.path / "output.PNG", factor, args.slices == "nine")
    return {
        "seconds": time.perf_counter() - moments[0],
        "last_step": moments[-1] - moments[-2],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        "weights_mib": weights_mib,
        "seams": seams,
        "near": near,
    }


def _with_weights(settings: Any, assets_dir: Path) -> tuple[float, Any]:
    """MiB of this process once the models are loaded, and what keeps them loaded."""
    from logic import VQGANCLIPRun
    from studio.engines import device

    run = VQGANCLIPRun(settings, assets_dir=assets_dir, device=device.pick_device())
    run.load_model()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20, run


def factor_of(settings: Any, assets_dir: Path) -> int:
    """How many pixels a position of the latent covers."""
    from studio.models.catalogue import get_weights

    return get_weights(assets_dir, settings.vqgan_ckpt).factor


def _enlarged(settings: Any, factor: int) -> int:
    """How many times larger a picture is than the small one that its slices begin with."""
    from studio.engines.vqgan_clip.slice_plan import first_size

    width, _ = first_size(settings.Xdim, settings.ydim, factor, settings.grow_from)
    return round(settings.Xdim / width)


def seams_of(path: Path, factor: int, of_slices: bool = False) -> tuple[float, float]:
    """How visible tiles, or slices, are, relative to all other lines and to those nearby."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    at, elsewhere, near = [], [], []
    for axis in (0, 1):
        differences = _differences(pixels, axis)
        lines = np.arange(1, len(differences) + 1)
        length = pixels.shape[axis]
        borders = np.array(
            [length // 4, length // 2, 3 * length // 4]
            if of_slices
            else borders_along(length, factor)
        )
        for border in borders:
            at.append(differences[border - 1])
            alike = (lines % factor == border % factor) & ~np.isin(lines, borders)
            elsewhere.append(differences[alike].mean())
            near.append(differences[alike & (abs(lines - border) <= NEAR)].mean())
    if not at:
        return math.nan, math.nan
    return float(np.mean(at) / np.mean(elsewhere)), float(np.mean(at) / np.mean(near))


def _differences(pixels: np.ndarray, axis: int) -> np.ndarray:
    """The mean absolute difference between each line of pixels and the next."""
    lines = np.moveaxis(pixels, axis, 0)
    pairs = itertools.pairwise(lines)
    return np.array([np.abs(a.astype(np.int16) - b).mean() for a, b in pairs])


def borders_along(length: int, factor: int) -> Sequence[int]:
    """Where along an axis the weight of a tile begins and ends, in pixels."""
    from studio.engines.vqgan_clip import tiles

    cover = tiles.spans(length // factor, tiles.TILE // factor, tiles.OVERLAP // factor)
    begins = [factor * span.start + tiles.MARGIN for span in cover[1:]]
    return [*begins, *(factor * span.stop - tiles.MARGIN for span in cover[:-1])]


if __name__ == "__main__":
    main()
