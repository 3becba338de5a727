"""Kinds of values in an address's query: how their text is read, and their JSON Schema.

Never imports torch.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

MAX_NUMBER = 1_000_000_000
YES, NO = ("1", "true", "on"), ("0", "false")
WHOLE = re.compile(r"0*([0-9]{1,15})")  # leading zeros do not count
SIZE_PATTERN = re.compile(r"0*([0-9]{1,6})[x×]0*([0-9]{1,6})")


@dataclass(frozen=True)
class Kind:
    """read: the value of a text. Raises ValueError, which says what the text must be.

    schema: JSON Schema of the text.
    """

    read: Callable[[str], Any]
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """A parameter of an address's query. description: for programs.

    default: the value without the parameter. in_kiosk: whether a kiosk lets strangers ask for it.
    """

    name: str
    description: str
    kind: Kind
    default: Any = None
    in_kiosk: bool = False


def whole_number(smallest: int = 0, largest: int = MAX_NUMBER) -> Kind:
    """A whole number within limits, both included."""

    def read(text: str) -> int:
        found = WHOLE.fullmatch(text)
        number = int(found[1]) if found else None
        if number is None or not smallest <= number <= largest:
            raise ValueError(f"it must be a whole number from {smallest} to {largest}")
        return number

    return Kind(read, {"type": "integer", "minimum": smallest, "maximum": largest})


def one_of(names: Collection[str]) -> Kind:
    """One of several words."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"it must be one of {', '.join(names)}")
        return text

    return Kind(read, {"type": "string", "enum": list(names)})


def any_text(longest: int = 200) -> Kind:
    """A text of at most `longest` characters."""

    def read(text: str) -> str:
        if len(text) > longest:
            raise ValueError(f"it must be at most {longest} characters long")
        return text

    return Kind(read, {"type": "string", "maxLength": longest})


def _size(text: str) -> str:
    found = SIZE_PATTERN.fullmatch(text)
    if not found:
        raise ValueError("it must be a size such as 640x480")
    return f"{int(found[1])}x{int(found[2])}"


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError("it must be a day such as 2026-11-20") from None


def _yes(text: str) -> bool:
    if text not in (*YES, *NO):
        raise ValueError("it must be 1 or 0")
    return text in YES


SIZE = Kind(_size, {"type": "string", "pattern": "^[0-9]{1,6}x[0-9]{1,6}$", "example": "1x1"})
DAY = Kind(_day, {"type": "string", "format": "date"})
SWITCH = Kind(_yes, {"type": "string", "enum": [*YES, *NO]})
