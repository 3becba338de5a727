"""The seconds of runs that share a machine: with each other, and with a training.

    python benchmarks/neighbours.py [--rounds 3] [--steps 100] [--at-once 2 4] [--prompt TEXT]

Each round makes one run alone, several at the same time, and one beside a training on one thread.
All use generate.py on the CPU; loading counts. "times alone" is how long the last of them took, in
terms of the run alone in the same round; k runs may take 1.3 k. "watching" compares a run alone
with one that does not look for neighbours. "training" is how much slower the training's steps were
beside a run. The medians are printed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
TRAINING_ALONE = 5.0  # seconds
ALLOWED = 1.3  # times as long as one run alone, for each of the runs
UNWATCHED = """
import sys, generate
from studio.engines import sharing
sharing.Sharing.__enter__ = lambda self: None
sys.exit(generate.main())
"""
# Writes a byte for each step until it is stopped.
TRAINING = """
import os, torch
torch.set_num_threads(1)
layers = [torch.nn.Conv2d(3, 64, 3), torch.nn.ReLU(), torch.nn.Conv2d(64, 64, 3)]
model, pictures = torch.nn.Sequential(*layers), torch.randn(8, 3, 64, 64)
optimiser = torch.optim.Adam(model.parameters())
while True:
    optimiser.zero_grad()
    model(pictures).square().mean().backward()
    optimiser.step()
    os.write(1, b".")
"""


def main() -> None:
    args = _parse()
    rounds = [measure(args) for _ in range(args.rounds)]
    medians = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    print(f"one alone: {medians['alone']:.1f} s, watching {medians['watching']:.3f} times that")
    for name, runs in [*((f"{k} at once", k) for k in args.at_once), ("beside a training", 2)]:
        print(f"{name}: {medians[name]:.2f} times alone, allowed {ALLOWED * runs:.1f}")
    print(f"training: its steps took {medians['training']:.2f} times as long")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="of each run")
    parser.add_argument("--at-once", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--prompt", default="a red heart")
    return parser.parse_args()


def measure(args: argparse.Namespace) -> dict[str, float]:
    """One round: the seconds of the run alone, everything else as ratios."""
    watched = [sys.executable, str(ROOT / "generate.py")]
    unwatched = [sys.executable, "-c", UNWATCHED]
    plain = seconds(unwatched, 1, args)
    alone = seconds(watched, 1, args)
    found = {"alone": alone, "watching": alone / plain}
    for count in args.at_once:
        found[f"{count} at once"] = seconds(watched, count, args) / alone
    with Training() as training:
        time.sleep(TRAINING_ALONE)
        before = training.rate()
        found["beside a training"] = seconds(watched, 1, args) / alone
        found["training"] = before / training.rate()
    return found


def seconds(command: Sequence[str], count: int, args: argparse.Namespace) -> float:
    """Start `count` runs at the same time; the seconds until the last of them has ended."""
    with TemporaryDirectory() as folder:
        options = ["--num-steps", str(args.steps), "--output-dir", folder]
        began = time.perf_counter()
        runs = [
            subprocess.Popen(
                [*command, args.prompt, "--seed", str(seed), *options],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for seed in range(count)
        ]
        ends = [run.wait() for run in runs]
        if any(ends):
            sys.exit("A run failed. Run generate.py to see why.")
        return time.perf_counter() - began


class Training:
    """A training in a process of its own; `rate` tells its steps per second."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", TRAINING]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout  # a pipe
        self._steps = self._process.stdout
        os.set_blocking(self._steps.fileno(), False)

    def __enter__(self) -> Self:
        while not self._steps.read():
            time.sleep(0.1)  # until it has begun
        self._began = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    def rate(self) -> float:
        """Steps per second since the last call."""
        steps = len(self._steps.read() or b"")
        began, self._began = self._began, time.perf_counter()
        return steps / (self._began - began)


if __name__ == "__main__":
    main()
