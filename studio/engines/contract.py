"""What a run is, to everything around it. It reports facts, and draws nothing. No torch."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from studio.settings.settings import Continuing, RunSettings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Step:
    """What one step made.

    index: counts from 1; frames where the picture moves, else optimisation steps.
    picture: uint8 [H, W, 3]; the one that the losses were computed on.
    losses: by name, weights included; "total" is their sum.
    """

    index: int
    picture: np.ndarray
    losses: dict[str, float]


class Run(ABC):
    """One run of a model. Call load_model, then model_init, then iterate as often as wanted.

    A model of your own is a subclass with its own Settings; see docs/adding-a-model.md. All
    methods may raise BadInput (before anything is made) and RunFailed.
    """

    Settings: ClassVar[type[RunSettings]] = RunSettings

    def __init__(
        self,
        settings: RunSettings,
        *,
        assets_dir: Path,
        device: "torch.device",
        start_image: Image.Image | None = None,
        image_prompts: Sequence[Image.Image] = (),
    ) -> None:
        """Keep what is given; load nothing.

        start_image: what to start from: a continued picture, else the starting image.
        image_prompts: RGB pictures to resemble.

        `warnings` gathers sentences for the person until the first step, and `notes` what
        details.json should say of how the run was computed, where it is not as usual.
        """
        self.settings = settings
        self.assets_dir = assets_dir
        self.device = device
        self.start_image = start_image
        self.image_prompts = list(image_prompts)
        self.warnings: list[str] = []
        self.notes: dict[str, Any] = {}

    @abstractmethod
    def load_model(self) -> None:
        """Get the weights ready; quick where a run in the same process had them before."""

    @abstractmethod
    def model_init(self) -> None:
        """Seed, and make what the first step needs. `settings.seed` is the seed, always."""

    @abstractmethod
    def iterate(self) -> Step:
        """Take one step."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that an exact continuation needs, as after the last whole step.

        Numpy arrays, numbers, text and dicts of them with text as keys; "frames" is that step's
        index. It must also tell after `iterate` broke off, by an error or by KeyboardInterrupt.
        """

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there as if never stopped; call it after model_init."""

    def continue_from(  # noqa: B027 (nothing is a way to do it)
        self, state: dict[str, Any], how: Continuing, reseed: bool
    ) -> None:
        """Begin where another run ended, with step 1; call it after model_init.

        state: what that run's `state_dict` gave.
        reseed: draw random numbers by the own seed, instead of going on with that run's.
        A run that does not implement this begins from the other's picture, its start_image.
        """
