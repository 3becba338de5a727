"""What an engine tells of a prompt: its parts, their weights, and how much of a text it reads."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PromptPart:
    """One of the parts that a prompt joins, such as one of those between `|`.

    weight: how strongly it pulls; a negative one repels. rest: what else the engine read there, to
    be given back as it is.
    """

    text: str
    weight: float = 1.0
    rest: str = ""


@dataclass(frozen=True)
class Length:
    """How long a text is for an engine.

    tokens: those of the whole text. room: how many the engine reads, or None if that is not known.
    cut_off: the end of the text that it does not read; "" if it reads all.
    """

    tokens: int
    room: int | None = None
    cut_off: str = ""
