"""Changing favourites, tags and notes (see `runs.marks`) by way of the store."""

import sqlite3
from collections.abc import Iterable

from studio.base.errors import BadInput
from studio.gallery.store import Store
from studio.runs import marks
from studio.runs.marks import Change

MAX_TAG = 50
MAX_TAGS = 30
MAX_NOTE = 10_000


def set_favourite(store: Store, run: str, favourite: bool) -> None:
    """Make a run a favourite, or take that back. Raises BadInput."""
    _write(store, [marks.setting(run, "favourite", int(favourite))])


def set_note(store: Store, run: str, note: str, before: str) -> None:
    """Replace the note `before`. Raises BadInput, also if another window was faster."""
    note, before = (text.replace("\r\n", "\n").strip() for text in (note, before))
    if len(note) > MAX_NOTE:
        raise BadInput(f"The note is too long: {len(note)} characters, at most {MAX_NOTE}.")
    with store.lock:
        sql = "SELECT note FROM curation.marks WHERE run = ?"
        found = store.connection.execute(sql, (run,)).fetchone()
        if (found[0] if found else "") not in (before, note):
            raise BadInput("The note was changed in another window meanwhile. Reload to see it.")
        _write(store, [marks.setting(run, "note", note)])


def add_tags(store: Store, run: str, tags: Iterable[str]) -> None:
    """Give a run more tags. Raises BadInput."""
    cleaned = [" ".join(tag.split()) for tag in tags]
    wanted = {tag.casefold(): tag for tag in reversed(cleaned) if tag}  # the first spelling counts
    if any(len(tag) > MAX_TAG for tag in wanted):
        raise BadInput(f"A tag can have at most {MAX_TAG} characters.")
    with store.lock:
        sql = "SELECT tag FROM curation.tags WHERE run = ?"
        known = {row[0].casefold() for row in store.connection.execute(sql, (run,))}
        new = [tag for key, tag in reversed(wanted.items()) if key not in known]
        if len(known) + len(new) > MAX_TAGS:
            raise BadInput(f"A run can have at most {MAX_TAGS} tags.")
        sql = "INSERT OR IGNORE INTO curation.tags (run, tag) VALUES (?, ?)"
        _write(store, [(sql, (run, tag)) for tag in new])


def remove_tag(store: Store, run: str, tag: str) -> None:
    """Take a tag off a run. Raises BadInput."""
    _write(store, [("DELETE FROM curation.tags WHERE run = ? AND tag = ?", (run, tag))])


def revision(store: Store) -> tuple[int, int]:
    """A pair that changes with every mark, made by this process or by another."""
    with store.lock:
        (others,) = store.connection.execute("PRAGMA curation.data_version").fetchone()
        return others, store.marked


def _write(store: Store, changes: Iterable[Change]) -> None:
    with store.lock:
        store.hold_if_read_only()
        try:
            store.change(list(changes))
        except sqlite3.Error as error:
            raise marks.unsaved(store.home, error) from None
