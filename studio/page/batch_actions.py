"""What a person does with several runs at once. A refusal is shown at the queue."""

from collections.abc import Container, Sequence
from contextlib import suppress

import streamlit as st

from studio.base.errors import BadInput
from studio.making import forever
from studio.page.actions import QUEUE, REMOVED, attempt
from studio.queue import run_queue
from studio.queue.options import StudioOptions
from studio.runs import run_index, trash
from studio.runs.batches import members
from studio.runs.run_index import Entry
from studio.runs.storage import ACTIVE
from studio.runs.upscalings import is_upscaling


def clear(names: Container[str], options: StudioOptions) -> None:
    """Move those of the named runs that wait to the trash, with one undo for all."""
    with attempt(QUEUE):
        _clear(names, options)


def stop_all(batch: str, options: StudioOptions) -> None:
    """End a batch: runs that are being computed stop, those that wait are removed, none follows."""
    with attempt(QUEUE):
        runs = _members(batch, options)
        forever.end(runs)
        _clear({entry.name for entry in runs}, options)
        for entry in _members(batch, options):
            if entry.status in ACTIVE:  # or a worker has just taken it
                entry.folder.request_stop()


def stop_forever(batch: str, options: StudioOptions) -> None:
    """Let no run follow those of a batch, which go on to their own end."""
    with attempt(QUEUE):
        forever.end(_members(batch, options))


def remove_all(batch: str, options: StudioOptions) -> None:
    """Move the runs of a batch that have ended to the trash, with one undo for all."""
    with attempt(QUEUE):
        ended = [entry for entry in _members(batch, options) if entry.status not in ACTIVE]
        st.session_state[REMOVED] = removed = {}
        for entry in ended:
            _to_trash(entry, options, removed, None)


def _clear(names: Container[str], options: StudioOptions) -> None:
    line = run_queue.line(options.output_dir)
    st.session_state[REMOVED] = removed = {}
    for place, entry in enumerate(line):
        if entry.name in names:
            with suppress(BadInput):  # another tab was quicker
                if is_upscaling(entry.folder):
                    run_queue.withdraw_upscaling(entry.folder)
                elif run_queue.withdraw(entry.folder):
                    behind = [later.name for later in line[place + 1 :]]
                    _to_trash(entry, options, removed, behind)


def _to_trash(
    entry: Entry,
    options: StudioOptions,
    removed: dict[str, Sequence[str] | None],
    behind: Sequence[str] | None,
) -> None:
    """Remove one of several runs, unless another tab was quicker; note it for Undo."""
    with suppress(BadInput):
        trash.move_to_trash(options.output_dir, entry.name)
        removed[entry.name] = behind


def _members(batch: str, options: StudioOptions) -> list[Entry]:
    return members(run_index.entries(options.output_dir), batch)
