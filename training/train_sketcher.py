"""Train the bundled CLIP's sketcher: `python -m training.train_sketcher [--minutes N] [--resume]`.

It learns to draw the picture of a caption from CLIP's embedding of that caption, or of the
picture itself: with everything in its usual place, in the hand of the icon set that the picture
comes from. Where drawings of one caption differ, it learns their mean, which shows little. So in
the second half CLIP looks at the sketches too, and asks for what makes a thing that thing. The
CLIP must be trained first.

`--start FILE` begins with the second half, at exported weights.
"""

from __future__ import annotations

import argparse
import random
import signal
import time
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from clip.model import CLIP
from safetensors.torch import save
from torch import Tensor, nn

from studio.engines.vqgan_clip.sketch import SIDE, Sketcher
from studio.models.catalogue import SKETCHER_SUFFIX
from studio.models.weight_files import as_float32, read_state_dict
from training.augment import moved, noisy
from training.data import Composer, Part, Sample, Scene
from training.files import publish, publish_tensors
from training.icons import CACHE, SETS
from training.timed import TimedTraining
from training.train_clip import SIZE, encode_images, encode_texts, learning_rate, load_frozen
from training.train_clip import WEIGHTS as CLIP_WEIGHTS

HANDS = SETS["train"]
BATCH = 96
FROM_PICTURES = 12  # of a batch: drawn from the embedding of the picture, as image prompts are
GUIDED_FROM = 0.5  # the share of the time after which CLIP looks at the sketches, too
GUIDED = 48  # of a batch: at how many it looks
GUIDANCE = 0.2  # how much its view counts, beside the mean absolute difference
FASTER = 2.0  # the learning rate, in terms of CLIP's
SAVE_SECONDS = 120.0
LARGE, HALF, SMALL = 0.86, 0.5, 0.42  # sides of things, as shares of the frame
CHECKPOINT = CACHE / "sketcher-training.pt"
WEIGHTS = CLIP_WEIGHTS.with_suffix(SKETCHER_SUFFIX)


class StillComposer(Composer):
    """Composes scenes with everything upright in its usual place."""

    def _single(self) -> Part:
        return self._part(0.5, 0.5, LARGE)

    def _part(self, x: float, y: float, scale: float) -> Part:
        return Part(self._icon(), x, y, scale)

    def _pair(self) -> tuple[tuple[Part, Part], str]:
        layout = self.random.choices(("left", "above", "big"), (0.6, 0.2, 0.2))[0]
        if layout == "big":
            return (self._part(0.5, 0.5, LARGE), self._part(0.76, 0.76, SMALL)), layout
        if layout == "left":
            return (self._part(0.27, 0.5, HALF), self._part(0.73, 0.5, HALF)), layout
        return (self._part(0.5, 0.27, HALF), self._part(0.5, 0.73, HALF)), layout


def swapped(scene: Scene) -> Scene:
    """The two things of a scene in each other's places."""
    first, second = scene.parts
    parts = replace(first, x=second.x, y=second.y), replace(second, x=first.x, y=first.y)
    return replace(scene, parts=parts)


def drawing_loss(drawn: Tensor, pictures: Tensor, rows: list[int], swapped: Tensor) -> Tensor:
    """The mean absolute difference of [n, 3, S, S].

    CLIP's embeddings hardly tell left from right. So for `rows` the nearer of two pictures counts:
    the real one, or the one with both things `swapped` [rows, 3, S, S].
    """
    losses = (drawn - pictures).abs().mean(dim=(1, 2, 3))
    chosen = torch.tensor(rows, dtype=torch.long)
    others = (drawn[chosen] - swapped).abs().mean(dim=(1, 2, 3))
    return losses.index_copy(0, chosen, torch.minimum(losses[chosen], others)).mean()


def load_clip() -> CLIP:
    """The trained CLIP, frozen. Raises FileNotFoundError if it is not made yet."""
    clip = load_frozen(CLIP_WEIGHTS, "python -m training.train_clip")
    clip.visual.to(memory_format=torch.channels_last)
    return clip


