"""The prompt grammar of diffusion, as the field's web UI knows it. No torch.

`a AND b :0.5` joins prompts that pull at once, each with its weight. `<lora:name:0.8>` uses a LoRA
and is no text. `brackets` tells of the rest. AND splits wherever it stands, even in brackets.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from studio.base.errors import BadInput, shortened
from studio.engines.diffusion.brackets import Stretch, Tree, parse_brackets
from studio.engines.prompt_parts import PromptPart
from studio.settings.weighted import check_weight, is_number, written

LORA_KINDS = ("lora", "lyco")  # the second is what LyCORIS networks were called once
MOST_CONDITIONS = 32  # each is a pass of the denoiser in each step
SHOWN = 30  # characters of the text at a bracket that has no partner

_AND = re.compile(r"\bAND\b")
_NETWORK = re.compile(r"<(lora|lyco|hypernet):([^<>]*)>")
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")


@dataclass(frozen=True)
class Lora:
    """A LoRA by its name in `assets/loras/`, and how strongly it works.

    weight: in the denoiser. text_weight: in the text encoders.
    """

    name: str
    weight: float = 1.0
    text_weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Condition:
    """One of the prompts that AND joins. A negative weight repels."""

    tree: Tree
    weight: float = 1.0

    def schedule(self, steps: int) -> list[Stretch]:
        """What it says over so many steps: see `Tree.schedule`."""
        return self.tree.schedule(steps)


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt that has been read.

    conditions: one at least. remarks: sentences for the person about what was read otherwise than
    it may have been meant.
    """

    conditions: Sequence[Condition]
    loras: Sequence[Lora] = ()
    remarks: Sequence[str] = ()


def parse_prompt(text: str) -> Prompt:
    """Read a prompt; an empty one has one empty condition.

    Raises BadInput for weights that are no usable numbers, and for too many conditions.
    """
    conditions, loras, remarks = [], [], []
    for part in prompt_parts(text):
        words, found, said = _without_networks(part.text)
        loras += found
        remarks += said
        if words.strip():
            tree = parse_brackets(words)
            conditions.append(Condition(tree, part.weight))
            remarks += _about_brackets(words, tree)
    if len(conditions) > MOST_CONDITIONS:
        raise BadInput(
            f"The prompt joins {len(conditions)} prompts by AND. Join at most {MOST_CONDITIONS}."
        )
    return Prompt(conditions or [Condition(parse_brackets(""))], loras, remarks)


def parse_negative(text: str) -> Prompt:
    """Read a negative prompt: one condition, in which AND and a number at the end are text."""
    words, loras, remarks = _without_networks(text)
    if loras:
        remarks.append(
            f"{_listed(loras)} in the negative prompt is not used: name it in the prompt."
        )
    tree = parse_brackets(words)
    return Prompt([Condition(tree)], (), [*remarks, *_about_brackets(words, tree)])


def prompt_parts(text: str) -> list[PromptPart]:
    """The prompts that AND joins, their other marks as they are; none in an empty text.

    Raises BadInput for a weight that is no usable number.
    """
    texts = _AND.split(text)
    parts = [_part(part, is_alone=len(texts) == 1) for part in texts]
    return [part for part in parts if part.text]


def prompt_text(parts: Sequence[PromptPart]) -> str:
    """The text that `prompt_parts` reads as these parts, with no more numbers than it needs."""
    is_alone = len(parts) == 1
    return " AND ".join(_written(part, is_alone) for part in parts)


def _part(text: str, is_alone: bool) -> PromptPart:
    words, weight, networks = _weight_at_end(text, is_alone) or (text, 1.0, "")
    check_weight(weight, f"The prompt '{shortened(text.strip())}'")
    return PromptPart(f"{words.strip()}{networks}".strip(), weight)


def _written(part: PromptPart, is_alone: bool) -> str:
    is_read_so = part.weight == 1 and _weight_at_end(part.text, is_alone) is None
    return part.text if is_read_so else f"{part.text} :{_plainly(part.weight)}"


def _weight_at_end(text: str, is_alone: bool) -> tuple[str, float, str] | None:
    """The text, the weight and the LoRAs behind it, if a weight ends the text.

    In a text that AND joins to none, `12:30` and `16:9` are text.
    """
    end = _end_of_words(text)
    head, colon, tail = text[:end].rpartition(":")
    is_escaped = (len(head) - len(head.rstrip("\\"))) % 2
    if not colon or is_escaped or not _PLAIN_NUMBER.fullmatch(tail.strip()):
        return None
    if is_alone and re.search(r"\d$", head):
        return None
    return head, float(tail), text[end:].rstrip()


def _end_of_words(text: str) -> int:
    """Where the LoRAs begin that end a text."""
    end = len(text.rstrip())
    while text[:end].endswith(">") and _NETWORK.fullmatch(text, text.rfind("<", 0, end), end):
        end = len(text[: text.rfind("<", 0, end)].rstrip())
    return end


def _plainly(number: float) -> str:
    """A number without an exponent, which the grammar does not know."""
    text = written(number)
    return text if "e" not in text else f"{number:.20f}".rstrip("0")


def without_networks(text: str) -> str:
    """A prompt without its LoRAs, which are no text."""
    return _NETWORK.sub("", text)


def _without_networks(text: str) -> tuple[str, list[Lora], list[str]]:
    """The text without its networks, the LoRAs among these, and what to say of the others."""
    loras: list[Lora] = []
    remarks: list[str] = []
    for kind, about in _NETWORK.findall(text):
        if kind in LORA_KINDS:
            loras.append(_lora(about))
        else:
            remarks.append(f"<{shortened(f'{kind}:{about}')}> is left out: there are only LoRAs.")
    return without_networks(text), loras, remarks


def _lora(about: str) -> Lora:
    """about: NAME, NAME:WEIGHT or NAME:TEXT_WEIGHT:WEIGHT, also with `te=` and `unet=`."""
    name, *numbers = (word.strip() for word in about.split(":"))
    named = dict(word.split("=", 1) for word in numbers if "=" in word)
    places = [word for word in numbers if "=" not in word]
    values = [*places, *named.values()]
    is_known = named.keys() <= {"te", "unet"} and len(places) <= 2
    if not name or not is_known or not all(map(is_number, values)):
        raise BadInput(
            f"<lora:{shortened(about)}> is not a LoRA with its weight. Write it as <lora:name:0.8>."
        )
    for value in values:
        check_weight(float(value), f"The LoRA '{shortened(name)}'")
    text_weight = float(named.get("te", [*places, "1"][0]))
    return Lora(name, float(named.get("unet", places[-1] if places else text_weight)), text_weight)


def _listed(loras: Sequence[Lora]) -> str:
    return f"The LoRA {' and '.join(shortened(lora.name) for lora in loras)}"


def _about_brackets(text: str, tree: Tree) -> list[str]:
    if not tree.unpaired:
        return []
    place, count = tree.unpaired[0], len(tree.unpaired)
    near = f"“{shortened(text[max(0, place - SHOWN // 2) : place + SHOWN])}”"
    bracket = text[place]
    if count == 1:
        which = f"The bracket {bracket} in {near} has no partner, so it is read as text."
    else:
        which = (
            f"{count} brackets have no partner, so they are read as text; the first is in {near}."
        )
    return [f"{which} Give it one, or write \\{bracket} for a bracket that is text."]
