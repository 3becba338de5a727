"""Answers from the index: pages of runs, places in lists, slides. Never imports torch."""

import re
import sqlite3
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from gallery_utils import FINISHED
from studio.gallery.facets import FACETS, FILTERS, INDEXED
from studio.gallery.query import Query
from studio.gallery.store import Store
from studio.runs.details_keys import FIRST_ENGINE
from studio.runs.storage import ACTIVE

MAX_WORDS = 30
SMALL = 256  # pixels of a picture's longer side
MAX_IN_A_ROW = 8  # newly finished runs, before the slideshow resumes its tour
MAX_ARRIVAL = 2**63 - 1
Choices = dict[str, list[tuple[str, int]]]
# The columns that each order sorts by, all in one direction, so that `place` can compare rows.
ORDERS = {
    "newest": (("began", "name"), "DESC"),
    "oldest": (("began", "name"), "ASC"),
    "prompt": (("prompt = ''", "prompt COLLATE NOCASE", "-began", "name"), "ASC"),
    "steps": (("coalesce(steps, -1)", "began", "name"), "DESC"),
    "size": (("width * height", "began", "name"), "DESC"),
}
OPPOSITE = {"ASC": "DESC", "DESC": "ASC"}
TERM = re.compile(r'(-?)"([^"]*)"?|(-?)(\S+)')
ARRIVAL = r"([0-9]{1,18}|[1-8][0-9]{18})"
CURSOR = re.compile(rf"(-?[0-9.e+]{{1,25}})_{ARRIVAL}_{ARRIVAL}_(.{{1,255}})", re.DOTALL)
# Scripts without spaces between words. The index would take a whole sentence for one word.
UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x10FFFF))


@dataclass(frozen=True)
class Tile:
    """A run as the wall shows it.

    stamp: changes with its picture. facets: the values of INDEXED by their names.
    """

    name: str
    began: float
    status: str
    problem: str
    prompt: str
    width: int
    height: int
    steps: int | None
    picture: str | None
    stamp: int
    animation: str | None
    id8: str
    parent: str | None
    prev8: str | None
    favourite: bool
    note: str
    tags: tuple[str, ...] = ()
    facets: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def date(self) -> datetime | None:
        """When it began, in local time."""
        try:
            return datetime.fromtimestamp(self.began) if self.began > 0 else None
        except (ValueError, OverflowError, OSError):
            return None

    @property
    def title(self) -> str:
        """Its prompt, cut. Without one, the name of its engine, which may need none."""
        engine = self.facets.get("engine") or FIRST_ENGINE
        text = self.prompt or (engine if engine != FIRST_ENGINE else "Without a prompt")
        return text if len(text) <= 300 else f"{text[:299]}…"

    @property
    def ratio(self) -> int:
        """Width divided by height in per cent, rounded to the steps of the style sheet."""
        if not (self.width and self.height):
            return 100
        return min(300, max(50, 5 * round(20 * self.width / self.height)))

    @property
    def has_picture(self) -> bool:
        """Whether there is a picture to show: a file whose size could be read."""
        return bool(self.picture and self.width and self.height)

    @property
    def is_small(self) -> bool:
        """Whether its picture is enlarged with pixels as squares."""
        return self.has_picture and max(self.width, self.height) <= SMALL

    @property
    def is_active(self) -> bool:
        """Whether it is waiting or running."""
        return self.status in ACTIVE

    @property
    def is_whole(self) -> bool:
        """Whether it is finished and has a picture to show to anyone."""
        return bool(self.picture) and self.status in FINISHED


@dataclass(frozen=True)
class Page:
    """A page of runs. number and pages count from 1. message: what there is not, or ""."""

    tiles: list[Tile]
    total: int
    number: int
    pages: int
    message: str = ""


