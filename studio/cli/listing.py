"""The runs of an output folder as lines of text, for the command line. Never imports torch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from studio.queue import run_queue
from studio.runs import run_index
from studio.runs.details_keys import engine_of
from studio.runs.run_index import Entry
from studio.runs.storage import ACTIVE


def lines(output_dir: Path) -> Iterator[str]:
    """One line for each run: RUN_ID, status, steps, prompt.

    Ended runs come first, the oldest at the top, then running ones, then the queue in its order. So
    the lines that matter most are the last, where a terminal shows them.
    """
    runs = run_index.entries(output_dir)
    ended = [entry for entry in reversed(runs) if entry.status not in ACTIVE]
    line = run_queue.waiting(runs)
    rows = [_row(entry) for entry in (*ended, *run_index.running(runs), *line)]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for *cells, prompt in rows:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        yield "  ".join([*padded, prompt]).rstrip()
    if (pause := run_queue.paused(output_dir)) and line:
        yield f"The queue is paused. {pause.reason}".rstrip()


def _row(entry: Entry) -> tuple[str, str, str, str]:
    prompt = " ".join(str(entry.details.get("text_input") or "").split())
    what = prompt if "text_input" in entry.details else engine_of(entry.details)
    return entry.name, entry.status, _steps(entry), what


def _steps(entry: Entry) -> str:
    details: Mapping[str, Any] = entry.details
    done, planned = details.get("num_steps"), details.get("planned_num_steps")
    if entry.status == "running":
        done = entry.folder.read_progress().get("step", done)
    return f"{done or 0}" if planned in (None, -1) else f"{done or 0}/{planned}"
