"""The errors that a person sees. Each message says what was wrong, what was found, what to do."""

from dataclasses import dataclass
from typing import Self

CUT_AT = 80


def shortened(value: object, length: int = CUT_AT) -> str:
    """A value as messages quote it: on one line, at most `length` characters, all printable."""
    text = " ".join(str(value).encode("utf-8", "backslashreplace").decode().split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


@dataclass(frozen=True)
class Wording:
    """A piece of a message that depends on where it is read.

    page: in the words of buttons and labels. command: in those of the command line's options.
    """

    page: str
    command: str


class StudioError(Exception):
    """An error whose message is meant for the person at the screen.

    parts: text, and Wordings where the faces differ. str() gives the command line's message.
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
        """The same with something before it, such as what it is about."""
        return type(self)(words, *self.parts)


class BadInput(StudioError):
    """A choice that cannot be carried out; raised before anything is made."""


class RunFailed(StudioError):
    """A run that could not go on; what it had made is kept."""


class DiskFull(RunFailed):
    """There is no room left; other runs would fail as well."""
