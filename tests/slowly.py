"""Parameters of tests that `make test-slow` alone runs."""

from typing import Any

import pytest


def slowly(*values: Any) -> list[Any]:
    """Values that show again, at other moments or for their like, what quick ones show."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]
