"""Favourites, tags and notes: what people add to their runs. Never imports torch.

They are kept in one file of the output folder, which nothing deletes. They belong to the folder's
name, so a run that is restored from the trash has them again. The gallery attaches the file to its
index; the page reads it as a whole and changes single marks.
"""

import os
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from studio.base.errors import BadInput

HOME = ".gallery"
FILE = "curation.sqlite"
LOCK = Path("cache", "lock")  # held while files are made or replaced
BUSY_SECONDS = 10.0
SHORTLY = 1.0  # seconds that the page waits to read while somebody writes
TABLES = ("marks", "tags")
SCHEMA = """
CREATE TABLE IF NOT EXISTS curation.marks (
    run TEXT PRIMARY KEY, favourite INTEGER NOT NULL DEFAULT 0, note TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS curation.tags (
    run TEXT NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (run, tag)
);
"""
Change = tuple[str, tuple[object, ...]]  # SQL and its values
Rows = dict[str, list[tuple[object, ...]]]


@dataclass(frozen=True)
class Marks:
    """favourites: names of runs. tags: those of each run that has any, in alphabetical order."""

    favourites: frozenset[str] = frozenset()
    tags: Mapping[str, Sequence[str]] = field(default_factory=dict)


def read(output_dir: Path) -> Marks:
    """The marks as they are now, none if they cannot be read; quick while they do not change."""
    try:
        return _marks(output_dir / HOME / FILE, stamp(output_dir))
    except sqlite3.Error:
        return Marks()


def stamp(output_dir: Path) -> tuple[int, ...]:
    """Changes with every mark that is written."""
    try:
        facts = (output_dir / HOME / FILE).stat()
    except OSError:
        return ()
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def set_favourite(output_dir: Path, run: str, favourite: bool) -> None:
    """Make a run a favourite, or take that back. Raises BadInput."""
    home = output_dir / HOME
    try:
        (home / LOCK).parent.mkdir(parents=True, exist_ok=True)
        memory = sqlite3.connect(":memory:", timeout=BUSY_SECONDS, isolation_level=None)
        with closing(memory) as connection:
            with FileLock(home / LOCK):
                attach(connection, home / FILE)
            change(connection, [setting(run, "favourite", int(favourite))])
    except (OSError, sqlite3.Error) as error:
        raise unsaved(home, error) from None


def unsaved(home: Path, error: Exception) -> BadInput:
    """The error for marks that cannot be written."""
    return BadInput(f"This could not be saved in {home}: {error}.")


def setting(run: str, column: str, value: object) -> Change:
    """The change that sets a run's favourite or note."""
    sql = (
        f"INSERT INTO curation.marks (run, {column}) VALUES (?, ?)"
        f" ON CONFLICT (run) DO UPDATE SET {column} = excluded.{column}"
    )
    return sql, (run, value)


def change(connection: sqlite3.Connection, changes: Iterable[Change]) -> None:
    """Make all the changes, or none. Raises sqlite3.Error.

    connection: in autocommit, with the marks attached as `curation`.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        for sql, values in changes:
            connection.execute(sql, values)
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def attach(connection: sqlite3.Connection, path: Path) -> None:
    """Attach the file as `curation`; one that is no database is put aside. Raises sqlite3.Error."""
    try:
        _attach(connection, path)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        aside = path.with_name(f"{path.name}.broken")
        path.replace(aside)
        print(f"{path} was broken. It is now {aside}, and a new file was made.", file=sys.stderr)
        _attach(connection, path)


def attach_copy(connection: sqlite3.Connection, path: Path) -> None:
    """Attach the file's marks as `curation` in memory, where nothing can be written."""
    connection.execute("ATTACH ':memory:' AS curation")
    connection.executescript(SCHEMA)
    try:
        found = rows(path)
    except sqlite3.Error:
        return
    for table, lines in found.items():
        for line in lines:
            places = ", ".join("?" * len(line))
            connection.execute(f"INSERT INTO curation.{table} VALUES ({places})", line)


def rows(path: Path) -> Rows:
    """The rows of a file by table, also where nothing can be written. Raises sqlite3.Error."""
    try:
        return _rows(f"{path.absolute().as_uri()}?mode=ro")
    except sqlite3.OperationalError:
        return _rows(f"{path.absolute().as_uri()}?mode=ro&immutable=1")


def can_write(output_dir: Path) -> bool:
    """Whether the system would let us write marks."""
    home = output_dir / HOME
    if not os.path.lexists(home):
        return os.access(output_dir, os.W_OK)
    return os.access(f"{home}/.", os.W_OK) and (
        not os.path.lexists(home / FILE) or os.access(home / FILE, os.W_OK)
    )


@lru_cache(maxsize=4)
def _marks(path: Path, stamp: tuple[int, ...]) -> Marks:
    """stamp: of the file, so that a change is seen; empty if there is no file."""
    if not stamp:
        return Marks()
    found = rows(path)
    tags = defaultdict(list)
    for run, tag in sorted(found["tags"], key=lambda row: str(row[1]).casefold()):
        tags[str(run)].append(str(tag))
    return Marks(frozenset(str(run) for run, is_one, _ in found["marks"] if is_one), dict(tags))


def _rows(address: str) -> Rows:
    with closing(sqlite3.connect(address, uri=True, timeout=SHORTLY)) as connection:
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in TABLES}


def _attach(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("ATTACH ? AS curation", (str(path),))
    try:
        connection.execute("PRAGMA curation.synchronous = FULL")
        connection.executescript(SCHEMA)
    except sqlite3.DatabaseError:
        connection.execute("DETACH curation")
        raise
