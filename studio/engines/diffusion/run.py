"""One run of Diffusion: each step takes noise away, until a picture of the prompt is left.

A run reports facts, and draws nothing.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from studio.base.errors import BadInput
from studio.base.notes import HIDDEN
from studio.engines.arrays import to_arrays, to_uint8
from studio.engines.contract import Run, Step
from studio.engines.diffusion.canvas import Canvas
from studio.engines.diffusion.conditioning import script
from studio.engines.diffusion.denoiser import Denoiser
from studio.engines.diffusion.drawing import Drawing, beginning_with, from_noise
from studio.engines.diffusion.embeddings import vectors_of
from studio.engines.diffusion.fast import quickened
from studio.engines.diffusion.memory import MemoryPlan
from studio.engines.diffusion.models import ENGINE, Models, chosen_dtype
from studio.engines.diffusion.prompt_files import prompt_files
from studio.engines.diffusion.samplers import first_step
from studio.engines.diffusion.schedule import Schedule
from studio.engines.diffusion.settings import SEEDS, DiffusionSettings, no_step_left
from studio.engines.diffusion.weights import get_weights
from studio.engines.sharing import sharing
from studio.engines.warm import warm
from studio.settings.run_settings import Continuing, RunSettings


class DiffusionRun(Run):
    """Latents that a denoiser cleans step by step (Rombach et al. 2022, "Latent Diffusion").

    Several pictures are drawn one after the other within a step, each from its own seed, so each
    has the same bytes as when it is drawn alone.
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
        warm.make_room(self._memory.needed, engine=ENGINE, run=self, device=self.device)

    def model_init(self) -> None:
        self._frames = 0
        self._before_step: dict[str, Any] | None = None
        with self._memory.lack_explained(), sharing:
            warm.with_room(self._begin, run=self)

    def iterate(self) -> Step:
        self._before_step = self._state()
        with self._memory.lack_explained(), sharing:
            pictures = warm.with_room(self._take_step, run=self)
        self._frames += 1
        self._before_step = None
        return Step(self._frames, pictures=pictures)

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
        said = settings.text_input, settings.negative_prompt
        if said != (self.settings.text_input, self.settings.negative_prompt):
            with self._memory.lack_explained(), sharing:
                warm.with_room(lambda: self._read_prompts(settings), run=self)
                warm.with_room(self._take_denoiser, run=self)
                self._let_edges_meet()
        self.settings = settings

    def _state(self) -> dict[str, Any]:
        drawings = {str(n): drawing.state() for n, drawing in enumerate(self._drawings)}
        return {
            "frames": self._frames,
            "num_steps": self.settings.num_steps,
            "drawings": drawings,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        drawings = state["drawings"]
        if len(drawings) != self.settings.pictures:
            raise ValueError("another number of pictures")
        found = [drawings[str(n)] for n in range(self.settings.pictures)]
        shape = self._latent_shape
        restored = [Drawing.restored(one, self._schedule, shape) for one in found]
        self._frames, self._drawings = int(state["frames"]), restored

    # --- before the first step ---

    def _check_start(self) -> None:
        """Raises BadInput for a start that cannot be made, before anything is loaded."""
        s = self.settings
        if self.start_image is not None and first_step(s.num_steps, s.strength) == s.num_steps:
            raise BadInput(no_step_left(s.strength, s.num_steps))

    def _read_prompts(self, settings: DiffusionSettings) -> None:
        said = settings.text_input, settings.negative_prompt
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

    def _begin(self) -> None:
        self._let_edges_meet()
        s = self.settings
        generators = [_generator((s.seed + n) % SEEDS) for n in range(s.pictures)]
        self._begin_with(generators)

    def _begin_with(self, generators: list[torch.Generator]) -> None:
        s, image = self.settings, self.start_image
        if image is None:
            shape = self._latent_shape
            self._drawings = [from_noise(self._schedule(), shape, g) for g in generators]
            if self._weights.is_inpainting:
                for drawing in self._drawings:
                    drawing.see_nothing(self._canvas, (s.Xdim, s.ydim))
            return
        skipped = first_step(s.num_steps, s.strength)
        self._drawings = [
            beginning_with(
                image,
                self.mask,
                (s.Xdim, s.ydim),
                self._canvas,
                self._schedule(skipped),
                g,
                is_all_new=s.strength == 1,
                sees_mask=self._weights.is_inpainting,
            )
            for g in generators
        ]

    def _draw_again(self, state: Mapping[str, Any]) -> None:
        """From the same beginning as the earlier run, with this run's number of steps."""
        s = self.settings
        for number, drawing in enumerate(self._drawings):
            begun = state["drawings"][str(number)]
            skipped = int(begun["first_step"])
            share = 1 - skipped / int(state["num_steps"])
            schedule = self._schedule(first_step(s.num_steps, share) if skipped else 0)
            drawing.begin_as(begun, schedule, self._latent_shape)

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
        return Schedule(s.sampler, self._weights.scheduler, s.num_steps, skipped)

    @property
    def _latent_shape(self) -> tuple[int, int, int, int]:
        f, channels = self._weights.factor, self._canvas.vae.config.latent_channels
        return 1, channels, self.settings.ydim // f, self.settings.Xdim // f

    def _let_edges_meet(self) -> None:
        """Or not: warm models may come from a run of the other kind."""
        mode = "circular" if self.settings.tiling else "zeros"
        for network in (self._denoiser.unet, self._canvas.vae):
            for part in network.modules():
                if isinstance(part, nn.Conv2d) and part.padding != (0, 0):
                    part.padding_mode = mode

    # --- a step ---

    def _take_step(self) -> list[Any]:
        """The pictures after it; none for a step that the starting image skips."""
        later = [drawing.copy() for drawing in self._drawings]  # if this breaks off, all stays
        texts = self._script.at(self._frames + 1)
        guidance = self.settings.guidance_scale
        guesses = [d.take_step(self._frames, self._denoiser, texts, guidance) for d in later]
        is_last = self._frames + 1 >= self.settings.num_steps
        if is_last:
            self._memory.give_back()
        pictures = [
            to_uint8(self._shown(drawing.latent if is_last else guess, is_last))
            for drawing, guess in zip(later, guesses, strict=True)
            if guess is not None
        ]
        self._drawings = later
        return self._unless_hidden(pictures)

    def _unless_hidden(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        """The pictures, of which the safety checker turns some black."""
        if self._checker is None or not pictures:
            return pictures
        seed = self.settings.seed
        hidden = self._checker(pictures)
        self.notes[HIDDEN] = [(seed + n) % SEEDS for n, hide in enumerate(hidden) if hide]
        return [p * 0 if hide else p for p, hide in zip(pictures, hidden, strict=True)]

    def _shown(self, latent: Tensor, is_last: bool) -> Tensor:
        if is_last or self._canvas.is_quick:
            return self._canvas.decode(latent)
        return self._canvas.sketch(latent)


def _generator(seed: int) -> torch.Generator:
    """Random numbers of one picture: those that diffusers' pipelines draw for that seed."""
    return torch.Generator().manual_seed(seed)
