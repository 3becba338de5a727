"""Waiting for other processes."""

import time

PATIENCE = 240  # seconds, as a busy machine is slow


def wait_for(condition, what):
    """Wait until `condition()` is true; returns its result."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)
    return found
