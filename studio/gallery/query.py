"""What an address asks of the gallery. Never imports torch."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields, replace
from datetime import date
from typing import Any

from werkzeug.datastructures import MultiDict

from gallery_utils import STATUSES

MAX_PER_PAGE = 200
MAX_NUMBER = 1_000_000_000
MAX_QUERY = 500
SORTS = {
    "newest": "Newest first",
    "oldest": "Oldest first",
    "prompt": "Prompt, A to Z",
    "steps": "Most steps",
    "size": "Largest",
}
YES, NO = ("1", "true", "on"), ("0", "false")
SIZE = re.compile(r"0*([0-9]{1,6})[x×]0*([0-9]{1,6})")
WHOLE = re.compile(r"0*([0-9]{1,15})")  # its zeros do not count


@dataclass(frozen=True)
class Query:
    """What to show. Empty and None filters let everything through.

    q: words that all must be found, each also as a word's beginning; "in quotes" one after the
    other; -without. date_from and date_to: days as YYYY-MM-DD, both included.
    """

    q: str = ""
    page: int = 1
    n: int = 24
    sort: str = "newest"
    status: str = ""
    weights: str = ""
    clip: str = ""
    size: str = ""
    steps_min: int | None = None
    steps_max: int | None = None
    date_from: str = ""
    date_to: str = ""
    favourite: bool = False
    tag: str = ""

    def as_arguments(self, **changes: Any) -> dict[str, Any]:
        """The query of an address that asks for this, without what goes without saying."""
        changed = replace(self, **changes)
        pairs = ((f.name, getattr(changed, f.name), f.default) for f in fields(Query))
        return {name: _in_address(value) for name, value, default in pairs if value != default}

    @property
    def is_filtered(self) -> bool:
        """Whether not all runs are asked for."""
        return bool(self.as_arguments(page=1, n=24, sort="newest"))


@dataclass(frozen=True)
class Asked:
    """What an address asks for, as far as it makes sense; problems tell of the rest."""

    query: Query
    problems: list[str] = field(default_factory=list)


def read_query(
    arguments: MultiDict[str, str], per_page: int, *, strict: bool = False, kiosk: bool = False
) -> Asked:
    """The query of an address. Whatever is wrong in it is left out and named.

    strict: for programs, to which an empty number or one given twice is wrong as well. kiosk: only
    what asks for nothing but pictures and prompts.
    """
    values: dict[str, Any] = {"n": per_page}
    problems = []
    for name in IN_KIOSK if kiosk else READERS:
        given = arguments.getlist(name)
        text = given[0] if given and strict else "".join(given[:1]).strip()
        if strict and len(given) > 1:
            problems.append(f"{name} is given {len(given)} times.")
        if not given or not (text or strict):
            continue
        try:
            values[name] = READERS[name](text)
        except ValueError as error:
            problems.append(f"{name}={text[:40]}: {error}.")
    return Asked(Query(**values), problems)


def _count(smallest: int, largest: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        found = WHOLE.fullmatch(text)
        number = int(found[1]) if found else None
        if number is None or not smallest <= number <= largest:
            raise ValueError(f"it must be a whole number from {smallest} to {largest}")
        return number

    return read


def _one_of(names: Collection[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"it must be one of {', '.join(names)}")
        return text

    return read


def _size(text: str) -> str:
    found = SIZE.fullmatch(text)
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


def _text(limit: int) -> Callable[[str], str]:
    def read(text: str) -> str:
        if len(text) > limit:
            raise ValueError(f"it must be at most {limit} characters long")
        return text

    return read


READERS = {
    "q": _text(MAX_QUERY),
    "page": _count(1, MAX_NUMBER),
    "n": _count(1, MAX_PER_PAGE),
    "sort": _one_of(SORTS),
    "status": _one_of(STATUSES),
    "weights": _text(200),
    "clip": _text(200),
    "size": _size,
    "steps_min": _count(0, MAX_NUMBER),
    "steps_max": _count(0, MAX_NUMBER),
    "date_from": _day,
    "date_to": _day,
    "favourite": _yes,
    "tag": _text(100),
}
IN_KIOSK = ("q", "page", "n")


def _in_address(value: Any) -> Any:
    return 1 if value is True else value