class Trainer(TimedTraining):
    """The state of a training: model, optimiser, steps done and seconds spent."""

    def __init__(self, minutes: float, resume: bool, start: Path | None = None) -> None:
        torch.manual_seed(0)
        self.seconds, self.step, self.spent = 60 * minutes, 0, 0.0
        self.clip = load_clip()
        embed_dim = self.clip.text_projection.shape[1]
        self.model = Sketcher(embed_dim, len(HANDS)).to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), weight_decay=0.01, fused=True)
        self.clip_digest = _digest(self.clip)
        if resume and CHECKPOINT.exists():
            self.load(torch.load(CHECKPOINT, weights_only=True))
        elif start:
            self.model.load_state_dict(as_float32(read_state_dict(start), start))
            self.spent = GUIDED_FROM * self.seconds
        torch.manual_seed(self.step)
        self.random = random.Random(self.step)
        self.composer = StillComposer("train", SIDE, seed=self.step)

    def load(self, state: dict) -> None:
        """Resume from `state`, unless it belongs to another CLIP."""
        if state["clip"] != self.clip_digest:
            print("The CLIP has changed since this training began, so it starts again.", flush=True)
            return
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.spent = state["step"], state["spent"]

    def save(self) -> None:
        weights = self.model.state_dict()
        state = {"model": weights, "optimiser": self.optimiser.state_dict()}
        so_far = {"step": self.step, "spent": self.spent, "clip": self.clip_digest}
        publish_tensors(state | so_far, CHECKPOINT)
        halves = {name: part.half().contiguous() for name, part in weights.items()}
        publish(WEIGHTS, lambda file: file.write(save(halves)))

    def train_step(self) -> float:
        """One step; its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = FASTER * learning_rate(self.step, self.spent / self.seconds)
        samples = self.composer.samples(BATCH)
        scenes = [sample.scene for sample in samples]
        pairs = [i for i, scene in enumerate(scenes) if _is_pair_side_by_side(scene)]
        pictures, others = (
            self.composer.compose(scenes + [swapped(scenes[i]) for i in pairs])
        ).split([BATCH, len(pairs)])
        embeddings = self.embeddings(samples)
        with torch.autocast("cpu", torch.bfloat16):
            drawn = self.model(embeddings, self.hands(scenes)).float()
        loss = drawing_loss(drawn, pictures, pairs, others)
        if self.spent >= GUIDED_FROM * self.seconds:
            loss = loss + GUIDANCE * self.unlikeness(drawn[:GUIDED], embeddings[:GUIDED])
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return loss.item()

    def unlikeness(self, sketches: Tensor, embeddings: Tensor) -> Tensor:
        """1 - cosine similarity of what sketches [n, 3, S, S] show and what they should show.

        CLIP sees them moved and with noise, so that no speck can please it.
        """
        views = F.interpolate(sketches.clamp(0, 1), SIZE, mode="bilinear")
        images = encode_images(self.clip, noisy(moved(views)))
        return (1 - (images * embeddings).sum(dim=-1)).mean()

    @torch.no_grad()
    def embeddings(self, samples: list[Sample]) -> Tensor:
        """What the sketches are drawn from: captions, and for FROM_PICTURES of them the picture."""
        embeddings = encode_texts(self.clip, [sample.caption for sample in samples])
        rows = self.random.sample(range(len(samples)), FROM_PICTURES)
        pictures = self.composer.compose([samples[row].scene for row in rows], SIZE)
        embeddings[rows] = encode_images(self.clip, pictures)
        return embeddings

    def hands(self, scenes: list[Scene]) -> Tensor:
        """For each scene the icon set of one of its parts, as an index into HANDS."""
        icons = [self.random.choice(scene.parts).icon for scene in scenes]
        return torch.tensor([HANDS.index(self.composer.records[icon]["set"]) for icon in icons])

    def train_a_while(self) -> None:
        """Train for SAVE_SECONDS, or for the time left; log every 50 steps."""
        end, losses = min(self.seconds, self.spent + SAVE_SECONDS), []
        while self.spent < end:
            started = time.monotonic()
            losses.append(self.train_step())
            self.step += 1
            self.spent += time.monotonic() - started
            if self.step % 50 == 0:
                print(f"step {self.step}, {self.spent / 60:.1f} min, loss {fmean(losses):.4f}",
                      flush=True)  # fmt: skip
                losses = []


def _digest(clip: CLIP) -> str:
    digest = blake2b(digest_size=8)
    for part in clip.state_dict().values():
        digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _is_pair_side_by_side(scene: Scene) -> bool:
    return len(scene.parts) == 2 and scene.layout == "left"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=140, help="total time to train")
    parser.add_argument("--resume", action="store_true", help="resume from training/cache/")
    parser.add_argument("--start", type=Path, help="exported weights to begin with")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(1)
    Trainer(options.minutes, options.resume, options.start).run()


if __name__ == "__main__":
    main()
