"""The index of the runs, kept in step with their folders, which are the truth. No torch."""

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from gallery_utils import FINISHED, NO_STAMP, FoundRun, Shelf, Stamp, as_count, as_text, stamp
from studio.gallery.facets import INDEXED
from studio.gallery.plain import MACHINE
from studio.gallery.store import COLUMNS, Store
from studio.runs.details_keys import BOOKKEEPING, CHANGES
from studio.runs.storage import ACTIVE, ID_LENGTH

PAUSE = 0.4  # seconds between looks at the runs that are known
PATIENCE = 0.01  # seconds that a look may take, apart from reading new runs
UNSETTLED = 2.5  # seconds; a folder may change that soon and keep its time, on coarse file systems
LATEST = 200
BATCH = 500

# No page shows these columns.
UNSEEN = ("details_time", "details_size", "folder_time", "folded", "details_file", "arrived")
PREVIEWED = ("stamp", "picture_size")
NOT_SEARCHED = {  # the prompt is searched by itself
    "text_input",
    *MACHINE,
    *(key for key, facts in BOOKKEEPING.items() if not facts.searched),
}
UPDATES = ", ".join(f"{column} = excluded.{column}" for column in COLUMNS)
UPSERT = (
    f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES (:{', :'.join(COLUMNS)})"
    f" ON CONFLICT (name) DO UPDATE SET {UPDATES} RETURNING id"
)
NO_NAME = "Its folder's name cannot be part of an address. Rename the folder."

# What shows a change of a run: its folder's time, and the stamps of its details and its picture.
Look = tuple[int, Stamp, Stamp]
NOTHING: Look = (0, NO_STAMP, NO_STAMP)


