"""VQGAN-CLIP: a run's latent is optimised until CLIP finds its picture close to the prompts.

A run reports facts, and draws nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from studio.engines.arrays import to_arrays, to_uint8
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
from studio.engines.vqgan_clip.compare import Comparison
from studio.engines.vqgan_clip.ground import Ground, kept_ground
from studio.engines.vqgan_clip.growth import Growth, is_large, sizes, sizes_that_hold
from studio.engines.vqgan_clip.latent import Latent, misfit_explained
from studio.engines.vqgan_clip.losses import as_numbers, regularisation
from studio.engines.vqgan_clip.memory import MemoryPlan
from studio.engines.vqgan_clip.models import ENGINE, Models
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.engines.vqgan_clip.targets import (
    Target,
    image_targets,
    noise_targets,
    text_targets,
    warnings_of_length,
)
from studio.engines.vqgan_clip.tiles import Canvas
from studio.engines.warm import warm
from studio.models.catalogue import find_sketcher, get_weights, picture_size
from studio.settings.run_settings import Continuing, RunSettings
from vqgan_utils import find_clip_model, move_picture

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
            in_tiles = is_large(*self.size, self.settings.grow_from)
            self._canvas = Canvas(self.vqgan, self.factor, in_tiles)
            sketcher = find_sketcher(clip_path) if self.settings.init_sketch else None
            self._sketcher = sketcher and models.sketcher(sketcher, self.perceptor.embed_dim)
        warm.make_room(self._memory.needed, engine=ENGINE, run=self, device=self.device)
        release_freed_memory()

    def model_init(self) -> None:
        self._frames = self._optimisation_steps = 0
        self._growth = self._planned_growth()
        self._has_moved_on = False  # whether the latent is beyond a frame that was filmed
        self._before_step: dict[str, Any] | None = None
        s = self.settings
        self.warnings += warnings_of_length(s.text_input, s.avoid, self.perceptor, s.clip_model)
        self.warnings += self._growth.warnings(s.num_steps)
        with self._memory.lack_explained(), sharing:
            warm.with_room(self._begin, run=self)

    def iterate(self) -> Step:
        self._before_step = self._state()
        with (
            self._memory.lack_explained(),
            deterministic_algorithms(self.settings.deterministic),
            sharing,
            self._random,
        ):
            if growth := self._growth.due(self._optimisation_steps):
                warm.with_room(lambda: self._grow(growth), run=self)
            if self.settings.use_scrolling_zooming and self._has_moved_on:
                warm.with_room(self._move, run=self)
            for _ in range(self._steps_per_frame - 1):
                self._optimise()
            picture, losses = self._optimise()
        self._frames += 1
        self._has_moved_on = True
        step = Step(self._frames, to_uint8(picture), losses, grows_to=self._growth.grows_to)
        self._before_step = None
        return step

    # --- the state between steps ---

    def state_dict(self) -> dict[str, Any]:
        return to_arrays(self._before_step or self._state())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with misfit_explained():
            self._take_stage_of(state)
            self._latent = self._latent.restored(state)
            self._canvas.restore(state)
            self._optimisation_steps = int(state["optimisation_steps"])
            self._frames = int(state["frames"])
            self._has_moved_on = self._frames > 0
            # Older checkpoints lack it. Noise is drawn for so many cutouts at a time.
            self._at_a_time = max(1, int(state.get("cutouts_at_a_time", self._at_a_time)))
            self._random.state = checked_random_state(state["random"])

    def continue_from(self, state: dict[str, Any], how: Continuing, reseed: bool) -> None:
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
        self._latent.step_size = settings.step_size

    def _state(self) -> dict[str, Any]:
        """What steps change, in copies that stay on the device."""
        return {
            **self._latent.state(),
            "frames": self._frames,
            "optimisation_steps": self._optimisation_steps,
            "cutouts_at_a_time": self._at_a_time,
            "random": self._random.state.clone(),
            **self._growth.state(),
            **self._canvas.state(),
        }

    @torch.no_grad()
    def _grow(self, growth: Growth) -> None:
        """Begin another stage with the picture, last update included, enlarged and encoded."""
        larger = start.enlarged(self._canvas.decode(self._latent.z), growth.size)
        self._begin_at(start.encode(self._canvas, larger))
        self._growth = growth

    def _take_stage_of(self, state: Mapping[str, Any]) -> None:
        """Go on in the stage of a state, with a latent of its size."""
        if growth := Growth.of_state(state, self.size):
            self._growth = growth
            width, height = growth.size
            shape = 1, len(self._low), height // self.factor, width // self.factor
            self._begin_at(torch.zeros(shape, device=self.device))

    # --- before the first step ---

    @torch.no_grad()
    def _begin(self) -> None:
        self._random = RandomStream(self.settings.seed)
        with self._random:
            codebook = self.vqgan.codebook
            self._low = codebook.amin(dim=0)[:, None, None]
            self._high = codebook.amax(dim=0)[:, None, None]
            self._targets = self._find_targets(self.settings)
            self._compare(self.settings)
            self._at_a_time = self._comparison.cutouts_at_a_time()
            self._begin_at(self._first_latent())

    def _begin_at(self, z: Tensor) -> None:
        """Go on from a latent with a fresh optimiser."""
        self._latent = Latent(z, self.settings.step_size, self.settings.optimiser)

    def _planned_growth(self) -> Growth:
        """In one stage where the picture scrolls, or begins with one of its size."""
        s, planned = self.settings, [self.size]
        if not s.use_scrolling_zooming:
            planned = sizes(*self.size, self.factor, s.grow_from)
        if self.start_image is not None:
            planned = sizes_that_hold(planned, *self.start_image.size)
        return Growth.planned(planned, s.grow_steps)

    def _compare(self, settings: VQGANCLIPSettings) -> None:
        """Compare pictures with the targets by these settings from here on."""
        smallest = SMALLEST_PART if self._canvas.in_tiles else 0.0
        self._comparison = Comparison(self.perceptor, self._targets, settings, smallest)

    @torch.no_grad()
    def _find_targets(self, settings: VQGANCLIPSettings) -> list[Target]:
        """What the picture is pulled to. It draws no random numbers."""
        return [
            *text_targets(settings.text_input, settings.avoid, self.perceptor),
            *image_targets(self.image_prompts, self.image_weights, self.perceptor),
            *noise_targets(settings.noise_prompt, self.perceptor),
        ]

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
