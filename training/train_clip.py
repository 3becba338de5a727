"""Train the bundled CLIP: `python -m training.train_clip [--minutes N] [--resume | --start FILE]`.

Contrastive learning (InfoNCE, Radford et al. 2021) on pictures composed on the fly. A caption that
holds for several pictures of a batch counts for all of them. A sentence model teaches free phrases.
The second half is adversarial training (Madry et al. 2018, one step), as a model guides pictures
well only where its gradients show what a person would change.
"""

from __future__ import annotations

import argparse
import math
import random
import signal
import time
from pathlib import Path
from statistics import fmean

import clip
import torch
import torch.nn.functional as F
from clip.model import CLIP, build_model
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from training import teacher
from training.artefacts import ArtefactPool
from training.augment import augment
from training.data import Composer, Sample
from training.files import publish_tensors
from training.icons import CACHE
from training.impostors import Impostor, ImpostorPool
from training.timed import TimedTraining
from vqgan_utils import CLIP_MEAN, CLIP_STD

SIZE = 64  # input, pixels
BATCH, ADVERSARIAL_BATCH = 192, 160
FREE_PHRASES = 40  # taught by the sentence model each step
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 1e-3, 0.05, 300
ADVERSARIAL_FROM = 0.4  # of the training
RADIUS = 0.5, 1.6  # L2 radius of the perturbations at their start and at the end
NAMING, DISTILLATION, OUTRANKING = 1.0, 0.3, 1.0  # weights of the losses beside the contrastive one
ARTEFACT_SHARE, ARTEFACTS_FROM, REFRESH_EVERY = 0.2, 0.3, 8  # of a batch; of the training; steps
AVERAGE_DECAY = 0.998  # of the averaged weights, which are the ones exported
SAVE_EVERY = 480.0  # seconds
ARCHITECTURE = {
    "embed_dim": 256, "image_resolution": SIZE, "vision_layers": (1, 2, 2, 1),
    "vision_width": 32, "vision_patch_size": None, "context_length": 32, "vocab_size": 49408,
    "transformer_width": 192, "transformer_heads": 3, "transformer_layers": 4,
}  # fmt: skip
CHECKPOINT = CACHE / "clip.pt"
LOG = CACHE / "clip.log"
WEIGHTS = Path(__file__).parent.parent / "assets" / "emoji_clip.pt"
MEAN, STD = (torch.tensor(channels).view(1, 3, 1, 1) for channels in (CLIP_MEAN, CLIP_STD))


def new_model() -> CLIP:
    """The untrained CLIP, its token table from the sentence model."""
    model = CLIP(**ARCHITECTURE)
    with torch.no_grad():
        model.token_embedding.weight.copy_(teacher.token_table(ARCHITECTURE["transformer_width"]))
    # Frozen: words that occur in no caption keep their place beside those that do.
    model.token_embedding.requires_grad_(False)
    model.visual.to(memory_format=torch.channels_last)
    return model


