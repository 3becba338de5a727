"""What keeping a run costs: its film, its live files and its checkpoints, as shares of its time.

    python benchmarks/keeping.py [--steps 60] [--size 640x480] [--models full bundled] [--gpu N]

A whole run is made as the command line makes it. "waiting" is the time in which the engine stood
still for the film, the live files and the checkpoints; "checkpoints" is the checkpoints' part of
that. Meanwhile a process of its own encodes the film. "encoder" is that process's time on a core:
where the engine keeps all cores busy, the engine loses this time as well.
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

# Beside this file; adds the project to the path.
from step import MODELS, PROMPT, models_there

from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.recording import Recording
from studio.making.submit import submit
from studio.runs import storage

SIZES = {"bundled": (128, 128), "full": (640, 480)}


def main() -> None:
    args = _parse()
    print("models        size  steps  s/step  waiting  checkpoints  encoder  checkpoint")
    for models, folder, assets_dir in models_there(args.models):
        width, height = args.size or SIZES[models]
        given = {"num_steps": args.steps, "Xdim": width, "ydim": height}
        given |= {"cutn": args.cutn} if args.cutn else {}
        found = measure(given, assets_dir, folder / "output", args.gpu)
        print(
            f"{models:9}{f'{width}x{height}':>9}{args.steps:7}{found['step']:8.3f}"
            f"{found['waiting']:9.2%}{found['checkpoints']:13.2%}{found['encoder']:9.2%}"
            f"{found['mib']:8.1f} MiB"
        )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=60, help="steps to make, after a first one")
    parser.add_argument("--size", type=_size, help="such as 640x480 (bundled: 128x128)")
    parser.add_argument("--cutn", type=int, help="cutouts, if not as many as the weights recommend")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--gpu", type=int, help="number of the GPU")
    return parser.parse_args()


def _size(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    return width, height


def measure(
    given: dict[str, Any], assets_dir: Path, output_dir: Path, gpu: int | None
) -> dict[str, float]:
    """Seconds per step, and shares of a run's time after its first step, which warms up."""
    steps = given["num_steps"] + 1
    request = Request(given | {"text_input": PROMPT, "num_steps": steps}, output_dir, assets_dir)
    folder = submit(prepare(request), "running")
    waiting, checkpoints, looks = [], [], []

    def on_step(step: Any) -> None:
        if step.index in (1, steps):
            looks.append((time.monotonic(), sum(waiting), sum(checkpoints)))

    encoder = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with _timed("add", waiting), _timed("_save_checkpoint", checkpoints):
        execute(folder, assets_dir=assets_dir, gpu=gpu, on_step=on_step)
    encoder = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - encoder
    seconds, waited, saved = (after - before for before, after in zip(*looks, strict=True))
    return {
        "step": seconds / (steps - 1),
        "waiting": waited / seconds,
        "checkpoints": saved / seconds,
        "encoder": encoder / seconds,
        "mib": (folder.path / storage.CHECKPOINT).stat().st_size / 2**20,
    }


@contextmanager
def _timed(name: str, seconds: list[float]) -> Iterator[None]:
    """Append the seconds of each call of a method of Recording."""
    method: Callable[..., Any] = getattr(Recording, name)

    def timed(*args: Any) -> None:
        began = time.monotonic()
        method(*args)
        seconds.append(time.monotonic() - began)

    with patch.object(Recording, name, timed):
        yield


if __name__ == "__main__":
    main()
