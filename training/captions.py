"""Captions of composed pictures, and when a caption holds for another picture."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from training.lexicon import COLOUR_WORDS

HEADS = (
    "", "", "", "an emoji of", "a flat emoji of", "an icon of", "a picture of", "a drawing of",
    "an illustration of", "a photo of", "a painting of", "a cartoon of", "clip art of",
    "an image of", "a simple drawing of", "a cute",
)  # fmt: skip
SIZES = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge")}
MASS = frozenset((
    "fire", "water", "snow", "grass", "rice", "bread", "cheese", "butter", "honey", "milk",
    "coffee", "tea", "wine", "juice", "sushi", "corn", "garlic", "broccoli", "popcorn", "salt",
    "bacon", "cash", "money", "music", "fog", "wind", "sweat", "luggage", "confetti",
))  # fmt: skip
# Words whose first letter misleads: a unicorn, an hourglass.
AN_ANYWAY = ("hour", "honest")
A_ANYWAY = ("uni", "use", "eu", "one", "ufo", "ukulele", "once")


def article(phrase: str) -> str:
    """`phrase` with "a" or "an" where it takes one."""
    first, last = phrase.split()[0], phrase.split(" with ")[0].split(" of ")[0].split()[-1]
    if last in MASS or (last.endswith("s") and not last.endswith(("ss", "us", "is", "ns", "as"))):
        return phrase
    vowel = (first[0] in "aeiou" and not first.startswith(A_ANYWAY)) or first.startswith(AN_ANYWAY)
    return f"{'an' if vowel else 'a'} {phrase}"


@dataclass(frozen=True)
class Claim:
    """What a caption says: (term, colour or None) of each thing, and the background or None.

    A caption that does not mention the background means a white one, as emoji have; a caption that
    names no colour means the usual one. So CLIP asks for clean ground and natural colours by
    itself. White things may have any background.
    """

    things: tuple[tuple[str, str | None], ...]
    background: str | None = None


@dataclass(frozen=True)
class Depicted:
    """One thing in a picture: the terms that name it well or loosely, and its colour if clear."""

    name: str
    loose: frozenset[str]
    colour: str | None
    is_recoloured: bool = False

    def fits(self, term: str, colour: str | None) -> int:
        """1: it is such a thing; 0: it may be called one; -1: it is not."""
        if colour is not None and self.colour is not None and colour != self.colour:
            return -1
        if colour is None and self.is_recoloured:
            return -1
        if term == self.name:
            return 0 if colour is not None and self.colour is None else 1
        return 0 if term in self.loose else -1


def holds(claim: Claim, things: list[Depicted], background: str | None) -> int:
    """Whether a caption holds for a picture: 1 yes, -1 no, 0 perhaps (to be left out of a loss)."""
    if not _background_fits(claim.background, background, things):
        return -1
    fits = [max(thing.fits(*asked) for thing in things) for asked in claim.things]
    if min(fits) < 0:
        return -1
    complete = len(claim.things) == len(things) and claim.background in (None, background)
    return 1 if min(fits) == 1 and complete else 0


def _background_fits(claimed: str | None, background: str | None, things: list[Depicted]) -> bool:
    """Whether a background may be called that: "light blue" is "blue", too; None has no name."""
    if claimed is None:
        return background == "white" or any(thing.colour == "white" for thing in things)
    return background is not None and bool(set(claimed.split()) & set(background.split()))


def bare_name(name: str) -> str:
    """A name without its colour words, for a thing that was recoloured: "red apple" -> "apple"."""
    return " ".join(word for word in name.split() if word not in COLOUR_WORDS) or name


def describe_thing(term: str, colour: str | None, size: str | None, random: Random) -> str:
    """ "apple", "red", "small" -> "a small red apple", with an article most of the time."""
    words = [random.choice(SIZES[size])] if size else []
    if colour and colour not in term.split():
        words.append(colour)
    phrase = " ".join([*words, term])
    return phrase if random.random() < 0.2 else article(phrase)


def join_things(things: list[str], layout: str, random: Random) -> str:
    """One phrase for one or two things; `layout` is the place of the first: left, above, big."""
    if len(things) == 1:
        return things[0]
    first, second = things
    if random.random() < 0.55:
        pair = [first, second] if random.random() < 0.5 else [second, first]
        return random.choice(("{} and {}", "{} with {}", "{} and {}", "{}, {}")).format(*pair)
    if layout == "above":
        return random.choice(
            (f"{first} above {second}", f"{second} below {first}", f"{first} on top of {second}")
        )
    if layout == "left":
        return random.choice(
            (f"{first} next to {second}", f"{second} beside {first}",
             f"{first} to the left of {second}", f"{second} to the right of {first}")
        )  # fmt: skip
    return random.choice((f"{second} in front of {first}", f"{first} behind {second}"))


def sentence(things: str, background: str, random: Random) -> str:
    """The whole caption: a head such as "an icon of", the things, the background's phrase."""
    head = random.choice(HEADS)
    if head == "a cute":
        head, things = "", "cute " + things if things[:2] != "a " else "a cute " + things[2:]
    return " ".join(part for part in (head, things, background) if part)
