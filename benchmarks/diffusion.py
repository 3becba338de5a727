"""Steps per second and memory of Diffusion, beside diffusers' own pipeline in float32.

    python benchmarks/diffusion.py [--size 512] [--steps 3] [--weights FOLDER] [--threads N]

The weights have the architecture of Stable Diffusion 1.5 and random numbers in 16 bits; they are
written into a folder for the time of the benchmark. Each side is a process of its own, one after
the other. Steps are counted without loading and without the last decoding; memory is the peak of
the whole process, with both.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

NAME = "sd15"
UNET: Mapping[str, Any] = {
    "sample_size": 64,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
VAE: Mapping[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
TEXT: Mapping[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
SPREAD = 0.02  # of the random weights


def main(argv: Sequence[str] | None = None) -> None:
    """Measure both sides, or one in this process, and print what they took."""
    args = _parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.side:
        print(json.dumps({"plain": plain, "ours": ours}[args.side](args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        assets = args.weights or Path(folder)
        if not (assets / NAME).exists():
            write_weights(assets / NAME)
        found = {side: _measured(side, assets, argv) for side in ("plain", "ours")}
    for side, took in found.items():
        print(
            f"{side:6} {took['steps_per_second']:8.4f} steps/s {took['gigabytes']:7.2f} GB at the"
            f" peak  {took['decode_seconds']:6.1f} s the decoding"
        )
    ratio = {name: found["ours"][name] / found["plain"][name] for name in found["ours"]}
    print(f"ours / plain: {ratio['steps_per_second']:.2f} of the speed, {ratio['gigabytes']:.2f} of"
          " the memory")  # fmt: skip


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3, help="2 or more; the first is not counted")
    parser.add_argument("--weights", type=Path, help="where to keep the random weights")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--side", choices=["plain", "ours"], help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _measured(side: str, assets: Path, argv: Sequence[str] | None) -> dict[str, float]:
    words = [*(sys.argv[1:] if argv is None else argv), "--side", side, "--weights", str(assets)]
    done = subprocess.run(
        [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def write_weights(folder: Path) -> None:
    """Random weights of Stable Diffusion 1.5's architecture, in diffusers' format."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )
    from diffusers.schedulers.scheduling_pndm import PNDMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel

    from studio.engines.diffusion.tokenizer import published_tokenizer

    def filled(kind: Any, config: Any) -> Any:
        with torch.device("meta"):
            model: Any = kind(config) if kind is CLIPTextModel else kind(**config)
        model = model.to(torch.float16).to_empty(device="cpu")
        for name, parameter in model.named_parameters():
            is_scale = "norm" in name and name.endswith("weight")
            torch.nn.init.normal_(parameter, float(is_scale), SPREAD)
        return model

    torch.manual_seed(0)
    scheduler: Any = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    )
    StableDiffusionPipeline(
        vae=filled(AutoencoderKL, VAE),
        text_encoder=filled(CLIPTextModel, CLIPTextConfig(**TEXT)),
        tokenizer=published_tokenizer(77),
        unet=filled(UNet2DConditionModel, UNET),
        scheduler=scheduler,
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    ).save_pretrained(folder)


def plain(args: argparse.Namespace) -> dict[str, float]:
    """diffusers' pipeline, as its documentation begins."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    pipeline = StableDiffusionPipeline.from_pretrained(
        args.weights / NAME, torch_dtype=torch.float32
    )
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    times: list[float] = []

    def note(*told: Any) -> Any:
        times.append(time.perf_counter())
        return told[-1]

    pipeline(
        "a red heart",
        width=args.size,
        height=args.size,
        num_inference_steps=args.steps,
        generator=torch.Generator().manual_seed(0),
        callback_on_step_end=note,
    )
    decoded = time.perf_counter()
    return _figures(times, decoded - times[-1])


def ours(args: argparse.Namespace) -> dict[str, float]:
    """The engine, with the same weights and settings, and with its live pictures."""
    from studio.engines.diffusion.run import DiffusionRun
    from studio.engines.diffusion.settings import DiffusionSettings

    settings = DiffusionSettings(
        text_input="a red heart",
        weights=NAME,
        Xdim=args.size,
        ydim=args.size,
        num_steps=args.steps + 1,
        sampler="DPM++ 2M",
    )
    run = DiffusionRun(settings, assets_dir=args.weights, device=torch.device("cpu"))
    run.load_model()
    run.model_init()
    times = []
    for _ in range(args.steps):
        run.iterate()
        times.append(time.perf_counter())
    run.iterate()
    step = (times[-1] - times[0]) / (len(times) - 1)
    return _figures(times, time.perf_counter() - times[-1] - step)


def _figures(times: Sequence[float], decode: float) -> dict[str, float]:
    """times: when each step ended. decode: seconds of the last decoding."""
    return {
        "steps_per_second": (len(times) - 1) / (times[-1] - times[0]),
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "decode_seconds": decode,
    }


if __name__ == "__main__":
    main()
