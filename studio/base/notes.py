"""What a run notes of how it went, for the person: keys of details.json, and their words."""

from collections.abc import Mapping
from typing import Any

HIDDEN = "hidden_pictures"  # the seeds of pictures that a safety checker hid
MADE_ROOM = "made_room"  # the engines whose models were let go, so that this run had memory


def notes_in_words(details: Mapping[str, Any]) -> list[str]:
    """A sentence for each of these notes in a run's details."""
    said = []
    if seeds := _listed(details.get(HIDDEN)):
        what = "picture of seed" if len(seeds) == 1 else "pictures of seeds"
        said.append(
            f"The safety checker hid the {what} {', '.join(seeds)} behind black. Choose another"
            " seed or prompt, or switch the safety checker off."
        )
    if engines := _listed(details.get(MADE_ROOM)):
        said.append(
            f"To make room in memory, models of {' and '.join(engines)} were let go. They load"
            " again when a run needs them; nothing is lost."
        )
    return said


def _listed(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
