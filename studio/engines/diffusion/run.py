"""One run of Diffusion: each step takes noise away, until a picture of the prompt is left.

A run reports facts, and draws nothing.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from studio.base.errors import BadInput
from studio.base.notes import HIDDEN
from studio.engines.arrays import to_arrays, to_uint8
from studio.engines.clip.compare import Comparison
from studio.engines.clip.perceptor import find_clip_model
from studio.engines.clip.prompts import write_prompts
from studio.engines.clip.targets import warnings_of_length
from studio.engines.contract import Run, Step
from studio.engines.diffusion.canvas import Canvas
from studio.engines.diffusion.clip_guidance import ClipGuidance, Cutouts, clip_targets
from studio.engines.diffusion.clip_prompts import clip_prompts
from studio.engines.diffusion.conditioning import script
from studio.engines.diffusion.denoiser import Denoiser
from studio.engines.diffusion.drawing import Drawing, beginning_with, from_noise, take_step
from studio.engines.diffusion.embeddings import vectors_of
from studio.engines.diffusion.fast import quickened
from studio.engines.diffusion.hires import enlarged, enlarger
from studio.engines.diffusion.memory import MemoryPlan
from studio.engines.diffusion.models import ENGINE, Models, chosen_dtype
from studio.engines.diffusion.outpainting import outpainted
from studio.engines.diffusion.prompt_files import prompt_files
from studio.engines.diffusion.schedule import Schedule
from studio.engines.diffusion.settings import NO_CLIP, SEEDS, DiffusionSettings
from studio.engines.diffusion.weights import get_weights
from studio.engines.sharing import sharing
from studio.engines.warm import warm
from studio.settings.run_settings import Continuing, RunSettings

AIMS = ("text_input", "negative_prompt", "clip_guidance")  # settings


class DiffusionRun(Run):
    """Latents that a denoiser cleans step by step (Rombach et al. 2022, "Latent Diffusion").

    Several pictures take each step together, each from its own seed, and each has the same bytes as
    when it is drawn alone.
    """

    Settings = DiffusionSettings
    settings: DiffusionSettings

    def load_model(self) -> None:
        s = self.settings
        self._check_start()
        weights = get_weights(self.assets_dir, s.weights, s.vae)
        dtype = chosen_dtype(s.precision, weights, self.device)
        self._memory = MemoryPlan(s, weights, dtype, self.device)
        self._memory.keep_freed_memory()
        self.warnings += self._memory.warnings
        self._weights = weights
        self._models = Models(self, weights, self.device, dtype)
        self._models.check()
        with self._memory.lack_explained():
            self._read_prompts(s)
            vae = quickened(self._models.decoder())
            self._take_denoiser()
        checks = s.safety_checker and weights.checker == "there"
        self._checker = self._models.safety_checker() if checks else None
        self._memory.give_back()
        self._canvas = Canvas(vae, weights.factor, weights.decoder_width, dtype)
        with self._memory.lack_explained():
            self._clip = self._clip_guidance(s)
            if s.hires_steps:
                self._enlarge = enlarger(s.hires_upscaler, self.assets_dir, self.device)
        warm.make_room(self._memory.needed, engine=ENGINE, run=self, device=self.device)

    def model_init(self) -> None:
        self._frames = 0
        self._guesses: list[Tensor] = []  # of the clean latents, in the last step
        self._begun: dict[str, Any] = {}  # with what drawings began that were enlarged since
        self._before_step: dict[str, Any] | None = None
        with self._memory.lack_explained(), sharing:
            warm.with_room(self._begin, run=self)

    def iterate(self) -> Step:
        self._before_step = self._state()
        with self._memory.lack_explained(), sharing:
            pictures = warm.with_room(self._take_step, run=self)
        self._frames += 1
        self._before_step = None
        grows_to = self._size_at(s.num_steps) if (s := self.settings).hires_steps else None
        return Step(self._frames, pictures=pictures, losses=self._losses(), grows_to=grows_to)

    def pictures_now(self) -> list[Any]:
        if self._canvas.is_quick:
            return []
        with self._memory.lack_explained(), sharing:
            pictures = [to_uint8(self._canvas.decode(guess)) for guess in self._guesses]
            return self._unless_hidden(pictures)

    # --- the state between steps ---

    def state_dict(self) -> dict[str, Any]:
        return to_arrays(self._before_step or self._state())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise BadInput(
                "The checkpoint is not of this run's kind or size. Delete it to start again."
            ) from error

    def continue_from(self, state: dict[str, Any], how: Continuing, reseed: bool) -> None:
        """With more steps, the picture is drawn again; otherwise it is the starting image."""
        try:
            if how == "exactly" and int(state["num_steps"]) < self.settings.num_steps:
                if not reseed:
                    self._draw_again(state)
            elif not reseed:
                self._go_on(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BadInput("The state of the run to continue cannot be read.") from error

    def change(self, settings: RunSettings) -> None:
        assert isinstance(settings, DiffusionSettings)
        if self.image_prompts and not settings.clip_guidance:
            raise BadInput(NO_CLIP)
        if any(getattr(settings, name) != getattr(self.settings, name) for name in AIMS):
            with self._memory.lack_explained(), sharing:
                self._aim(settings)
        self.settings = settings

    def _aim(self, settings: DiffusionSettings) -> None:
        """Draw by other prompts from here on, with their LoRAs, and by other CLIP guidance."""
        clip = warm.with_room(lambda: self._clip_guidance(settings), run=self)
        warm.with_room(lambda: self._read_prompts(settings), run=self)
        warm.with_room(self._take_denoiser, run=self)
        self._let_edges_meet()
        self._clip = clip

    def _state(self) -> dict[str, Any]:
        drawings = {str(n): drawing.state() for n, drawing in enumerate(self._drawings)}
        return {
            "frames": self._frames,
            "num_steps": self.settings.num_steps,
            "drawings": drawings,
            **({"begun": self._begun} if self._begun else {}),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        drawings = state["drawings"]
        if len(drawings) != self.settings.pictures:
            raise ValueError("another number of pictures")
        found = [drawings[str(n)] for n in range(self.settings.pictures)]
        frames = int(state["frames"])
        shape = self._shape_at(frames)
        restored = [Drawing.restored(one, self._schedule, shape) for one in found]
        self._frames, self._drawings, self._begun = frames, restored, dict(state.get("begun", {}))

    # --- before the first step ---

    def _check_start(self) -> None:
        """Raises BadInput for a start that cannot be made, before anything is loaded."""
        s = self.settings
        if self.start_image is not None and s.skipped_steps >= s.small_steps:
            raise BadInput(s.no_step_left)

    def _read_prompts(self, settings: DiffusionSettings) -> None:
        said = settings.denoiser_prompt, settings.negative_prompt
        files = prompt_files(*said, self._weights, self.assets_dir)
        vectors = {inversion.name: vectors_of(inversion) for inversion in files.inversions}
        models, steps = replace(self._models, loras=files.loras), settings.num_steps
        readers = [
            replace(reader, inversions={name: found[n] for name, found in vectors.items()})
            for n, reader in enumerate(models.text_encoders())
        ]
        self._script = script(readers, *said, clip_skip=settings.clip_skip, steps=steps)
        self._models = models
        self.warnings += files.remarks

    def _take_denoiser(self) -> None:
        s, models = self.settings, self._models
        self._denoiser = Denoiser(quickened(models.denoiser()), (s.Xdim, s.ydim), models.dtype)

    def _clip_guidance(self, settings: DiffusionSettings) -> ClipGuidance | None:
        """What pulls pictures to the prompts, if these settings want it. Raises BadInput."""
        if not settings.clip_guidance:
            return None
        path = find_clip_model(settings.clip_model, self.assets_dir)
        perceptor = self._models.perceptor(path)
        targets = clip_targets(settings, self.image_prompts, self.image_weights, perceptor)
        said = write_prompts(clip_prompts(settings.text_input))
        self.warnings += warnings_of_length(said, "", perceptor, settings.clip_model)
        if not targets:
            return None
        comparison = Comparison(perceptor, targets, Cutouts(settings))
        return ClipGuidance(comparison, self._canvas, settings.clip_guidance)

    def _begin(self) -> None:
        self._let_edges_meet()
        s = self.settings
        generators = [_generator((s.seed + n) % SEEDS) for n in range(s.pictures)]
        self._begin_with(generators)

    def _begin_with(self, generators: list[torch.Generator]) -> None:
        s = self.settings
        image, mask = self._start()
        if image is None:
            shape = self._shape_at(0)
            self._drawings = [from_noise(self._schedule(), shape, g) for g in generators]
            if self._weights.is_inpainting:
                for drawing in self._drawings:
                    drawing.see_nothing(self._canvas, (s.Xdim, s.ydim))
            return
        self._drawings = [
            beginning_with(
                image,
                mask,
                (s.Xdim, s.ydim),
                self._canvas,
                self._schedule(s.skipped_steps),
                g,
                is_all_new=s.skipped_steps == 0,
                sees_mask=self._weights.is_inpainting,
            )
            for g in generators
        ]

    def _start(self) -> tuple[Image.Image | None, Image.Image | None]:
        """The picture to start from, with room around it if it is outpainted, and its mask."""
        s, image = self.settings, self.start_image
        if image is None or not s.grows_start:
            return image, self.mask
        return outpainted(image, self.mask, (s.outpaint_left, s.outpaint_top), (s.Xdim, s.ydim))

    def _draw_again(self, state: Mapping[str, Any]) -> None:
        """From the same beginning as the earlier run, with this run's number of steps."""
        for number, drawing in enumerate(self._drawings):
            begun = (state.get("begun") or state["drawings"])[str(number)]
            has_image = int(begun["first_step"]) > 0
            schedule = self._schedule(self.settings.skipped_steps if has_image else 0)
            drawing.begin_as(begun, schedule, self._shape_at(0))

    def _go_on(self, state: Mapping[str, Any]) -> None:
        """From the picture, with the random numbers that the earlier run would have drawn next."""
        there = [state["drawings"][name] for name in sorted(state["drawings"], key=int)]
        generators = []
        for number in range(self.settings.pictures):
            generator = _generator((self.settings.seed + number) % SEEDS)
            if number < len(there):
                generator.set_state(torch.tensor(there[number]["random"], dtype=torch.uint8))
            generators.append(generator)
        warm.with_room(lambda: self._begin_with(generators), run=self)

    def _schedule(self, skipped: int = 0) -> Schedule:
        s = self.settings
        return Schedule(s.sampler, self._weights.scheduler, s.small_steps, skipped)

    def _size_at(self, step: int) -> tuple[int, int]:
        """Width and height of the pictures after so many steps."""
        s = self.settings
        return s.full_size(self._weights.factor) if step > s.small_steps else (s.Xdim, s.ydim)

    def _shape_at(self, step: int) -> tuple[int, int, int, int]:
        """Of a latent after so many steps."""
        f, channels = self._weights.factor, self._canvas.vae.config.latent_channels
        width, height = self._size_at(step)
        return 1, channels, height // f, width // f

    def _let_edges_meet(self) -> None:
        """Or not: warm models may come from a run of the other kind."""
        mode = "circular" if self.settings.tiling else "zeros"
        for network in (self._denoiser.unet, self._canvas.vae):
            for part in network.modules():
                if isinstance(part, nn.Conv2d) and part.padding != (0, 0):
                    part.padding_mode = mode

    # --- a step ---

    @torch.no_grad()
    def _take_step(self) -> list[Any]:
        """The pictures after it; none for a step that the starting image skips."""
        s, begun, place = self.settings, self._begun, self._frames
        if place == s.small_steps:
            begun = {str(n): one.state() for n, one in enumerate(self._drawings)}
            later = [self._enlarged(drawing) for drawing in self._drawings]
        else:  # if this breaks off, all stays
            later = [drawing.copy() for drawing in self._drawings]
        if place >= s.small_steps:
            place -= s.hires_steps  # it is the same schedule, its end once more
        self._denoiser.size = self._size_at(self._frames + 1)
        texts = self._script.at(self._frames + 1)
        guesses = take_step(later, place, self._denoiser, texts, s.guidance_scale, self._clip)
        is_last = self._frames + 1 >= self.settings.num_steps
        if is_last:
            self._memory.give_back()
        pictures = [
            to_uint8(self._shown(drawing.latent if is_last else guess, is_last))
            for drawing, guess in zip(later, guesses, strict=True)
            if guess is not None
        ]
        self._drawings, self._begun = later, begun
        self._guesses = [guess for guess in guesses if guess is not None]
        return self._unless_hidden(pictures)

    def _unless_hidden(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        """The pictures, of which the safety checker turns some black."""
        if self._checker is None or not pictures:
            return pictures
        seed = self.settings.seed
        hidden = self._checker(pictures)
        self.notes[HIDDEN] = [(seed + n) % SEEDS for n, hide in enumerate(hidden) if hide]
        return [p * 0 if hide else p for p, hide in zip(pictures, hidden, strict=True)]

    def _enlarged(self, drawing: Drawing) -> Drawing:
        """At full size, on its way through the last steps of the schedule once more."""
        s = self.settings
        schedule = self._schedule(s.small_steps - s.hires_steps)
        size = self._size_at(s.num_steps)
        return enlarged(drawing, self._enlarge, size, self._canvas, schedule)

    def _losses(self) -> dict[str, float]:
        """How far the pictures are from the prompts, on average, where CLIP guides them."""
        each = [drawing.losses for drawing in self._drawings if drawing.losses]
        if not each:
            return {}
        means = {name: sum(one[name] for one in each) / len(each) for name in each[0]}
        return means | {"total": sum(means.values())}

    def _shown(self, latent: Tensor, is_last: bool) -> Tensor:
        if is_last or self._canvas.is_quick:
            return self._canvas.decode(latent)
        return self._canvas.sketch(latent)


def _generator(seed: int) -> torch.Generator:
    """Random numbers of one picture: those that diffusers' pipelines draw for that seed."""
    return torch.Generator().manual_seed(seed)
