"""Train the bundled VQGAN: `python -m training.train_vqgan [--minutes N] [--resume | --start FILE]`

The architecture is read from assets/emoji_f8.yaml and the weights are written beside it, so there
is one description of it. The recipe is that of VQGAN (Esser et al. 2021: L1, LPIPS, a patch
discriminator that joins later), with changes that suit a few CPU-hours and the weights' purpose. An
optimiser that follows CLIP visits latents that no encoder makes. So the decoder also learns from
damaged latents: a share of positions takes the code of another position, and some pictures skip
quantisation and get noise. The codebook is a moving average of the encoder outputs that fall on
each code (van den Oord et al. 2017, appendix A); unused codes move onto current encoder outputs.

taming's group norms always have 32 groups. In a network this narrow a group is two channels, so
each group of an evenly coloured picture would be reduced to a sign, and its colour lost. So
training uses a large epsilon in all norms (small differences then pass linearly), and the exported
weights are scaled to give the same network with taming's own epsilon: see `rescaled`.
"""

import argparse
import contextlib
import io
import math
import shutil
import time
from importlib.resources import files
from pathlib import Path

import torch
import yaml
from taming.modules.diffusionmodules.model import Decoder, Encoder
from taming.modules.vqvae.quantize import VectorQuantizer2
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torchvision.utils import save_image

from training.data import Composer
from training.files import publish_tensors

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "assets" / "emoji_f8.yaml"
WEIGHTS = CONFIG.with_suffix(".ckpt")
CACHE = ROOT / "training" / "cache"

PICTURE, CROP, BATCH = 128, 64, 16
WARM_UP_STEPS = 100  # without quantisation, before the codebook is placed
ADVERSARIAL_FROM = 0.6  # share of the time
ADVERSARIAL_WEIGHT = 0.1
LEARNING_RATE, RISE_STEPS = 5e-4, 200
AVERAGE_DECAY = 0.998
EXPORT_SECONDS = 300
EPSILON = 0.25  # of the group norms while training
TAMING_EPSILON = 1e-6
SCALE = math.sqrt(TAMING_EPSILON / EPSILON)


class Autoencoder(nn.Module):
    """taming's VQModel without its training: encoder, codebook, decoder, the same weight names."""

    def __init__(self, params: dict) -> None:
        super().__init__()
        config = params["ddconfig"]
        with contextlib.redirect_stdout(io.StringIO()):  # taming prints its shapes
            self.encoder = Encoder(**config)
            self.decoder = Decoder(**config)
        self.quantize = VectorQuantizer2(params["n_embed"], params["embed_dim"], beta=0.25)
        self.quant_conv = nn.Conv2d(config["z_channels"], params["embed_dim"], 1)
        self.post_quant_conv = nn.Conv2d(params["embed_dim"], config["z_channels"], 1)

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures [B, 3, H, W] in [-1, 1] -> latents before quantisation [B, d, H/8, W/8]."""
        return self.quant_conv(self.encoder(pictures))

    def decode(self, z_q: torch.Tensor) -> torch.Tensor:
        """Quantised latents [B, d, h, w] -> pictures [B, 3, 8h, 8w], about [-1, 1]."""
        return self.decoder(self.post_quant_conv(z_q))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """The reconstruction of pictures [B, 3, H, W] in [-1, 1]."""
        z = self.encode(pictures)
        return self.decode(
            look_up(
                nearest_codes(z, self.quantize.embedding.weight), self.quantize.embedding.weight
            )
        )


def build_autoencoder(config_path: Path = CONFIG) -> Autoencoder:
    return Autoencoder(yaml.safe_load(config_path.read_text())["model"]["params"])


def set_epsilon(model: nn.Module, epsilon: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = epsilon


def rescaled(state: dict[str, torch.Tensor], scale: float = SCALE) -> dict[str, torch.Tensor]:
    """The weights that do with TAMING_EPSILON what `state` does with EPSILON; 1 / SCALE undoes it.

    All that a norm sees is scaled by s = sqrt(TAMING_EPSILON / EPSILON): norm(s x) with epsilon
    s^2 e equals norm(x) with epsilon e. A convolution whose input is not scaled yet has weight and
    bias scaled; one whose input is scaled, the bias alone; one that follows a norm and feeds none
    stays as it is.
    """
    entering = ("conv_in.", ".conv1.", ".conv2.", ".proj_out.")
    passing = ("sample.conv.bias", ".nin_shortcut.bias")
    return {
        name: tensor * scale
        if any(part in name for part in entering) or name.endswith(passing)
        else tensor
        for name, tensor in state.items()
    }


def nearest_codes(z: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """The index of the nearest code (Euclidean) at each place: [B, d, h, w] -> [B, h, w]."""
    flat = z.detach().float().movedim(1, -1).flatten(0, 2)
    distances = codebook.square().sum(1) - 2 * flat @ codebook.T
    return distances.argmin(1).view(z.shape[0], *z.shape[2:])


def look_up(codes: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Code indices [B, h, w] -> latents [B, d, h, w]."""
    return codebook[codes].movedim(-1, 1)


