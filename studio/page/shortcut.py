"""The keys that press Run!, wherever on the page a person is."""

from studio.page.components import listener

RUN_KEYS = "Ctrl+Enter"  # Cmd+Enter on a Mac


def count_presses_once() -> None:
    """Let keys that are held down press Run! only once."""
    listener("once")(key="once")
