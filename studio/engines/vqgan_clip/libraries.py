"""Libraries that only some choices need, and that are imported for those alone. No torch here."""

from importlib.util import find_spec

from studio.base.errors import BadInput


def check_library(module: str, package: str, wanted: str) -> None:
    """wanted: the choice that needs the library. Raises BadInput where it is not installed."""
    if find_spec(module) is None:
        raise BadInput(
            f"{wanted} needs the library {package}, which is not installed. Run `make setup`, or"
            " make another choice."
        )
