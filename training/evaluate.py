"""R-precision of the bundled models.

    python -m training.evaluate [--sample N] [--clean] [--set NAME=VALUE ...]

For each prompt of training/prompts.yaml a picture is generated with the default settings (150
steps, 128x128). A judge, trained by `make judge` on icon sets that the bundled weights never saw,
ranks all prompts of the same group by their similarity to the picture: top-1 counts pictures whose
own prompt comes first, top-5 those where it is among the first five (Park et al. 2021, "Benchmark
for Compositional Text-to-Image Synthesis"). A judge errs as well, so the same is measured on real
pictures: those of the judge's sets, composed for backgrounds and pairs. What counts is the ratio.
The judge learnt from these pictures, so its scores for real pictures that it has not seen, those of
the training sets, are given too.
Pictures that were made before, with the same weights and settings, are not made again.

`--set Xdim=512 ydim=512` measures other settings. The judge sees pictures at 128x128.

`--clean` measures how clean the pictures of single things are instead, in their first and last
frames, beside real icons of the same things: see `cleanness.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from clip.model import CLIP
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from logic import VQGANCLIPRun
from studio.base.paths import ROOT
from studio.engines import device, registry
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.models.catalogue import find_sketcher, get_weights
from studio.settings.values import make
from training.cleanness import cleanness, mean_cleanness
from training.data import Composer, Scene
from training.files import publish
from training.icons import CACHE
from training.train_clip import SIZE, encode_images, encode_texts
from training.train_judge import load_judge
from vqgan_utils import find_clip_model

PROMPTS_FILE = Path(__file__).with_name("prompts.yaml")
ASSETS = ROOT / "assets"
WEIGHTS = "emoji_f8"
# The code that pictures depend on, beside weights and settings.
ALONE = ("arrays", "device", "gradients", "random_stream")
PARTS = ("clip", "fast", "vqgan_clip")
ENGINE = (
    *(ROOT / name for name in ("logic.py", "vqgan_utils.py")),
    *(ROOT / "studio" / "engines" / f"{name}.py" for name in ALONE),
    *(p for part in PARTS for p in sorted((ROOT / "studio" / "engines" / part).rglob("[!_]*.py"))),
)
SIDE = 128  # of the pictures that the judge sees
NO_OTHERS: Mapping[str, Any] = MappingProxyType({})
Frame = Literal["first", "last"]
# What generated pictures should reach, relative to real ones: (top-1, top-5).
TARGETS = {"single": (0.8, 0.9), "background": (0.6, 0.6), "pair": (0.6, 0.6)}


@dataclass(frozen=True)
class Prompt:
    """A prompt, its group, and what real pictures of it are made of: icon names, background."""

    text: str
    group: str
    names: tuple[str, ...]
    background: str = "white"

    @property
    def file_name(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.text.lower()) + ".png"


@dataclass(frozen=True)
class Score:
    """Shares in [0, 1] of `count` pictures."""

    top1: float
    top5: float
    count: int


def read_prompts(path: Path = PROMPTS_FILE) -> list[Prompt]:
    """All prompts, group by group."""
    prompts = []
    for group, entries in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        for text, parts in entries.items():
            names, background = (
                (parts[:-1], parts[-1]) if group == "background" else (parts, "white")
            )
            prompts.append(Prompt(text, group, tuple(names), background))
    return prompts


def spread(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """About `count` of the prompts, evenly spaced, so that each group keeps its share."""
    if count >= len(prompts):
        return list(prompts)
    return [prompts[i * len(prompts) // count] for i in range(count)]


def default_settings(
    text: str, assets: Path = ASSETS, seed: int = 1, others: Mapping[str, Any] = NO_OTHERS
) -> VQGANCLIPSettings:
    """What `python generate.py TEXT --seed SEED` uses with the bundled weights.

    others: settings that differ from the default ones.
    """
    given = {"text_input": text, "vqgan_ckpt": WEIGHTS, "set_seed": True, "seed": seed, **others}
    defaults = registry.defaults(registry.DEFAULT)
    recommended = VQGANCLIPSettings.recommended(given, assets)
    return make(VQGANCLIPSettings, recommended, defaults, given)


def generate(settings: VQGANCLIPSettings, assets: Path = ASSETS) -> tuple[Image.Image, Image.Image]:
    """The pictures of the first and of the last step."""
    run = VQGANCLIPRun(settings, assets_dir=assets, device=torch.device("cpu"))
    run.load_model()
    run.model_init()
    first = last = run.iterate()
    for _ in range(settings.num_steps - 1):
        last = run.iterate()
    first, last = (Image.fromarray(np.asarray(step.picture)) for step in (first, last))
    return first, last


def fingerprint(assets: Path = ASSETS, others: Mapping[str, Any] = NO_OTHERS) -> str:
    """A digest of weights, settings and engine: pictures of others are not reused."""
    settings = default_settings("any", assets, others=others)
    weights = get_weights(assets, WEIGHTS).checkpoint_path
    said = settings.model_dump_json(exclude={"upscale", "upscale_always"})  # come afterwards
    digest = blake2b(said.encode(), digest_size=6)
    digest.update(str(device.compute_precision(torch.device("cpu"))).encode())
    clip = find_clip_model(settings.clip_model, assets)
    for path in (weights, clip, find_sketcher(clip), *ENGINE):
        digest.update(path.read_bytes() if path else b"")
    return digest.hexdigest()


def generated_pictures(
    prompts: Sequence[Prompt],
    output_dir: Path = CACHE / "evaluation",
    assets: Path = ASSETS,
    frame: Frame = "last",
    others: Mapping[str, Any] = NO_OTHERS,
) -> Tensor:
    """The prompts' pictures [n, 3, H, W] in [0, 1]; makes those that are missing.

    frame: of which step they are. others: settings that differ from the default ones.
    """
    folder = output_dir / fingerprint(assets, others)
    for name in get_args(Frame):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, prompt in enumerate(prompts, start=1):
        paths = [folder / name / prompt.file_name for name in get_args(Frame)]
        if all(path.exists() for path in paths):
            continue
        started = time.monotonic()
        pictures = generate(default_settings(prompt.text, assets, others=others), assets)
        for path, picture in zip(paths, pictures, strict=True):
            publish(path, partial(picture.save, format="PNG"))
        seconds = time.monotonic() - started
        print(f"{number} of {len(prompts)}: {prompt.text} ({seconds:.0f} s)", flush=True)
    shown = folder / frame
    return torch.stack([to_tensor(Image.open(shown / prompt.file_name)) for prompt in prompts])


def real_scenes(composer: Composer, prompt: Prompt) -> list[Scene]:
    """One scene of the prompt from each of the composer's sets that has all it needs."""
    by_set: dict[str, list[int]] = {}
    names = prompt.names if prompt.group == "pair" else [prompt.names]
    for alternatives in names:
        several = [alternatives] if isinstance(alternatives, str) else alternatives
        found = {}
        for name in several:
            for icon in composer.find(name):
                found.setdefault(composer.records[icon]["set"], icon)
        for icon_set, icon in found.items():
            by_set.setdefault(icon_set, []).append(icon)
    return [
        composer.scene(*icons, background=prompt.background)
        for icons in by_set.values()
        if len(icons) == len(names)
    ]


