"""What the page says of runs, as text that Streamlit shows as it is."""

import re
from collections.abc import Mapping
from typing import Any

from studio.runs.details_keys import engine_of
from studio.runs.run_index import Entry
from studio.runs.storage import began_at

SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&])")
# Streamlit looks for addresses, logos and arrows after it has removed the escapes. A piece of
# Markdown that shows nothing, put between their two halves, hides them.
LATE_MARKUP = re.compile(
    r"(?<=:)(?=//)|(?<=www)(?=\.)|(?=@\w)|(?<=:)(?=streamlit:)|(?<=[-<>~=])(?=[->=])", re.IGNORECASE
)
NOTHING = ":gray[]"
STATUS_ICONS = {"done": "✓", "stopped": "■", "failed": "⚠", "interrupted": "⚠"}


def plain(text: object) -> str:
    """Text on one line that Streamlit shows as it is, even where it looks like Markdown."""
    parts = LATE_MARKUP.split(" ".join(str(text).split()))
    return NOTHING.join(SPECIAL.sub(r"\\\1", part) for part in parts)


def prompt_of(details: Mapping[str, Any], length: int = 120) -> str:
    """What a run was asked for, on one line, cut to `length` characters.

    A run without any prompt is called by its engine's name.
    """
    text = " ".join(str(details.get("text_input") or "").split())
    text = text or ("Image prompt" if details.get("image_prompts") else engine_of(details))
    return text if len(text) <= length else f"{text[: length - 1]}…"


def status_word(entry: Entry) -> str:
    """done, stopped, failed or interrupted, as a headline."""
    return f"{STATUS_ICONS.get(entry.status, '')} {entry.status.capitalize()}".strip()


def stage_in_words(details: Mapping[str, Any]) -> str:
    """Such as "stage 1 of 3" for a run of a chain; "" for others."""
    chain = details.get("chain")
    if not isinstance(chain, dict) or not {"number", "count"} <= chain.keys():
        return ""
    return f"stage {chain['number']} of {chain['count']}"


def stage_and_seed(details: Mapping[str, Any]) -> str:
    """What tells a run apart from its siblings, such as "seed 5" or "stage 1 of 3 · seed 5"."""
    seed = f"seed {details.get('seed', '?')}"
    return " · ".join(filter(None, (stage_in_words(details), seed)))


def progress_in_words(progress: Mapping[str, Any]) -> str:
    """Such as "step 3 of 150", or "step 3" for an endless run. progress: as a run's file has it."""
    step, planned = progress.get("step", 0), progress.get("planned_num_steps", -1)
    if not step:
        return "loading the models …"
    return f"step {step} of {planned}" if planned > 0 else f"step {step}"


def turn_in_words(before: int, paused: bool) -> str:
    """When what waits in the queue starts."""
    if before:
        return f"waits: {before} before it"
    return "starts when you start the queue" if paused else "starts as soon as it can"


def date_of(name: str) -> str:
    """When the run of that folder name began, for people; "" for other names."""
    began = began_at(name)
    return f"{began.day} {began:%b %Y, %H:%M}" if began else ""