def find(store: Store, query: Query, *, kiosk: bool = False) -> Page:
    """The runs that match; a page beyond the last one gives the last.

    kiosk: only finished runs with a picture, searched by their prompts alone.
    """
    where, values = _conditions(query, kiosk=kiosk)
    with store.lock:
        total = _count(store, f"WHERE {where}", values)
        pages = max(1, -(-total // query["n"]))
        number = min(query["page"], pages)
        order = _order_by(*ORDERS[query["sort"]])
        tiles = _tiles(
            store,
            f"WHERE {where} {order} LIMIT ? OFFSET ?",
            [*values, query["n"], (number - 1) * query["n"]],
        )
    is_beyond = number < query["page"]
    message = f"There is no page {query['page']}; this is the last." if is_beyond else ""
    return Page(tiles, total, number, pages, message)


def get_tile(store: Store, name: str) -> Tile | None:
    """The run in that folder, or None."""
    found = select_tiles(store, "name = ?", [name], limit=1)
    return found[0] if found else None


def select_tiles(store: Store, where: str, values: list[Any], *, limit: int) -> list[Tile]:
    """The runs that meet an SQL condition of ours, the newest first."""
    with store.lock:
        order = _order_by(*ORDERS["newest"])
        return _tiles(store, f"WHERE {where} {order} LIMIT ?", [*values, limit])


@dataclass(frozen=True)
class Place:
    """Where a run is in a list. page: the page of the list that shows it, from 1."""

    before: Tile | None
    after: Tile | None
    page: int


def place(store: Store, query: Query, tile: Tile, *, kiosk: bool = False) -> Place:
    """The place of a run among those that match, or where it would be if it does not match.

    kiosk: see `find`.
    """
    where, values = _conditions(query, kiosk=kiosk)
    keys, forth = ORDERS[query["sort"]]
    back, columns = OPPOSITE[forth], ", ".join(keys)
    values.append(tile.name)

    def beyond(way: str) -> str:
        sign = ">" if way == "ASC" else "<"
        return f"WHERE {where} AND ({columns}) {sign} (SELECT {columns} FROM runs WHERE name = ?)"

    with store.lock:
        before, after = (
            _tiles(store, f"{beyond(way)} {_order_by(keys, way)} LIMIT 1", values)
            for way in (back, forth)
        )
        number = _count(store, beyond(back), values)
    return Place(next(iter(before), None), next(iter(after), None), number // query["n"] + 1)


@dataclass(frozen=True)
class Cursor:
    """Where a slideshow is: its place in the tour of all runs, from the newest to the oldest.

    seen: the latest arrival that was shown. until: the arrival after which the tour resumes; 0
    during the tour.
    """

    began: float
    name: str
    seen: int
    until: int = 0

    def __str__(self) -> str:
        return f"{self.began!r}_{self.seen}_{self.until}_{self.name}"


def next_slide(store: Store, text: str) -> tuple[Tile | None, str]:
    """The picture to show next, and the cursor that asks for the one after it.

    Runs that were finished meanwhile come first; then the tour resumes where it was. However fast
    runs arrive, the tour takes a step after those that were there when the first of them was shown.
    The newest run follows the oldest one, and an invalid cursor. None without any picture.
    """
    cursor = _read_cursor(text)
    with store.lock:
        came = cursor and _newcomer(store, cursor)
        tile = came or _next_of_tour(store, cursor)
        if tile is None:
            return None, ""
        if not (cursor and came):
            return tile, slide_cursor(store, tile, cursor)
        until = cursor.until or _last_in_a_row(store, cursor.seen)
        return tile, str(replace(cursor, seen=_arrived(store, "name = ?", came.name), until=until))


def slide_cursor(store: Store, tile: Tile, before: Cursor | None = None) -> str:
    """The cursor for the picture after this one of the tour.

    before: where the slideshow was until now. A slideshow that starts here has seen all newcomers.
    """
    with store.lock:
        seen = before.seen if before else _arrived(store, "1")
    return str(Cursor(tile.began, tile.name, seen))


def _newcomer(store: Store, cursor: Cursor) -> Tile | None:
    where = f"WHERE {WHOLE} AND arrived > ? AND arrived <= ? ORDER BY arrived LIMIT 1"
    found = _tiles(store, where, [cursor.seen, cursor.until or MAX_ARRIVAL])
    return found[0] if found else None


def _last_in_a_row(store: Store, seen: int) -> int:
    """The arrival after which the tour resumes, even if there are more."""
    next_ones = f"{WHOLE} AND arrived > ? ORDER BY arrived LIMIT {MAX_IN_A_ROW}"
    return _arrived(store, f"id IN (SELECT id FROM runs WHERE {next_ones})", seen)


def _next_of_tour(store: Store, cursor: Cursor | None) -> Tile | None:
    newest = f"{_order_by(*ORDERS['newest'])} LIMIT 1"
    older, first = (f"WHERE {WHOLE} {rest} {newest}" for rest in ("AND (began, name) < (?, ?)", ""))
    found = _tiles(store, older, [cursor.began, cursor.name]) if cursor else []
    found = found or _tiles(store, first, [])
    return found[0] if found else None


def _arrived(store: Store, where: str, *values: Any) -> int:
    """The latest arrival of the runs that match."""
    sql = f"SELECT max(arrived) FROM runs WHERE {where}"
    (arrived,) = store.connection.execute(sql, values).fetchone()
    return arrived or 0


def _read_cursor(text: str) -> Cursor | None:
    found = CURSOR.fullmatch(text)
    try:
        began = float(found[1]) if found else 0.0
    except ValueError:
        return None
    return Cursor(began, found[4], int(found[2]), int(found[3])) if found else None


def choices(store: Store) -> Choices:
    """The values that filters offer, with how many runs have each, the most frequent first."""
    with store.lock:
        found = {f.name: store.connection.execute(f.counts).fetchall() for f in FACETS}
    return {name: [(row[0], row[1]) for row in rows] for name, rows in found.items()}


MARKED = ("favourite", "note", "tags")  # what people made of the run, from other tables
TILE_COLUMNS = [f.name for f in fields(Tile) if f.name not in (*MARKED, "facets")]
WHOLE = f"picture IS NOT NULL AND status IN {FINISHED}"
FOLDED_PROMPT = "substr(folded, 1, instr(folded, char(10)) - 1)"


def _conditions(query: Query, *, kiosk: bool) -> tuple[str, list[Any]]:
    parts, values = [WHOLE if kiosk else "1"], []
    for one in FILTERS:
        if query[one.name] not in ("", one.default):
            parts.append(one.condition)
            values.append(query[one.name])
    for found in list(TERM.finditer(query["q"].replace("\0", " ")))[:MAX_WORDS]:
        without, term = found[1] or found[3], (found[2] or found[4] or "").strip()
        if term:
            condition, value = _term_condition(term, prompts_only=kiosk)
            parts.append(f"NOT {condition}" if without else condition)
            values.append(value)
    return " AND ".join(parts), values


def _term_condition(term: str, *, prompts_only: bool) -> tuple[str, str]:
    if any(c.isalnum() for c in term) and not any(map(_is_odd, term)):
        quoted = '"{}"*'.format(term.replace('"', '""'))
        matched = f"prompt : {quoted}" if prompts_only else quoted
        return "id IN (SELECT rowid FROM words WHERE words MATCH ?)", matched
    return f"instr({FOLDED_PROMPT if prompts_only else 'folded'}, ?) > 0", term.casefold()


def _is_odd(character: str) -> bool:
    """Whether the index of words drops the character, or joins it to its neighbours."""
    code = ord(character)
    is_unspaced = any(low <= code <= high for low, high in UNSPACED)
    return is_unspaced or unicodedata.category(character) in ("So", "Sm", "Sk", "Sc")


def _order_by(keys: Sequence[str], direction: str) -> str:
    return "ORDER BY " + ", ".join(f"{key} {direction}" for key in keys)


def _count(store: Store, where: str, values: list[Any]) -> int:
    (number,) = store.connection.execute(f"SELECT count(*) FROM runs {where}", values).fetchone()
    return number


def _tiles(store: Store, rest: str, values: list[Any]) -> list[Tile]:
    columns = ", ".join((*TILE_COLUMNS, *(facet.name for facet in INDEXED)))
    marks = "coalesce(favourite, 0) AS favourite, coalesce(note, '') AS note"
    joined = "runs LEFT JOIN curation.marks ON run = name"
    rows = store.connection.execute(f"SELECT {columns}, {marks} FROM {joined} {rest}", values)
    found = rows.fetchall()
    tags = _tags(store, [row["name"] for row in found])
    return [_tile(row, tags.get(row["name"], ())) for row in found]


def _tile(row: sqlite3.Row, tags: tuple[str, ...]) -> Tile:
    return Tile(
        **{column: row[column] for column in TILE_COLUMNS},
        favourite=bool(row["favourite"]),
        note=row["note"],
        tags=tags,
        facets={facet.name: row[facet.name] for facet in INDEXED},
    )


def _tags(store: Store, names: list[str]) -> dict[str, tuple[str, ...]]:
    places = ", ".join("?" * len(names))
    found: dict[str, tuple[str, ...]] = {}
    for run, tag in store.connection.execute(
        f"SELECT run, tag FROM curation.tags WHERE run IN ({places}) ORDER BY tag", names
    ):
        found[run] = (*found.get(run, ()), tag)
    return found
