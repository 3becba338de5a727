"""Seconds per step and peak memory of the engine, beside a plain loop on the same models.

    python benchmarks/step.py [--turns 3] [--steps 3] [--size 256 ...] [--cutn 64]
                              [--models full bundled] [--float32]

"bundled" are the weights in assets/, at 128x128; "full" are a VQGAN f16-1024 and CLIP ViT-B/32 of
the published sizes with random numbers. Each loop has a process of its own, and so its own memory.
The loops take turns of a few steps, so that other work on the machine slows both. The first step of
each turn is not timed, as the other loop has just filled the processor's caches. Ratios hold across
machines; seconds do not. With several sizes, the growth of a step with the picture is printed too.
With --float32 the engine uses neither bfloat16 nor products of eight bits.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from studio.base.paths import ROOT
from studio.engines import device as devices
from studio.models import catalogue
from studio.settings.run_settings import RunSettings
from studio.settings.values import make

CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
PROMPT = "a red heart on a white background"
FULL_DDCONFIG = {
    "ch": 128,
    "ch_mult": [1, 1, 2, 2, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [16],
    "resolution": 256,
    "z_channels": 256,
    "in_channels": 3,
    "out_ch": 3,
}


def main() -> None:
    args = _parse()
    if args.serve:
        if args.float32:
            devices.compute_precision = lambda device: devices.FULL_PRECISION
        serve(args.serve, args.assets_dir, chosen_settings(args), devices.pick_device(args.gpu))
        return
    flags = [flag for flag in CPU_FLAGS if flag in devices.cpu_flags()]
    print(f"CPU flags: {' '.join(flags) or 'none of ' + ' '.join(CPU_FLAGS)}")
    print("models        size  cutn    loop   s/step  CPU s  peak MiB  weights MiB")
    for models, _, assets_dir in models_there(args.models):
        sizes = args.size or [SIZES[models]]
        _tell_growth(models, sizes, [_compare(models, args, assets_dir, s) for s in sizes])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--turns", type=int, default=3, help="turns that each loop takes")
    parser.add_argument("--steps", type=int, default=3, help="steps to time in each turn")
    parser.add_argument(
        "--size",
        type=_size,
        nargs="+",
        help="WIDTHxHEIGHT, or the side of a square; one or several",
    )
    parser.add_argument("--cutn", type=int, default=64, help="cutouts")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=list(LOOPS))
    parser.add_argument("--float32", action="store_true", help="neither bfloat16 nor eight bits")
    parser.add_argument("--gpu", type=int, help="number of the GPU")
    parser.add_argument("--serve", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--assets-dir", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height or width)


def chosen_settings(args: argparse.Namespace) -> RunSettings:
    """The default weights with what they recommend, but the size and cutouts asked for."""
    from logic import VQGANCLIPRun

    name = catalogue.default_weights(args.assets_dir)
    ((width, height),) = args.size
    recommended = catalogue.get_weights(args.assets_dir, name).recommended
    given = {"text_input": PROMPT, "Xdim": width, "ydim": height, "cutn": args.cutn, "grow_from": 0}
    return make(VQGANCLIPRun.Settings, recommended, given | {"vqgan_ckpt": name})


def _compare(
    models: str, args: argparse.Namespace, assets_dir: Path, size: tuple[int, int]
) -> dict[str, dict[str, Any]]:
    """What each loop takes at one size, by the loop's name."""
    found = dict(zip(args.loops, _take_turns(args, assets_dir, size), strict=True))
    for loop, result in found.items():
        print(
            f"{models:9}{'x'.join(map(str, size)):>9}{args.cutn:6}{loop:>8}"
            f"{result['seconds']:9.3f}{result['cpu_seconds']:7.2f}"
            f"{result['peak_mib']:10.0f}{result['weights_mib']:13.0f}"
        )
    if len(found) < 2:
        return found
    ours, plain = found["ours"], found["plain"]
    memory = (ours["peak_mib"] - ours["weights_mib"]) / (plain["peak_mib"] - plain["weights_mib"])
    print(
        f"{models:9}ours is {plain['seconds'] / ours['seconds']:.2f}x as fast as plain"
        f" ({plain['cpu_seconds'] / ours['cpu_seconds']:.2f}x by CPU seconds), with"
        f" {ours['peak_mib'] / plain['peak_mib']:.2f}x its peak memory"
        f" ({memory:.2f}x above the weights), on {ours['device']}"
    )
    return found


def _tell_growth(
    models: str, sizes: list[tuple[int, int]], found: list[dict[str, dict[str, Any]]]
) -> None:
    """Seconds per step from the first size to the last, beside the ratio of their pixels."""
    if len(sizes) < 2:
        return
    (width, height), (last_width, last_height) = sizes[0], sizes[-1]
    pixels = last_width * last_height / (width * height)
    for loop in found[0]:
        of = "cpu_seconds" if found[0][loop]["device"].startswith("CPU") else "seconds"
        longer = found[-1][loop][of] / found[0][loop][of]
        print(
            f"{models:9}{loop}: from {width}x{height} to {last_width}x{last_height} a step takes"
            f" {longer:.1f}x as long, for {pixels:.1f}x the pixels"
        )


