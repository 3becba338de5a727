"""Train the evaluation's judge: `python -m training.train_judge [--minutes N] [--resume]`.

A CLIP of another architecture and seed than the bundled one, trained only on the icon sets that the
bundled weights never saw. It stays in training/cache/: those sets are under share-alike licences.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from clip.model import CLIP
from torch import nn

from training import teacher
from training.augment import augment
from training.data import Composer
from training.files import publish_tensors
from training.icons import CACHE
from training.train_clip import (
    SIZE,
    ConceptHead,
    contrastive_loss,
    encode_images,
    encode_texts,
    learning_rate,
    load_frozen,
    parameter_groups,
)  # fmt: skip

BATCH = 128
SAVE_SECONDS = 240.0
ARCHITECTURE = {
    "embed_dim": 256, "image_resolution": SIZE, "vision_layers": (2, 1, 1, 1), "vision_width": 32,
    "vision_patch_size": None, "context_length": 32, "vocab_size": 49408,
    "transformer_width": 192, "transformer_heads": 3, "transformer_layers": 3,
}  # fmt: skip
JUDGE = CACHE / "judge.pt"
CHECKPOINT = CACHE / "judge-training.pt"


def load_judge(path: Path = JUDGE) -> CLIP:
    """The trained judge in eval mode. Raises FileNotFoundError if it is not made yet."""
    return load_frozen(path, "make judge")


class Trainer:
    """The state of a training: model, optimiser, steps done and seconds spent."""

    def __init__(self, minutes: float, resume: bool) -> None:
        torch.manual_seed(7)
        self.seconds, self.step, self.spent = 60 * minutes, 0, 0.0
        self.model = CLIP(**ARCHITECTURE).train()
        table = teacher.token_table(ARCHITECTURE["transformer_width"])
        self.model.token_embedding.weight.data.copy_(table).requires_grad_(False)
        self.model.token_embedding.requires_grad_(False)
        self.model.visual.to(memory_format=torch.channels_last)
        records = Composer("judge", SIZE, seed=0).records
        self.concepts = ConceptHead(records)
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.model, self.concepts), betas=(0.9, 0.98), fused=True
        )
        if resume and CHECKPOINT.exists():
            self.load(torch.load(CHECKPOINT, weights_only=True))
        torch.manual_seed(1000 + self.step)
        self.composer = Composer("judge", SIZE, seed=1000 + self.step)

    def load(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.concepts.load_state_dict(state["concepts"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.spent = state["step"], state["spent"]

    def save(self) -> None:
        parts = {"model": self.model, "concepts": self.concepts, "optimiser": self.optimiser}
        state = {name: part.state_dict() for name, part in parts.items()}
        publish_tensors(state | {"step": self.step, "spent": self.spent}, CHECKPOINT)
        publish_tensors(self.model.state_dict(), JUDGE)

    def train_step(self) -> tuple[float, float]:
        """One step; its contrastive loss and the share of pictures whose best caption holds."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.spent / self.seconds)
        samples = self.composer.samples(BATCH)
        pictures = augment(self.composer.compose([sample.scene for sample in samples]))
        agreement = Composer.agreement(samples)
        images = encode_images(self.model, pictures)
        texts = encode_texts(self.model, [sample.caption for sample in samples])
        logits = self.model.logit_scale.exp() * images @ texts.T
        contrast = contrastive_loss(logits, agreement)
        named = self.concepts.loss(images, samples) + self.concepts.loss(texts, samples)
        self.optimiser.zero_grad()
        (contrast + named).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, 4.1)
        best = agreement.gather(1, logits.argmax(1, keepdim=True))
        return contrast.item(), (best == 1).float().mean().item()

    def run(self) -> None:
        """Train until the time is over; save now and then."""
        saved = time.monotonic()
        while self.spent < self.seconds:
            started = time.monotonic()
            loss, top = self.train_step()
            self.step += 1
            self.spent += time.monotonic() - started
            if self.step % 50 == 0:
                print(f"step {self.step}, {self.spent / 60:.1f} min, loss {loss:.3f},"
                      f" top-1 {top:.3f}", flush=True)  # fmt: skip
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=84, help="total time to train")
    parser.add_argument("--resume", action="store_true", help="resume from training/cache/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    Trainer(options.minutes, options.resume).run()


if __name__ == "__main__":
    main()
