"""Waiting for what other processes do."""

import time

PATIENCE = 240  # seconds; a busy machine is slow, not broken


def wait_for(condition, what):
    """Until `condition()` is true; returns what it gave."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
    return found
