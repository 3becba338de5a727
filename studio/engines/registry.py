"""The models that a person can choose from. A new one is added here and nowhere else.

See docs/adding-a-model.md. Never imports torch: a model's class is named, and imported when used.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from studio.base.errors import BadInput, shortened
from studio.settings.settings import RunSettings, VQGANCLIPSettings

if TYPE_CHECKING:
    from studio.engines.contract import Run


@dataclass(frozen=True)
class Model:
    """settings: what the form and the command line ask for. run: `module:class` of its Run."""

    settings: type[RunSettings]
    run: str


MODELS: dict[str, Model] = {
    "VQGAN-CLIP": Model(settings=VQGANCLIPSettings, run="logic:VQGANCLIPRun"),
}


def get(name: str) -> Model:
    """The model of that name. Raises BadInput, listing what there is."""
    if name not in MODELS:
        raise BadInput(f"There is no model '{shortened(name)}'. There are: {', '.join(MODELS)}.")
    return MODELS[name]


def run_class(name: str) -> "type[Run]":
    """The Run of that name; this is where torch gets imported. Raises BadInput for no such name."""
    module, _, attribute = get(name).run.partition(":")
    return getattr(import_module(module), attribute)
