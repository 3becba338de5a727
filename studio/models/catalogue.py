"""The weights in `assets/`, and what their yaml says. Never imports torch."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput, shortened
from studio.base.yaml_files import read_yaml

PREFERRED = ("vqgan_imagenet_f16_1024", "emoji_f8")
PUBLISHED_VQGANS = (  # what download-weights.sh gets
    "vqgan_imagenet_f16_1024",
    "vqgan_imagenet_f16_16384",
    "vqgan_gumbel_f8",
    "vqgan_gumbel_f8_8192",
    "sflckr",
    "coco",
    "faceshq",
    "wikiart_16384",
)
CHECKPOINT_SUFFIXES = (".ckpt", ".safetensors")
SKETCHER_SUFFIX = ".sketcher.safetensors"
EXAMPLES_SUFFIX = ".examples"
OPENAI_CLIP_MODELS = (  # what clip.available_models() lists, without importing torch
    "RN50",
    "RN101",
    "RN50x4",
    "RN50x16",
    "RN50x64",
    "ViT-B/32",
    "ViT-B/16",
    "ViT-L/14",
    "ViT-L/14@336px",
)


@dataclass(frozen=True)
class VQGANWeights:
    """A NAME.yaml with its checkpoint NAME.ckpt or NAME.safetensors beside it."""

    name: str
    config_path: Path
    checkpoint_path: Path

    def config(self) -> dict[str, Any]:
        """The yaml as a dict with at least `model.target` and `model.params`. Raises BadInput."""
        return read_config(self.config_path)

    @property
    def factor(self) -> int:
        """f: how many pixels of the picture one position of the latent covers, along each axis."""
        return downsampling_factor(self.config(), self.config_path)

    @property
    def recommended(self) -> dict[str, Any]:
        """Settings that suit these weights: the yaml's own key `recommended`."""
        values = self.config().get("recommended") or {}
        if not isinstance(values, dict):
            raise BadInput(f"{self.config_path}: 'recommended' must hold 'setting: value' lines.")
        return values

    @property
    def draws(self) -> str:
        """What these weights can draw, in words: the yaml's own key `draws`; "" if it is silent."""
        words = self.config().get("draws")
        return " ".join(words.split()) if isinstance(words, str) else ""

    def examples(self) -> list[Path]:
        """Pictures that were made with these weights: each output.PNG kept in NAME.examples/."""
        return sorted(self.config_path.with_suffix(EXAMPLES_SUFFIX).glob("*.png"))


def find_weights(assets_dir: Path) -> dict[str, VQGANWeights]:
    """Every complete pair in the folder by name, the preferred ones first."""
    pairs = {}
    for config_path in sorted(assets_dir.glob("*.yaml")):
        checkpoint = _checkpoint_beside(config_path)
        if checkpoint and config_path.is_file():
            pairs[config_path.stem] = VQGANWeights(config_path.stem, config_path, checkpoint)
    first = [name for name in PREFERRED if name in pairs]
    return {name: pairs[name] for name in [*first, *(n for n in pairs if n not in first)]}


def get_weights(assets_dir: Path, name: str) -> VQGANWeights:
    """The pair of that name. Raises BadInput, listing what there is."""
    pairs = find_weights(assets_dir)
    if name in pairs:
        return pairs[name]
    there = ", ".join(pairs) or "none"
    if any(config.stem == name for config in assets_dir.glob("*.yaml")):
        raise BadInput(
            f"{name}.yaml is in {assets_dir}, but its checkpoint {name}.ckpt is not."
            f" Put it beside the yaml. Complete weights: {there}."
        )
    if name in PUBLISHED_VQGANS:
        raise BadInput(
            f"The weights {name} are not in {assets_dir} yet. './download-weights.sh {name}', in"
            f" the studio's folder, gets them into assets/. There are: {there}."
        )
    if not pairs:
        raise BadInput(_no_weights(assets_dir))
    raise BadInput(
        f"There are no weights named '{shortened(name)}' in {assets_dir}. There are: {there}."
    )


def default_weights(assets_dir: Path) -> str:
    """The name to use where a person did not choose. Raises BadInput for an empty folder."""
    for name in find_weights(assets_dir):
        return name
    raise BadInput(_no_weights(assets_dir))


