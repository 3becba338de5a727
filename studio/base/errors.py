"""Errors that a person sees. Each message says what was wrong, what was found and what to do."""

from dataclasses import dataclass
from typing import Self

CUT_AT = 80


def shortened(value: object, length: int = CUT_AT) -> str:
    """A value as messages quote it: one line of at most `length` characters, valid in UTF-8."""
    text = " ".join(str(value).encode("utf-8", "backslashreplace").decode().split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


@dataclass(frozen=True)
class Wording:
    """A part of a message that depends on where a person reads it.

    page: in the words of buttons and labels. command: in the words of command line options.
    """

    page: str
    command: str


class StudioError(Exception):
    """An error whose message is written for the person at the screen.

    parts: text, and Wordings where page and command line differ. str() gives the message for the
    command line.
    """

    def __init__(self, *parts: str | Wording) -> None:
        super().__init__(*parts)
        self.parts = parts

    def __str__(self) -> str:
        return "".join(p.command if isinstance(p, Wording) else p for p in self.parts)

    @property
    def on_page(self) -> str:
        """The message as the page shows it."""
        return "".join(p.page if isinstance(p, Wording) else p for p in self.parts)

    def prefixed(self, words: str) -> Self:
        """The same error, with words before its message."""
        return type(self)(words, *self.parts)


class BadInput(StudioError):
    """A choice that cannot be carried out. It is raised before anything is made."""


class RunFailed(StudioError):
    """A run that had to end early. What it had made is kept."""


class DiskFull(RunFailed):
    """The disk has no room left, so other runs would fail as well."""
