"""The index of the runs, kept in step with the folders, the truth. Never imports torch."""

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from gallery_store import Store
from gallery_utils import Run, Shelf, as_count, as_text
from storage import ACTIVE, ID_LENGTH

PAUSE = 0.4  # seconds between looks at the runs that are known
PATIENCE = 0.01  # seconds that a look may take, beside what it finds to be new
UNSETTLED = 2.5  # seconds in which a coarse file system's folder may change and keep its time
LATEST = 200
BATCH = 500

COLUMNS = (
    *("name", "id8", "began", "day", "status", "problem", "prompt", "folded", "width", "height"),
    *("steps", "weights", "clip", "picture", "stamp", "animation", "parent", "prev8"),
    *("details_file", "folder_time", "details_time"),
)
UNSEEN = ("details_time", "folder_time", "folded", "details_file")  # no page shows them
NOT_SEARCHED = ("text_input", "losses", "heartbeat", "steps_per_second", "error", "warnings")
PLACES = ", ".join("?" * len(COLUMNS))
UPDATES = ", ".join(f"{column} = excluded.{column}" for column in COLUMNS)
UPSERT = (
    f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES ({PLACES})"
    f" ON CONFLICT (name) DO UPDATE SET {UPDATES} RETURNING id"
)
NO_NAME = "Its folder's name is no text that could be an address. Rename the folder."

Stamp = tuple[int, int]  # of the folder and its details, in nanoseconds; 0 for what is not there


class Index:
    """What is known of every run. `catch_up` before a look at it makes that up to date."""

    def __init__(self, shelf: Shelf, store: Store) -> None:
        self.started = time.time_ns()
        self.revision = 0  # another number when a page would look another way
        self._shelf, self._store = shelf, store
        self._lock = threading.Lock()
        self._look = 0.0
        self._gone: list[str] = []
        self._learn()
        self.catch_up()

    def catch_up(self) -> None:
        """Take in new folders, always, and changed ones, as far as there is time.

        The active and the latest runs come first; the others take turns.
        """
        with self._lock:
            if self._store.reopen_if_deleted():
                self._learn()
            try:
                self._look_around()
            except sqlite3.Error:  # the cache is broken, or its disk is full
                self._renew()

    def renew(self) -> None:
        """Make the index anew from the folders."""
        with self._lock:
            self._renew()

    def check(self, name: str) -> None:
        """Take in what became of one run."""
        with self._lock:
            if self._known.get(name, (0, 0)) != self._stamp(name):
                self._take_in([name])

    def note_problem(self, name: str, problem: str) -> None:
        """Remember what showed only when the picture was decoded: it is as good as none."""
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE runs SET problem = ?, status = 'broken', width = 0, height = 0"
                " WHERE name = ? AND problem = ''",
                (problem, name),
            )
            self.revision += changed.rowcount

    def gone(self) -> list[str]:
        """The names of the runs that went since the last time, once."""
        with self._lock:
            names, self._gone = self._gone, []
        return names

    def _learn(self) -> None:
        """Take over what the index on disk knows."""
        with self._store.lock:
            rows = self._store.connection.execute(
                "SELECT name, folder_time, details_time, details_file, status FROM runs"
                " ORDER BY began"
            ).fetchall()
        self._known: dict[str, Stamp] = {r["name"]: (r[1], r[2]) for r in rows}
        self._details_files = {r["name"]: r["details_file"] for r in rows if r["details_file"]}
        self._active = {r["name"] for r in rows if r["status"] in ACTIVE}
        self._latest = deque((r["name"] for r in rows[-LATEST:]), LATEST)
        self._turns = deque(self._known)
        self._root_time = 0
        self.revision += 1

    def _renew(self) -> None:
        self._store.renew()
        self._learn()
        self._look_around()

    def _look_around(self) -> None:
        self._compare_names()
        if time.monotonic() >= self._look:
            self._check()
            self._look = time.monotonic() + PAUSE

    def _compare_names(self) -> None:
        """New folders and missing ones; a listing is made only where the folder changed."""
        try:
            changed = self._shelf.root.stat().st_mtime_ns
            if changed == self._root_time:
                return
            listed = time.time()
            names = {_as_key(name) for name in self._shelf.names()}
        except OSError:
            return  # the pages say so
        self._drop(self._known.keys() - names)
        self._take_in(sorted(names - self._known.keys()))
        self._root_time = changed if listed - changed / 1e9 > UNSETTLED else 0

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
        # What is running becomes interrupted by silence alone, without any change.
        self._take_in(changed | self._active)

    def _has_changed(self, name: str) -> bool:
        return name in self._known and self._known[name] != self._stamp(name)

    def _stamp(self, name: str) -> Stamp:
        path = f"{self._shelf.root}/{name}"
        details = self._details_files.get(name)
        return _time(path), _time(f"{path}/{details}") if details else 0

    def _take_in(self, names: Iterable[str]) -> None:
        names = list(names)
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            found = [(self._stamp(name), *self._read(name)) for name in batch]
            self._drop([run.name for _, run, exists in found if not exists])
            with self._writing() as connection:
                for stamp, run, exists in found:
                    if exists:
                        self._save(connection, run, stamp)

    def _read(self, name: str) -> tuple[Run, bool]:
        if "\\udc" in name and not self._shelf.has(name):
            return Run(name, problem=NO_NAME), True
        try:
            return self._shelf.read(name), True
        except FileNotFoundError:
            return Run(name), False

    def _save(self, connection: Any, run: Run, stamp: Stamp) -> None:
        details_file = run.files.get("details", (None,))[0]
        if details_file != self._details_files.get(run.name):
            self._details_files[run.name] = details_file
            stamp = stamp[0], self._stamp(run.name)[1]
        settings = _settings_text(run)
        row = _row(run, settings, details_file, stamp, self._picture_time(run))
        before = None
        if run.name in self._known:
            sql = "SELECT * FROM runs WHERE name = ?"
            before = connection.execute(sql, (run.name,)).fetchone()
        (number,) = connection.execute(UPSERT, list(row.values())).fetchone()
        if before is None or before["folded"] != row["folded"]:
            connection.execute("DELETE FROM words WHERE rowid = ?", (number,))
            words = (number, run.prompt, settings)
            connection.execute(
                "INSERT INTO words (rowid, prompt, settings) VALUES (?, ?, ?)", words
            )
        self._remember(run, stamp, is_new=before is None)
        self.revision += before is None or _looks_different(before, row)

    def _remember(self, run: Run, stamp: Stamp, is_new: bool) -> None:
        self._known[run.name] = stamp
        (self._active.add if run.status in ACTIVE else self._active.discard)(run.name)
        if is_new:
            self._turns.append(run.name)
            self._latest.append(run.name)

    def _drop(self, names: Iterable[str]) -> None:
        gone = [name for name in names if self._known.pop(name, None)]
        if not gone:
            return
        for name in gone:
            self._active.discard(name)
            self._details_files.pop(name, None)
        self._turns = deque(self._known)
        with self._writing() as connection:
            for name in gone:
                connection.execute(
                    "DELETE FROM words WHERE rowid = (SELECT id FROM runs WHERE name = ?)", (name,)
                )
                connection.execute("DELETE FROM runs WHERE name = ?", (name,))
        self._gone += gone
        self.revision += 1

    def _picture_time(self, run: Run) -> int:
        return _time(f"{self._shelf.root}/{run.name}/{run.picture}") if run.picture else 0

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


