"""VQGAN-CLIP: a run's latent is optimised until CLIP finds its picture close to the prompts.

A run reports facts, and draws nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from studio.engines.arrays import to_arrays, to_uint8
from studio.engines.clip.compare import Comparison
from studio.engines.clip.targets import (
    Target,
    image_targets,
    text_targets,
    warnings_of_length,
)
from studio.engines.contract import Run, Step
from studio.engines.device import (
    compute_precision,
    deterministic_algorithms,
    is_lack_of_memory,
    release_freed_memory,
)
from studio.engines.random_stream import RandomStream, checked_random_state
from studio.engines.sharing import sharing
from studio.engines.vqgan_clip import start
from studio.engines.vqgan_clip.cutout_methods import Views
from studio.engines.vqgan_clip.ground import Ground, kept_ground
from studio.engines.vqgan_clip.growth import Growth, is_large, sizes, sizes_that_hold
from studio.engines.vqgan_clip.latent import Latent, misfit_explained
from studio.engines.vqgan_clip.losses import as_numbers, regularisation
from studio.engines.vqgan_clip.memory import MemoryPlan
from studio.engines.vqgan_clip.models import ENGINE, Models
from studio.engines.vqgan_clip.noise_targets import noise_targets
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.engines.vqgan_clip.slice_plan import SLICES, first_size, slice_seed
from studio.engines.vqgan_clip.slicing import NONE, Slicing, restarted
from studio.engines.vqgan_clip.tiles import Canvas
from studio.engines.warm import warm
from studio.media.pictures import cover
from studio.models.catalogue import find_sketcher, get_weights, picture_size
from studio.settings.run_settings import Continuing, RunSettings
from vqgan_utils import find_clip_model, move_picture

GENTLE = 0.25  # of the step size: slices that are only to be refined
SMALLEST_PART = 0.25  # of a large picture's shorter side: its smallest cutouts

__all__ = ["RandomStream", "Run", "Step", "VQGANCLIPRun"]


class VQGANCLIPRun(Run):
    """A VQGAN's latent z, optimised so that CLIP finds its picture close to the prompts.

    Each step decodes z once, compares cutouts of the picture with the prompts, and moves z by an
    optimiser, usually Adam (Crowson et al. 2022, "VQGAN-CLIP"). A large picture begins small, grows
    by stages, and is worked on in tiles. All random numbers come from the run's own stream, so
    other work in the same process changes nothing.
    """

    Settings = VQGANCLIPSettings
    settings: VQGANCLIPSettings
    _ground: Ground | None = None
    _ground_found_for: tuple[Tensor | None, list[Target] | None] = None, None

    def load_model(self) -> None:
        self._memory = MemoryPlan(self.settings, self.assets_dir, self.device)
        self._memory.keep_freed_memory()
        self.warnings += self._memory.warnings
        with self._memory.lack_explained():
            weights = get_weights(self.assets_dir, self.settings.vqgan_ckpt)
            self.size = picture_size(weights, self.settings.Xdim, self.settings.ydim)
            self.factor = weights.factor
            clip_path = find_clip_model(self.settings.clip_model, self.assets_dir)
            models = Models(self, self.device, compute_precision(self.device))
            self.perceptor = models.perceptor(clip_path)
            self.vqgan = models.vqgan(weights)
            self._slices = self._planned_slices()
            made = self._slices.made_size if self._slices else self.size
            in_tiles = is_large(*made, self.settings.grow_from)
            self._canvas = Canvas(self.vqgan, self.factor, in_tiles)
            sketcher = find_sketcher(clip_path) if self.settings.init_sketch else None
            self._sketcher = sketcher and models.sketcher(sketcher, self.perceptor.embed_dim)
        warm.make_room(self._memory.needed, engine=ENGINE, run=self, device=self.device)
        release_freed_memory()

    def model_init(self) -> None:
        self._frames = self._optimisation_steps = 0
        self._growth = self._planned_growth()
        self._kept: set[int] = set()  # the numbers of the slices that a step told of
        self._has_moved_on = False  # whether the latent is beyond a frame that was filmed
        self._before_step: dict[str, Any] | None = None
        s = self.settings
        said = " | ".join([s.text_input, *s.slice_prompts])
        self.warnings += warnings_of_length(said, s.avoid, self.perceptor, s.clip_model)
        self.warnings += self._growth.warnings(s.num_steps)
        with self._memory.lack_explained(), sharing:
            warm.with_room(self._begin, run=self)

    def iterate(self) -> Step:
        self._before_step = self._state()
        with (
            self._memory.lack_explained(),
            deterministic_algorithms(self.settings.deterministic),
            sharing,
        ):
            if self._slices:
                self._turn_to_slice()
            with self._random:
                picture, losses = self._frame()
        self._frames += 1
        self._has_moved_on = True
        step = self._step(to_uint8(picture), losses)
        self._before_step = None
        return step

    def _frame(self) -> tuple[Tensor, dict[str, float]]:
        """The next picture, and its losses."""
        if growth := self._growth.due(self._optimisation_steps):
            warm.with_room(lambda: self._grow(growth), run=self)
        if self.settings.use_scrolling_zooming and self._has_moved_on:
            warm.with_room(self._move, run=self)
        for _ in range(self._steps_per_frame - 1):
            self._optimise()
        return self._optimise()

    def _step(self, picture: np.ndarray, losses: Mapping[str, float]) -> Step:
        slices = self._slices
        if slices is None:
            return Step(self._frames, picture, losses, grows_to=self._growth.grows_to)
        if slices.under is None:
            if not (slices.are_whole and self._lay_under_slices()):
                return Step(self._frames, picture, losses, grows_to=self.size)
        elif slices.add(picture):
            self._kept.discard(slices.current)
        new = {n: part for n, part in slices.pictures.items() if n not in self._kept}
        self._kept |= new.keys()
        parts = new if self.keeps_parts else {}
        return Step(self._frames, slices.picture(), losses, parts=parts)

    # --- the state between steps ---

    def state_dict(self) -> dict[str, Any]:
        return to_arrays(self._before_step or self._state())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with misfit_explained():
            self._take_stage_of(state)
            self._take_up(state)
            self._frames = int(state["frames"])
            self._has_moved_on = self._frames > 0
            # Older checkpoints lack it. Noise is drawn for so many cutouts at a time.
            self._at_a_time = max(1, int(state.get("cutouts_at_a_time", self._at_a_time)))

    def continue_from(self, state: dict[str, Any], how: Continuing, reseed: bool) -> None:
        if self._slices:
            self._continue_slices(state, how, reseed)
            return
        if how == "exactly":
            self.load_state_dict(state)
            self._frames = 0
        with misfit_explained():
            if how == "from its latent":
                self._take_stage_of(state)
                self._latent = self._latent.continued(state)
                self._canvas.restore(state)
            if not reseed:
                self._random.state = checked_random_state(state["random"])

    def change(self, settings: RunSettings) -> None:
        assert isinstance(settings, VQGANCLIPSettings)
        said = settings.text_input, settings.avoid
        if said != (self.settings.text_input, self.settings.avoid):
            self.warnings += warnings_of_length(*said, self.perceptor, settings.clip_model)
            with self._memory.lack_explained(), sharing:
                self._targets = warm.with_room(lambda: self._find_targets(settings), run=self)
        self.settings = settings
        self._compare(settings)
        self._latent.step_size = self._step_size(settings)

    def _state(self) -> dict[str, Any]:
        """What steps change, in copies that stay on the device."""
        return {
            **self._worked_on(),
            "frames": self._frames,
            "cutouts_at_a_time": self._at_a_time,
            **self._growth.state(),
            **({"slices": self._slices.state()} if self._slices else {}),
        }

    def _worked_on(self) -> dict[str, Any]:
        """Of that, what belongs to the picture or slice that is worked on."""
        return {
            **self._latent.state(),
            "optimisation_steps": self._optimisation_steps,
            "random": self._random.state.clone(),
            **self._canvas.state(),
        }

    def _take_up(self, state: Mapping[str, Any]) -> None:
        """Work on from what `_worked_on` gave, as arrays."""
        self._latent = self._latent.restored(state)
        self._canvas.restore(state)
        self._optimisation_steps = int(state["optimisation_steps"])
        self._random.state = checked_random_state(state["random"])

    @torch.no_grad()
    def _grow(self, growth: Growth) -> None:
        """Begin another stage with the picture, last update included, enlarged and encoded."""
        larger = start.enlarged(self._canvas.decode(self._latent.z), growth.size)
        self._begin_at(start.encode(self._canvas, larger))
        self._growth = growth

    def _take_stage_of(self, state: Mapping[str, Any]) -> None:
        """Go on in the stage, or with the slice, of a state, with a latent of its size."""
        if slices := self._slices:
            slices.restore(state["slices"])
            self._begin_empty(self._growth.size if slices.under is None else slices.made_size)
            self._aim(self.settings)
        elif growth := Growth.of_state(state, self.size):
            self._growth = growth
            self._begin_empty(growth.size)

    def _begin_empty(self, size: tuple[int, int]) -> None:
        """Begin at a latent for `size` (width, height) that a state's is to replace."""
        width, height = size
        shape = 1, len(self._low), height // self.factor, width // self.factor
        self._begin_at(torch.zeros(shape, device=self.device))

    # --- slices ---

    @property
    def keeps_parts(self) -> bool:
        return self._slices is not None and self.settings.save_nine

    def take_parts(self, parts: Mapping[int, np.ndarray]) -> tuple[int, np.ndarray | None] | None:
        assert self._slices
        fitting = {number: part for number, part in parts.items() if self._slices.fits(part)}
        self.warnings += [
            f"Slice {number} has not the size of a slice of this run. It was made again."
            for number in parts.keys() - fitting.keys()
        ]
        before = sum(self._slices.steps)
        is_different = self._slices.take(fitting)
        self._frames += sum(self._slices.steps) - before
        self._kept = {*fitting}
        is_begun = self._slices.under is not None
        picture = self._slices.picture() if is_begun else None
        return (self._frames, picture) if is_different else None

    def _continue_slices(self, state: dict[str, Any], how: Continuing, reseed: bool) -> None:
        assert self._slices
        if how == "from its picture":
            return
        if how == "from its latent":
            s = self.settings
            seeds = (slice_seed(s.seed, s.slice_seeds, number) for number in range(SLICES))
            streams = [RandomStream(seed).state for seed in seeds]
            with misfit_explained():
                state = restarted(state, [one.numpy() for one in streams] if reseed else None)
        self.load_state_dict(state)
        self._frames, self._slices.inherited = 0, True

    def _planned_slices(self) -> Slicing | None:
        s = self.settings
        return Slicing(self.size, self.factor, s.slice_steps) if s.slices == "nine" else None

    @torch.no_grad()
    def _turn_to_slice(self) -> None:
        """Work on the slice that is due, once the small picture is made."""
        slices = self._slices
        assert slices
        if slices.under is None and not self._lay_under_slices():
            return
        if (number := slices.due) != slices.current:
            state = slices.turn_to(number, to_arrays(self._worked_on()))
            if state:
                with misfit_explained():
                    self._begin_empty(slices.made_size)
                    self._take_up(state)
            else:
                self._begin_slice(number)
            warm.with_room(lambda: self._aim(self.settings), run=self)

    @torch.no_grad()
    def _lay_under_slices(self) -> bool:
        """Let the slices begin with the small picture, last update included, if it is made."""
        if self._optimisation_steps < self.settings.grow_steps:
            return False
        assert self._slices
        picture = warm.with_room(lambda: self._canvas.decode(self._latent.z), run=self)
        small = Image.fromarray(to_uint8(picture))
        enlarged = np.asarray(small.resize(self.size, Image.Resampling.BICUBIC))
        self._slices.begin_with(enlarged)
        return True

    def _begin_slice(self, number: int) -> None:
        assert self._slices
        start_image = Image.fromarray(self._slices.start_of(number))
        chosen = self.settings.slice_seeds
        self._random = RandomStream(slice_seed(self.settings.seed, chosen, number))
        self._optimisation_steps = 0
        size = self._slices.made_size
        self._begin_at(
            warm.with_room(lambda: start.latent_of_image(self._canvas, start_image, size), run=self)
        )

    # --- before the first step ---

    @torch.no_grad()
    def _begin(self) -> None:
        self._random = RandomStream(self.settings.seed)
        with self._random:
            codebook = self.vqgan.codebook
            self._low = codebook.amin(dim=0)[:, None, None]
            self._high = codebook.amax(dim=0)[:, None, None]
            self._aim(self.settings)
            self._at_a_time = self._comparison.cutouts_at_a_time()
            if self._slices and self.start_image is not None:
                self._slices.begin_with(np.asarray(cover(self.start_image, self.size)))
                self._begin_empty(self._slices.made_size)
            else:
                self._begin_at(self._first_latent())

    def _aim(self, settings: VQGANCLIPSettings) -> None:
        """Pull the picture, or the slice that is worked on, to what these settings ask for."""
        self._targets = self._find_targets(settings)
        self._compare(settings)

    def _begin_at(self, z: Tensor) -> None:
        """Go on from a latent with a fresh optimiser."""
        self._latent = Latent(z, self._step_size(self.settings), self.settings.optimiser)

    def _planned_growth(self) -> Growth:
        """In one stage where the picture scrolls, or begins with one of its size."""
        s, planned = self.settings, [self.size]
        if self._slices:
            return Growth.planned([first_size(*self.size, self.factor, s.grow_from)], 0)
        if not s.use_scrolling_zooming:
            planned = sizes(*self.size, self.factor, s.grow_from)
        if self.start_image is not None:
            planned = sizes_that_hold(planned, *self.start_image.size)
        return Growth.planned(planned, s.grow_steps)

    def _compare(self, settings: VQGANCLIPSettings) -> None:
        """Compare pictures with the targets by these settings from here on."""
        smallest = SMALLEST_PART if self._canvas.in_tiles else 0.0
        views = Views(settings, self.perceptor.input_resolution)
        other = views if Views.wanted(settings) else None
        self._comparison = Comparison(self.perceptor, self._targets, settings, smallest, other)

    @torch.no_grad()
    def _find_targets(self, settings: VQGANCLIPSettings) -> list[Target]:
        """What the picture is pulled to. It draws no random numbers."""
        return [
            *text_targets(self._prompt(settings), settings.avoid, self.perceptor),
            *image_targets(self.image_prompts, self.image_weights, self.perceptor),
            *noise_targets(settings.noise_prompt, self.perceptor),
        ]

    def _prompt(self, settings: VQGANCLIPSettings) -> str:
        """That of the picture, with that of the slice that is worked on."""
        own = self._own_prompt(settings)
        return f"{settings.text_input} | {own}" if own else settings.text_input

    def _own_prompt(self, settings: VQGANCLIPSettings) -> str:
        """That of the slice that is worked on, if there is one, and it has one."""
        number = self._slices.current if self._slices else NONE
        return settings.slice_prompts[number] if number != NONE and settings.slice_prompts else ""

    def _step_size(self, settings: VQGANCLIPSettings) -> float:
        """Smaller for a slice without a prompt of its own: the prompt is of more than it shows."""
        is_slice = self._slices is not None and self._slices.current != NONE
        gentle = is_slice and not self._own_prompt(settings)
        return settings.step_size * (GENTLE if gentle else 1)

    def _first_latent(self) -> Tensor:
        size = self._growth.size
        if self.start_image is not None:
            return start.latent_of_image(self._canvas, self.start_image, size)
        if self.settings.init_noise != "none":
            return start.latent_of_noise(self._canvas, self.settings.init_noise, size)
        if self._sketcher is not None and self._wished:
            sketch = start.choose_sketch(self.perceptor, self._sketcher, self._wished)
            return start.latent_of_sketch(self._canvas, sketch, size)
        return start.latent_of_codes(self._canvas, size, self.factor)

    @property
    def _wished(self) -> list[Target]:
        """What a sketch can show: no noise."""
        return [t for t in self._targets if t.weight > 0 and t.name != "noise"]

    # --- the ground ---

    @torch.no_grad()
    def _kept_ground(self) -> Ground | None:
        """Found again whenever the latent's anchor is another one, or what is wished."""
        if not self.settings.ground_weight:
            return None
        found_for = self._latent.anchor, self._targets
        if any(
            now is not then for now, then in zip(found_for, self._ground_found_for, strict=True)
        ):
            sketches = None
            if self._sketcher is not None and self._wished:
                sketches = self._sketcher.draw(start.wish_of(self._wished))
            self._ground = kept_ground(self._canvas.decode(self._latent.anchor), sketches)
            self._ground_found_for = found_for
        return self._ground

    # --- a step ---

    @property
    def _steps_per_frame(self) -> int:
        settings = self.settings
        return settings.transform_interval if settings.use_scrolling_zooming else 1

    def _optimise(self) -> tuple[Tensor, dict[str, float]]:
        """One step; the picture [1, 3, H, W] in [0, 1] before it, and its losses."""
        picture, losses = self._with_fewer_cutouts_at_a_time(self._differentiate)
        self._latent.move()
        with torch.no_grad():
            self._latent.z.clamp_(self._low, self._high)
        self._optimisation_steps += 1
        return picture, losses

    def _differentiate(self) -> tuple[Tensor, dict[str, float]]:
        """The picture and its losses, with their gradient at z."""
        latent, steps = self._latent, self._optimisation_steps
        latent.z.grad = None
        picture = self._canvas.decode(latent.z)
        gradient, losses = self._comparison.differentiate(picture.detach(), self._at_a_time)
        held = regularisation(latent.z, latent.anchor, steps, self.settings)
        kept = {}
        if ground := self._kept_ground():
            weight = self.settings.ground_weight
            kept["ground"] = ground.differentiate(picture, weight, gradient)
        numbers = as_numbers(losses | held | kept, steps)
        self._canvas.pull(latent.z, picture, gradient, held.values())
        return picture.detach(), numbers

    def _with_fewer_cutouts_at_a_time(self, compute: Callable[[], Any]) -> Any:
        """What `compute` returns; if memory is short, the same again with more room.

        First the models of other runs go, which changes no byte. Then CLIP looks at half as many
        cutouts at a time, and again. Random numbers are the same each time.
        """
        numbers = torch.get_rng_state()

        def attempt() -> Any:
            torch.set_rng_state(numbers)
            return compute()

        while True:
            try:
                return warm.with_room(attempt, run=self)
            except (MemoryError, RuntimeError) as error:
                if not is_lack_of_memory(error) or self._at_a_time == 1:
                    raise
            # Outside of the handler, so that the error's traceback holds no tensors any more.
            self._at_a_time //= 2
            self.notes["cutouts_at_a_time"] = self._at_a_time
            release_freed_memory()

    @torch.no_grad()
    def _move(self) -> None:
        """Move the picture, last update included, encode it again, and continue from there.

        The optimiser starts afresh: its moments belong to places that now show something else.
        """
        s = self.settings
        moved = move_picture(
            self._canvas.decode(self._latent.z),
            s.translation_x,
            s.translation_y,
            s.rotation_angle,
            s.zoom_factor,
        )
        self._begin_at(start.encode(self._canvas, moved))