def ranks(judge: CLIP, pictures: Tensor, own: Sequence[int], texts: Sequence[str]) -> list[int]:
    """The place, from 0, that each picture's own text (an index) takes among all texts."""
    for side in (SIDE, SIZE):
        pictures = F.interpolate(pictures, (side, side), mode="bilinear", antialias=True)
    with torch.inference_mode():
        similarity = encode_images(judge, pictures) @ encode_texts(judge, list(texts)).T
    mine = similarity.gather(1, torch.tensor(own)[:, None])
    return (similarity > mine).sum(1).tolist()


def score(places: Sequence[int]) -> Score:
    """Top-1 and top-5 of the places."""
    count = len(places)
    return Score(sum(p < 1 for p in places) / count, sum(p < 5 for p in places) / count, count)


def real_ranks(judge: CLIP, part: Sequence[Prompt], texts: Sequence[str], split: str) -> list[int]:
    """The `ranks` of the real pictures of `part` in the sets of a split (see `icons.SETS`)."""
    composer = Composer(split, 128, seed=0)
    scenes = [
        (scene, texts.index(prompt.text))
        for prompt in part
        for scene in real_scenes(composer, prompt)
    ]
    pictures = composer.compose([scene for scene, _ in scenes])
    return ranks(judge, pictures, [own for _, own in scenes], texts)


def evaluate_group(
    judge: CLIP, group: Sequence[Prompt], part: Sequence[Prompt], pictures: Tensor
) -> dict:
    """Both scores and their ratios for the prompts in `part`, ranked among all of the group.

    pictures: those generated for `part`, [n, 3, H, W] in [0, 1].
    """
    texts = [prompt.text for prompt in group]
    places = ranks(judge, pictures, [texts.index(prompt.text) for prompt in part], texts)
    made = score(places)
    real, unseen = (score(real_ranks(judge, part, texts, split)) for split in ("judge", "train"))
    return {
        "among": len(texts),
        "generated": vars(made),
        "real": vars(real),
        "real_unseen": vars(unseen),
        "ratio": {"top1": made.top1 / real.top1, "top5": made.top5 / real.top5},
        "target": dict(zip(("top1", "top5"), TARGETS[group[0].group], strict=True)),
        "missed": sorted(p.text for p, place in zip(part, places, strict=True) if place >= 5),
    }


