"""The prompt grammar: `text:weight:stop | text:weight:stop | ...`."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from studio.base.errors import BadInput, shortened
from studio.settings.weighted import check_weight, is_number, written

AVOIDING_WEIGHT = 0.5  # the picture leaves what is to be avoided, and keeps what is asked for

_URL_HOST = re.compile(r"\w+://[^\s/:]+$")


@dataclass(frozen=True)
class Prompt:
    """One parallel prompt.

    text: what the picture should show, never empty.
    weight: its share in the loss, in [-10000, 10000]; a negative one repels.
    stop: the distance (see `vqgan_utils.prompt_loss`) under which it no longer pulls.
    """

    text: str
    weight: float = 1.0
    stop: float = -math.inf


def parse_prompts(text_input: str, usual_weight: float = 1.0) -> list[Prompt]:
    """Split what a person typed into prompts; an empty text gives an empty list.

    usual_weight: of those that name none.
    Only trailing numbers are read as weight and stop, so `photo:abc` and URLs are text.
    Raises BadInput for `^`, for a weight without text, and for weights that are not usable numbers.
    """
    if "^" in text_input:
        raise BadInput(
            "Serial prompts ('^') are not supported yet. Run the prompts one after the other,"
            " each continuing the previous run, or join them with '|'."
        )
    parts = (part.strip() for part in text_input.split("|"))
    return [_parse_one(part, usual_weight) for part in parts if part]


def parse_avoided(avoid: str) -> list[Prompt]:
    """The prompts of what a person wants to avoid: each repels, whatever the weight's sign.

    Raises BadInput as `parse_prompts` does.
    """
    prompts = parse_prompts(avoid, AVOIDING_WEIGHT)
    return [replace(prompt, weight=-abs(prompt.weight)) for prompt in prompts]


def write_prompts(prompts: Iterable[Prompt]) -> str:
    """The text that `parse_prompts` reads as these prompts, with no more numbers than it needs."""
    return " | ".join(map(_write_one, prompts))


def _write_one(prompt: Prompt) -> str:
    needs_stop = prompt.stop != -math.inf or _number_at_end(prompt.text) is not None
    numbers = [prompt.weight] if needs_stop or prompt.weight != 1 else []
    numbers += [prompt.stop] if needs_stop else []
    return ":".join([prompt.text, *map(written, numbers)])


def _parse_one(part: str, usual_weight: float) -> Prompt:
    text, numbers = part, []
    while len(numbers) < 2 and (found := _number_at_end(text)):
        text, numbers = found[0], [found[1], *numbers]
    weight, stop = [*numbers, *(usual_weight, -math.inf)[len(numbers) :]]
    _check(part, text, weight, stop)
    return Prompt(text, weight, stop)


def _number_at_end(text: str) -> tuple[str, float] | None:
    """What stands before the last colon, and the number behind it, if there is one."""
    head, colon, tail = text.rpartition(":")
    if not colon or not is_number(tail.strip()) or _is_port(head, tail):
        return None
    return head.rstrip(), float(tail)


def _is_port(head: str, tail: str) -> bool:
    return tail.isdigit() and bool(_URL_HOST.search(head))


def _check(part: str, text: str, weight: float, stop: float) -> None:
    part = shortened(part)
    if not text:
        raise BadInput(f"The prompt '{part}' has a weight but no text. Write it as text:weight.")
    check_weight(weight, f"The prompt '{part}'")
    if math.isnan(stop) or stop == math.inf:
        raise BadInput(f"The prompt '{part}' has the stop {stop:g}. Use a number, such as 0.3.")
