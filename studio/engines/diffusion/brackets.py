r"""Brackets in a prompt: weights, and words that change while the picture is drawn. No torch.

`(a)` is a times 1.1, `(a:1.3)` times 1.3, `[a]` divided by 1.1; brackets in brackets multiply.
`[a:b:0.25]` is a for a quarter of the steps, then b; `[a:b:5]` is a for 5 steps; `[b:5]` and
`[a::5]` leave one of them empty. `[a|b]` is a, then b, step by step. `BREAK` ends a chunk of
tokens. `\(` is a bracket as text, and so are `\)`, `\[`, `\]`, `\\`, `\:` and `\|`.

A bracket without its partner is text. The field's web UI weights all that follows an open bracket
instead, which nobody sees. The rest is as there.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from studio.base.errors import shortened
from studio.settings.weighted import check_weight

STRONGER = 1.1
PARTNERS = {")": "(", "]": "["}

_TOKEN = re.compile(r"\\[\\()\[\]:|]|[()\[\]:|]|\\|[^\\()\[\]:|]+")
_BREAK = re.compile(r"\bBREAK\b")
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*")


class Piece(NamedTuple):
    """Words of one weight."""

    text: str
    weight: float = 1.0


Sections = tuple[tuple[Piece, ...], ...]  # the pieces before, between and after the BREAKs


class Stretch(NamedTuple):
    """What a prompt says up to a step, which counts from 1."""

    last_step: int
    sections: Sections


# Trees may be very deep, so nothing here compares or prints them: that would be recursive.
class _Break:
    """A BREAK."""


@dataclass(frozen=True, eq=False, repr=False)
class _Weighted:
    nodes: Sequence["_Node"]
    weight: float


@dataclass(frozen=True, eq=False, repr=False)
class _Edited:
    """when: the number of steps that `before` lasts, or its share of them."""

    before: Sequence["_Node"]
    after: Sequence["_Node"]
    when: float
    is_share: bool

    def lasts(self, steps: int) -> int:
        """How many of so many steps say `before`."""
        return int(max(0, min(steps, self.when * steps if self.is_share else self.when)))


@dataclass(frozen=True, eq=False, repr=False)
class _Alternating:
    options: Sequence[Sequence["_Node"]]


_Node = str | _Break | _Weighted | _Edited | _Alternating
_Choice = Callable[[_Edited | _Alternating], Iterable[_Node]]


@dataclass(frozen=True, eq=False, repr=False)
class Tree:
    """A prompt with its brackets read. unpaired: where brackets without a partner stand."""

    nodes: Sequence[_Node]
    unpaired: Sequence[int] = ()

    def at(self, step: int, steps: int) -> Sections:
        """What the prompt says in one of so many steps; the first is 1."""

        def now(node: _Edited | _Alternating) -> Iterable[_Node]:
            if isinstance(node, _Alternating):
                return node.options[(step - 1) % len(node.options)]
            return node.before if step <= node.lasts(steps) else node.after

        return tuple(_sections(_walk(self.nodes, now)))

    def schedule(self, steps: int) -> list[Stretch]:
        """What the prompt says over so many steps; neighbours differ, and the last ends there."""
        stretches: list[Stretch] = []
        for last in self.ends(steps):
            sections = self.at(last, steps)
            if stretches and stretches[-1].sections == sections:
                stretches.pop()
            stretches.append(Stretch(last, sections))
        return stretches

    def ends(self, steps: int) -> list[int]:
        """The steps after which the prompt may say something else, in order; then the last one."""
        ends = {steps}

        def note(node: _Edited | _Alternating) -> Iterable[_Node]:
            own = range(1, steps) if isinstance(node, _Alternating) else [node.lasts(steps)]
            ends.update(step for step in own if step > 0)
            return _everything(node)

        for _ in _walk(self.nodes, note):
            pass
        return sorted(ends)


def parse_brackets(text: str) -> Tree:
    """Read a prompt without LoRAs and ANDs.

    Raises BadInput for weights that multiply to more than the studio takes.
    """
    reader = _Reader()
    for match in _TOKEN.finditer(text):
        reader.take(match[0], match.start())
    tree = reader.tree()
    for words, weight in _walk(tree.nodes, _everything):
        if isinstance(words, str):
            check_weight(weight, f"'{shortened(words.strip())}' in the prompt")
    return tree


class _Reader:
    """Takes a text token by token. Its first frame is the text outside all brackets."""

    def __init__(self) -> None:
        self._frames = [_Frame()]
        self._open = Counter[str]()
        self._unpaired: list[int] = []

    def take(self, token: str, place: int) -> None:
        if token in "([":
            self._frames.append(_Frame(token, place))
            self._open[token] += 1
        elif token in ")]":
            self._close(token, place)
        elif token in ":|":
            self._frames[-1].separate(token)
        else:
            self._frames[-1].add(*_words(token))

    def tree(self) -> Tree:
        self._unwind("")
        return Tree(self._frames[0].joined(), sorted(self._unpaired))

    def _close(self, token: str, place: int) -> None:
        """Close the innermost bracket of that kind; others that are open in it become text."""
        bracket = PARTNERS[token]
        if not self._open[bracket]:
            self._frames[-1].add(token)
            self._unpaired.append(place)
            return
        self._unwind(bracket)
        self._open[bracket] -= 1
        node = self._frames.pop().node()
        self._frames[-1].add(node)

    def _unwind(self, bracket: str) -> None:
        """Let the brackets inside the last one of that kind be text of it."""
        index = len(self._frames) - 1
        while self._frames[index].bracket != bracket:
            index -= 1
        below = self._frames[index]
        for frame in self._frames[index + 1 :]:
            self._open[frame.bracket] -= 1
            self._unpaired.append(frame.place)
            below.take_over(frame)
        del self._frames[index + 1 :]


@dataclass
class _Frame:
    """An open bracket at a place in the text. fields: what its separators part."""

    bracket: str = ""
    place: int = 0
    fields: list[list[_Node]] = field(default_factory=lambda: [[]])
    separators: list[str] = field(default_factory=list)

    def add(self, *nodes: _Node) -> None:
        self.fields[-1].extend(nodes)

    def separate(self, separator: str) -> None:
        self.separators.append(separator)
        self.fields.append([])

    def take_over(self, other: "_Frame") -> None:
        """Let another bracket, and all in it, be text of this one."""
        self.add(other.bracket, *other.fields[0])
        for separator, nodes in zip(other.separators, other.fields[1:], strict=True):
            self.separate(separator)
            self.add(*nodes)

    def joined(self, end: int | None = None) -> list[_Node]:
        """The fields up to `end` with their separators as text."""
        first, *others = self.fields[:end]
        nodes = list(first)
        for separator, more in zip(self.separators, others, strict=False):
            nodes += [separator, *more]
        return nodes

    def node(self) -> _Node:
        """What the bracket means once it is closed."""
        number = _number(self.fields[-1]) if self.separators[-1:] == [":"] else None
        if self.bracket == "(":
            if number is None:
                return _Weighted(self.joined(), STRONGER)
            return _Weighted(self.joined(-1), float(number))
        if "|" in self.separators:
            return _Alternating(self._options())
        if number is not None and len(self.separators) <= 2:
            before = self.fields[0] if len(self.separators) == 2 else []
            return _Edited(before, self.fields[-2], float(number), _is_share(number))
        return _Weighted(self.joined(), 1 / STRONGER)

    def _options(self) -> list[list[_Node]]:
        """What the `|` part; a colon between them is text."""
        options = [list(self.fields[0])]
        for separator, nodes in zip(self.separators, self.fields[1:], strict=True):
            if separator == "|":
                options.append([])
            else:
                options[-1].append(separator)
            options[-1] += nodes
        return options


def _words(token: str) -> Iterator[_Node]:
    if len(token) == 2 and token[0] == "\\":
        yield token[1]
        return
    first, *others = _BREAK.split(token)
    yield first
    for words in others:
        yield from (_Break(), words)


def _number(nodes: Sequence[_Node]) -> str | None:
    match = _NUMBER.fullmatch(nodes[0]) if len(nodes) == 1 and isinstance(nodes[0], str) else None
    return match[1] if match else None


def _is_share(number: str) -> bool:
    """`1.0` is all of the steps, but `1` is one of them."""
    return float(number) < 1 or ("." in number and float(number) == 1)


def _everything(node: _Edited | _Alternating) -> Iterable[_Node]:
    if isinstance(node, _Edited):
        return [*node.before, *node.after]
    return [inner for option in node.options for inner in option]


def _walk(nodes: Iterable[_Node], choose: _Choice) -> Iterator[tuple[str | _Break, float]]:
    """The words with their weights in order. choose: what of a node that changes is said."""
    stack = [(iter(nodes), 1.0)]
    while stack:
        rest, weight = stack[-1]
        node = next(rest, None)
        if node is None:
            stack.pop()
        elif isinstance(node, _Weighted):
            stack.append((iter(node.nodes), weight * node.weight))
        elif isinstance(node, _Edited | _Alternating):
            stack.append((iter(choose(node)), weight))
        else:
            yield node, weight


def _sections(words: Iterable[tuple[str | _Break, float]]) -> Iterator[tuple[Piece, ...]]:
    section: list[tuple[str, float]] = []
    for node, weight in words:
        if isinstance(node, _Break):
            yield _pieces(section)
            section = []
        elif node:
            section.append((node, weight))
    yield _pieces(section)


def _pieces(words: Iterable[tuple[str, float]]) -> tuple[Piece, ...]:
    """Neighbours of one weight are one piece, so that a word in two nodes is one word."""
    grouped = groupby(words, key=lambda word: word[1])
    return tuple(Piece("".join(text for text, _ in group), weight) for weight, group in grouped)
