"""The gallery's own files in `.gallery/` of the output folder, opened as one SQLite connection.

`cache/` may be deleted at any time, also under a gallery that runs. `curation.sqlite` is what
people made of their runs, favourites, tags and notes; nothing deletes that. Never imports torch.
"""

import sqlite3
import sys
import threading
from pathlib import Path

from filelock import FileLock

HOME = ".gallery"
INDEX = Path("cache", "index.sqlite")
THUMBNAILS = Path("cache", "thumbnails")
CURATION = "curation.sqlite"
LOCK = Path("cache", "lock")
VERSION = 2  # of the index; another one is made anew
BUSY_SECONDS = 10.0

INDEX_TABLES = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, id8 TEXT, began REAL, day TEXT,
    status TEXT, problem TEXT, prompt TEXT, folded TEXT, width INTEGER, height INTEGER,
    steps INTEGER, weights TEXT, clip TEXT, picture TEXT, stamp INTEGER, animation TEXT,
    parent TEXT, prev8 TEXT, details_file TEXT, folder_time INTEGER, details_time INTEGER,
    details_size INTEGER, picture_size INTEGER, arrived INTEGER
);
CREATE INDEX by_began ON runs (began, name);
CREATE INDEX by_id8 ON runs (id8);
CREATE INDEX by_parent ON runs (parent);
CREATE INDEX by_prev8 ON runs (prev8);
CREATE INDEX by_status ON runs (status);
CREATE INDEX by_arrived ON runs (arrived);
CREATE VIRTUAL TABLE words USING fts5(prompt, settings, tokenize='unicode61 remove_diacritics 2');
"""
CURATION_TABLES = """
CREATE TABLE IF NOT EXISTS curation.marks (
    run TEXT PRIMARY KEY, favourite INTEGER NOT NULL DEFAULT 0, note TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS curation.tags (
    run TEXT NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (run, tag)
);
"""


class Store:
    """One connection for all threads, to be used while holding `lock`.

    Where the folder cannot be written, all is kept in memory: the pictures are still seen.
    """

    def __init__(self, output_dir: Path) -> None:
        self.home = output_dir / HOME
        self.lock = threading.RLock()
        self.lasts = True  # whether what people mark outlives this process
        self.marked = 0  # how often this process changed what people made of their runs
        self._open()

    @property
    def thumbnails(self) -> Path | None:
        """Where thumbnails may be kept."""
        return self.home / THUMBNAILS if self.lasts else None

    def reopen_if_deleted(self) -> bool:
        """Start anew where somebody deleted the files; returns whether that was so."""
        with self.lock:
            output_is_gone = not self.home.parent.is_dir()  # nothing to open it in; it may return
            if not self.lasts or output_is_gone or self._inodes() == self._opened:
                return False
            self.connection.close()
            self._open()
            return True

    def close(self) -> None:
        """Let go of the files."""
        with self.lock:
            self.connection.close()

    def renew(self) -> None:
        """An empty index instead of one that broke; in memory where the disk is full."""
        with self.lock:
            self.connection.close()
            self._open(anew=True)

    def _open(self, *, anew: bool = False) -> None:
        try:
            self.home.mkdir(exist_ok=True)
            (self.home / INDEX).parent.mkdir(exist_ok=True)
            with FileLock(self.home / LOCK):  # two galleries may begin at the same time
                self.connection = self._connect_index(anew)
                self._attach_curation()
        except (OSError, sqlite3.OperationalError) as error:
            self._open_in_memory(error)
        self._opened = self._inodes()

    def _open_in_memory(self, error: Exception) -> None:
        self.lasts = False
        print(
            f"{self.home} cannot be written ({error}): favourites, tags and notes last until the"
            " gallery ends.",
            file=sys.stderr,
        )
        self.connection = _connect(":memory:")
        self.connection.executescript(INDEX_TABLES)
        self.connection.execute("ATTACH ':memory:' AS curation")
        self.connection.executescript(CURATION_TABLES)

    def _connect_index(self, anew: bool) -> sqlite3.Connection:
        """The index as it lies there, or an empty one instead of what is none."""
        path = self.home / INDEX
        if not anew and (connection := _usable(path)):
            return connection
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        connection = _connect(path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(f"BEGIN; {INDEX_TABLES} PRAGMA user_version = {VERSION}; COMMIT")
        return connection

    def _attach_curation(self) -> None:
        path = self.home / CURATION
        try:
            self._try_curation(path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            aside = path.with_name(f"{path.name}.broken")
            path.replace(aside)
            print(f"{path} was broken. It is {aside} now; a new one is begun.", file=sys.stderr)
            self._try_curation(path)

    def _try_curation(self, path: Path) -> None:
        self.connection.execute("ATTACH ? AS curation", (str(path),))
        try:
            self.connection.execute("PRAGMA curation.synchronous = FULL")
            self.connection.executescript(CURATION_TABLES)
        except sqlite3.DatabaseError:
            self.connection.execute("DETACH curation")
            raise

    def _inodes(self) -> list[int | None]:
        return [_inode(self.home / name) for name in (INDEX, CURATION)]


def _usable(path: Path) -> sqlite3.Connection | None:
    """The index in a file, or None for another version's or what is none."""
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
    # Autocommit: who writes several rows says BEGIN IMMEDIATE.
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