def _no_weights(assets_dir: Path) -> str:
    return (
        f"There are no weights in {assets_dir}: it needs a NAME.yaml with a NAME.ckpt beside it."
        " See './download-weights.sh' for published weights."
    )


def find_clip_checkpoints(assets_dir: Path) -> dict[str, Path]:
    """CLIP checkpoints in the folder by name."""
    return {path.stem: path for path in sorted(assets_dir.glob("*.pt"))}


def find_clip(assets_dir: Path, name: str) -> Path | None:
    """The checkpoint that a CLIP's name or path means; None for one of OpenAI's names.

    A NAME.pt in the folder comes first, then OpenAI's names, then paths. Raises BadInput, listing
    what there is.
    """
    there = find_clip_checkpoints(assets_dir)
    if name in OPENAI_CLIP_MODELS and name not in there:
        return None
    path = there.get(name) or Path(name)
    try:
        if path.is_file():
            return path
    except (OSError, ValueError):
        pass  # too long, or with a zero byte: not a path either
    raise BadInput(
        f"There is no CLIP '{shortened(name)}'. In {assets_dir}: {', '.join(there) or 'none'}."
        f" By OpenAI's names: {', '.join(OPENAI_CLIP_MODELS)}. Or give the path of a checkpoint."
    )


def find_sketcher(clip_path: Path) -> Path | None:
    """The sketcher of a CLIP: NAME.sketcher.safetensors beside NAME.pt. None where it has none."""
    path = clip_path.with_suffix(SKETCHER_SUFFIX)
    return path if path.is_file() else None


def check_checkpoint(path: Path) -> None:
    """Check a file's first and last bytes: can it be a checkpoint? Raises BadInput."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
            size = file.seek(0, 2)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}.") from None
    reason = _why_not_a_checkpoint(path, head, size)
    if reason:
        raise BadInput(f"{path} is not a checkpoint: {reason}. Download it again.")


def _why_not_a_checkpoint(path: Path, head: bytes, size: int) -> str | None:
    if not head:
        return "it is empty"
    if head.lstrip().startswith(b"<"):
        return "it is a web page"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer to the real file"
    if path.suffix == ".safetensors":
        fits = head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8
        return None if fits else "it is truncated, or not a safetensors file"
    if head.startswith(b"PK"):
        return None if zipfile.is_zipfile(path) else "it is truncated"
    return None if head.startswith(b"\x80") else "it is neither a zip file nor a pickle"


def read_config(path: Path) -> dict[str, Any]:
    """A VQGAN's yaml in taming-transformers' format. Raises BadInput."""
    config = read_yaml(path)
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("params"), dict):
        raise BadInput(f"{path} is not a VQGAN configuration: it lacks 'model' with its 'params'.")
    return config


def first_stage(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of the configuration that describes the VQGAN itself (`target`, `params`)."""
    model = config["model"]
    inner = model["params"].get("first_stage_config")
    return inner if isinstance(inner, dict) else model


def downsampling_factor(config: Mapping[str, Any], path: Path) -> int:
    """f = 2^(levels - 1) of the encoder. Raises BadInput where the yaml does not say."""
    params = first_stage(config).get("params")
    ddconfig = params.get("ddconfig") if isinstance(params, dict) else None
    levels = ddconfig.get("ch_mult") if isinstance(ddconfig, dict) else None
    if not isinstance(levels, list) or not 1 <= len(levels) <= 8:
        raise BadInput(f"{path} lacks 'ddconfig' with its 'ch_mult', the widths of the levels.")
    return 2 ** (len(levels) - 1)


def picture_size(weights: VQGANWeights, width: int, height: int) -> tuple[int, int]:
    """Width and height floored to a multiple of f. Raises BadInput under f."""
    f = weights.factor
    if min(width, height) < f:
        raise BadInput(
            f"The size {width}x{height} is too small for {weights.name}: each side must be at"
            f" least {f} px."
        )
    return width // f * f, height // f * f


def _checkpoint_beside(config_path: Path) -> Path | None:
    for suffix in CHECKPOINT_SUFFIXES:
        if (path := config_path.with_suffix(suffix)).is_file():
            return path
    return None
