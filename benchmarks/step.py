"""Seconds per step and peak memory of the engine, beside a plain loop on the same weights.

    python benchmarks/step.py [--steps 3] [--size 256] [--cutn 64] [--models full bundled]

"bundled" are the weights in assets/, at 128x128; "full" are a VQGAN f16-1024 and CLIP ViT-B/32 of
the published sizes with random numbers. Each is measured in a process of its own, as long runs of
one disturb the other. Ratios hold across machines; seconds do not.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import device as devices  # noqa: E402
import settings  # noqa: E402
import weights  # noqa: E402

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
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
    if args.measure:
        print(json.dumps(_measure(args)))
        return
    print(f"CPU flags: {' '.join(_cpu_flags()) or 'none of ' + ' '.join(CPU_FLAGS)}")
    print("models        size  cutn    loop   s/step  peak MiB  weights MiB")
    with tempfile.TemporaryDirectory() as folder:
        for models in args.models:
            _compare(models, args, Path(folder))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3, help="steps to time, after a first one")
    parser.add_argument("--size", type=int, help="side of the picture (256, for the bundled 128)")
    parser.add_argument("--cutn", type=int, default=64, help="cutouts")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--gpu", type=int, help="number of the GPU")
    parser.add_argument("--measure", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--assets-dir", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _compare(models: str, args: argparse.Namespace, folder: Path) -> None:
    assets_dir, size = MODELS[models](folder), args.size or SIZES[models]
    if assets_dir is None:
        print(f"{models}: not in {ROOT / 'assets'}, left out")
        return
    results = {}
    for loop in LOOPS:
        results[loop] = found = _in_own_process(loop, assets_dir, size, args)
        print(
            f"{models:9}{f'{size}x{size}':>9}{args.cutn:6}{loop:>8}{found['seconds']:9.3f}"
            f"{found['peak_mib']:10.0f}{found['weights_mib']:13.0f}"
        )
    ours, plain = results["ours"], results["plain"]
    memory = (ours["peak_mib"] - ours["weights_mib"]) / (plain["peak_mib"] - plain["weights_mib"])
    print(
        f"{models:9}ours is {plain['seconds'] / ours['seconds']:.2f}x as fast as plain, with"
        f" {ours['peak_mib'] / plain['peak_mib']:.2f}x its peak memory"
        f" ({memory:.2f}x above the weights), on {ours['device']}"
    )


def _in_own_process(
    loop: str, assets_dir: Path, size: int, args: argparse.Namespace
) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", loop, "--assets-dir", str(assets_dir)]
    command += ["--steps", str(args.steps), "--size", str(size), "--cutn", str(args.cutn)]
    command += ["--gpu", str(args.gpu)] if args.gpu is not None else []
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def _cpu_flags() -> list[str]:
    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.exists() else set()
    return [flag for flag in CPU_FLAGS if flag in words]


# --- The models --------------------------------------------------------------------------------


def _bundled_models(folder: Path) -> Path | None:
    there = ROOT / "assets"
    return there if "emoji_f8" in weights.find_weights(there) else None


def _full_size_models(folder: Path) -> Path:
    """Write weights of the published sizes, made of random numbers."""
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
SIZES = {"bundled": 128, "full": 256}


# --- The loops ---------------------------------------------------------------------------------


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time the steps of one loop, in this process."""
    warnings.simplefilter("ignore")
    import torch

    from logic import VQGANCLIPRun

    name = weights.default_weights(args.assets_dir)
    given = {"text_input": PROMPT, "Xdim": args.size, "ydim": args.size, "cutn": args.cutn}
    chosen = settings.make(
        VQGANCLIPRun.Settings,
        weights.get_weights(args.assets_dir, name).recommended,
        given | {"vqgan_ckpt": name},
    )
    device = devices.pick_device(args.gpu)
    run = VQGANCLIPRun(chosen, assets_dir=args.assets_dir, device=device)
    run.load_model()
    weights_mib = _memory_mib(torch, device)
    step = LOOPS[args.measure](run)
    step()
    seconds = []
    for _ in range(args.steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": sorted(seconds)[len(seconds) // 2],
        "peak_mib": _memory_mib(torch, device),
        "weights_mib": weights_mib,
        "device": devices.describe(device),
    }


def _memory_mib(torch: Any, device: Any) -> float:
    """Peak so far: of the GPU where one computes, else resident memory of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 2**10 if sys.platform != "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _our_loop(run: Any) -> Callable[[], Any]:
    run.model_init()
    return run.iterate


def _plain_loop(run: Any) -> Callable[[], Any]:
    from plain import PlainLoop

    return PlainLoop(run).step


LOOPS: dict[str, Callable[[Any], Callable[[], Any]]] = {"ours": _our_loop, "plain": _plain_loop}


if __name__ == "__main__":
    main()
