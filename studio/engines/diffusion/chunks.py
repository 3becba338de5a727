"""A prompt of any length as chunks that a text encoder can read. No torch.

Each chunk has 75 tokens of text, and a start and an end beside them. A chunk that is full goes on
behind its last comma in the next one, if that comma is near; a BREAK ends a chunk early. This is
how the field's web UI does it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from studio.engines.diffusion.brackets import Piece, Sections

ROOM = 75  # of a published CLIP, whose start and end make it 77
COMMA = ","
NEAR = 20  # tokens behind a comma that move with it into the next chunk


class Slot(NamedTuple):
    """A place in a chunk.

    vector: the name of a textual inversion and the row of its table that stands there; the token
    is then of no account.
    """

    token: int
    weight: float = 1.0
    vector: tuple[str, int] | None = None


Unit = tuple[Slot, ...]  # slots that stay together: one token, or all vectors of an inversion
Encode = Callable[[str], Sequence[int]]


def chunks_of(
    sections: Sections,
    encode: Encode,
    inversions: Mapping[str, int] | None = None,
    room: int = ROOM,
) -> list[list[Slot]]:
    """The chunks of a prompt, of at most `room` slots each; one at least.

    encode: the tokens of a text, without start and end. inversions: how many vectors each has, at
    most `room`; a name counts wherever it stands as a word, in capitals or not.
    """
    read = _Words(encode, inversions or {})
    commas = encode(COMMA)
    filling = _Filling(room, commas[0] if len(commas) == 1 else None)
    for index, section in enumerate(sections):
        if index:
            filling.end_chunk()
        for unit in read.units(section):
            filling.add(unit)
    return filling.chunks()


def name_pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    """Finds the names of textual inversions in a text, as `name`; None without names.

    Other programs write them as `<name>` or `embedding:name`, which is the same here.
    """
    longest_first = sorted(names, key=len, reverse=True)
    words = "|".join(map(re.escape, longest_first))
    if not words:
        return None
    marked = rf"(?:embedding:)?(?P<open><)?(?P<name>{words})(?(open)>)"
    return re.compile(rf"(?<!\w){marked}(?!\w)", re.IGNORECASE)


class _Words:
    """Reads pieces as units."""

    def __init__(self, encode: Encode, inversions: Mapping[str, int]) -> None:
        self._encode = encode
        self._names = {name.lower(): name for name in inversions}
        self._counts = inversions
        self._pattern = name_pattern(inversions)

    def units(self, section: Iterable[Piece]) -> Iterator[Unit]:
        for text, weight in section:
            place = 0
            for match in self._pattern.finditer(text) if self._pattern else ():
                yield from self._tokens(text[place : match.start()], weight)
                name = self._names[match["name"].lower()]
                yield tuple(Slot(0, weight, (name, n)) for n in range(self._counts[name]))
                place = match.end()
            yield from self._tokens(text[place:], weight)

    def _tokens(self, text: str, weight: float) -> Iterator[Unit]:
        yield from ((Slot(token, weight),) for token in self._encode(text) if text)


class _Filling:
    """Takes units and fills chunks."""

    def __init__(self, room: int, comma: int | None) -> None:
        self._room, self._comma = room, comma
        self._done: list[list[Slot]] = []
        self._chunk: list[Slot] = []
        self._behind_comma = 0  # where the text behind the chunk's last comma begins; 0: no comma

    def add(self, unit: Unit) -> None:
        is_comma = (
            self._comma is not None and unit[0].vector is None and unit[0].token == self._comma
        )
        if len(self._chunk) == self._room and not is_comma:
            self._move_on()
        if len(self._chunk) + len(unit) > self._room:
            self.end_chunk()
        self._chunk += unit
        if is_comma:
            self._behind_comma = len(self._chunk)

    def end_chunk(self) -> None:
        self._done.append(self._chunk)
        self._chunk, self._behind_comma = [], 0

    def chunks(self) -> list[list[Slot]]:
        return [*self._done, self._chunk] if self._chunk or not self._done else self._done

    def _move_on(self) -> None:
        """End a full chunk behind its last comma, if that is near."""
        behind = self._chunk[self._behind_comma :]
        if self._behind_comma and len(behind) < NEAR:
            del self._chunk[self._behind_comma :]
            self.end_chunk()
            self._chunk = behind
