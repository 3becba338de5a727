"""Folders in diffusers' format: which files hold a part, and its configuration. No torch."""

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput, shortened
from studio.base.files import read_json

INDEX = "model_index.json"
SUFFIX = ".safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
LIBRARIES = ("diffusers", "transformers")  # a class of any other would be code from strangers
CLASSES: Mapping[str, tuple[str, ...]] = {  # of these libraries that a folder may name
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "VQModel"),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
}
BASE_NAMES = ("diffusion_pytorch_model", "model")  # what the libraries call a part's file
SHARD = re.compile(r"-\d+-of-\d+$")


def weight_files(folder: Path, part: str) -> list[Path]:
    """The files with the tensors of a part: one, or several shards. Raises BadInput."""
    inside = folder / part
    names = sorted(path.name for path in inside.glob("*") if path.is_file())
    if chosen := chosen_files(names):
        return [inside / name for name in chosen]
    if pickles := [name for name in names if Path(name).suffix in PICKLES]:
        raise BadInput(no_pickle(inside / pickles[0]))
    there = ", ".join(names) or "nothing"
    raise BadInput(f"{inside} lacks its .safetensors file; it has: {there}. Copy it again.")


def chosen_files(names: Iterable[str], prefer: str = "") -> list[str]:
    """Of the files of a part's folder, one whole set of weights: one file, or all its shards.

    A folder may hold the same weights several times, as variants such as `model.fp16.safetensors`.
    prefer: the variant to take if it is there; otherwise the one without a name comes first.
    """
    sets: dict[tuple[str, bool], list[str]] = {}
    for name in sorted(name for name in names if name.endswith(SUFFIX)):
        base, _, variant = name.removesuffix(SUFFIX).partition(".")
        is_shard = bool(SHARD.search(base) or SHARD.search(variant))
        known = SHARD.sub("", base) in BASE_NAMES
        kind = SHARD.sub("", variant) if known else f"other {name}"
        sets.setdefault((kind, is_shard), []).append(name)
    if not sets:
        return []
    return sets[min(sets, key=lambda key: (key[0] != prefer, key[0] != "", key))]


def check_classes(path: object, index: Mapping[str, Any], kinds: str) -> list[str]:
    """The parts that an index names, of those in CLASSES. kinds: of weights that are known.

    Raises BadInput where a part is missing, or of a class that is not on the list.
    """
    parts = [part for part in CLASSES if isinstance(index.get(part), list) and index[part][-1:]]
    parts = [part for part in parts if index[part][-1]]
    if missing := [part for part in ("unet", "vae", "text_encoder") if part not in parts]:
        there = ", ".join(key for key, value in index.items() if isinstance(value, list))
        raise BadInput(
            f"{path} is of no kind that the studio knows: it lacks {', '.join(missing)}; it has:"
            f" {there or 'nothing'}. There are: {kinds}."
        )
    for part in parts:
        if index[part][0] not in LIBRARIES or index[part][-1] not in CLASSES[part]:
            named = shortened(".".join(map(str, index[part])))
            raise BadInput(
                f"{path}: its {part} is a {named}, which the studio does not know; it knows"
                f" {' and '.join(CLASSES[part])} of {' and '.join(LIBRARIES)}."
            )
    return parts


def no_pickle(path: object) -> str:
    """Why a pickle is refused."""
    return (
        f"{path} is a pickle, which could run code: the engine Diffusion reads .safetensors files"
        " only. Get the weights in that format, or convert them."
    )


def config(path: Path) -> dict[str, Any]:
    """What a JSON file says, which is read once. Raises BadInput."""
    return _read(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=256)
def _read(path: Path, modified_ns: int) -> dict[str, Any]:
    """modified_ns: of the file, so that a changed one is read again."""
    try:
        return read_json(path, str(path))
    except (OSError, json.JSONDecodeError):
        raise BadInput(f"{path} is missing or broken. Copy the weights again.") from None