# --- Two processes that take turns -------------------------------------------------------------


def _take_turns(
    args: argparse.Namespace, assets_dir: Path, size: tuple[int, int]
) -> list[dict[str, Any]]:
    """For each loop the medians of seconds, and the last value of everything else."""
    loops = [_start(loop, args, assets_dir, size) for loop in args.loops]
    found: list[list[dict[str, Any]]] = [[] for _ in loops]
    for _ in range(args.turns):
        for process, results in zip(loops, found, strict=True):
            results += [_ask(process) for _ in range(1 + args.steps)][1:]
    for process in loops:
        process.communicate()  # the end of its input is the end of the loop
    return [_summary(results) for results in found]


def _start(
    loop: str, args: argparse.Namespace, assets_dir: Path, size: tuple[int, int]
) -> subprocess.Popen:
    command = [sys.executable, __file__, "--serve", loop, "--assets-dir", str(assets_dir)]
    command += ["--size", "{}x{}".format(*size), "--cutn", str(args.cutn)]
    command += ["--gpu", str(args.gpu)] if args.gpu is not None else []
    command += ["--float32"] if args.float32 else []
    return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _ask(process: subprocess.Popen) -> dict[str, Any]:
    assert process.stdin and process.stdout  # both are pipes, see `_start`
    process.stdin.write("step\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        sys.exit("A loop ended too early; its messages are above.")
    return json.loads(line)


def _summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    medians = ("seconds", "cpu_seconds")
    return results[-1] | {name: statistics.median(r[name] for r in results) for name in medians}


def serve(loop: str, assets_dir: Path, chosen: RunSettings, device: Any) -> None:
    """Take a step for each line on stdin, and answer with its seconds and memory."""
    warnings.simplefilter("ignore")
    step = LOOPS[loop](chosen, assets_dir, device)
    weights_mib = memory_mib(device)
    for _ in sys.stdin:
        print(
            json.dumps(
                timed(step)
                | {
                    "peak_mib": memory_mib(device),
                    "weights_mib": weights_mib,
                    "device": devices.describe(device),
                }
            ),
            flush=True,
        )


def timed(step: Callable[[], Any]) -> dict[str, float]:
    """Seconds of one step, on the clock and of all cores together."""
    start, cpu_start = time.perf_counter(), time.process_time()
    step()
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
    }


def memory_mib(device: Any) -> float:
    """The peak so far: on the GPU where one computes, else of the process's resident memory."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 2**10 if sys.platform != "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


# --- The models --------------------------------------------------------------------------------


def _bundled_models(folder: Path) -> Path | None:
    there = ROOT / "assets"
    return there if "emoji_f8" in catalogue.find_weights(there) else None


def _full_size_models(folder: Path) -> Path:
    """Write weights of the published sizes, filled with random numbers."""
    import torch
    from clip.model import CLIP, convert_weights

    from vqgan_utils import VQGAN, VQGANParams

    torch.manual_seed(0)
    params = {"embed_dim": 256, "n_embed": 1024, "ddconfig": FULL_DDCONFIG}
    config = {
        "model": {"target": "taming.models.vqgan.VQModel", "params": params},
        "recommended": {"clip_model": "vit_b_32"},
    }
    (folder / "f16_1024.yaml").write_text(yaml.safe_dump(config))
    vqgan = VQGAN(VQGANParams.model_validate(params))
    torch.nn.init.normal_(vqgan.codebook)
    torch.save({"state_dict": vqgan.state_dict()}, folder / "f16_1024.ckpt")
    clip = CLIP(512, 224, 12, 768, 32, 77, 49_408, 512, 8, 12)
    convert_weights(clip)
    torch.save(clip.state_dict(), folder / "vit_b_32.pt")
    return folder


MODELS: dict[str, Callable[[Path], Path | None]] = {
    "bundled": _bundled_models,
    "full": _full_size_models,
}
SIZES = {"bundled": (128, 128), "full": (256, 256)}


def models_there(wanted: Sequence[str]) -> Iterator[tuple[str, Path, Path]]:
    """Name, temporary folder and assets of each model that is there; prints which are missing."""
    for models in wanted:
        with tempfile.TemporaryDirectory() as folder:
            if assets_dir := MODELS[models](Path(folder)):
                yield models, Path(folder), assets_dir
            else:
                print(f"{models}: not in {ROOT / 'assets'}, skipped")


# --- The loops ---------------------------------------------------------------------------------


def _our_loop(chosen: Any, assets_dir: Path, device: Any) -> Callable[[], Any]:
    from logic import VQGANCLIPRun

    run = VQGANCLIPRun(chosen, assets_dir=assets_dir, device=device)
    run.load_model()
    run.model_init()
    return run.iterate


def _plain_loop(chosen: Any, assets_dir: Path, device: Any) -> Callable[[], Any]:
    from plain import PlainLoop

    return PlainLoop(chosen, assets_dir, device).step


LOOPS: dict[str, Callable[..., Callable[[], Any]]] = {"ours": _our_loop, "plain": _plain_loop}


if __name__ == "__main__":
    main()