class Index:
    """What is known of every run. Call `catch_up` before reading it.

    problem: why the output folder cannot be read at the moment, for people; "" if it can. Until it
    can be read again, the index keeps what it knows.
    """

    def __init__(self, shelf: Shelf, store: Store) -> None:
        self.started = time.time_ns()
        self.revision = 0  # changes whenever a page would look different
        self.problem = ""
        self._shelf, self._store = shelf, store
        self._lock = threading.Lock()
        self._look = 0.0
        self._gone: list[str] = []
        self._learn()
        self.catch_up()

    def catch_up(self) -> None:
        """Read all new folders, and as many changed ones as there is time for.

        The active and the latest runs come first; the others take turns.
        """
        with self._lock:
            if self._store.reopen_if_changed():
                self._learn()
            try:
                self._look_around()
            except sqlite3.Error:  # the cache is broken, or its disk is full
                self._renew()

    def renew(self) -> None:
        """Rebuild the index from the folders."""
        with self._lock:
            self._renew()

    def check(self, name: str) -> None:
        """Bring one run up to date."""
        with self._lock:
            if self._root_state() and self._known.get(name, NOTHING) != self._look_at(name):
                self._take_in([name])

    def note_problem(self, name: str, stamp: int, problem: str) -> None:
        """Remember what only decoding the picture with that stamp showed: it is broken."""
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE runs SET problem = ?, status = 'broken', width = 0, height = 0"
                " WHERE name = ? AND stamp = ? AND problem = ''",
                (problem, name, stamp),
            )
            self.revision += changed.rowcount

    def gone(self) -> list[str]:
        """The names of the runs that disappeared since the last call."""
        with self._lock:
            names, self._gone = self._gone, []
        return names

    def _learn(self) -> None:
        """Load what the index on disk knows."""
        with self._store.lock:
            rows = self._store.connection.execute(
                "SELECT name, folder_time, details_time, details_size, stamp, picture_size,"
                " details_file, picture, status, arrived FROM runs ORDER BY began"
            ).fetchall()
        self._known: dict[str, Look] = {r[0]: (r[1], (r[2], r[3]), (r[4], r[5])) for r in rows}
        self._judged = {r["name"]: (r["details_file"], r["picture"]) for r in rows}
        self._active = {r["name"]: r["status"] for r in rows if r["status"] in ACTIVE}
        self._latest = deque((r["name"] for r in rows[-LATEST:]), LATEST)
        self._turns = deque(self._known)
        self._arrived = max((r["arrived"] for r in rows), default=0)
        self._is_beginning = not rows  # runs that a new index finds did not arrive
        self._listed: tuple[int, int, int] | None = None
        self.revision += 1

    def _renew(self) -> None:
        self._store.renew()
        self._learn()
        self._look_around()

    def _look_around(self) -> None:
        state = self._root_state()
        if state is None:
            self._listed = None
            return
        if state != self._listed:
            self._compare_names(state)
        if time.monotonic() >= self._look:
            self._check()
            self._look = time.monotonic() + PAUSE

    def _root_state(self) -> tuple[int, int, int] | None:
        """Differs when names come or go, or the folder is replaced; None without a folder."""
        try:
            # The dot fails as well where the folder may be read but not entered.
            descriptor = os.open(f"{self._shelf.root}/.", os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            self._note_root(_reason(error))
            return None
        facts = os.fstat(descriptor)
        os.close(descriptor)
        self._note_root("")
        return facts.st_dev, facts.st_ino, facts.st_mtime_ns

    def _note_root(self, problem: str) -> None:
        self.revision += problem != self.problem
        self.problem = problem

    def _compare_names(self, state: tuple[int, int, int]) -> None:
        """Read new folders, and drop missing ones."""
        listed = time.time()
        try:
            names = {_as_key(name) for name in self._shelf.names()}
        except OSError as error:
            self._note_root(_reason(error))
            return
        self._listed = state if listed - state[2] / 1e9 > UNSETTLED else None
        self._drop(self._known.keys() - names)
        self._take_in(sorted(names - self._known.keys()))
        self._is_beginning = False

    def _check(self) -> None:
        deadline = time.monotonic() + PATIENCE
        first = [*self._active, *self._latest]
        changed = {name for name in first if self._has_changed(name)}
        for _ in range(len(self._turns)):
            if time.monotonic() > deadline:
                break
            name = self._turns[0]
            self._turns.rotate(-1)
            if self._has_changed(name):
                changed.add(name)
        # A running run becomes interrupted by silence alone, without any change of its files.
        running = {name for name, status in self._active.items() if status == "running"}
        self._take_in(changed | running)

    def _has_changed(self, name: str) -> bool:
        return name in self._known and self._known[name] != self._look_at(name)

    def _look_at(self, name: str) -> Look:
        path = f"{self._shelf.root}/{name}"
        details, picture = (
            stamp(f"{path}/{file}") if file else NO_STAMP
            for file in self._judged.get(name, (None, None))
        )
        return stamp(path)[0], details, picture

    def _take_in(self, names: Iterable[str]) -> None:
        names = list(names)
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            found = [(self._folder_time(name), *self._read(name)) for name in batch]
            self._lose([run.name for _, run, exists in found if not exists])
            with self._writing() as connection:
                for folder_time, run, exists in found:
                    if exists:
                        self._save(connection, run, folder_time)

    def _folder_time(self, name: str) -> int:
        return stamp(f"{self._shelf.root}/{name}")[0]

    def _lose(self, names: list[str]) -> None:
        """Drop runs that were not found, unless the whole folder is away. List again either way."""
        if names:
            self._listed = None
            if self._root_state():
                self._drop(names)

    def _read(self, name: str) -> tuple[FoundRun, bool]:
        if "\\udc" in name and not self._shelf.has(name):
            return FoundRun(name, problem=NO_NAME), True
        try:
            return self._shelf.read(name), True
        except FileNotFoundError:
            return FoundRun(name), False

    def _save(self, connection: Any, run: FoundRun, folder_time: int) -> None:
        judged = run.files.get("details", (None,))[0], run.picture
        details, picture = (run.stamps.get(file or "", NO_STAMP) for file in judged)
        look = folder_time, details, picture
        settings = _settings_text(run)
        sql = "SELECT * FROM runs WHERE name = ?"
        before = connection.execute(sql, (run.name,)).fetchone()
        row = _row(run, settings, judged[0], look) | {"arrived": self._arrival(run, before)}
        (number,) = connection.execute(UPSERT, row).fetchone()
        if before is None or before["folded"] != row["folded"]:
            connection.execute("DELETE FROM words WHERE rowid = ?", (number,))
            words = (number, run.prompt, settings)
            connection.execute(
                "INSERT INTO words (rowid, prompt, settings) VALUES (?, ?, ?)", words
            )
        self._remember(run, judged, look)
        self.revision += before is None or _looks_different(before, row)

    def _arrival(self, run: FoundRun, before: Mapping[str, Any] | None) -> int:
        """When its final picture came, in an order that no clock disturbs; 0 for older runs."""
        if before and before["status"] in FINISHED and before["picture"]:
            return before["arrived"]
        if self._is_beginning or run.status not in FINISHED or not run.picture:
            return 0
        self._arrived = max(self._arrived + 1, time.time_ns())
        return self._arrived

    def _remember(self, run: FoundRun, judged: tuple[str | None, str | None], look: Look) -> None:
        if run.name not in self._known:
            self._turns.append(run.name)
            self._latest.append(run.name)
        self._known[run.name], self._judged[run.name] = look, judged
        if run.status in ACTIVE:
            self._active[run.name] = run.status
        else:
            self._active.pop(run.name, None)

    def _drop(self, names: Iterable[str]) -> None:
        gone = [name for name in names if self._known.pop(name, None)]
        if not gone:
            return
        for name in gone:
            self._active.pop(name, None)
            self._judged.pop(name, None)
        self._turns = deque(self._known)
        with self._writing() as connection:
            for name in gone:
                connection.execute(
                    "DELETE FROM words WHERE rowid = (SELECT id FROM runs WHERE name = ?)", (name,)
                )
                connection.execute("DELETE FROM runs WHERE name = ?", (name,))
        self._gone += gone
        self.revision += 1

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        with self._store.lock:
            connection = self._store.connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def _row(run: FoundRun, settings: str, details_file: str | None, look: Look) -> dict[str, Any]:
    """A row of the index, without `arrived`."""
    details = run.details
    folder_time, details_stamp, picture_stamp = look
    return {
        "name": run.name,
        "id8": run.id8,
        "began": run.began,
        "day": _day(run.began),
        "status": run.status,
        "problem": run.problem,
        "prompt": run.prompt,
        "folded": f"{run.prompt}\n{settings}".casefold(),
        "width": run.width,
        "height": run.height,
        "steps": as_count(details.get("num_steps")),
        "picture": run.picture,
        "stamp": picture_stamp[0],
        "animation": run.animation,
        "parent": as_text(details.get("parent")) or None,
        "prev8": as_text(details.get("prev_run_id"))[-ID_LENGTH:] or None,
        "details_file": details_file,
        "folder_time": folder_time,
        "details_time": details_stamp[0],
        "details_size": details_stamp[1],
        "picture_size": picture_stamp[1],
        **{facet.name: facet.read(details) for facet in INDEXED if facet.read},
    }


def _settings_text(run: FoundRun) -> str:
    """What a search finds of a run, beside its prompt."""
    facts = [
        f"{key} {value}"
        for key, value in run.details.items()
        if key not in NOT_SEARCHED and isinstance(value, str | int | float) and len(key) < 100
    ]
    return "\n".join([run.name, *facts, *_changed_to(run.details.get(CHANGES))])


def _changed_to(changes: object) -> list[str]:
    """The texts that settings changed to while a run went. changes: as a stranger may write it."""
    entries = [c.get("settings") for c in _listed(changes) if isinstance(c, dict)]
    values = [value for e in entries if isinstance(e, dict) for value in e.values()]
    return [value for value in values if isinstance(value, str)]


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _looks_different(before: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    # Pages follow the preview of an active run by other means, see `/api/activity`.
    unseen = {*UNSEEN, *PREVIEWED} if row["status"] in ACTIVE else UNSEEN
    return any(before[column] != row[column] for column in COLUMNS if column not in unseen)


def _as_key(name: str) -> str:
    """A folder's name as text; bytes that are not text are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def _day(began: float) -> str:
    try:
        return f"{datetime.fromtimestamp(began):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return ""


def _reason(error: OSError) -> str:
    """Why the output folder cannot be read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "is not there any more"
    return f"cannot be read: {error.strerror or error}"
