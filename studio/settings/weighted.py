"""Weights that end a text: `a red heart:0.5`, `picture.png:-1`. A negative weight repels."""

import re
from pathlib import Path

from studio.base.errors import BadInput, shortened

MAX_WEIGHT = 10_000.0

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


def is_number(token: str) -> bool:
    """Whether a text is meant as a number, even as one that is not finite."""
    return bool(_NUMBER.fullmatch(token) or _NOT_FINITE.fullmatch(token))


def check_weight(weight: float, what: str) -> None:
    """what: begins the message. Raises BadInput for a weight that is not a usable number."""
    if not abs(weight) <= MAX_WEIGHT:
        raise BadInput(
            f"{what} has the weight {weight:g}."
            f" Use a number from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}."
        )


def picture_and_weight(text: str) -> tuple[str, float]:
    """The path and the weight in `FILE` or `FILE:weight`; without a number, the weight is 1.

    A file may have such a name itself; then all of the text is its path. Raises BadInput for a
    weight that is not a usable number.
    """
    return (text, 1.0) if _is_file(text) else parted(text)


def parted(text: str) -> tuple[str, float]:
    """As `picture_and_weight`, whatever files there are."""
    head, colon, tail = text.rpartition(":")
    if not colon or not head or not is_number(tail.strip()):
        return text, 1.0
    weight = float(tail)
    check_weight(weight, f"The image prompt '{shortened(text)}'")
    return head, weight


def with_weight(path: object, weight: float) -> str:
    """What `picture_and_weight` reads; the weight 1 needs no words."""
    return str(path) if weight == 1 else f"{path}:{written(weight)}"


def written(number: float) -> str:
    """A number as short as it can be read exactly."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # no file can have that name
        return False
