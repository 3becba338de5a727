"""What the runs can be filtered by, each declared once.

Addresses, the form, SQL, the index's columns, the API and its description follow from FACETS and
RANGES. A new facet is one more entry there. Never imports torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gallery_utils import STATUSES, as_text
from studio.gallery.parameters import (
    DAY,
    SIZE,
    SWITCH,
    Kind,
    Parameter,
    any_text,
    one_of,
    whole_number,
)
from studio.gallery.plain import without_folders
from studio.runs.details_keys import engine_of

MAX_VALUE = 200  # characters
ANY_TEXT = any_text(MAX_VALUE)
Details = Mapping[str, Any]


@dataclass(frozen=True)
class Filter(Parameter):
    """A parameter that runs must meet. condition: SQL, with ? for the parameter's value."""

    condition: str = ""


@dataclass(frozen=True)
class Facet:
    """A property of runs that the form offers as a list of the values there are.

    name: in addresses, and of the index's column where there is one. label: in the form.
    description: of the filter, for programs.
    read: the value for the index's own column, out of the details; None without such a column.
    in_api: the key in the API's runs, for a facet with a column.
    value: in SQL, where it is not the column. source: the rows that have a value, in SQL.
    at_most: how many values are offered. at_least: with fewer, the form leaves the facet out.
    """

    name: str
    label: str
    description: str
    kind: Kind = ANY_TEXT
    read: Callable[[Details], str] | None = None
    in_api: str = ""
    value: str = ""
    source: str = ""
    condition: str = ""
    at_most: int = 200
    at_least: int = 1

    @property
    def counts(self) -> str:
        """SQL for the values there are, with how many runs have each, the most frequent first."""
        value = self.value or self.name
        source = self.source or f"runs WHERE {value} <> ''"
        order = f"ORDER BY 2 DESC, 1 LIMIT {self.at_most}"
        return f"SELECT {value}, count(*) FROM {source} GROUP BY 1 {order}"

    @property
    def filter(self) -> Filter:
        """The filter that lets one of the values through."""
        condition = self.condition or f"{self.value or self.name} = ?"
        return Filter(self.name, self.description, self.kind, condition=condition)


@dataclass(frozen=True)
class Range:
    """A property of runs that the form offers to limit on both sides. input: its type in HTML."""

    label: str
    input: str
    lowest: Filter
    highest: Filter


def _text(key: str) -> Callable[[Details], str]:
    """Reads a key of details.json as text, files without their folders."""
    return lambda details: without_folders(as_text(details.get(key)))[:MAX_VALUE]


def _engine(details: Details) -> str:
    return as_text(engine_of(details))[:MAX_VALUE]


TAGGED = "name IN (SELECT run FROM curation.tags WHERE tag = ? COLLATE NOCASE)"
TAGS = "curation.tags JOIN runs ON run = name"
MARKED = "name IN (SELECT run FROM curation.marks WHERE favourite = ?)"
FACETS = (
    Facet("status", "Status", "Only with this status.", one_of(STATUSES)),
    Facet("engine", "Engine", "Only by this engine.", read=_engine, in_api="engine", at_least=2),
    Facet(
        "weights", "Weights", "Only with this VQGAN.", read=_text("vqgan_ckpt"), in_api="weights"
    ),
    Facet(
        "clip",
        "CLIP model",
        "Only with this CLIP model.",
        read=_text("clip_model"),
        in_api="clip_model",
    ),
    Facet(
        "size",
        "Size",
        "Only of this size.",
        SIZE,
        value="width || 'x' || height",
        source="runs WHERE width > 0",
    ),
    Facet(
        "tag",
        "Tag",
        "Only with this tag.",
        any_text(100),
        value="tag",
        source=TAGS,
        condition=TAGGED,
        at_most=500,
    ),
)
RANGES = (
    Range(
        "Steps",
        "number",
        Filter("steps_min", "At least this many steps.", whole_number(), condition="steps >= ?"),
        Filter("steps_max", "At most this many steps.", whole_number(), condition="steps <= ?"),
    ),
    Range(
        "Made",
        "date",
        Filter("date_from", "Started on this day or later.", DAY, condition="day >= ?"),
        Filter(
            "date_to", "Started on this day or earlier.", DAY, condition="day <= ? AND day <> ''"
        ),
    ),
)
FILTERS = (
    *(facet.filter for facet in FACETS),
    *(limit for one in RANGES for limit in (one.lowest, one.highest)),
    Filter("favourite", "1: only favourites.", SWITCH, default=False, condition=MARKED),
)
INDEXED = tuple(facet for facet in FACETS if facet.read)
