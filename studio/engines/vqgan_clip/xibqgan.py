"""Settings from XibQGAN-CLIP's configuration files. No torch.

It reads three at a time from its folder `Config`: config.yaml, augment_config.yaml and
video_config.yaml. Given one of them, its neighbours are read with it. Facts are from
github.com/Xibanya/VQGAN-CLIP.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput, shortened
from studio.base.yaml_files import read_yaml
from studio.engines.contract import ForeignSettings
from studio.engines.vqgan_clip.augmentation_list import parse_augmentations
from studio.engines.vqgan_clip.settings import OWN_AUGMENTATIONS, Optimiser
from studio.engines.vqgan_clip.slice_plan import SLICES
from studio.media.nine_slices import FADE_FROM
from studio.settings.weighted import with_weight

PROGRAM = "XibQGAN-CLIP"
FILES = ("config.yaml", "augment_config.yaml", "video_config.yaml")
MARKS = {  # some of the keys of each file, of which a file must have two
    "config.yaml": {"cut_method", "optimiser", "max_iterations", "vqgan_type", "init_noise"},
    "augment_config.yaml": {"no_augments", "noise_fac", "augments", "jitter", "affine"},
    "video_config.yaml": {"make_video", "make_zoom_video", "zoom_scale", "output_video_fps"},
}
DEFAULT_AUGMENTS = ("Af", "Pe", "Ji", "Er")
NOISE_FACTOR = 0.1  # ours, too
SMALL_DECAY = 1e-9  # of DiffGrad, ours too
OPTIMISERS = {name.lower(): name for name in Optimiser.__args__}
UPSCALERS = {"x2": 2, "x4": 4, "x8": 8}  # by name: the scale

# Ours by theirs, where the value stays as it is.
SAME = {
    "step_size": "step_size",
    "max_iterations": "num_steps",
    "cutn": "cutn",
    "cut_pow": "cut_pow",
    "clip_model": "clip_model",
    "cudnn_determinism": "deterministic",
}
# Sections of augment_config.yaml: the code in its list, our name, and ours by their parameters.
SECTIONS: dict[str, tuple[str, str, dict[str, str]]] = {
    "jitter": (
        "Ji",
        "colour_jitter",
        {n: n for n in ("brightness", "contrast", "saturation", "hue")},
    ),
    "sharpness": ("Sh", "sharpness", {"sharpness": "sharpness"}),
    "erasing": ("Er", "erasing", {"scale": "scale", "ratio": "ratio"}),
    "gaussian_noise": ("Gn", "gaussian_noise", {"mean": "mean", "std": "std"}),
    "gaussian_blur": (
        "Gb",
        "gaussian_blur",
        {"kernel_size": "kernel_size", "sigma": "sigma", "border_type": "border_type"},
    ),
    "motion_blur": (
        "Mb",
        "motion_blur",
        {n: n for n in ("kernel_size", "angle", "direction", "border_type")},
    ),
    "affine": (
        "Af",
        "affine",
        {n: n for n in ("degrees", "translate", "shear", "padding_mode")},
    ),
    "perspective": ("Pe", "perspective", {"distortion_scale": "distortion_scale"}),
    "crop": ("Cr", "crop", {"padding_mode": "padding_mode"}),
    "elastic_transform": ("Et", "elastic_transform", {}),
    "rotation": ("Ro", "rotation", {"degrees": "degrees"}),
    "resized_crop": ("Re", "resized_crop", {"scale": "scale", "ratio": "ratio"}),
    "thin_plate_spline": ("Ts", "thin_plate_spline", {"scale": "scale"}),
}
OF_ALL = {"p": "p", "same_on_batch": "same_on_batch"}


def settings_of(content: Any, path: Path) -> ForeignSettings | None:
    """What such a file and its neighbours set; None for a file of another program.

    Raises BadInput for a neighbour that cannot be read.
    """
    name = next((n for n, marks in MARKS.items() if _has(content, marks)), None)
    if name is None:
        return None
    merged, files = dict(content), [path.name]
    for other in FILES:
        beside = path.with_name(other)
        if other != name and beside.is_file() and _has(found := read_yaml(beside), MARKS[other]):
            merged = dict(found) | merged
            files.append(other)
    return _Reader(merged, path.parent, files).read()


def _has(content: Any, marks: set[str]) -> bool:
    return isinstance(content, dict) and len(marks & content.keys()) >= 2


class _Reader:
    """Goes through all keys once. left: keys with the reason; "" where there is nothing like it."""

    def __init__(self, content: Mapping[str, Any], folder: Path, files: list[str]) -> None:
        self._content = {str(key): value for key, value in content.items()}
        self._folder, self._files = folder, files
        self._values: dict[str, Any] = {}
        self._taken: list[str] = []
        self._left: dict[str, str] = {}

    def read(self) -> ForeignSettings:
        for theirs, ours in SAME.items():
            if theirs in self._given():
                self._take(theirs, **{ours: self._content[theirs]})
        for read in self._readers():
            read()
        # A key that says nothing, or where to look, is neither taken nor left.
        silent = {"input_dir", "use_config", "default_model", "default_config"}
        for key in self._given() - set(self._taken) - silent:
            self._left.setdefault(key, "")
        return ForeignSettings(PROGRAM, self._files, self._values, self._taken, self._left)

    def _readers(self) -> Iterator[Callable[[], None]]:
        yield from (self._prompts, self._size, self._seed, self._weights, self._choices)
        yield from (self._pictures, self._noise_prompts, self._decay, self._noise)
        yield from (self._upscaling, self._augmentations, self._zoom, self._slices)

    def _given(self) -> set[str]:
        return {key for key, value in self._content.items() if value not in (None, "", [], "None")}

    def _take(self, *keys: str, **values: Any) -> None:
        self._taken += keys
        self._values |= values

    def _text(self, key: str) -> str:
        return str(self._content[key]).strip() if key in self._given() else ""

    # --- config.yaml ---

    def _prompts(self) -> None:
        if not (text := self._text("prompts")):
            return
        first, *later = text.split("^")
        self._take("prompts", text_input=first.strip())
        if later:
            self._left["prompts after the first ^"] = "there are no stories yet"

    def _size(self) -> None:
        size = self._content.get("size")
        sides = size if isinstance(size, list) else [size, size]
        if size is not None and len(sides) == 2:
            self._take("size", Xdim=sides[0], ydim=sides[1])

    def _seed(self) -> None:
        if "seed" in self._given():
            self._take("seed", seed=self._content["seed"], set_seed=True)

    def _weights(self) -> None:
        for key in ("vqgan_type", "default_model"):
            if name := self._text(key):
                self._take(key, vqgan_ckpt=name)
                return

    def _choices(self) -> None:
        if name := self._text("optimiser"):
            self._take("optimiser", optimiser=OPTIMISERS.get(name.lower(), name))
        if "cut_method" in self._content:
            self._take("cut_method", cut_method=self._text("cut_method") or "latest")
        if name := self._text("init_noise"):
            self._take("init_noise", init_noise=name.lower())

    def _pictures(self) -> None:
        if name := self._text("init_image"):
            if picture := self._picture(name):
                self._take("init_image", init_image=str(picture))
            else:
                self._left["init_image"] = f"{shortened(name)} is not there"
        found = []
        for part in filter(None, map(str.strip, self._text("image_prompts").split("|"))):
            name, weight = _parted(part)
            if picture := self._picture(name):
                found.append(with_weight(picture, weight))
            else:
                self._left["image_prompts"] = f"{shortened(name)} is not there"
        if found:
            self._take("image_prompts", image_prompt=found)

    def _picture(self, name: str) -> Path | None:
        """A picture by its name, in the folder of pictures or as a path."""
        pictures = self._text("input_dir") or "input"
        homes = (self._folder.parent, self._folder, Path())
        for path in (home / place for home in homes for place in (Path(pictures) / name, name)):
            with suppress(OSError, ValueError):
                if path.is_file():
                    return path.resolve()
        return None

    def _noise_prompts(self) -> None:
        seeds, weights = (
            value if isinstance(value, list) else [value]
            for value in map(self._content.get, ("noise_prompt_seeds", "noise_prompt_weights"))
        )
        found = [f"{s}:{w}" for s, w in zip(seeds, weights, strict=False) if None not in (s, w)]
        if found:
            self._take("noise_prompt_seeds", "noise_prompt_weights", noise_prompt=found)

    def _decay(self) -> None:
        if "weight_decay" not in self._given():
            return
        if self._values.get("optimiser") != "DiffGrad":
            self._left["weight_decay"] = "it is DiffGrad's alone"
        elif _number(self._content["weight_decay"]) != SMALL_DECAY:
            self._left["weight_decay"] = f"DiffGrad's is {SMALL_DECAY:g} here"
        else:
            self._take("weight_decay")

    def _upscaling(self) -> None:
        if "realesrgan" not in self._given():
            return
        others = {"realesrgan_model", "upscale_always"} & self._given()
        if self._content["realesrgan"] is not True:
            self._take("realesrgan", upscale=0, upscale_always=False)
            self._left |= dict.fromkeys(others, "it is not used")
            return
        scale = UPSCALERS.get(name := self._text("realesrgan_model").lower())
        if scale is None:
            self._left["realesrgan_model"] = f"there is no {name}" if name else "it is empty"
            return
        always = self._content.get("upscale_always") is True
        self._take("realesrgan", *others, upscale=scale, upscale_always=always)

    def _slices(self) -> None:
        """Each of its slices has the size and the steps that it names for a picture."""
        prompts = [str(text or "").strip() for text in self._list("slice_prompts")]
        if prompts and len(prompts) != SLICES:
            self._left["slice_prompts"] = f"there must be nine; there are {len(prompts)}"
            prompts = []
        if not prompts and "nine_type" not in self._given():
            return
        if self._values.get("use_scrolling_zooming"):
            self._left["slice_prompts"] = "a picture that zooms has no slices"
            return
        if prompts:
            self._take("slice_prompts", slice_prompts=prompts if any(prompts) else [])
        if "nine_type" in self._given():
            self._left["nine_type"] = "all nine slices are made; --remake makes one of them again"
        self._take(*self._given() & {"save_nine"}, slices="nine")
        self._values["save_nine"] = self._content.get("save_nine") is True
        self._enlarge_for_slices()
        if _number(self._content.get("smooth", FADE_FROM)) != FADE_FROM:
            self._left["smooth"] = f"it is {FADE_FROM:g} here"

    def _enlarge_for_slices(self) -> None:
        for side in ("Xdim", "ydim"):
            if isinstance(of_slice := self._values.get(side), int):
                self._values[side] = 2 * of_slice
        if isinstance(steps := self._values.get("num_steps"), int) and steps > 0:
            begins_with_picture = "init_image" in self._values
            self._values |= {"slice_steps": steps, "num_steps": SLICES * steps}
            if not begins_with_picture:
                self._values |= {"grow_steps": steps, "num_steps": (SLICES + 1) * steps}

    def _list(self, key: str) -> list[Any]:
        found = self._content.get(key)
        return found if isinstance(found, list) else []

    # --- augment_config.yaml ---

    def _noise(self) -> None:
        factor = self._content.get("noise_fac")
        if factor is not None and _number(factor) != NOISE_FACTOR:
            self._left["noise_fac"] = f"it is {NOISE_FACTOR:g} here"
        elif factor is not None:
            self._take("noise_fac")

    def _augmentations(self) -> None:
        if not {"augments", "no_augments"} & self._content.keys():
            return
        sections = [name for name in SECTIONS if name in self._given()]
        method = self._values.get("cut_method", "latest")
        if method in OWN_AUGMENTATIONS:
            for key in ("augments", "no_augments", *sections):
                self._left[key] = f"the cutout method {method} takes no others"
            return
        wished = [] if self._content.get("no_augments") else self._wished()
        found = [text for name in wished if (text := self._augmentation(name))]
        self._take("augments", "no_augments", augmentations=" | ".join(found))
        for name in sections:
            if name not in wished:
                self._left[name] = "it is not used"

    def _wished(self) -> list[str]:
        """Sections in the order of the list, then those that are switched on; else the usual."""
        codes = {code: section for section, (code, _, _) in SECTIONS.items()}
        chosen = [str(code) for code in self._content.get("augments") or []]
        for code in chosen:
            if code not in codes:
                self._left[f"augments: {shortened(code)}"] = "there is no such augmentation"
        on = [name for name in self._content if _is_on(self._content[name]) and name in SECTIONS]
        listed = [codes[code] for code in chosen if code in codes]
        return list(dict.fromkeys([*listed, *on])) or [codes[code] for code in DEFAULT_AUGMENTS]

    def _augmentation(self, section: str) -> str:
        """In our words; "" for one whose values do not fit."""
        given = self._content.get(section)
        given = given if isinstance(given, dict) else {}
        _, name, parameters = SECTIONS[section]
        values = [
            f"{ours}={_written(given[theirs], ours)}"
            for theirs, ours in (parameters | OF_ALL).items()
            if given.get(theirs) is not None
        ]
        text = f"{name}({', '.join(values)})"
        try:
            parse_augmentations(text)
        except BadInput as error:
            self._left[section] = str(error).rstrip(".")
            return ""
        self._take(*[section] if given else [])
        return text

    # --- video_config.yaml ---

    def _zoom(self) -> None:
        if not self._content.get("make_zoom_video"):
            return
        ours = {
            "zoom_scale": "zoom_factor",
            "zoom_frequency": "transform_interval",
            "zoom_shift_x": "translation_x",
            "zoom_shift_y": "translation_y",
        }
        known = {theirs: name for theirs, name in ours.items() if theirs in self._given()}
        found = {name: self._content[theirs] for theirs, name in known.items()}
        self._take("make_zoom_video", *known, use_scrolling_zooming=True, **found)


def _is_on(section: Any) -> bool:
    return isinstance(section, dict) and section.get("use") is True


def _parted(prompt: str) -> tuple[str, float]:
    """The name and the weight of an image prompt, `NAME:WEIGHT:STOP`."""
    match = re.fullmatch(r"(.+?)(?::([+-]?[\d.]+))?(?::[+-]?[\d.]+)?", prompt)
    name, weight = (match[1], match[2]) if match else (prompt, None)
    return name, _number(weight) if weight else 1.0


def _number(value: Any) -> float:
    """A number, which may be written as text such as `1e-9`, `0.5,` or `1 / .3`; else NaN."""
    top, _, bottom = str(value).strip(" ,").partition("/")
    try:
        return float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        return float("nan")


def _written(value: Any, parameter: str) -> str:
    """A value in our grammar. Two equal numbers are one there, and words are in lower case."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        numbers = [_plain(part) for part in value]
        is_one = parameter == "kernel_size" and len(set(numbers)) == 1
        return numbers[0] if is_one else f"({', '.join(numbers)})"
    return _plain(value)


def _plain(value: Any) -> str:
    number = _number(value)
    if number != number:  # a word
        return str(value).lower()
    return str(int(number)) if number == int(number) else repr(number)
