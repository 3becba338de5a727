"""Settings as other web UIs write them into their pictures, and ours in that form. No torch.

Names and meanings are those of github.com/AUTOMATIC1111/stable-diffusion-webui, which others took
over.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from studio.base.errors import BadInput, shortened
from studio.base.version import __version__
from studio.engines.contract import ForeignSettings
from studio.media.parameters_text import KEY, Parameters, read_parameters, write_parameters
from studio.settings.run_settings import RunSettings
from studio.settings.values import check_values


def _finite(text: str) -> float:
    """Raises ValueError."""
    number = float(text)
    if not abs(number) < float("inf"):
        raise ValueError(text)
    return number


PROGRAM = "another web UI"
NEGATIVE_PROMPT = "negative_prompt"  # the setting's name
KARRAS = "karras"
AUTOMATIC = "automatic"
PLAIN_SCHEDULES = ("", "normal", "simple", "uniform")
KARRAS_BY_ITSELF = ("dpm++ 2m", "dpm++ sde")  # samplers for which Automatic means Karras
# Our samplers by their names: without a schedule, and with Karras's.
SAMPLERS: Mapping[str, tuple[str | None, str | None]] = {
    "ddim": ("DDIM", None),
    "plms": ("PNDM", None),
    "pndm": ("PNDM", None),
    "lms": ("LMS", None),
    "heun": ("Heun", None),
    "euler": ("Euler", None),
    "euler a": ("Euler a", None),
    "dpm++ 2m": ("DPM++ 2M", "DPM++ 2M Karras"),
    "dpm++ sde": (None, "DPM++ SDE Karras"),
    "unipc": ("UniPC", None),
    "lcm": ("LCM", None),
}
ALIASES = {"euler ancestral": "euler a", "uni pc": "unipc"}
THEIR_NAMES = {"PNDM": "PLMS"}  # of our samplers, where they differ
# Our settings by their keys, and how to read them. Their CLIP skip counts the layer that is read,
# ours those that are left out.
ONE_TO_ONE: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "Steps": ("num_steps", int),
    "CFG scale": ("guidance_scale", _finite),
    "Clip skip": ("clip_skip", lambda text: int(text) - 1),
    "Tiling": ("tiling", lambda text: text == "True"),
}
# Keys that set nothing: what made a picture, and which files it used.
SILENT = ("Version", "App", "Hashes", "Civitai resources", "Civitai metadata")
OTHER_NOISE = "random numbers are drawn otherwise here"
REASONS: Mapping[str, str] = dict.fromkeys(("ENSD", "Eta", "RNG", "Variation seed"), OTHER_NOISE)
WEIGHTS_SUFFIXES = (".safetensors", ".ckpt")


def foreign_settings_of_parameters(
    text: str,
    kind: type[RunSettings] | None = None,
    weights: Collection[str] | None = None,
) -> ForeignSettings:
    """What the `parameters` of a picture mean to this engine. Any text can be read.

    kind: the engine's settings, so that a value which it refuses is left, with the reason; so is
    the name of weights that are not among `weights`.
    """
    return _Reader(read_parameters(text), kind, weights).read()


def parameters_text(values: Mapping[str, Any], extra: Mapping[str, str] | None = None) -> str:
    """A run's settings, by name, as other web UIs write and read them.

    extra: more keys of theirs, such as "Model hash".
    """
    pairs = dict(_their_pairs(values)) | dict(extra or {}) | {"Version": f"studio {__version__}"}
    prompt, negative = (values.get(name) or "" for name in ("text_input", NEGATIVE_PROMPT))
    return write_parameters(Parameters(str(prompt), str(negative), pairs))


def _their_pairs(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    sampler = str(values["sampler"])
    yield "Steps", str(values["num_steps"])
    yield "Sampler", THEIR_NAMES.get(sampler, sampler)
    yield "CFG scale", f"{values['guidance_scale']:g}"
    yield "Seed", str(values["seed"])
    yield "Size", f"{values['Xdim']}x{values['ydim']}"
    yield "Model", _without_suffix(PurePath(str(values["weights"])).name)
    if values.get("init_image"):
        yield "Denoising strength", f"{values['strength']:g}"
    if values.get("clip_skip"):
        yield "Clip skip", str(values["clip_skip"] + 1)
    if values.get("tiling"):
        yield "Tiling", "True"


class _Reader:
    """Goes through all keys once; see ForeignSettings."""

    def __init__(
        self,
        parameters: Parameters,
        kind: type[RunSettings] | None,
        weights: Collection[str] | None,
    ) -> None:
        self._parameters, self._kind, self._weights = parameters, kind, weights
        self._values: dict[str, Any] = {}
        self._taken: list[str] = []
        self._left: dict[str, str] = {}

    def read(self) -> ForeignSettings:
        if self._parameters.prompt:
            self._take("Prompt", text_input=self._parameters.prompt)
        if self._parameters.negative:
            self._take("Negative prompt", **{NEGATIVE_PROMPT: self._parameters.negative})
        for key, text in self._parameters.pairs.items():
            try:
                self._read(key, text)
            except ValueError:
                self._left[key] = f"{shortened(text) or 'nothing'} cannot be read"
            if not self._is_settled(key):
                self._left[key] = REASONS.get(key, "")
        return ForeignSettings(PROGRAM, [KEY], self._values, self._taken, self._left)

    def _read(self, key: str, text: str) -> None:
        """Raises ValueError for a text that is not what the key needs."""
        readers = {
            "Sampler": self._sampler,
            "Seed": self._seed,
            "Size": self._size,
            "Model": self._model,
            "Denoising strength": self._strength,
        }
        if key in ONE_TO_ONE:
            name, value_of = ONE_TO_ONE[key]
            self._take(key, **{name: value_of(text)})
        elif key in readers:
            readers[key](text)

    def _is_settled(self, key: str) -> bool:
        is_silent = key in SILENT or key.lower().endswith((" hash", " hashes"))
        return is_silent or key in self._taken or key in self._left

    def _take(self, key: str, **values: Any) -> None:
        """Take the settings if the engine knows them and takes their values."""
        if self._kind:
            if not values.keys() <= self._kind.model_fields.keys():
                return
            try:
                check_values(self._kind, values, source=f"the {key}")
            except BadInput as error:
                self._left[key] = error.on_page.partition(": ")[2].rstrip(".")
                return
        self._taken.append(key)
        self._values |= values

    def _seed(self, text: str) -> None:
        self._take("Seed", seed=int(text), set_seed=True)

    def _size(self, text: str) -> None:
        width, height = map(int, text.split("x"))
        self._take("Size", Xdim=width, ydim=height)

    def _strength(self, text: str) -> None:
        if any(key.startswith("Hires") for key in self._parameters.pairs):
            self._left["Denoising strength"] = "it is that of the hires fix"
        else:
            self._take("Denoising strength", strength=_finite(text))

    def _model(self, text: str) -> None:
        if self._weights is None:
            self._take("Model", weights=text)
            return
        wanted = _without_suffix(text).lower()
        found = (name for name in self._weights if _without_suffix(name).lower() == wanted)
        if name := next(found, None):
            self._take("Model", weights=name)
        else:
            self._left["Model"] = f"there are no weights {shortened(text)}"

    def _sampler(self, text: str) -> None:
        schedule = self._parameters.pairs.get("Schedule type")
        name, wanted = _parted(text, schedule)
        plain, karras = SAMPLERS.get(name, (None, None))
        sampler = (karras if wanted == KARRAS else plain) or plain or karras
        if sampler is None:
            self._left["Sampler"] = f"there is no {shortened(text)}"
            return
        self._take("Sampler", sampler=sampler)
        is_as_wanted = wanted == KARRAS if sampler == karras else wanted in PLAIN_SCHEDULES
        if not is_as_wanted:
            self._left["Schedule type"] = f"the nearest is {sampler}"
        elif schedule is not None:
            self._taken.append("Schedule type")


def _parted(sampler: str, schedule: str | None) -> tuple[str, str]:
    """The sampler without its schedule, and the schedule; in lower case both.

    Older programs name the schedule in the sampler.
    """
    name = " ".join(sampler.lower().replace("_", " ").replace("dpmpp", "dpm++").split())
    name = name.removeprefix("k ")
    if schedule is None and name.endswith(f" {KARRAS}"):
        return _known(name.removesuffix(f" {KARRAS}")), KARRAS
    name, wanted = _known(name), (schedule or "").strip().lower()
    if wanted == AUTOMATIC:
        wanted = KARRAS if name in KARRAS_BY_ITSELF else ""
    return name, wanted


def _known(name: str) -> str:
    return ALIASES.get(name, name)


def _without_suffix(name: str) -> str:
    return next((name.removesuffix(s) for s in WEIGHTS_SUFFIXES if name.endswith(s)), name)
