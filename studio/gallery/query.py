"""What an address asks of the gallery. Never imports torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from werkzeug.datastructures import MultiDict

from studio.gallery.facets import FILTERS
from studio.gallery.parameters import Parameter, any_text, one_of, whole_number

MAX_PER_PAGE = 200
MAX_QUERY = 500
PER_PAGE = 24
SORTS = {
    "newest": "Newest first",
    "oldest": "Oldest first",
    "prompt": "Prompt, A to Z",
    "steps": "Most steps",
    "size": "Largest",
}
WORDS = 'Words in prompt and settings, all of them; "in quotes" together; -without.'
PARAMETERS: Mapping[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        Parameter("q", WORDS, any_text(MAX_QUERY), "", in_kiosk=True),
        Parameter(
            "page",
            "Counted from 1; beyond the last page comes the last.",
            whole_number(1),
            1,
            in_kiosk=True,
        ),
        Parameter("n", "Runs on a page.", whole_number(1, MAX_PER_PAGE), PER_PAGE, in_kiosk=True),
        Parameter("sort", "The order of the runs.", one_of(SORTS), "newest"),
        *FILTERS,
    )
}
LOOKS = ("page", "n", "sort")  # how the runs are shown, not which of them


@dataclass(frozen=True)
class Query:
    """What to show. values: of parameters, by name; those left out have their defaults.

    The word search `q`: words that all must be found, each also as a word's beginning; "in quotes"
    one after the other; -without.
    """

    values: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """The value of a parameter. Raises KeyError where there is no such parameter."""
        return self.values.get(name, PARAMETERS[name].default)

    def as_arguments(self, **changes: Any) -> dict[str, Any]:
        """The query of an address that asks for this, without parameters at their defaults.

        changes: values that replace those of this query; None stands for the default.
        """
        values = {**self.values, **changes}
        return {
            name: 1 if values[name] is True else values[name]
            for name, parameter in PARAMETERS.items()
            if values.get(name) not in (None, parameter.default)
        }

    @property
    def chosen(self) -> dict[str, Any]:
        """The search and the filters: what not every run meets."""
        return self.as_arguments(**dict.fromkeys(LOOKS))

    @property
    def is_filtered(self) -> bool:
        """Whether the query leaves out some runs."""
        return bool(self.chosen)


@dataclass(frozen=True)
class Asked:
    """What an address asks for, as far as it makes sense; problems say what does not."""

    query: Query
    problems: list[str] = field(default_factory=list)


def read_query(
    arguments: MultiDict[str, str], per_page: int, *, strict: bool = False, kiosk: bool = False
) -> Asked:
    """The query of an address. What is wrong in it is left out, and named in the problems.

    strict: for programs; empty parameters, and those given twice, are wrong as well. kiosk: read
    only the parameters that strangers may use in a kiosk.
    """
    values: dict[str, Any] = {"n": per_page}
    problems = []
    for name, parameter in PARAMETERS.items():
        given = arguments.getlist(name) if parameter.in_kiosk or not kiosk else []
        text = given[0] if given and strict else "".join(given[:1]).strip()
        if strict and len(given) > 1:
            problems.append(f"{name} is given {len(given)} times.")
        if not given or not (text or strict):
            continue
        try:
            values[name] = parameter.kind.read(text)
        except ValueError as error:
            problems.append(f"{name}={text[:40]}: {error}.")
    return Asked(Query(values), problems)
