"""Autoencoders in `assets/vae/`, which can take the place of the weights' own. Never imports torch.

Each is a folder in diffusers' format, or one `.safetensors` file by the original names or by
diffusers'.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput, shortened
from studio.engines.diffusion.folders import CLASSES, PICKLES, config, no_pickle, weight_files
from studio.models.safetensors_header import Header, read_header

OF_WEIGHTS = "of the weights"
FOLDER = "vae"
PREFIXES = ("first_stage_model.", "vae.", "")  # of the autoencoder's names in a file
LEVEL = r"encoder\.down(?:_blocks)?\.(\d+)\.(?:block|resnets)\.(\d+)\.conv2\.weight"
PLAIN_SCALE = 0.18215  # of Stable Diffusion 1 and 2, and of a configuration that is silent


@dataclass(frozen=True)
class Vae:
    """An autoencoder.

    channels: of the latent. factor: how many pixels one position covers, along each axis. width:
    channels at full size. scale: of the latent; None where the file does not tell. kind: its class
    in diffusers. header, prefix: of a single file, and what its names begin with.
    """

    name: str
    path: Path
    channels: int
    factor: int
    width: int
    scale: float | None = None
    kind: str = "AutoencoderKL"
    header: Header | None = None
    prefix: str = ""

    @property
    def files(self) -> list[Path]:
        """All files that it consists of."""
        if self.header:
            return [self.path]
        return [self.path / "config.json", *weight_files(self.path, "")]


def find_vaes(assets_dir: Path) -> dict[str, Vae]:
    """All autoencoders in `assets/vae/` by name."""
    inside, found = assets_dir / FOLDER, {}
    for path in sorted([*inside.glob("*/config.json"), *inside.glob("*.safetensors")]):
        path = path.parent if path.name == "config.json" else path
        with suppress(BadInput):
            found[path.name.removesuffix(".safetensors")] = read_vae(path)
    return found


def get_vae(assets_dir: Path, name: str) -> Vae:
    """The autoencoder of that name, else at that path. Raises BadInput."""
    inside = assets_dir / FOLDER
    try:
        for path in (inside / name, inside / f"{name}.safetensors", Path(name)):
            if name and (path.is_file() or (path / "config.json").is_file()):
                return read_vae(path)
        for path in (inside / f"{name}{suffix}" for suffix in PICKLES):
            if path.is_file():
                raise BadInput(no_pickle(path))
    except (OSError, ValueError):
        pass  # too long, or with a zero byte: not a path either
    there = ", ".join(find_vaes(assets_dir)) or "none"
    raise BadInput(
        f"There is no VAE named '{shortened(name)}' in {inside}. There are: {there}. Put a folder"
        f" in diffusers' format or one .safetensors file there, or choose '{OF_WEIGHTS}'."
    )


def read_vae(path: Path) -> Vae:
    """What a folder or a file is. Raises BadInput with what was found there."""
    if path.suffix in PICKLES:
        raise BadInput(no_pickle(path))
    return _of_folder(path) if path.is_dir() else of_file(read_header(path))


def _of_folder(path: Path) -> Vae:
    told = config(path / "config.json")
    kind = told.get("_class_name")
    if kind not in CLASSES["vae"]:
        raise BadInput(
            f"{path} holds a {shortened(kind)}, which is no VAE that the studio knows; it knows"
            f" {' and '.join(CLASSES['vae'])}."
        )
    for file in weight_files(path, ""):
        read_header(file)
    widths = told.get("block_out_channels") or [64]
    return Vae(
        name=path.name,
        path=path,
        channels=told.get("latent_channels", 4),
        factor=2 ** (len(widths) - 1),
        width=widths[0],
        scale=told.get("scaling_factor", PLAIN_SCALE),
        kind=kind,
    )


def of_file(header: Header, called: str = "") -> Vae:
    """The autoencoder in a file, which may hold more. Raises BadInput if there is none.

    called: its name, if not the file's.
    """
    for prefix in PREFIXES:
        width = header.shape(f"{prefix}encoder.conv_in.weight")
        latent = header.shape(f"{prefix}decoder.conv_in.weight")
        if len(width) == len(latent) == 4 and (levels := levels_of(header, prefix)):
            return Vae(
                name=called or header.path.stem,
                path=header.path,
                channels=latent[1],
                factor=2 ** max(level for level, _ in levels),
                width=width[0],
                header=header,
                prefix=prefix,
            )
    names = ", ".join(shortened(name, 60) for name in list(header.tensors)[:3])
    raise BadInput(
        f"{header.path} holds no VAE: it has {len(header.tensors)} tensors such as {names}."
    )


def levels_of(header: Header, prefix: str) -> dict[tuple[int, int], int]:
    """The channels of the encoder's blocks, by their level and their number there."""
    pattern = re.compile(re.escape(prefix) + LEVEL)
    return {
        (int(found[1]), int(found[2])): entry.shape[0]
        for name, entry in header.tensors.items()
        if (found := pattern.fullmatch(name))
    }


def vae_config(header: Header, prefix: str, scale: float) -> dict[str, Any]:
    """The configuration of diffusers' AutoencoderKL for the tensors of a file."""
    found = levels_of(header, prefix)
    count = 1 + max(level for level, _ in found)
    channels = header.shape(f"{prefix}decoder.conv_in.weight")[1]
    has_steps = bool(header.shape(f"{prefix}post_quant_conv.weight"))
    return {
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": [found.get((level, 0), 0) for level in range(count)],
        "down_block_types": ["DownEncoderBlock2D"] * count,
        "up_block_types": ["UpDecoderBlock2D"] * count,
        "layers_per_block": 1 + max(block for _, block in found),
        "latent_channels": channels,
        "scaling_factor": scale,
        "use_quant_conv": has_steps,
        "use_post_quant_conv": has_steps,
    }