class CodebookAverage(nn.Module):
    """Keeps each code at the moving average of the encoder outputs that fall on it."""

    counts: torch.Tensor  # [n]
    sums: torch.Tensor  # [n, d]

    def __init__(self, codebook: torch.Tensor, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("counts", torch.ones(len(codebook)))
        self.register_buffer("sums", codebook.clone())

    def place(self, vectors: torch.Tensor, codebook: torch.Tensor, rounds: int = 8) -> None:
        """Move the whole codebook [n, d] onto vectors [m, d] by k-means."""
        codebook.copy_(vectors[torch.randperm(len(vectors))[: len(codebook)]])
        for _ in range(rounds):
            codes = (codebook.square().sum(1) - 2 * vectors @ codebook.T).argmin(1)
            counts = torch.bincount(codes, minlength=len(codebook))
            sums = torch.zeros_like(codebook).index_add_(0, codes, vectors)
            used = counts > 0
            codebook[used] = sums[used] / counts[used, None]
        self.counts.fill_(1)
        self.sums.copy_(codebook)

    def update(self, z: torch.Tensor, codes: torch.Tensor, codebook: torch.Tensor) -> None:
        """Take in latents z [B, d, h, w] and their codes [B, h, w]; changes codebook [n, d]."""
        vectors, codes = z.detach().float().movedim(1, -1).flatten(0, 2), codes.flatten()
        counts = torch.bincount(codes, minlength=len(codebook)).float()
        sums = torch.zeros_like(self.sums).index_add_(0, codes, vectors)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        codebook.copy_(self.sums / self.counts.clamp(min=1e-5)[:, None])

    def restart_unused(self, z: torch.Tensor, codebook: torch.Tensor, least: float = 0.02) -> int:
        """Move codes that are hardly used onto current encoder outputs; returns how many."""
        dead = (self.counts < least).nonzero().flatten()
        if not len(dead):
            return 0
        vectors = z.detach().float().movedim(1, -1).flatten(0, 2)
        # outputs far from every code come first: there the codebook is thinnest
        gaps = torch.cdist(vectors, codebook).amin(1)
        chosen = torch.multinomial(gaps + 1e-6, min(len(dead), len(vectors) // 4))
        dead = dead[: len(chosen)]
        codebook[dead] = vectors[chosen]
        self.sums[dead] = vectors[chosen]
        self.counts[dead] = 1.0
        return len(dead)


def perceptual_weights() -> dict[str, torch.Tensor]:
    path = files("stlpips_pytorch") / "weights" / "vST0.0" / "alex_shift_tolerant.pth"
    return torch.load(str(path), map_location="cpu", weights_only=True)


class PerceptualDistance(nn.Module):
    """LPIPS (Zhang et al. 2018) with the shift-tolerant AlexNet weights of stlpips-pytorch.

    Only the weights are read from that package. The first convolution (stride 1) and the blur
    after it (stride 2) are merged into one 13x13 convolution, equal but for the border.
    """

    first: torch.Tensor  # the merged convolution's weight [64, 3, 13, 13]
    net_slice1_0_bias: torch.Tensor
    net_slice2_4_filt: torch.Tensor
    scaling_layer_shift: torch.Tensor
    scaling_layer_scale: torch.Tensor

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, tensor in weights.items():
            self.register_buffer(name.replace(".", "_"), tensor)
        blur = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0])) / 16
        merged = F.conv2d(
            weights["net.slice1.0.weight"].flatten(0, 1)[:, None], blur[None, None], padding=2
        )
        self.register_buffer("first", merged.view(64, 3, 13, 13))

    def features(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        x = (pictures - self.scaling_layer_shift) / self.scaling_layer_scale
        x = F.relu(F.conv2d(x, self.first, self.net_slice1_0_bias, stride=2, padding=4))
        maps = [x]
        for name in ("slice2_5", "slice3_9"):
            x = self.blur(F.max_pool2d(x, 3, 1))
            x = self.convolve(x, name)
            maps.append(x)
        for name in ("slice4_11", "slice5_13"):
            x = self.convolve(x, name)
            maps.append(x)
        return maps

    def convolve(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight = getattr(self, f"net_{name}_weight")
        return F.relu(
            F.conv2d(x, weight, getattr(self, f"net_{name}_bias"), padding=weight.shape[-1] // 2)
        )

    def blur(self, x: torch.Tensor) -> torch.Tensor:
        kernel = self.net_slice2_4_filt[:1].expand(x.shape[1], -1, -1, -1)
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """The distance of pictures a and b [B, 3, H, W] in [-1, 1], one number each [B]."""
        with torch.no_grad():
            targets = self.features(a)
        total = torch.zeros(len(a), device=a.device)
        for layer, (x, y) in enumerate(zip(targets, self.features(b), strict=True)):
            difference = F.normalize(x.float(), eps=1e-8) - F.normalize(y.float(), eps=1e-8)
            weight = getattr(self, f"lin{layer}_model_1_weight")
            total = total + F.conv2d(difference.square(), weight).mean((1, 2, 3))
        return total


def build_discriminator() -> nn.Sequential:
    """A patch discriminator (Isola et al. 2017): [B, 3, H, W] -> logits [B, 1, H/8, W/8]."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 128)):
        layers += [spectral_norm(nn.Conv2d(inputs, outputs, 4, 2, 1)), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(128, 1, 3, 1, 1)))


def damage(z_q: torch.Tensor, z: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Make quantised latents like those that an optimiser leaves; keeps the gradient to z.

    An eighth of the pictures skip quantisation and get noise; half have up to a third of their
    positions set to codes from the same batch. The decoder learns to overrule those by what is
    around them: then an optimiser has to move whole shapes, and evenly coloured areas stay even.
    """
    count = len(z_q)
    kind = torch.rand(count, device=z.device)[:, None, None, None]
    noisy = z + torch.randn_like(z) * codebook.std() * 0.3
    share = torch.rand(count, 1, *z.shape[2:], device=z.device)
    strange = z_q.flatten(2).transpose(1, 2).flatten(0, 1)
    strange = strange[torch.randperm(len(strange), device=z.device)].detach()
    strange = strange.view(count, *z.shape[2:], -1).movedim(-1, 1)
    limit = torch.rand(count, 1, 1, 1, device=z.device) / 3
    swapped = torch.where(share < limit, strange, z_q)
    return torch.where(kind < 0.125, noisy, torch.where(kind < 0.625, swapped, z_q))


class Trainer:
    """Everything that a checkpoint holds, and one step of training."""

    def __init__(self, minutes: float, device: torch.device) -> None:
        self.seconds = minutes * 60
        self.device = device
        self.model = build_autoencoder().to(device).to(memory_format=torch.channels_last)
        self.average = build_autoencoder().to(device)
        for model in (self.model, self.average):
            set_epsilon(model, EPSILON)
        self.average.load_state_dict(self.model.state_dict())
        self.codebook = self.model.quantize.embedding.weight.requires_grad_(False)
        self.codes = CodebookAverage(self.codebook).to(device)
        self.discriminator = build_discriminator().to(device)
        self.distance = PerceptualDistance(perceptual_weights()).to(device)
        weights = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            weights, LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01
        )
        self.d_optimizer = torch.optim.Adam(self.discriminator.parameters(), 4e-4, betas=(0.5, 0.9))
        self.step, self.spent = 0, 0.0
        self.placed = False  # whether `start_from` has placed the codebook
        self.recent: list[torch.Tensor] = []
        compiled = torch.compile if shutil.which("c++") else (lambda function, **_: function)
        self.encode = compiled(self.model.encode, dynamic=False)
        self.decode = compiled(self.model.decode, dynamic=False)
        self.perceive = compiled(self.distance, dynamic=False)
        self.discriminate = compiled(self.discriminator, dynamic=False)

    @property
    def progress(self) -> float:
        return min(1.0, self.spent / self.seconds)

    def state_dict(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "codes": self.codes.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "d_optimizer": self.d_optimizer.state_dict(),
            "step": self.step,
            "spent": self.spent,
        }

    def start_from(self, weights: Path) -> None:
        """Begin with exported weights, but new codebook statistics and a new discriminator."""
        state = torch.load(weights, map_location=self.device, weights_only=True)["state_dict"]
        for model in (self.model, self.average):
            model.load_state_dict(rescaled(state, 1 / SCALE))
        self.codes.sums.copy_(self.codebook)
        self.placed = True

    def load_state_dict(self, state: dict) -> None:
        for name in ("model", "average", "codes", "discriminator", "optimizer", "d_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.spent = state["step"], state["spent"]

    def set_learning_rate(self) -> None:
        """Half a cosine over the time, after a short rise."""
        scale = min(1.0, (self.step + 1) / RISE_STEPS) * (
            0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * self.progress))
        )
        self.optimizer.param_groups[0]["lr"] = LEARNING_RATE * scale

    def quantise(self, z: torch.Tensor) -> torch.Tensor:
        """Straight-through codes; on the way, places, updates and restarts the codebook."""
        if self.step < WARM_UP_STEPS and not self.placed:
            self.recent = [*self.recent[-15:], z.detach().movedim(1, -1).flatten(0, 2)]
            return z
        if self.step == WARM_UP_STEPS and self.recent:
            self.codes.place(torch.cat(self.recent), self.codebook)
            self.recent = []
        codes = nearest_codes(z, self.codebook)
        z_q = z + (look_up(codes, self.codebook) - z).detach()
        self.codes.update(z, codes, self.codebook)
        if self.step % 20 == 0 and self.progress < 0.8:
            self.codes.restart_unused(z, self.codebook)
        return z_q

    def train_step(self, pictures: torch.Tensor) -> dict[str, float]:
        """One update of all weights on pictures [B, 3, H, W] in [-1, 1]; the losses by name."""
        self.set_learning_rate()
        adversarial = self.progress >= ADVERSARIAL_FROM
        with torch.autocast(self.device.type, torch.bfloat16):
            z = self.encode(pictures).float()
            z_q = self.quantise(z)
            made = self.decode(damage(z_q, z, self.codebook)).float()
            losses = {
                "l1": (made - pictures).abs().mean(),
                "lpips": self.perceive(pictures, made).mean(),
                "commit": 0.25 * F.mse_loss(z, z_q.detach()),
            }
            if adversarial:
                losses["g"] = -ADVERSARIAL_WEIGHT * self.discriminate(made).float().mean()
        self.optimizer.zero_grad()
        sum(losses.values(), start=torch.zeros(())).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        if adversarial:
            losses["d"] = self.discriminator_step(pictures, made.detach())
        self.follow()
        self.step += 1
        return {name: value.item() for name, value in losses.items()}

    def discriminator_step(self, real: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        """The hinge loss (Lim and Ye 2017)."""
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = (
                F.relu(1 - self.discriminate(real).float()).mean()
                + F.relu(1 + self.discriminate(made).float()).mean()
            )
        self.d_optimizer.zero_grad()
        loss.backward()
        self.d_optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def follow(self) -> None:
        """Move the averaged weights, which are exported; the codebook is an average already."""
        decay = min(AVERAGE_DECAY, (1 + self.step) / (10 + self.step))
        for mean, now in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)
        self.average.quantize.embedding.weight.copy_(self.codebook)


def next_batch(composer: Composer, step: int, device: torch.device) -> torch.Tensor:
    """Two crops of each picture, or at every fourth step a few whole pictures; in [-1, 1]."""
    whole = step % 4 == 3
    pictures = composer.batch(BATCH // 4 if whole else BATCH // 2)[0]
    if not whole:
        tops, lefts = torch.randint(0, PICTURE - CROP + 1, (2, BATCH)).tolist()
        pictures = torch.stack(
            [
                picture[:, top : top + CROP, left : left + CROP]
                for picture, top, left in zip(pictures.repeat(2, 1, 1, 1), tops, lefts, strict=True)
            ]
        )
    pictures = pictures.to(device, memory_format=torch.channels_last)
    return pictures * 2 - 1


@torch.no_grad()
def save_samples(model: Autoencoder, composer: Composer, path: Path) -> None:
    """Pictures above their reconstructions, plain colours, and what random codes look like."""
    device = next(model.parameters()).device
    plain = torch.rand(4, 3, 1, 1).expand(-1, -1, PICTURE, PICTURE)
    pictures = torch.cat([composer.batch(12)[0], plain]).to(device)
    made = model(pictures * 2 - 1) / 2 + 0.5
    codebook = model.quantize.embedding.weight
    coarse = torch.randint(len(codebook), (8, 4, 4), device=device)
    coarse = coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)
    dream = model.decode(look_up(coarse, codebook)) / 2 + 0.5
    rows = [pictures[:8], made[:8], pictures[8:], made[8:], dream]
    save_image(torch.cat(rows).clamp(0, 1), path, nrow=8)


def export(trainer: Trainer, composer: Composer) -> None:
    weights = {
        "state_dict": {
            name: tensor.cpu().contiguous()
            for name, tensor in rescaled(trainer.average.state_dict()).items()
        }
    }
    publish_tensors(weights, WEIGHTS)
    publish_tensors(weights, CACHE / "vqgan.pt")
    publish_tensors(trainer.state_dict(), CACHE / "vqgan-training.pt")
    save_samples(trainer.average, composer, CACHE / "vqgan-samples.png")


def train(minutes: float, resume: bool, start: Path | None = None) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(minutes, device)
    state = CACHE / "vqgan-training.pt"
    if resume and state.exists():
        trainer.load_state_dict(torch.load(state, map_location=device, weights_only=True))
    elif start:
        trainer.start_from(start)
    composer = Composer("train", PICTURE, seed=trainer.step)
    torch.manual_seed(trainer.step)
    exported = time.monotonic()
    while trainer.progress < 1:
        started = time.monotonic()
        losses = trainer.train_step(next_batch(composer, trainer.step, device))
        trainer.spent += time.monotonic() - started
        if trainer.step % 50 == 0:
            used = (trainer.codes.counts > 0.02).sum().item()
            spent = f"{trainer.spent / 60:.1f} of {minutes:g} min"
            values = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
            print(f"step {trainer.step}, {spent}, {used} codes, {values}", flush=True)
        if time.monotonic() - exported > EXPORT_SECONDS:
            export(trainer, composer)
            exported = time.monotonic()
    export(trainer, composer)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=90, help="total time to train")
    parser.add_argument("--resume", action="store_true", help="resume from training/cache/")
    parser.add_argument("--start", type=Path, help="exported weights to begin with")
    options = parser.parse_args()
    train(options.minutes, options.resume, options.start)


if __name__ == "__main__":
    main()
