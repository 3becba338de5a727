"""The bookkeeping keys of details.json, each declared once with what else is true of it.

All other keys are settings, or say how the picture was computed. Never imports torch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.base.notes import HIDDEN, MADE_ROOM

ENGINE = "model"  # the key that names the engine
PARENT_FRAME = "parent_frame"  # of the parent's film, which the run continued from
INIT_IMAGE_FROM = "init_image_from"  # the frame of a film that the starting image is
# The engine of details without ENGINE: when they were written, there was no other.
FIRST_ENGINE = "VQGAN-CLIP"
UPSCALED = "upscaled"  # the key that lists upscaled files: file, scale, model, of which file
CHANGES = "changes"  # the key with what changed while the run went: steps, settings
REQUESTS_TAKEN = "change_requests_taken"  # the key that names the requests of the last change


@dataclass(frozen=True)
class Key:
    """What is true of a bookkeeping key.

    of_this_run: another run with the same settings and the same seed has another value. Such keys
    do not travel inside pictures and films, which are then the same, byte by byte.
    of_the_machine: it says something about this machine, which strangers are not told.
    searched: a search finds runs by its value.
    """

    of_this_run: bool = False
    of_the_machine: bool = False
    searched: bool = True


BOOKKEEPING: Mapping[str, Key] = {
    "run_id": Key(of_this_run=True),
    "run_folder": Key(of_this_run=True),
    "queued_at": Key(of_this_run=True),
    "start_time": Key(of_this_run=True),
    "end_time": Key(of_this_run=True),
    "heartbeat": Key(of_this_run=True, searched=False),
    "steps_per_second": Key(of_this_run=True, searched=False),
    "host": Key(of_this_run=True, of_the_machine=True, searched=False),
    "crashes": Key(of_this_run=True),
    "last_crash": Key(of_this_run=True, of_the_machine=True, searched=False),
    "loss_history": Key(of_this_run=True, searched=False),
    REQUESTS_TAKEN: Key(of_this_run=True, searched=False),
    "losses": Key(searched=False),
    "status": Key(),
    "error": Key(searched=False),
    "warnings": Key(searched=False),
    "parent": Key(),
    "prev_run_id": Key(),
    "ancestors": Key(),
    PARENT_FRAME: Key(),
    INIT_IMAGE_FROM: Key(),
    "continue_prev_run": Key(),
    "stage": Key(),
    "chain": Key(),
    "batch": Key(of_this_run=True, searched=False),
    "forever": Key(of_this_run=True, searched=False),
    "inputs_sha256": Key(),
    "schema_version": Key(),
    UPSCALED: Key(of_this_run=True, searched=False),
    HIDDEN: Key(searched=False),
    MADE_ROOM: Key(of_this_run=True, searched=False),
}
OF_THIS_RUN = frozenset(key for key, facts in BOOKKEEPING.items() if facts.of_this_run)


def engine_of(details: Mapping[str, Any]) -> str:
    """The name of the engine that made a run; "" where nothing is known of the run."""
    return str(details.get(ENGINE) or FIRST_ENGINE) if details else ""


def as_frame(value: Any) -> int | None:
    """The number of a frame, counted from 1; None for anything else."""
    return value if type(value) is int and value > 0 else None


def begins_with(details: Mapping[str, Any]) -> str:
    """What a run began with, in words such as "Continues frame 37 of RUN."; "" for a new start."""
    parent, frame = details.get("parent"), as_frame(details.get(PARENT_FRAME))
    if isinstance(parent, str) and parent:
        return f"Continues frame {frame} of {parent}." if frame else f"Continues {parent}."
    mark = details.get(INIT_IMAGE_FROM)
    return f"Starting image: {value_in_words(mark)}." if _is_mark(mark) else ""


def upscaled_in(details: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The upscaled files that a run's details tell of: file, scale, model, of which file."""
    found = details.get(UPSCALED)
    if not isinstance(found, list):
        return []
    return [entry for entry in found if isinstance(entry, dict)]


def _is_mark(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"run", "frame"}


def value_in_words(value: Any) -> str:
    """A value of details.json for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or value in ("", [], {}):
        return "none"
    if _is_mark(value):
        return f"frame {value['frame']} of {value['run']}"
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return ", ".join(map(value_in_words, value))
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
