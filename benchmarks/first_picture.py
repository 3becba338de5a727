"""Seconds from Run! to the first picture, while a worker is ready.

    python benchmarks/first_picture.py [--runs 3] [--models bundled full] [--gpu N]

Runs enter the queue one after the other, as the page's Run! puts them there. For the first run the
worker has to load its models ("cold"); later runs find them loaded ("warm", the median). A picture
counts once its file exists: the page shows it at its next look.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Beside this file; adds the project to the path.
from step import MODELS, PROMPT, SIZES, models_there

from studio.base.paths import ROOT
from studio.making.prepare import Request, prepare
from studio.queue import run_queue
from studio.queue.slots import read_states
from studio.runs.storage import ACTIVE

PATIENCE = 600.0
LOOK_SECONDS = 0.005


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="warm runs, after the cold one")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["bundled"])
    parser.add_argument("--gpu", type=int, help="number of the GPU")
    args = parser.parse_args()
    print("models        size   cold s   warm s")
    for models, folder, assets_dir in models_there(args.models):
        output_dir = folder / "output"
        width, height = SIZES[models]
        with worker(output_dir, assets_dir, args.gpu):
            given = {"text_input": PROMPT, "num_steps": 3, "Xdim": width, "ydim": height}
            request = Request(given, output_dir, assets_dir)
            cold, *warm = [seconds_to_picture(request) for _ in range(args.runs + 1)]
        print(f"{models:9}{f'{width}x{height}':>9}{cold:9.2f}{statistics.median(warm):9.2f}")


@contextmanager
def worker(output_dir: Path, assets_dir: Path, gpu: int | None) -> Iterator[None]:
    """A worker that is ready for its first run."""
    command = [sys.executable, str(ROOT / "worker.py"), "--output-dir", str(output_dir)]
    command += ["--assets-dir", str(assets_dir), *([] if gpu is None else ["--gpus", str(gpu)])]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: any(state.device for state in read_states(output_dir)), "the worker")
        yield
    finally:
        process.terminate()
        process.wait()


def seconds_to_picture(request: Request) -> float:
    """Put a run into the queue and wait until it is done; the seconds to its first picture."""
    began = time.perf_counter()
    folder = run_queue.enqueue(prepare(request))
    wait_for(folder.picture_path, "the first picture")
    seconds = time.perf_counter() - began
    wait_for(lambda: folder.read()["status"] not in ACTIVE, "the run's end")
    return seconds


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Look often until the condition is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"Waited in vain for {what}.")
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main()
