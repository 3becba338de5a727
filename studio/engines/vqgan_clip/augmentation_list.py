"""The grammar of augmentations: `sharpness(0.3, p=0.4) | affine(30, translate=0.1, p=0.8)`.

A list is read as augmentations with all their values, each checked. What they do is in
`augmentations`. No torch here.
"""

import ast
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from studio.base.errors import BadInput, shortened

MOST = 20  # augmentations in a list
Number: TypeAlias = int | float
Value: TypeAlias = int | float | tuple[Number, Number] | str

BORDERS = ("zeros", "border", "reflection")
PADDINGS = ("constant", "reflect", "replicate", "circular")
SWITCH = {"false": 0, "true": 1, "off": 0, "on": 1}

# Today's quick path; `cutouts.random_augmentations` makes these in one go.
USUAL = (
    "flip(p=0.5) | sharpness(0.3, p=0.4) | affine(30, translate=0.1, p=0.8)"
    " | perspective(0.2, p=0.4) | colour_jitter(saturation=0.01, hue=0.01, p=0.7)"
)


@dataclass(frozen=True)
class Parameter:
    """One value of an augmentation.

    kind: a number; a pair (from, to); a span, which is either; each, which is a number or one for
    each axis; odd, an odd whole number; odds, the same or one for each axis; a switch; or a word.
    low, high: of each number.
    """

    default: Value
    low: float = 0.0
    high: float = 1.0
    kind: Literal["number", "pair", "span", "each", "odd", "odds", "switch", "word"] = "number"
    words: tuple[str, ...] = ()

    def wanted(self) -> str:
        """The good values in words."""
        span = f"from {self.low:g} to {self.high:g}"
        return {
            "number": f"a number {span}",
            "pair": f"a pair of numbers {span}, such as {self.default}",
            "span": f"a number {span}, or a pair such as ({self.low:g}, {self.high:g})",
            "each": f"a number {span}, or two of them",
            "odd": f"an odd whole number {span}",
            "odds": f"an odd whole number {span}, or two of them",
            "switch": "true or false",
            "word": " or ".join(self.words),
        }[self.kind]

    def checked(self, value: Any) -> Value | None:
        """The value as this kind has it; None if it is not a good one."""
        if self.kind == "word":
            return value if value in self.words else None
        if self.kind == "switch":
            return SWITCH.get(str(value).lower())
        if isinstance(value, tuple):
            return value if self._is_pair(value) else None
        return value if self.kind != "pair" and self._is_number(value) else None

    def _is_pair(self, value: tuple[Any, ...]) -> bool:
        good = len(value) == 2 and all(map(self._is_number, value))
        in_order = good and value[0] <= value[1]
        return in_order if self.kind in ("pair", "span") else good and self.kind in ("each", "odds")

    def _is_number(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        is_odd = self.kind not in ("odd", "odds") or value % 2 == 1
        return is_odd and self.low <= value <= self.high


def _p(usual: float) -> Parameter:
    return Parameter(usual)


_SAME = {"same_on_batch": Parameter(0, kind="switch")}

# By name: the parameters in the order in which they are given without names. Where XibQGAN-CLIP or
# its ancestor VQGAN-CLIP has a usual value, it is used here too.
PARAMETERS: dict[str, dict[str, Parameter]] = {
    "flip": {"p": _p(0.5)},
    "colour_jitter": {
        "brightness": Parameter(0.0),
        "contrast": Parameter(0.0),
        "saturation": Parameter(0.1),
        "hue": Parameter(0.1, high=0.5),
        "p": _p(0.7),
    },
    "sharpness": {"sharpness": Parameter(0.3, high=10), "p": _p(0.5)},
    "gaussian_noise": {"mean": Parameter(0.0, -1), "std": Parameter(0.1), "p": _p(0.5)},
    "gaussian_blur": {
        "kernel_size": Parameter(3, 3, 31, "odds"),
        "sigma": Parameter((0.1, 2.0), 0.01, 50, "span"),
        "border_type": Parameter("reflect", kind="word", words=PADDINGS),
        "p": _p(0.5),
    },
    "motion_blur": {
        "kernel_size": Parameter(5, 3, 31, "odd"),
        "angle": Parameter(45.0, -360, 360, "span"),
        "direction": Parameter((-1.0, 1.0), -1, 1, "span"),
        "border_type": Parameter("replicate", kind="word", words=PADDINGS),
        "p": _p(0.5),
    },
    "perspective": {"distortion_scale": Parameter(0.7), "p": _p(0.7)},
    "rotation": {"degrees": Parameter(15.0, -360, 360, "span"), "p": _p(0.7)},
    "affine": {
        "degrees": Parameter(15.0, -360, 360, "span"),
        "translate": Parameter(0.1, kind="each"),
        "scale": Parameter((1.0, 1.0), 0.1, 10, "pair"),
        "shear": Parameter(0.0, -80, 80, "span"),
        "padding_mode": Parameter("border", kind="word", words=BORDERS),
        "p": _p(0.7),
    },
    "elastic_transform": {
        "kernel_size": Parameter(63, 3, 127, "odds"),
        "sigma": Parameter(32.0, 0.1, 100, "each"),
        "alpha": Parameter(1.0, -20, 20, "each"),
        "padding_mode": Parameter("zeros", kind="word", words=BORDERS),
        "p": _p(0.7),
    },
    "thin_plate_spline": {
        "scale": Parameter(0.2, high=2),
        "padding_mode": Parameter("zeros", kind="word", words=BORDERS),
        "p": _p(0.7),
    },
    "crop": {
        "padding": Parameter(0.125, 0.01, 0.5),
        "padding_mode": Parameter("reflect", kind="word", words=PADDINGS),
        "p": _p(0.5),
    },
    "erasing": {
        "scale": Parameter((0.1, 0.4), 0.001, 1, "pair"),
        "ratio": Parameter((0.3, 1 / 0.3), 0.01, 100, "pair"),
        "value": Parameter(0.0),
        "p": _p(0.7),
    },
    "resized_crop": {
        "scale": Parameter((0.1, 1.0), 0.01, 1, "pair"),
        "ratio": Parameter((0.75, 1.333), 0.1, 10, "pair"),
        "p": _p(0.5),
    },
}
NAMES = tuple(PARAMETERS)


@dataclass(frozen=True)
class Augmentation:
    """One of a list, with a value for each of its parameters."""

    name: str
    values: tuple[tuple[str, Value], ...]

    def __getitem__(self, parameter: str) -> Any:
        return dict(self.values)[parameter]


def parameters_of(name: str) -> Mapping[str, Parameter]:
    """Its own, and whether all cutouts get the same."""
    return PARAMETERS[name] | _SAME


def parse_augmentations(text: str) -> list[Augmentation]:
    """The list of a text; an empty text gives an empty list.

    Names may be written with spaces or hyphens, and in American. Raises BadInput, which lists the
    good names, parameters or values.
    """
    parts = [part.strip() for part in text.split("|")]
    found = [_parse_one(part) for part in parts if part]
    if len(found) > MOST:
        raise BadInput(f"There are {len(found)} augmentations. Use at most {MOST}.")
    return found


def write_augmentations(found: Sequence[Augmentation]) -> str:
    """The text that `parse_augmentations` reads as this list, without the usual values."""
    return " | ".join(map(_write_one, found))


def _write_one(one: Augmentation) -> str:
    usual = parameters_of(one.name)
    unusual = [f"{n}={_written(v)}" for n, v in one.values if v != usual[n].default]
    return f"{one.name}({', '.join(unusual)})"


def _written(value: Value) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_written, value))})"
    return value if isinstance(value, str) else repr(value)


