"""The engine: what a run is, and VQGAN-CLIP as one. It reports facts, and draws nothing."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from studio.base.errors import BadInput, RunFailed, shortened
from studio.engines.contract import Run, Step
from studio.engines.device import (
    Precision,
    compute_precision,
    describe,
    deterministic_algorithms,
    keep_freed_memory,
    release_freed_memory,
    total_memory,
)
from studio.engines.sharing import sharing
from studio.engines.vqgan_clip import estimate
from studio.engines.vqgan_clip.cutouts import (
    Augmentations,
    Windows,
    cut_out,
    random_augmentations,
    random_windows,
    recolour,
    warp,
    whole_views,
)
from studio.engines.vqgan_clip.estimate import CUTOUTS_AT_A_TIME
from studio.engines.vqgan_clip.prompts import parse_prompts
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.engines.vqgan_clip.sketch import Sketcher, fit, load_sketcher
from studio.media.pictures import cover
from studio.models.catalogue import find_sketcher, get_weights, picture_size
from studio.settings.run_settings import Continuing
from vqgan_utils import (
    VQGAN,
    Perceptor,
    clamp_with_gradient,
    find_clip_model,
    load_clip_model,
    load_vqgan_model,
    move_picture,
    mse_weight_at,
    prompt_loss,
    random_latent,
    tv_loss,
    vector_quantize,
)

# The cosine similarity by which a sketch is worse that is chosen e times as rarely.
NEAR_BEST = 0.02


class Unfit(BadInput):
    """A state that is not one of this kind of run, at this size, with these weights."""


@dataclass(frozen=True)
class Target:
    """A unit embedding [1, D] that the picture is pulled to. name: "text" or "image"."""

    name: str
    embedding: Tensor
    weight: float
    stop: float


class VQGANCLIPRun(Run):
    """A VQGAN's latent z, optimised so that CLIP finds its picture close to the prompts.

    Each step decodes z once, compares cutouts of the picture with the prompts, and moves z by Adam
    (Crowson et al. 2022, "VQGAN-CLIP"). All random numbers come from the run's own stream, so that
    what else a process does changes nothing.
    """

    Settings = VQGANCLIPSettings
    settings: VQGANCLIPSettings

    def load_model(self) -> None:
        self._plan_memory()
        with self._explain_lack_of_memory():
            weights = get_weights(self.assets_dir, self.settings.vqgan_ckpt)
            self.size = picture_size(weights, self.settings.Xdim, self.settings.ydim)
            clip_path = find_clip_model(self.settings.clip_model, self.assets_dir)
            self.factor = weights.factor
            precision = compute_precision(self.device)
            self.perceptor = _warm_clip(_stamp(clip_path), self.device, precision)
            self.vqgan = _warm_vqgan(
                _stamp(weights.config_path), _stamp(weights.checkpoint_path), self.device, precision
            )
            self._sketcher = self._load_sketcher(clip_path)
        release_freed_memory()

    def model_init(self) -> None:
        self._random = RandomStream(self.settings.seed)
        self._frames = self._optimisation_steps = 0
        at_a_time = CUTOUTS_AT_A_TIME * (224 / self.perceptor.input_resolution) ** 2
        self._chunk = max(1, min(round(at_a_time), self.settings.cutn))
        self._has_moved_on = False  # whether the latent is beyond a frame that was filmed
        self._before_step: dict[str, Any] | None = None
        with self._explain_lack_of_memory(), sharing, self._random, torch.no_grad():
            codebook = self.vqgan.codebook
            self._low = codebook.amin(dim=0)[:, None, None]
            self._high = codebook.amax(dim=0)[:, None, None]
            self._targets = [*self._text_targets(), *self._image_targets()]
            self._start_from(self._first_latent())

    def iterate(self) -> Step:
        self._before_step = self._state()
        with (
            self._explain_lack_of_memory(),
            deterministic_algorithms(self.settings.deterministic),
            sharing,
            self._random,
        ):
            if self.settings.use_scrolling_zooming and self._has_moved_on:
                self._move()
            for _ in range(self._steps_per_frame):
                picture, losses = self._optimise()
        self._frames += 1
        self._has_moved_on = True
        step = Step(self._frames, _to_uint8(picture), losses)
        self._before_step = None
        return step

    def state_dict(self) -> dict[str, Any]:
        return _to_arrays(self._before_step or self._state())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with _explain_misfit():
            self._take_latent(state)
            self._mse_target = self._tensor_like_z(state, "mse_target")
            self._optimisation_steps = int(state["optimisation_steps"])
            self._frames = int(state["frames"])
            self._has_moved_on = self._frames > 0
            # Older checkpoints do not say it. Noise is drawn for so many cutouts at a time.
            self._chunk = max(1, int(state.get("cutouts_at_a_time", self._chunk)))
            self._take_random_numbers(state)

    def continue_from(self, state: dict[str, Any], how: Continuing, reseed: bool) -> None:
        if how == "exactly":
            self.load_state_dict(state)
            self._frames = 0
        with _explain_misfit():
            if how == "from its latent":
                self._take_latent(state)
            if not reseed:
                self._take_random_numbers(state)

    def _state(self) -> dict[str, Any]:
        """What steps change, in copies that stay on the device."""
        adam = self._optimiser.state_dict()["state"].get(0, {})
        return {
            "z": self._z.detach().clone(),
            "mse_target": self._mse_target.clone(),
            "adam": {name: value.clone() for name, value in adam.items()},
            "frames": self._frames,
            "optimisation_steps": self._optimisation_steps,
            "cutouts_at_a_time": self._chunk,
            "random": self._random.state.clone(),
        }

    def _take_latent(self, state: dict[str, Any]) -> None:
        """Go on with that z and the optimiser's moments; hold it near where it is now."""
        self._start_from(self._tensor_like_z(state, "z"))
        if state.get("adam"):
            adam = {"step": torch.tensor(float(state["adam"]["step"]))}
            for moment in ("exp_avg", "exp_avg_sq"):
                adam[moment] = self._tensor_like_z(state["adam"], moment)
            fresh = self._optimiser.state_dict()
            self._optimiser.load_state_dict(fresh | {"state": {0: adam}})

    def _tensor_like_z(self, values: dict[str, Any], name: str) -> Tensor:
        array = values.get(name)
        if not isinstance(array, np.ndarray) or array.shape != tuple(self._z.shape):
            found = getattr(array, "shape", "none")
            raise Unfit(_misfit(f"its {name} is {found}, this run's {tuple(self._z.shape)}"))
        return torch.tensor(array, dtype=torch.float32, device=self.device)

    def _take_random_numbers(self, state: dict[str, Any]) -> None:
        numbers = torch.tensor(state["random"], dtype=torch.uint8)
        self._random.state = torch.Generator().set_state(numbers).get_state()

    # --- memory ---

    def _plan_memory(self) -> None:
        """Keep freed memory where half of all is enough; warn where all is too little.

        Keeping it changes no byte of a picture.
        """
        plan, memory = self._plan, self._memory
        keep_freed_memory(self.device.type != "cpu" or estimate.memory_bytes(*plan) <= memory / 2)
        if warning := estimate.too_large(*plan, memory):
            size = f"{self.settings.Xdim}x{self.settings.ydim}"
            self.warnings.append(f"{size} may be too large. {warning}")

    @property
    def _plan(self) -> tuple[dict[str, Any], dict[str, int], str]:
        """What `estimate` goes by: settings, the decoders' widths, the device in words."""
        widths = estimate.decoder_widths(self.assets_dir)
        return self.settings.model_dump(), widths, describe(self.device)

    @property
    def _memory(self) -> float:
        """Bytes of memory that the device has."""
        return total_memory(self.device) or estimate.machine_memory()

    @contextmanager
    def _explain_lack_of_memory(self) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not _is_lack_of_memory(error):
                raise
            s = self.settings
            raise RunFailed(
                f"There is not enough memory for {s.Xdim}x{s.ydim} with {s.cutn} cutouts. Lower"
                " Xdim and ydim or the number of cutouts, or choose smaller weights."
                f"{self._sizes_that_fit()}"
            ) from None

    def _sizes_that_fit(self) -> str:
        """Some that take clearly less memory than this one, which the device did not have."""
        plan = self._plan
        most = min(estimate.memory_bytes(*plan), self._memory)
        sizes = [estimate.size_that_fits(*plan, share * most) for share in (0.7, 0.4)]
        named = " or ".join(f"{size[0]}x{size[1]}" for size in sizes if size)
        return f" By an estimate, {named} would fit." if named else ""

    # --- before the first step ---

    def _text_targets(self) -> Iterator[Target]:
        for prompt in parse_prompts(self.settings.text_input):
            if cut := self.perceptor.cut_off(prompt.text):
                self.warnings.append(
                    f"The prompt '{shortened(prompt.text)}' is longer than"
                    f" {shortened(self.settings.clip_model)} can read; left out:"
                    f" '{shortened(cut)}'."
                )
            embedding = self.perceptor.encode_text([prompt.text])
            yield Target("text", embedding, prompt.weight, prompt.stop)

    def _image_targets(self) -> Iterator[Target]:
        for image in self.image_prompts:
            view = self._cut_whole(_to_tensor(image).to(self.device))
            yield Target("image", self.perceptor.encode_image(view), 1.0, -math.inf)

    def _cut_whole(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        return cut_out(picture, whole_views(width, height, 1), self.perceptor.input_resolution)

    def _load_sketcher(self, clip_path: Path) -> Sketcher | None:
        path = find_sketcher(clip_path)
        if self.start_image is not None or not self.settings.init_sketch or path is None:
            return None
        return _warm_sketcher(_stamp(path), self.perceptor.embed_dim, self.device)

    def _first_latent(self) -> Tensor:
        width, height = self.size
        if self.start_image is not None:
            return self._encode(_to_tensor(cover(self.start_image, self.size)).to(self.device))
        wished = [target for target in self._targets if target.weight > 0]
        if self._sketcher is not None and wished:
            return self._encode(fit(self._sketch(self._sketcher, wished), height, width))
        return random_latent(self.vqgan.codebook, height // self.factor, width // self.factor)

    def _sketch(self, sketcher: Sketcher, wished: Sequence[Target]) -> Tensor:
        """One sketch [1, 3, S, S] of all that is wished, at random among those near the best."""
        wish = F.normalize(sum(target.weight * target.embedding for target in wished), dim=-1)
        sketches = sketcher.draw(wish)
        side = self.perceptor.input_resolution
        seen = F.interpolate(sketches, side, mode="bilinear", antialias=True)
        near = (self.perceptor.encode_image(seen) @ wish[0]).cpu().nan_to_num()
        chosen = torch.multinomial((near / NEAR_BEST).softmax(0), 1)
        return sketches[chosen.to(sketches.device)]

    def _encode(self, picture: Tensor) -> Tensor:
        return self.vqgan.encode(picture * 2 - 1).float()

    def _start_from(self, z: Tensor) -> None:
        """Optimise this z, with a fresh optimiser, and hold it near where it is now.

        It always lies in memory as a checkpoint brings it back, or sums would round differently.
        """
        self._z = z.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        self._mse_target = self._z.detach().clone()
        self._optimiser = torch.optim.Adam([self._z], lr=self.settings.step_size)

    # --- a step ---

    @property
    def _steps_per_frame(self) -> int:
        settings = self.settings
        return settings.transform_interval if settings.use_scrolling_zooming else 1

    def _optimise(self) -> tuple[Tensor, dict[str, float]]:
        """One step; the picture [1, 3, H, W] in [0, 1] before it, and its losses."""
        picture, values = self._differentiate()
        self._optimiser.step()
        with torch.no_grad():
            self._z.clamp_(self._low, self._high)
        self._optimisation_steps += 1
        return picture, values

    def _differentiate(self) -> tuple[Tensor, dict[str, float]]:
        """The picture and its losses, with their gradient at z.

        Where memory lacks, the same again with CLIP looking at half as many cutouts at a time.
        """
        numbers = torch.get_rng_state()
        while True:
            try:
                return self._differentiate_once()
            except (MemoryError, RuntimeError) as error:
                if not _is_lack_of_memory(error) or self._chunk == 1:
                    raise
            # Outside of the handler, so that the error's traceback holds no tensors any more.
            self._chunk //= 2
            self.notes["cutouts_at_a_time"] = self._chunk
            torch.set_rng_state(numbers)
            release_freed_memory()

    def _differentiate_once(self) -> tuple[Tensor, dict[str, float]]:
        self._optimiser.zero_grad(set_to_none=True)
        picture = self._decode(self._z)
        gradient, losses = self._compare(picture.detach())
        held = self._regularisation()
        values = self._as_numbers(losses | held)
        torch.autograd.backward([picture, *held.values()], [gradient] + [None] * len(held))
        return picture.detach(), values

    def _decode(self, z: Tensor) -> Tensor:
        decoded = self.vqgan.decode(vector_quantize(z, self.vqgan.codebook))
        return clamp_with_gradient((decoded.float() + 1) / 2)

    def _compare(self, picture: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The gradient at a picture [1, 3, H, W] of how far it is from the prompts, and how far.

        CLIP looks at a chunk of the cutouts at a time and gradients gather at the picture, so that
        memory does not grow with the number of cutouts.
        """
        picture = picture.detach().requires_grad_()
        count, (width, height) = self.settings.cutn, self.size
        side, s = self.perceptor.input_resolution, self.settings
        windows = random_windows(width, height, count, side, s.cut_pow, s.whole_views)
        moves = random_augmentations(count, side) if s.use_cutout_augmentations else None
        seed = int(torch.randint(2**31, ()))
        losses: dict[str, Tensor] = {}
        for start in range(0, count, self._chunk):
            rows = slice(start, min(start + self._chunk, count))
            images = self.perceptor.encode_image(self._see(picture, rows, windows, moves, seed))
            found = self._distances(images, share=len(images) / count)
            torch.stack(list(found.values())).sum().backward()
            for name, loss in found.items():
                losses[name] = losses.get(name, 0) + loss.detach()
        return picture.grad, losses

    def _see(
        self,
        picture: Tensor,
        rows: slice,
        windows: Windows,
        augmentations: Augmentations | None,
        seed: int,
    ) -> Tensor:
        """What CLIP gets of these rows: cutouts, then augmentations, then noise."""
        side, device = self.perceptor.input_resolution, self.device
        picture, windows = picture.to(self.perceptor.dtype), windows.part(rows, device)
        if augmentations is None:
            return cut_out(picture, windows, side).float()
        change = augmentations.part(rows, device)
        cutouts = cut_out(picture, windows, side, change.softening).float()
        cutouts = warp(cutouts, change.source, change.frame)
        return recolour(cutouts, change.colour, change.noise, seed + rows.start)

    def _distances(self, images: Tensor, share: float) -> dict[str, Tensor]:
        """What embeddings of cutouts, which are a `share` of all, add to the prompts' losses."""
        losses: dict[str, Tensor] = {}
        for target in self._targets:
            loss = share * prompt_loss(images, target.embedding, target.weight, target.stop)
            losses[target.name] = losses.get(target.name, 0) + loss
        return losses

    def _regularisation(self) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        if self.settings.use_mse_regularization:
            losses["mse"] = self._mse_weight * F.mse_loss(self._z, self._mse_target)
        if self.settings.use_tv_loss_regularization:
            losses["tv"] = self.settings.tv_loss_weight * tv_loss(self._z)
        return losses

    @property
    def _mse_weight(self) -> float:
        s = self.settings
        return mse_weight_at(
            self._optimisation_steps, s.mse_weight, s.mse_weight_decay, s.mse_weight_decay_steps
        )

    def _as_numbers(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """The losses with their sum, by one transfer from the device. Raises RunFailed."""
        parts = torch.stack([loss.detach() for loss in losses.values()])
        numbers = torch.cat([parts, parts.sum(dim=0, keepdim=True)]).tolist()
        losses = dict(zip([*losses, "total"], numbers))
        if math.isfinite(losses["total"]):
            return losses
        wrong = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        raise RunFailed(
            f"After {self._optimisation_steps} steps the loss is not a number any more ({wrong})."
            " Lower the step size or the weights of prompts and regularisations, and run it again."
        )

    @torch.no_grad()
    def _move(self) -> None:
        """Move the picture, last update included, encode it anew, and go on from there.

        The optimiser starts afresh: its moments belong to places that now show something else.
        """
        s = self.settings
        moved = move_picture(
            self._decode(self._z), s.translation_x, s.translation_y, s.rotation_angle, s.zoom_factor
        )
        self._start_from(self._encode(moved))


class RandomStream:
    """Random numbers of one run: within `with stream:` torch draws from it, and only there.

    Noise, which is drawn on the device, is seeded from here too (see `cutouts.recolour`), so the
    state of the CPU's generator is all that there is to keep. seed: any whole number in [0, 2^64).
    """

    def __init__(self, seed: int) -> None:
        self.state = torch.Generator().manual_seed(_fold(seed)).get_state()

    def __enter__(self) -> None:
        self._outside = torch.get_rng_state()
        torch.set_rng_state(self.state)

    def __exit__(self, *error: Any) -> None:
        self.state = torch.get_rng_state()
        torch.set_rng_state(self._outside)


def _fold(seed: int) -> int:
    """32 bits of a seed, which is all that the CPU's generator looks at; small ones as they are."""
    if seed < 2**32:
        return seed
    return int.from_bytes(blake2b(seed.to_bytes(8, "little"), digest_size=4).digest(), "little")


# --- Weights stay loaded from run to run -------------------------------------------------------

_Stamp = tuple[Path, int, int]


def _stamp(path: Path) -> _Stamp:
    """A file by path, time and size, so that a file that was replaced is loaded anew."""
    status = path.stat()
    return path.resolve(), status.st_mtime_ns, status.st_size


@lru_cache(maxsize=1)
def _warm_vqgan(
    config: _Stamp, checkpoint: _Stamp, device: torch.device, precision: Precision
) -> VQGAN:
    return load_vqgan_model(config[0], checkpoint[0]).quicken(precision).to(device)


@lru_cache(maxsize=1)
def _warm_clip(checkpoint: _Stamp, device: torch.device, precision: Precision) -> Perceptor:
    return load_clip_model(checkpoint[0], precision).to(device)


@lru_cache(maxsize=1)
def _warm_sketcher(weights: _Stamp, embed_dim: int, device: torch.device) -> Sketcher:
    return load_sketcher(weights[0], embed_dim).to(device)


@contextmanager
def _explain_misfit() -> Iterator[None]:
    """A checkpoint may be from a stranger, and hold anything."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        if _is_lack_of_memory(error):
            raise
        raise Unfit(_misfit(f"{type(error).__name__} {error}")) from None


def _misfit(reason: str) -> str:
    return (
        f"The checkpoint does not fit: {reason}. Continue from the run's picture instead: delete"
        " the checkpoint."
    )


def _is_lack_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "out of memory" in str(error) or "allocate memory" in str(error)


def _to_arrays(state: Any) -> Any:
    """The tensors in a state as numpy arrays of their own."""
    if isinstance(state, Tensor):
        return state.cpu().numpy().copy()
    if isinstance(state, dict):
        return {key: _to_arrays(value) for key, value in state.items()}
    return state


def _to_tensor(image: Image.Image) -> Tensor:
    """An RGB picture as [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def _to_uint8(picture: Tensor) -> np.ndarray:
    """A picture [1, 3, H, W] in [0, 1] as uint8 [H, W, 3]."""
    return (picture[0] * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
