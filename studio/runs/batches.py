"""Batches: the runs that one press of Run!, or one command, made. Never imports torch.

Each of them names its batch in details.json. A run that was made alone is in no batch.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from studio.runs.run_index import Entry

BATCH = "batch"  # the key in details.json


def new_batch() -> str:
    """The name of a new batch, which no other batch has."""
    return secrets.token_urlsafe(9)


def batch_of(details: Mapping[str, Any]) -> str | None:
    """The batch of a run; None for a run that was made alone."""
    name = details.get(BATCH)
    return name if isinstance(name, str) and name else None


def members(runs: Sequence[Entry], batch: str) -> list[Entry]:
    """The runs of a batch in the order in which they were made. runs: newest first."""
    return [entry for entry in reversed(runs) if batch_of(entry.details) == batch]