def table(results: dict[str, dict]) -> str:
    """The results as text."""
    lines = [
        "group       pictures  among  top-1 (real, ratio, target)   top-5 (real, ratio, target)"
        "   unseen real ones: top-1, top-5"
    ]
    for name, result in results.items():
        cells = [
            f"{result['generated'][top]:.3f} ({result['real'][top]:.3f},"
            f" {result['ratio'][top]:.2f}, {result['target'][top]:.1f})"
            for top in ("top1", "top5")
        ]
        lines.append(
            f"{name:<11} {result['generated']['count']:>8}  {result['among']:>5}  "
            f"{cells[0]:<29} {cells[1]:<31} "
            f"{result['real_unseen']['top1']:.3f}, {result['real_unseen']['top5']:.3f}"
        )
    return "\n".join(lines)


def measure_cleanness(prompts: Sequence[Prompt], first: Tensor, last: Tensor) -> dict[str, dict]:
    """The mean `Cleanness` of first and last frames [n, 3, H, W], and of the judge's icons."""
    composer = Composer("judge", first.shape[-1], seed=0)
    scenes = [scene for prompt in prompts for scene in real_scenes(composer, prompt)]
    frames, ends, real = (
        pictures.permute(0, 2, 3, 1).numpy() for pictures in (first, last, composer.compose(scenes))
    )
    rows = {
        "first frame": map(cleanness, frames),
        "last frame": map(cleanness, ends, frames),
        "real icons": map(cleanness, real),
    }
    return {name: asdict(mean_cleanness(list(found))) for name, found in rows.items()}


def cleanness_table(results: dict[str, dict]) -> str:
    """The results as text, and what they are of the first frame's and the real icons'."""
    last = results["last frame"]
    lines = ["             " + "".join(f"{name:>12}" for name in last)]
    lines += [
        f"{row:<13}" + "".join(f"{n:12.4f}" for n in r.values()) for row, r in results.items()
    ]
    for row in ("first frame", "real icons"):
        ratios = (last[name] / other if other else math.nan for name, other in results[row].items())
        lines.append(f"last / {row.split()[0]:<6}" + "".join(f"{ratio:12.2f}" for ratio in ratios))
    return "\n".join(lines)


def report_cleanness(prompts: Sequence[Prompt], first: Tensor, last: Tensor, folder: Path) -> None:
    """Print how clean the pictures are, and write it to `folder`."""
    found = measure_cleanness(prompts, first, last)
    (folder / "cleanness.json").write_text(json.dumps(found, indent=1) + "\n")
    print(cleanness_table(found))


def report_precision(
    prompts: Sequence[Prompt], chosen: Sequence[Prompt], pictures: Tensor, folder: Path
) -> None:
    """Print the R-precision of the pictures of those chosen, and write it to `folder`."""
    judge, results = load_judge(), {}
    for name in TARGETS:
        group = [prompt for prompt in prompts if prompt.group == name]
        rows = [i for i, prompt in enumerate(chosen) if prompt.group == name]
        if rows:
            results[name] = evaluate_group(judge, group, [chosen[i] for i in rows], pictures[rows])
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sample", type=int, metavar="N", help="only N prompts, spread evenly")
    parser.add_argument("--output-dir", type=Path, default=CACHE / "evaluation")
    parser.add_argument("--assets-dir", type=Path, default=ASSETS, help="other weights to measure")
    parser.add_argument("--clean", action="store_true", help="measure how clean pictures are")
    parser.add_argument("--set", nargs="+", metavar="NAME=VALUE", default=[], help="other settings")
    options = parser.parse_args()
    others = dict(setting.split("=", 1) for setting in options.set)
    folder = options.output_dir / fingerprint(options.assets_dir, others)
    prompts = [p for p in read_prompts() if p.group == "single" or not options.clean]
    chosen = spread(prompts, options.sample or len(prompts))
    pictures = partial(
        generated_pictures, chosen, options.output_dir, options.assets_dir, others=others
    )
    if options.clean:
        report_cleanness(chosen, pictures(frame="first"), pictures(), folder)
    else:
        report_precision(prompts, chosen, pictures(), folder)
    print(f"Pictures and numbers are in {folder}.")


if __name__ == "__main__":
    main()