def load_frozen(path: Path, made_by: str) -> CLIP:
    """A trained CLIP in eval mode. Raises FileNotFoundError if `made_by` is yet to run."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `{made_by}` first")
    return build_model(torch.load(path, weights_only=True)).float().eval().requires_grad_(False)


def export(model: CLIP, path: Path) -> None:
    """Write the state dict for `clip.model.build_model`, the large tensors in half precision."""
    state = {
        name: value.half() if value.is_floating_point() and value.numel() > 4096 else value
        for name, value in model.state_dict().items()
    }
    publish_tensors({name: value.contiguous().clone() for name, value in state.items()}, path)


def encode_images(model: CLIP, pictures: Tensor) -> Tensor:
    """Unit-length features [n, 256] of pictures [n, 3, 64, 64] in [0, 1]."""
    pictures = ((pictures - MEAN) / STD).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        features = model.visual(pictures)
    return F.normalize(features.float(), dim=-1)


def encode_texts(model: CLIP, texts: list[str]) -> Tensor:
    """Unit-length features [n, 256] of captions."""
    tokens = clip.tokenize(texts, ARCHITECTURE["context_length"], truncate=True)
    ends = tokens.argmax(-1)
    order = ends.argsort()
    features = []
    for rows in order.chunk(3):  # the tower is causal, so what follows the end can be cut off
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            features.append(model.encode_text(tokens[rows, : int(ends[rows].max()) + 1]))
    return F.normalize(torch.cat(features).float()[order.argsort()], dim=-1)


def contrastive_loss(logits: Tensor, agreement: Tensor, impostors: Tensor | None = None) -> Tensor:
    """InfoNCE over rows and columns of logits [n, n], with several or doubtful positives.

    `agreement` [n, n]: 1 where a caption holds for a picture (all such share the target), 0 where
    it may (left out), -1 where it does not. `impostors` [k, n]: the logits of pictures that no
    caption may choose.
    """
    logits = logits.masked_fill(agreement == 0, -1e4)
    target = (agreement == 1).float()
    rows = target / target.sum(1, keepdim=True)
    columns = target / target.sum(0, keepdim=True)
    pictures = logits if impostors is None else torch.cat([logits, impostors])
    by_row = -(rows * logits.log_softmax(1)).sum(1).mean()
    by_column = -(columns * pictures.log_softmax(0)[: len(logits)]).sum(0).mean()
    return (by_row + by_column) / 2


def outranking_loss(fooling: Tensor, images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """How much nearer impostors [k, D] are to their captions than the pictures they pass for.

    Those are the last k of `images` and `texts` [n, D].
    """
    own = texts[-len(fooling) :]
    nearer = ((fooling - images[-len(fooling) :]) * own).sum(1)
    return F.softplus(scale * nearer).mean()


def perturbed(
    model: CLIP,
    pictures: Tensor,
    texts: Tensor,
    scale: Tensor,
    agreement: Tensor,
    rows: int,
    radius: float,
) -> Tensor:
    """The pictures with the first `rows` moved against the loss by up to `radius` (L2).

    One projected gradient step from a random start; batch statistics are left alone.
    """
    start = radius * torch.rand(rows, 1, 1, 1) * unit(torch.randn_like(pictures[:rows]))
    moved = (pictures[:rows] + start).requires_grad_()
    model.visual.eval()
    logits = scale * encode_images(model, moved) @ texts.T
    loss = contrastive_loss_rows(logits, agreement[:rows])
    (gradient,) = torch.autograd.grad(loss, moved)
    model.visual.train()
    offset = start + 1.5 * radius * unit(gradient)
    offset = unit(offset) * norms(offset).clamp(max=radius)
    return torch.cat([(pictures[:rows] + offset).clamp(0, 1), pictures[rows:]])


def norms(pictures: Tensor) -> Tensor:
    """L2 norm of each picture, [n, 1, 1, 1]."""
    return pictures.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)


def unit(pictures: Tensor) -> Tensor:
    """Each picture scaled to an L2 norm of 1."""
    return pictures / norms(pictures)


def contrastive_loss_rows(logits: Tensor, agreement: Tensor) -> Tensor:
    """The picture-to-caption half of the loss, summed, for rows of the logits."""
    logits = logits.masked_fill(agreement == 0, -1e4)
    target = (agreement == 1).float()
    return -(target / target.sum(1, keepdim=True) * logits.log_softmax(1)).sum()


class FreePhrases:
    """Teaches CLIP what phrases without a picture are close to, as the sentence model has it."""

    def __init__(self, records: list[dict], seed: int) -> None:
        found = teacher.phrases(records)
        self.rows = {name: i for i, name in enumerate(found["names"])}
        self.name_vectors, self.phrases = found["name_vectors"], found["free"]
        self.vectors = found["free_vectors"]
        self.names = [record["name"] for record in records]
        self.random = random.Random(seed)

    def draw(self) -> list[int]:
        return self.random.sample(range(len(self.phrases)), FREE_PHRASES)

    def loss(
        self, drawn: list[int], texts: Tensor, images: Tensor, samples: list[Sample], scale: Tensor
    ) -> Tensor:
        """KL from the teacher's distribution of each phrase over the batch's single things."""
        singles = [i for i, sample in enumerate(samples) if len(sample.scene.parts) == 1]
        names = [self.rows[self.names[samples[i].scene.parts[0].icon]] for i in singles]
        target = (self.vectors[drawn] @ self.name_vectors[names].T / 0.05).softmax(1)
        student = (scale * texts @ images[singles].T).log_softmax(1)
        return F.kl_div(student, target, reduction="batchmean")


class ConceptHead(nn.Module):
    """Names the icons behind a feature, whether of a picture or of a caption; not part of CLIP.

    In a batch most captions differ in colours and backgrounds, which are learnt within minutes;
    a choice among all names at once teaches what things are. One head for both towers, so that
    they agree.
    """

    SCALE = 16.0  # of the unit-length features

    def __init__(self, records: list[dict]) -> None:
        super().__init__()
        names = sorted({record["name"] for record in records})
        row = {name: i for i, name in enumerate(names)}
        self.rows = [row[record["name"]] for record in records]
        self.linear = nn.Linear(ARCHITECTURE["embed_dim"], len(names))

    def loss(self, features: Tensor, samples: list[Sample]) -> Tensor:
        """Cross-entropy of features [n, 256] with the samples' icons in equal shares."""
        target = torch.zeros(len(samples), self.linear.out_features)
        for i, sample in enumerate(samples):
            for part in sample.scene.parts:
                target[i, self.rows[part.icon]] += 1 / len(sample.scene.parts)
        return F.cross_entropy(self.linear(self.SCALE * features), target)