def _row(
    run: Run, settings: str, details_file: str | None, stamp: Stamp, picture_time: int
) -> dict[str, Any]:
    """A row of the index, in the order of COLUMNS."""
    details = run.details
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
        "weights": as_text(details.get("vqgan_ckpt"))[:200],
        "clip": as_text(details.get("clip_model"))[:200],
        "picture": run.picture,
        "stamp": picture_time,
        "animation": run.animation,
        "parent": as_text(details.get("parent")) or None,
        "prev8": as_text(details.get("prev_run_id"))[-ID_LENGTH:] or None,
        "details_file": details_file,
        "folder_time": stamp[0],
        "details_time": stamp[1],
    }


def _settings_text(run: Run) -> str:
    """What of a run is found beside its prompt."""
    facts = [
        f"{key} {value}"
        for key, value in run.details.items()
        if key not in NOT_SEARCHED and isinstance(value, str | int | float) and len(key) < 100
    ]
    return "\n".join([run.name, *facts])


def _looks_different(before: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    # The preview of a run that goes on is followed by other means, see `/api/activity`.
    unseen = {*UNSEEN, "stamp"} if row["status"] in ACTIVE else UNSEEN
    return any(before[column] != row[column] for column in COLUMNS if column not in unseen)


def _as_key(name: str) -> str:
    """A folder's name as text; bytes that are none are written out."""
    return name.encode("utf-8", "backslashreplace").decode()


def _day(began: float) -> str:
    try:
        return f"{datetime.fromtimestamp(began):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return ""


def _time(path: str) -> int:
    try:
        return os.lstat(path).st_mtime_ns
    except (OSError, ValueError):
        return 0
