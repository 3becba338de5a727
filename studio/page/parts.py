"""What stands together in the form: settings in a row, and those behind a switch."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from pydantic.fields import FieldInfo

from studio.page.picker import CONTINUE, CONTINUE_HELP, CONTINUE_LABEL, RESIZE
from studio.settings.common import AVOIDED
from studio.settings.declare import members, meta, option_name
from studio.settings.run_settings import RunSettings

PROMPT = "text_input"  # of engines that have it; in the main area, as those of AVOIDED
Options = Callable[[str], Sequence[object] | None]


@dataclass(frozen=True)
class Part:
    """Settings by name. members: those that matter while the one setting of the row is on.

    heading: under which it is folded away; None: it stands open.
    """

    row: tuple[str, ...]
    members: tuple[str, ...] = ()
    heading: str | None = None


def parts_of(kind: type[RunSettings], options: Options, uploads: Sequence[str]) -> list[Part]:
    """The form from top to bottom. options: the words that a person chooses a setting from.

    Choices come first, since they set the rest; then the settings as they are declared. The switch
    for continuing follows the pictures.
    """
    fields = kind.model_fields
    elsewhere = (PROMPT, *AVOIDED, RESIZE)
    names = [n for n in fields if meta(fields[n])["group"] is None and n not in elsewhere]
    names.sort(key=lambda name: options(name) is None)
    parts = [_part(kind, row) for row in rows(kind, names)]
    last_of_input = uploads[-1] if uploads else "set_seed"
    after = (place for place, part in enumerate(parts, start=1) if last_of_input in part.row)
    continuing = Part((CONTINUE,), (RESIZE,) if RESIZE in fields else ())
    parts.insert(next(after, len(parts)), continuing)
    return parts


def rows(kind: type[RunSettings], names: Iterable[str]) -> list[tuple[str, ...]]:
    """One setting a row, but pixels side by side: they are an x and a y."""
    fields = kind.model_fields

    def row_of(name: str) -> tuple[str, str | None]:
        facts = meta(fields[name])
        return ("px" if facts["unit"] == "px" else name, facts["heading"])

    return [tuple(row) for _, row in groupby(names, row_of)]


def _part(kind: type[RunSettings], row: tuple[str, ...]) -> Part:
    heading = meta(kind.model_fields[row[0]])["heading"]
    return Part(row, tuple(members(kind, row[0])), heading)


def found_in(
    part: Part, words: Sequence[str], kind: type[RunSettings], options: Options
) -> list[str]:
    """The settings of a part in whose texts all the words are. words: in lower case."""
    return [
        name
        for name in (*part.row, *part.members)
        if all(word in _text(name, kind, options) for word in words)
    ]


def _text(name: str, kind: type[RunSettings], options: Options) -> str:
    """All that a person may know a setting by: label, name, help, choices."""
    if name == CONTINUE:
        return f"{CONTINUE_LABEL} {CONTINUE_HELP} {CONTINUE}".casefold()
    field: FieldInfo = kind.model_fields[name]
    facts, choices = meta(field), options(name) or ()
    texts = (name, option_name(name), facts["label"], field.description, facts["heading"] or "")
    return " ".join(map(str, (*texts, *(facts["upload"] or ()), *choices))).casefold()
