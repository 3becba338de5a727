"""Names and keywords of icons: one canonical name for the same emoji in every set."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

COLOUR_WORDS = frozenset((
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
    "gray", "grey", "turquoise",
))  # fmt: skip
# Keywords that say nothing about what a picture shows.
VAGUE = frozenset((
    "the", "of", "a", "an", "and", "or", "with", "symbol", "emoji", "symbols", "sign", "object",
    "objects", "other",
))  # fmt: skip
FORMS = {"grey": "gray"}


@dataclass
class Entry:
    """One concept: `name`, `aliases` that name the same thing, `words` that go with it."""

    name: str
    aliases: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)


def squash(text: str) -> str:
    """Letters and digits alone, in lower case: "Red-Apple" -> "redapple"."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def humanise(text: str) -> str:
    """A file name or label as words: "Red-apple" -> "red apple", "flag: Fiji" -> "flag of fiji"."""
    text = text.lower().replace("’", "'")
    text = re.sub(r"^flag: ", "flag of ", text)
    text = re.sub(r"^(man|woman|person): ", r"\1 with ", text)
    text = re.sub(r"[^a-z0-9' ]", " ", text)
    return " ".join(FORMS.get(word, word) for word in text.split())


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


class Lexicon:
    """Emojibase's labels, shortcodes and tags joined with emojilib's keywords.

    `lookup` finds the entry of an emoji by any of its names; `by_hex` by its code points.
    """

    def __init__(self, node_modules: Path):
        base = node_modules / "emojibase-data" / "en"
        emojis = json.loads((base / "data.json").read_text("utf-8"))
        emojilib = node_modules / "emojilib" / "dist" / "emoji-en-US.json"
        keywords = {
            emoji.replace("\ufe0f", ""): words
            for emoji, words in json.loads(emojilib.read_text("utf-8")).items()
        }
        codes: dict[str, list[str]] = {}
        for origin in ("cldr", "emojibase", "iamcal", "github"):
            shortcodes = json.loads((base / "shortcodes" / f"{origin}.json").read_text("utf-8"))
            for hexcode, names in shortcodes.items():
                codes.setdefault(hexcode, []).extend(_as_list(names))
        self.by_hex: dict[str, Entry] = {}
        self._by_name: dict[str, Entry] = {}
        pending = []
        for emoji in emojis:
            known = keywords.get(emoji["emoji"].replace("\ufe0f", ""), [])
            entry = self._entry(emoji, codes.get(emoji["hexcode"], []), known)
            for form in (emoji, *emoji.get("skins", [])):
                self.by_hex[form["hexcode"].lower().replace("-fe0f", "")] = entry
            self._by_name.setdefault(squash(emoji["label"]), entry)
            pending.append((entry, codes.get(emoji["hexcode"], []) + known[:1]))
        for entry, names in pending:  # labels win over another emoji's shortcodes
            for name in names:
                self._by_name.setdefault(squash(name), entry)
        self.vocabulary = self._words()

    @staticmethod
    def _entry(emoji: dict, shortcodes: list[str], known: list[str]) -> Entry:
        name = humanise(emoji["label"])
        tags = [humanise(tag) for tag in emoji.get("tags", [])]
        also = [humanise(word) for word in known]
        aliases = [humanise(code) for code in shortcodes] + [tag for tag in tags if tag in also]
        aliases += [tag for tag in tags if name.endswith(" " + tag) or name.startswith(tag + " ")]
        aliases = _useful(aliases, {name})
        return Entry(name, aliases, _useful(tags + also, {name, *aliases}))

    def _words(self) -> set[str]:
        texts = [
            text
            for entry in self.by_hex.values()
            for text in (entry.name, *entry.aliases, *entry.words)
        ]
        return {word for text in texts for word in text.split() if word.isalpha()}

    def lookup(self, name: str) -> Entry | None:
        """The entry whose label, shortcode or first keyword is `name`, or None."""
        return self._by_name.get(squash(name))

    def segment(self, text: str) -> str | None:
        """Split a name written without spaces into known words, as few as possible, else None."""
        best: list[list[str] | None] = [[]] + [None] * len(text)
        for end in range(1, len(text) + 1):
            for start in range(max(0, end - 16), end):
                word, before, known = text[start:end], best[start], best[end]
                if before is None or not self._known(word):
                    continue
                if known is None or len(before) + 1 < len(known):
                    best[end] = [*before, word]
        return " ".join(best[-1]) if best[-1] else None

    def _known(self, word: str) -> bool:
        return (len(word) > 2 and word in self.vocabulary) or word in {"in", "on", "of", "up", "ok"}


def _useful(words: list[str], taken: set[str]) -> list[str]:
    """Each word once, without colours (the picture may be recoloured), digits and vague words."""
    kept: list[str] = []
    for word in words:
        plain = word.replace(" ", "")
        if len(plain) < 2 or not plain.isalpha() or word in taken or word in kept:
            continue
        if word in VAGUE or COLOUR_WORDS & set(word.split()):
            continue
        kept.append(word)
    return kept
