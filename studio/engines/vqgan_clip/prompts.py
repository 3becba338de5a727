"""The prompt grammar: `text:weight:stop | text:weight:stop | ...`."""

import math
import re
from dataclasses import dataclass

from studio.base.errors import BadInput, shortened

MAX_WEIGHT = 10_000.0

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_URL_HOST = re.compile(r"\w+://[^\s/:]+$")


@dataclass(frozen=True)
class Prompt:
    """One parallel prompt.

    text: what the picture should show, never empty.
    weight: its share in the loss, in [-MAX_WEIGHT, MAX_WEIGHT]; a negative one repels.
    stop: the distance (see `vqgan_utils.prompt_loss`) under which it no longer pulls.
    """

    text: str
    weight: float = 1.0
    stop: float = -math.inf


def parse_prompts(text_input: str) -> list[Prompt]:
    """Split what a person typed into prompts; an empty text gives an empty list.

    Only trailing numbers are read as weight and stop, so `photo:abc` and URLs are text.
    Raises BadInput for `^`, for a weight without text, and for weights that are not usable numbers.
    """
    if "^" in text_input:
        raise BadInput(
            "Serial prompts ('^') are not supported yet. Run the prompts one after the other,"
            " each continuing the previous run, or join them with '|'."
        )
    return [_parse_one(part.strip()) for part in text_input.split("|") if part.strip()]


def _parse_one(part: str) -> Prompt:
    text, numbers = part, []
    while len(numbers) < 2:
        head, colon, tail = text.rpartition(":")
        if not colon or not _is_number(tail.strip()) or _is_port(head, tail):
            break
        text, numbers = head.rstrip(), [float(tail), *numbers]
    weight, stop = [*numbers, *(1.0, -math.inf)[len(numbers) :]]
    _check(part, text, weight, stop)
    return Prompt(text, weight, stop)


def _is_number(token: str) -> bool:
    return bool(_NUMBER.fullmatch(token) or _NOT_FINITE.fullmatch(token))


def _is_port(head: str, tail: str) -> bool:
    return tail.isdigit() and bool(_URL_HOST.search(head))


def _check(part: str, text: str, weight: float, stop: float) -> None:
    part = shortened(part)
    if not text:
        raise BadInput(f"The prompt '{part}' has a weight but no text. Write it as text:weight.")
    if not abs(weight) <= MAX_WEIGHT:
        raise BadInput(
            f"The prompt '{part}' has the weight {weight:g}."
            f" Use a number from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}."
        )
    if math.isnan(stop) or stop == math.inf:
        raise BadInput(f"The prompt '{part}' has the stop {stop:g}. Use a number, such as 0.3.")
