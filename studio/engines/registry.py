"""The engines that a person can choose from. An engine is added here and nowhere else.

See docs/adding-an-engine.md. Never imports torch. An engine is named, and imported when it is used,
so that one whose library is broken disturbs no other.
"""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from studio.base.errors import BadInput, shortened
from studio.engines.contract import Engine
from studio.settings.values import read_defaults

if TYPE_CHECKING:
    from studio.engines.contract import Run

ENGINES: dict[str, str] = {  # name: where its Engine is
    "VQGAN-CLIP": "studio.engines.vqgan_clip.engine:VQGANCLIP",
    "Diffusion": "studio.engines.diffusion.engine:Diffusion",
}
DEFAULT = next(iter(ENGINES))


def names() -> list[str]:
    """All engines, the default one first."""
    return list(ENGINES)


def known_name(said: str) -> str:
    """The engine's name as it is listed, in whatever case a person wrote it.

    Raises BadInput for an unknown one, listing the others.
    """
    for name in ENGINES:
        if name.casefold() == said.casefold():
            return name
    raise BadInput(f"There is no engine '{shortened(said)}'. There are: {', '.join(ENGINES)}.")


def get(name: str) -> Engine:
    """The engine of that name.

    Raises BadInput for an unknown one, listing the others, and for one that cannot be imported.
    """
    name = known_name(name)
    return _imported(name, ENGINES[name])()


def find(name: object) -> Engine | None:
    """The engine of that name; None for one that is unknown here, or broken."""
    try:
        return get(name) if isinstance(name, str) else None
    except BadInput:
        return None


def unavailable(name: str) -> str:
    """Why an engine cannot be used here, and what to do; "" if it can."""
    engine = find(name)
    return engine.unavailable() if engine else _why_broken(ENGINES[name])


def check_available(name: str) -> None:
    """Raises BadInput for an engine that cannot be used here."""
    if reason := get(name).unavailable():
        raise BadInput(f"The engine {name} cannot be used here. {reason}")


def run_class(name: str) -> "type[Run]":
    """The Run of that engine; this is where torch is imported. Raises BadInput with the reason."""
    return _imported(name, get(name).run)


def defaults(name: str) -> dict[str, Any]:
    """What `defaults.yaml` sets for that engine. Raises BadInput."""
    return read_defaults(get(name).settings, name, is_first=name == DEFAULT)


def _imported(name: str, address: str) -> Any:
    """What is at "module:attribute". Raises BadInput for any error in an engine's code."""
    found, error = _look_up(address)
    if error is None:
        return found
    raise BadInput(f"The engine {name} cannot be used here. {_why_broken(address)}") from error


def _why_broken(address: str) -> str:
    """Why nothing can be had from "module:attribute", and what to do."""
    _, error = _look_up(address)
    said = f"It cannot be imported ({type(error).__name__}: {shortened(error, 200)})."
    if isinstance(error, ImportError):
        return f"{said} Run `make setup`, or choose another engine."
    return f"{said} Mend its code, or choose another engine."


@cache
def _look_up(address: str) -> tuple[Any, Exception | None]:
    """What is at "module:attribute", or why it cannot be had; pages ask twice a second."""
    module, _, attribute = address.partition(":")
    try:
        return getattr(import_module(module), attribute), None
    except Exception as error:
        return None, error