def _parse_one(part: str) -> Augmentation:
    match = re.fullmatch(r"([^()]+?)\s*(?:\((.*)\))?", part, re.DOTALL)
    name = _name(match[1]) if match else ""
    if match is None or name not in PARAMETERS:
        raise BadInput(
            f"There is no augmentation '{shortened(match[1] if match else part)}'. There are:"
            f" {', '.join(NAMES)}."
        )
    return Augmentation(name, tuple(_values(name, match[2] or "").items()))


def _name(written: str) -> str:
    name = re.sub(r"[\s-]+", "_", written.strip().lower()).replace("color", "colour")
    return next((known for known in NAMES if known.replace("_", "") == name.replace("_", "")), "")


def _values(name: str, arguments: str) -> dict[str, Value]:
    known = parameters_of(name)
    unnamed, named = _arguments(name, arguments)
    if len(unnamed) > len(known):
        raise BadInput(f"{name} takes {len(known)} values at most: {', '.join(known)}.")
    given = dict(zip(known, unnamed, strict=False))
    for parameter, value in named:
        if parameter not in known:
            raise BadInput(
                f"{name} takes no '{shortened(parameter)}'. It takes: {', '.join(known)}."
            )
        if parameter in given:
            raise BadInput(f"{name} got '{parameter}' twice.")
        given[parameter] = value
    usual = {parameter: kind.default for parameter, kind in known.items()}
    return usual | {n: _checked(name, n, known[n], value) for n, value in given.items()}


def _checked(name: str, parameter: str, kind: Parameter, value: Any) -> Value:
    good = kind.checked(value)
    if good is None:
        raise BadInput(f"{name}: '{parameter}' must be {kind.wanted()}; it was {shortened(value)}.")
    return good


def _arguments(name: str, text: str) -> tuple[list[Any], list[tuple[str, Any]]]:
    """What stands between the brackets: values, and values with names. Runs nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd spellings, which are refused below
            call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        unnamed = [_literal(node) for node in call.args]
        return unnamed, [(_word(pair), _literal(pair.value)) for pair in call.keywords]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise BadInput(
            f"'{name}({shortened(text)})' cannot be read. Write it like"
            f" '{name}(p=0.5)'; it takes: {', '.join(parameters_of(name))}."
        ) from None


def _word(pair: ast.keyword) -> str:
    if pair.arg is None:  # **pairs
        raise ValueError
    return pair.arg


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return value
        case ast.Name(id=word):
            return word
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return tuple(map(_literal, parts))
    raise ValueError