def parameter_groups(*modules: nn.Module) -> list[dict]:
    """Weight decay for matrices only."""
    learnt = [p for module in modules for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in learnt if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in learnt if p.ndim < 2], "weight_decay": 0.0},
    ]


def learning_rate(step: int, progress: float) -> float:
    """Linear warm-up over steps, then a cosine over the time given, progress in [0, 1]."""
    cosine = (1 + math.cos(math.pi * min(1, progress))) / 2
    return LEARNING_RATE * min(1, (step + 1) / WARM_UP) * (0.01 + 0.99 * cosine)


def radius_at(progress: float) -> float:
    """The adversarial radius: 0 in the first part, then growing; progress in [0, 1]."""
    if progress < ADVERSARIAL_FROM:
        return 0.0
    part = (progress - ADVERSARIAL_FROM) / (1 - ADVERSARIAL_FROM)
    return RADIUS[0] + (RADIUS[1] - RADIUS[0]) * min(1.0, 2 * part)


class Trainer(TimedTraining):
    """The state of a training: model, optimiser, steps done and seconds spent."""

    def __init__(self, minutes: float, resume: bool, start: Path | None = None) -> None:
        self.seconds, self.step, self.spent = 60 * minutes, 0, 0.0
        self.model = new_model().train()
        if start:
            self.model.load_state_dict(torch.load(start, weights_only=True))
        self.average = new_model().eval()
        self.average.load_state_dict(self.model.state_dict())
        self.concepts = ConceptHead(Composer("train", SIZE, seed=0).records)
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.model, self.concepts),
            lr=LEARNING_RATE,
            betas=(0.9, 0.98),
            fused=True,
        )
        if resume and CHECKPOINT.exists():
            self.load()
        torch.manual_seed(self.step)
        self.composer = Composer("train", SIZE, seed=self.step)
        judged = Composer("judge", SIZE, seed=0)
        self.unseen = judged.samples(BATCH)
        self.unseen_pictures = judged.compose([sample.scene for sample in self.unseen])
        self.artefacts = ArtefactPool(self.composer)
        self.impostors = ImpostorPool(self.composer)
        self.free = FreePhrases(self.composer.records, seed=self.step)

    def load(self) -> None:
        state = torch.load(CHECKPOINT, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.concepts.load_state_dict(state["concepts"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.spent = state["step"], state["spent"]

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "concepts": self.concepts.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "spent": self.spent,
        }
        publish_tensors(state, CHECKPOINT)
        export(self.average, WEIGHTS)

    def train_step(self) -> tuple[float, float]:
        """One step; returns its loss and the share of pictures whose best caption holds."""
        progress = self.spent / self.seconds
        radius = radius_at(progress)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, progress)
        impostors = self.impostors.draw() if radius else []
        pictures, samples = self.batch(impostors, ADVERSARIAL_BATCH if radius else BATCH, progress)
        agreement = Composer.agreement(samples)
        texts = encode_texts(self.model, [sample.caption for sample in samples])
        drawn = self.free.draw()
        free = encode_texts(self.model, [self.free.phrases[i] for i in drawn])
        scale = self.model.logit_scale.exp()
        if radius:
            pictures = self.hardened(pictures, texts.detach(), agreement, impostors, radius)
        images, fooling = encode_images(self.model, pictures).split(
            [len(samples), len(pictures) - len(samples)]
        )
        logits = scale * images @ texts.T
        contrast = contrastive_loss(logits, agreement, scale * fooling @ texts.T)
        named = self.concepts.loss(images, samples) + self.concepts.loss(texts, samples)
        taught = self.free.loss(drawn, free, images, samples, scale)
        loss = contrast + NAMING * named + DISTILLATION * taught
        if impostors:
            loss = loss + OUTRANKING * outranking_loss(fooling, images, texts, scale.detach())
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.follow()
        best = agreement.gather(1, logits.argmax(1, keepdim=True))
        return contrast.item(), (best == 1).float().mean().item()

    @torch.no_grad()
    def follow(self) -> None:
        """Bound the logits' scale, and move the averaged weights."""
        self.model.logit_scale.clamp_(0, math.log(60))
        now = self.model.state_dict()
        decay = min(AVERAGE_DECAY, (1 + self.step) / (10 + self.step))
        for name, mean in self.average.state_dict().items():
            if mean.is_floating_point() and name != "token_embedding.weight":
                mean.lerp_(now[name], 1 - decay)
            else:
                mean.copy_(now[name])

    def batch(
        self, impostors: list[Impostor], size: int, progress: float
    ) -> tuple[Tensor, list[Sample]]:
        """Augmented pictures and their samples; those that the impostors pass for come last."""
        if self.step % REFRESH_EVERY == 0 and progress > ARTEFACTS_FROM:
            self.artefacts.refresh()
        fresh = self.composer.samples(size - len(impostors))
        samples = fresh + [impostor.sample for impostor in impostors]
        pictures = self.composer.compose([sample.scene for sample in samples])
        self.artefacts.mix_in(pictures, samples, len(fresh), ARTEFACT_SHARE)
        return augment(pictures), samples

    def hardened(
        self,
        pictures: Tensor,
        texts: Tensor,
        agreement: Tensor,
        impostors: list[Impostor],
        radius: float,
    ) -> Tensor:
        """The pictures, half of them perturbed, followed by the impostors after a move."""
        scale = self.model.logit_scale.exp().detach()
        half = len(pictures) // 2
        moved = perturbed(self.model, pictures, texts, scale, agreement, half, radius)
        self.model.visual.eval()
        fooling = self.impostors.advance(
            impostors, lambda x: encode_images(self.model, x), texts[-len(impostors) :]
        )
        self.model.visual.train()
        return torch.cat([moved, augment(fooling)])

    @torch.inference_mode()
    def unseen_top1(self) -> float:
        """Share of pictures of the held-out sets whose best caption among 192 holds."""
        images = encode_images(self.average, self.unseen_pictures)
        texts = encode_texts(self.average, [sample.caption for sample in self.unseen])
        best = (images @ texts.T).argmax(1, keepdim=True)
        return (Composer.agreement(self.unseen).gather(1, best) == 1).float().mean().item()

    def train_a_while(self) -> None:
        """Train for SAVE_EVERY seconds, or for the time left; log every 50 steps."""
        end, losses, tops = min(self.seconds, self.spent + SAVE_EVERY), [], []
        while self.spent < end:
            started = time.monotonic()
            loss, top = self.train_step()
            losses.append(loss)
            tops.append(top)
            self.step += 1
            seconds = time.monotonic() - started
            self.spent += seconds
            if self.step % 50 == 0:
                self.log(fmean(losses), fmean(tops), seconds)
                losses, tops = [], []

    def log(self, loss: float, top: float, seconds: float) -> None:
        unseen = f" unseen top-1 {self.unseen_top1():.3f}" if self.step % 200 == 0 else ""
        line = (
            f"step {self.step} spent {self.spent / 60:.1f} min loss {loss:.3f} top-1 {top:.3f} "
            f"scale {self.model.logit_scale.exp().item():.1f} "
            f"radius {radius_at(self.spent / self.seconds):.2f} {seconds:.2f} s/step{unseen}"
        )
        print(line, flush=True)
        with LOG.open("a") as file:
            file.write(line + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=276, help="total time to train")
    parser.add_argument("--resume", action="store_true", help="resume from training/cache/clip.pt")
    parser.add_argument("--start", type=Path, help="exported weights to begin with")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    Trainer(args.minutes, args.resume, args.start).run()


if __name__ == "__main__":
    main()
