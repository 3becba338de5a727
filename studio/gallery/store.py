"""The gallery's index in `.gallery/cache/` of the output folder, opened as one SQLite connection.

`cache/` may be deleted at any time, even while a gallery is running. Beside it lie people's marks
(see `runs.marks`), which the connection attaches. Never imports torch.
"""

import os
import sqlite3
import sys
import threading
import zlib
from pathlib import Path

from filelock import FileLock

from studio.gallery.facets import INDEXED
from studio.runs import marks
from studio.runs.marks import BUSY_SECONDS, FILE, HOME, LOCK, Change

INDEX = Path("cache", "index.sqlite")
THUMBNAILS = Path("cache", "thumbnails")

COLUMNS = {
    "name": "TEXT NOT NULL UNIQUE",
    "id8": "TEXT",
    "began": "REAL",
    "day": "TEXT",
    "status": "TEXT",
    "problem": "TEXT",
    "prompt": "TEXT",
    "folded": "TEXT",
    "width": "INTEGER",
    "height": "INTEGER",
    "steps": "INTEGER",
    "picture": "TEXT",
    "stamp": "INTEGER",
    "animation": "TEXT",
    "parent": "TEXT",
    "prev8": "TEXT",
    "details_file": "TEXT",
    "folder_time": "INTEGER",
    "details_time": "INTEGER",
    "details_size": "INTEGER",
    "picture_size": "INTEGER",
    "arrived": "INTEGER",
    **{facet.name: "TEXT" for facet in INDEXED},
}
INDEX_TABLES = f"""
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, {", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())}
);
CREATE INDEX by_began ON runs (began, name);
CREATE INDEX by_id8 ON runs (id8);
CREATE INDEX by_parent ON runs (parent);
CREATE INDEX by_prev8 ON runs (prev8);
CREATE INDEX by_status ON runs (status);
CREATE INDEX by_arrived ON runs (arrived);
CREATE VIRTUAL TABLE words USING fts5(prompt, settings, tokenize='unicode61 remove_diacritics 2');
"""
READING = 3  # raise it when what stands in a column is read from the folders in another way


def version_of(tables: str) -> int:
    """The version of an index with those tables. Another version's index is replaced by itself."""
    return zlib.crc32(f"{READING} {tables}".encode()) & 0x7FFFFFFF


VERSION = version_of(INDEX_TABLES)


class Store:
    """One connection for all threads. Hold `lock` while using it.

    If the folder cannot be written, everything is kept in memory, so that the pictures can still be
    seen. What people mark meanwhile is saved as soon as it can be.
    """

    def __init__(self, output_dir: Path) -> None:
        self.home = output_dir / HOME
        self.lock = threading.RLock()
        self.lasts = True  # whether what people mark outlives this process
        self.marked = 0  # how many changes of the marks this process made
        self._unsaved: list[Change] = []
        self._open()

    @property
    def thumbnails(self) -> Path | None:
        """Where thumbnails may be kept; None if nothing can be written."""
        return self.home / THUMBNAILS if self.lasts else None

    def reopen_if_changed(self) -> bool:
        """Open the files again if someone deleted them, or if they have become writable.

        Returns whether it did.
        """
        with self.lock:
            if not os.access(self.home.parent, os.R_OK | os.X_OK):
                return False  # the folder is away; it may come back
            could_write = self._can_write
            self.hold_if_read_only()
            may_last = self._can_write and not could_write
            if not may_last and self._inodes() == self._opened:
                return False
            self.connection.close()
            self._open()
            return True

    def hold_if_read_only(self) -> None:
        """From now on keep what people mark in memory, if it can no longer be written."""
        self._can_write = marks.can_write(self.home.parent)
        if self.lasts and not self._can_write:
            self.connection.execute("DETACH curation")
            self._hold("it is read-only")

    def change(self, changes: list[Change]) -> None:
        """Make all the changes of marks, or none. Raises sqlite3.Error."""
        marks.change(self.connection, changes)
        self.marked += 1
        if not self.lasts:
            self._unsaved += changes

    def close(self) -> None:
        """Close the files."""
        with self.lock:
            self.connection.close()

    def renew(self) -> None:
        """Replace a broken index by an empty one, in memory if the disk is full."""
        with self.lock:
            self.connection.close()
            self._open(fresh=True)

    def _open(self, *, fresh: bool = False) -> None:
        self._can_write = marks.can_write(self.home.parent)
        try:
            self.home.mkdir(exist_ok=True)
            (self.home / INDEX).parent.mkdir(exist_ok=True)
            with FileLock(self.home / LOCK):  # two galleries may start at the same time
                self.connection = self._connect_index(fresh)
                marks.attach(self.connection, self.home / FILE)
                self.lasts = True
                self._save_unsaved()
        except (OSError, sqlite3.OperationalError) as error:
            self.connection = _connect(":memory:")
            self.connection.executescript(INDEX_TABLES)
            self._hold(str(error))
        self._opened = self._inodes()

    def _save_unsaved(self) -> None:
        if self._unsaved:
            self.change(self._unsaved)
            self._unsaved = []

    def _hold(self, why: str) -> None:
        """Keep what people mark in memory from now on, with what they marked before."""
        if self.lasts:
            print(
                f"{self.home} cannot be written ({why}): favourites, tags and notes last until the"
                " gallery ends.",
                file=sys.stderr,
            )
        self.lasts = False
        marks.attach_copy(self.connection, self.home / FILE)
        held, self._unsaved = self._unsaved, []
        self.change(held)

    def _connect_index(self, fresh: bool) -> sqlite3.Connection:
        """The index on disk, or an empty one in place of a file that is not one."""
        path = self.home / INDEX
        if not fresh and (connection := _usable(path)):
            return connection
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        connection = _connect(path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(f"BEGIN; {INDEX_TABLES} PRAGMA user_version = {VERSION}; COMMIT")
        return connection

    def _inodes(self) -> list[int | None]:
        return [_inode(self.home / name) for name in (INDEX, FILE)]


def _usable(path: Path) -> sqlite3.Connection | None:
    """The index in a file; None for another version's, or for a file that is not an index."""
    try:
        connection = _connect(path)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == VERSION:
            for table in ("runs", "words"):
                connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()
            return connection
        connection.close()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        pass
    return None


def _connect(path: Path | str) -> sqlite3.Connection:
    # Autocommit: code that writes several rows says BEGIN IMMEDIATE.
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA cache_size = -16000")  # KiB
    return connection


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
