"""How soon the engine comes as near to a prompt as the plain loop does, and how near both come.

    python benchmarks/quality.py [--steps 200] [--prompts 6] [--seeds 2] [--same-settings]

The bundled models at 128x128. The plain loop has the settings of its time: 64 cutouts, step size
0.05, random tokens to start from. The engine has the settings that the weights recommend, or with
--same-settings those of the plain loop. The loss of a picture is the CLIP loss of 64 crops without
augmentations, the same crops for all pictures, in float32. Both loops take turns step by step in
one process; time is in CPU seconds, of the steps and, for the engine, of the sketch it starts from.
Where `make judge` has made a judge, R-precision is printed as well: how many of the last pictures
have their own prompt ranked first, or among the first five, of all these prompts and the single
things of training/prompts.yaml.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import step as benchmark  # beside this file; adds the project to the path

from studio.models import catalogue
from studio.settings.run_settings import RunSettings
from studio.settings.values import make

ASSETS = benchmark.ROOT / "assets"
WEIGHTS = "emoji_f8"
PROMPTS = (
    "a red heart",
    "a green tree",
    "a yellow banana",
    "a blue fish",
    "a house on a yellow background",
    "a slice of pizza",
)
OF_THE_TIME = {
    "init_sketch": False,
    "cutn": 64,
    "step_size": 0.05,
    "cut_pow": 1.0,
    "whole_views": 0.0,
}
LOOK_EVERY = 5  # steps


@dataclass(frozen=True)
class Course:
    """CPU seconds of the steps so far and the loss of the picture, at each look.

    picture: the last one, uint8 [H, W, 3].
    """

    seconds: Sequence[float]
    losses: Sequence[float]
    picture: Any

    def seconds_to(self, loss: float) -> float | None:
        """CPU seconds until the loss was reached; None if it never is."""
        reached = (s for s, found in zip(self.seconds, self.losses, strict=True) if found <= loss)
        return next(reached, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--same-settings", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    ratios, finals, pictures = [], [], []
    print("prompt                          seed  loss plain  loss ours  CPU s plain  to reach it")
    for prompt in PROMPTS[: args.prompts]:
        for seed in range(args.seeds):
            plain, ours = courses(prompt, seed, args.steps, args.same_settings)
            goal = plain.losses[-1]
            reached = ours.seconds_to(goal)
            finals.append((goal, ours.losses[-1]))
            pictures.append((prompt, plain.picture, ours.picture))
            ratios.append(plain.seconds[-1] / reached if reached else 0.0)
            shown = f"{reached:.1f}" if reached else "never"
            print(
                f"{prompt:32}{seed:4}{goal:12.4f}{ours.losses[-1]:11.4f}"
                f"{plain.seconds[-1]:13.1f}{shown:>13}",
                flush=True,
            )
    print(f"The loss of the plain loop is reached in 1/{statistics.median(ratios):.1f} (median).")
    for name, losses in zip(("plain", "ours"), zip(*finals, strict=True), strict=True):
        spread = statistics.stdev(losses) if len(losses) > 1 else 0.0
        print(
            f"Loss after {args.steps} steps, {name}: {statistics.mean(losses):.4f} +- {spread:.4f}"
        )
    tell_r_precision(*zip(*pictures, strict=True))


def tell_r_precision(prompts: Sequence[str], plain: Sequence[Any], ours: Sequence[Any]) -> None:
    """Print it for both loops' pictures, uint8 [H, W, 3], with the standard error of the shares."""
    try:
        from training import evaluate

        judge = evaluate.load_judge()
    except (ImportError, FileNotFoundError) as error:
        print(f"No R-precision: {error}")
        return
    import torch

    single = [prompt.text for prompt in evaluate.read_prompts() if prompt.group == "single"]
    texts = sorted({*PROMPTS, *single})
    own = [texts.index(prompt) for prompt in prompts]
    for name, made in (("plain", plain), ("ours", ours)):
        pixels = torch.stack([torch.as_tensor(picture) for picture in made])
        found = evaluate.score(evaluate.ranks(judge, pixels.permute(0, 3, 1, 2) / 255, own, texts))
        top1, top5 = (
            f"{share:.2f} +- {(share * (1 - share) / found.count) ** 0.5:.2f}"
            for share in (found.top1, found.top5)
        )
        print(f"R-precision among {len(texts)} prompts, {name}: top-1 {top1}, top-5 {top5}")


def courses(prompt: str, seed: int, steps: int, same_settings: bool) -> tuple[Course, Course]:
    """The courses of the plain loop and of ours, for one prompt and seed."""
    import torch
    from plain import PlainLoop

    from logic import VQGANCLIPRun

    device = torch.device("cpu")
    aim = {"text_input": prompt, "seed": seed, "vqgan_ckpt": WEIGHTS, "Xdim": 128, "ydim": 128}
    plain_settings, our_settings = _settings(aim, of_the_time=True), _settings(aim, same_settings)
    run = VQGANCLIPRun(our_settings, assets_dir=ASSETS, device=device)
    run.load_model()
    begin = time.process_time()
    run.model_init()
    spent = [0.0, time.process_time() - begin]
    loops = [PlainLoop(plain_settings, ASSETS, device).step, run.iterate]
    look = judge(prompt)
    last: list[Any] = [None, None]
    found: list[list[tuple[float, float]]] = [[], []]
    for number in range(1, steps + 1):
        for which, take_step in enumerate(loops):
            begin = time.process_time()
            made = take_step()
            spent[which] += time.process_time() - begin
            last[which] = getattr(made, "picture", made)
            if number % LOOK_EVERY == 0 or number == steps:
                found[which].append((spent[which], look(last[which])))
    plain, ours = map(_course, found, last)
    return plain, ours


def _course(looks: list[tuple[float, float]], picture: Any) -> Course:
    seconds, losses = zip(*looks, strict=True)
    return Course(seconds, losses, picture)


def _settings(aim: dict[str, Any], of_the_time: bool) -> RunSettings:
    from logic import VQGANCLIPRun

    recommended = catalogue.get_weights(ASSETS, WEIGHTS).recommended
    layers = [recommended, aim | OF_THE_TIME if of_the_time else aim]
    return make(VQGANCLIPRun.Settings, *layers)


def judge(prompt: str) -> Callable[[Any], float]:
    """A function that gives the loss of a picture, uint8 [H, W, 3]."""
    import torch

    from studio.engines.clip.cutouts import cut_out, random_windows
    from vqgan_utils import find_clip_model, load_clip_model, prompt_loss

    name = catalogue.get_weights(ASSETS, WEIGHTS).recommended["clip_model"]
    perceptor = load_clip_model(find_clip_model(name, ASSETS))
    side, aim = perceptor.input_resolution, perceptor.encode_text([prompt])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1234)
        windows = random_windows(128, 128, 64, side, cut_pow=0.5, whole=0.25)

    @torch.inference_mode()
    def look(made: Any) -> float:
        picture = torch.as_tensor(made).permute(2, 0, 1)[None] / 255
        return prompt_loss(perceptor.encode_image(cut_out(picture, windows, side)), aim, 1.0).item()

    return look


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
