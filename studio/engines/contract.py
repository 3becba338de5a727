"""What the studio knows of an engine: its settings, choices, estimate and runs. No torch.

See docs/adding-an-engine.md for a complete example.
"""

import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from studio.base.errors import BadInput, shortened
from studio.engines.estimate import Estimate
from studio.engines.prompt_parts import Length, PromptPart
from studio.media.pictures import check_rgb
from studio.media.video import FPS
from studio.settings.run_settings import Continuing, RunSettings

if TYPE_CHECKING:
    import torch

MIN_STEPS = 10  # a shorter run says little about speed


@dataclass(frozen=True)
class Step:
    """What one step made.

    index: counts from 1. picture: uint8 [H, W, 3], or None for a step that shows nothing.
    losses: by name, if the engine has any; "total" is what a curve shows.
    pictures: all of them, of one size, if a run makes several; `picture` is then the first.
    grows_to: width and height of the finished picture, in a run whose pictures grow.
    parts: of the picture, which were finished by now, by number: those to keep as files of their
    own, uint8 [h, w, 3]. The index of the next step may be higher by more than one where parts
    need not be made.

    Raises ValueError for an index or a picture that is not as told here.
    """

    index: int
    picture: np.ndarray | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    pictures: Sequence[np.ndarray] = ()
    grows_to: tuple[int, int] | None = None
    parts: Mapping[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.picture is None and len(self.pictures):
            object.__setattr__(self, "picture", self.pictures[0])
        elif self.picture is not None and not len(self.pictures):
            object.__setattr__(self, "pictures", (self.picture,))
        if self.index < 1:
            raise ValueError(f"a step's index is {self.index}; steps count from 1")
        check_rgb(self.pictures)


class Run(ABC):
    """One run of an engine. Call load_model, then model_init, then iterate as often as wanted.

    It computes; it neither draws nor writes. All methods may raise BadInput (before anything is
    made) and RunFailed.
    """

    Settings: ClassVar[type[RunSettings]] = RunSettings
    frames_per_second: float = FPS  # of the film

    def __init__(
        self,
        settings: RunSettings,
        *,
        assets_dir: Path,
        device: "torch.device",
        start_image: Image.Image | None = None,
        mask: Image.Image | None = None,
        image_prompts: Sequence[Image.Image] = (),
        image_weights: Sequence[float] = (),
    ) -> None:
        """Keep what is given; load nothing.

        start_image: what to start from: a continued picture, else the starting image.
        mask: white where the start image is to be drawn anew.
        image_prompts: RGB pictures to resemble. image_weights: how much, each; none: 1 each.
        A negative weight repels.

        `warnings` gathers sentences for the person until the first step, and in `change`. `notes`
        gathers what details.json should say about anything unusual in how the run was computed;
        `base.notes` has the keys that page and command line put into words.
        """
        self.settings = settings
        self.assets_dir = assets_dir
        self.device = device
        self.start_image = start_image
        self.mask = mask
        self.image_prompts = list(image_prompts)
        self.image_weights = list(image_weights) or [1.0] * len(self.image_prompts)
        self.warnings: list[str] = []
        self.notes: dict[str, Any] = {}

    @abstractmethod
    def load_model(self) -> None:
        """Get the weights ready; quick if a run in the same process used them before."""

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
        index. It must also work after an error or a KeyboardInterrupt has broken off `iterate`.
        """

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there as if never stopped; call it after model_init."""

    def continue_from(  # noqa: B027 (nothing is a way to do it)
        self, state: dict[str, Any], how: Continuing, reseed: bool
    ) -> None:
        """Begin where another run ended, with step 1; call it after model_init.

        state: what that run's `state_dict` gave.
        reseed: draw random numbers by the run's own seed, instead of continuing that run's.
        A run that does not implement this begins from the other's picture, its start_image.
        """

    def pictures_now(self) -> Sequence[np.ndarray]:
        """The last step's pictures, for a run that is stopped after it.

        None where those of the `Step` are as good: a run may show its steps by rough sketches.
        """
        return ()

    @property
    def keeps_parts(self) -> bool:
        """Whether its steps have parts, which are kept as files."""
        return False

    def take_parts(self, parts: Mapping[int, np.ndarray]) -> tuple[int, np.ndarray | None] | None:
        """Make only the parts that are not among these, which are files; call it before a step.

        Returns None if nothing is different then. Else the index of the step after which the run
        goes on, lower where parts are to be made again, higher where they need not be made; and the
        picture of the parts, if there is one. Only where `keeps_parts`.
        """
        raise NotImplementedError

    def change(self, settings: RunSettings) -> None:
        """Compute the next steps by these settings, of which only those in CHANGEABLE differ.

        All else stays: the picture, the optimiser, the random numbers to come. The steps are then
        the same as after `load_state_dict` in a run that has these settings from the beginning.
        Where it raises BadInput, nothing has changed. A run that looks into `settings` in each
        step need not override it.
        """
        self.settings = settings


@dataclass(frozen=True)
class Choices:
    """What a form offers for a setting. is_open: whether other values may be typed."""

    options: Sequence[str]
    is_open: bool = False


@dataclass(frozen=True)
class ForeignSettings:
    """What another program's settings file means to an engine.

    program: by name. files: that were read. values: settings, pictures as paths.
    taken: that program's keys for them. left: its other keys, each with the reason; "" where the
    engine has nothing like it.
    """

    program: str
    files: Sequence[str]
    values: Mapping[str, Any]
    taken: Sequence[str]
    left: Mapping[str, str]


class Download(ABC):
    """Weights that are elsewhere, and come here when a person wants them."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As a person calls them."""

    @property
    @abstractmethod
    def size(self) -> int | None:
        """How many bytes will come, if that is known."""

    @property
    @abstractmethod
    def licence(self) -> str:
        """By its usual name; "" if it is not known."""

    @property
    @abstractmethod
    def number_of_files(self) -> int:
        """How many files will come."""

    @abstractmethod
    def fetch(self, on_bytes: Callable[[int], None]) -> None:
        """Download all that is not here yet.

        on_bytes: called with the number of bytes that are here; what it raises ends the download,
        which goes on from there the next time. Raises BadInput and RunFailed.
        """

    def in_words(self) -> str:
        """Name, size and licence."""
        size = "of unknown size" if self.size is None else size_in_words(self.size)
        files = "one file" if self.number_of_files == 1 else f"{self.number_of_files} files"
        return f"{self.name}: {size} in {files}; licence: {self.licence or 'not told'}"


def size_in_words(count: float) -> str:
    """Bytes as people read them, such as "2.6 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


class Engine:
    """A kind of run. Its class names its settings and its Run; the rest has defaults.

    run: "module:class", imported when a run is computed, so that page and command line start
    without its libraries. libraries: those that it needs, by the names that Python imports.
    """

    settings: ClassVar[type[RunSettings]]
    run: ClassVar[str]
    libraries: ClassVar[Sequence[str]] = ()

    def unavailable(self) -> str:
        """Why it cannot be used on this machine, and what to do; "" if it can."""
        missing = [name for name in self.libraries if find_spec(name) is None]
        return f"It needs {', '.join(missing)}: run `make setup`." if missing else ""

    def choices(self, assets_dir: Path) -> Mapping[str, Choices]:
        """What a form offers, by the settings' names, for those that do not list their words."""
        return {}

    def lacks(self, values: Mapping[str, Any], assets_dir: Path) -> str:
        """The name of chosen weights that are not here but may be elsewhere; "" if there are none.

        values: settings by their names, which may be wrong or missing. Never uses the network.
        """
        return ""

    def look_up(self, name: str, assets_dir: Path) -> Download:
        """What a name that `lacks` gave means, by the network. Raises BadInput."""
        raise BadInput(f"There is no place to download {shortened(name)} from.")

    def introduction(self, values: Mapping[str, Any], assets_dir: Path) -> str:
        """What can be drawn with the chosen weights, for a person's first visit; "" says nothing.

        values: settings by their names, which may be wrong or missing.
        """
        return ""

    def examples(self, values: Mapping[str, Any], assets_dir: Path) -> Sequence[Path]:
        """Pictures that runs with the chosen weights made: each is the output.PNG of one.

        values: as for `introduction`.
        """
        return ()

    def foreign_settings(self, content: Any, path: Path) -> ForeignSettings | None:
        """The settings in another program's file; None if this engine does not know its kind.

        content: of the yaml file at that path. Raises BadInput for a file that is broken.
        """
        return None

    def texts(self, details: Mapping[str, Any], number: int) -> Mapping[str, str]:
        """Texts for other programs in the files of a run's pictures, by key.

        details: of the run. number: of the picture, from 0.
        """
        return {}

    def settings_in_picture(self, image: Image.Image, assets_dir: Path) -> ForeignSettings | None:
        """What another program's picture says of its settings; None if it is of no kind known here.

        image: only its header has been read.
        """
        return None

    def prompt_parts(self, text: str) -> Sequence[PromptPart]:
        """The parts of a prompt that have weights; none where prompts know no weights.

        Raises BadInput for a prompt that a run would refuse.
        """
        return ()

    def prompt_text(self, parts: Sequence[PromptPart]) -> str:
        """The prompt that `prompt_parts` reads as these parts."""
        return " ".join(part.text for part in parts)

    def length(self, text: str, values: Mapping[str, Any], assets_dir: Path) -> Length | None:
        """How much of a part's text is read, or None if that is not known.

        values: as for `introduction`.
        """
        return None

    def estimate(
        self,
        settings: RunSettings,
        assets_dir: Path,
        device: str,
        past: Iterable[Mapping[str, Any]],
    ) -> Estimate | None:
        """Time and memory of a run, or None if nothing can be said.

        device: in words, as in details.json. past: details of earlier runs of this engine, the
        newest first. Unless an engine knows better, a step takes as long as in those runs.
        """
        speeds = [speed for details in past if (speed := _speed(details, device))]
        if not speeds:
            return None
        per_step, steps = 1 / statistics.median(speeds), settings.num_steps
        return Estimate(per_step, per_step * steps if steps > 0 else None, None, measured=True)


def _speed(details: Mapping[str, Any], device: str) -> float | None:
    """Steps per second of an earlier run; None if they say nothing about that device."""
    speed, steps = details.get("steps_per_second"), details.get("num_steps")
    tells = details.get("device") == device and isinstance(speed, int | float) and speed > 0
    return speed if tells and isinstance(steps, int) and steps >= MIN_STEPS else None
