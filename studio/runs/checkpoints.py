"""Checkpoints of runs: all that going on exactly needs, in one file that is whole or absent.

The file is safetensors: arrays, and in its header JSON for the rest. It holds no code, so that one
from a stranger can be read. Never imports torch. (`checkpoints.py` is about weights.)
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from studio.base.errors import BadInput, shortened

JSON_KEY = "run"  # of the header's entry that holds the JSON
PICTURE = "picture"
STATE = "state"
MAX_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Checkpoint:
    """A run after one of its steps.

    index, picture, losses: of that step, as in `logic.Step`.
    state: what the engine's `state_dict` gave.
    model, settings: what made it; the pictures in `image_prompt` by digest instead of by name.
    history: the course of the loss so far, as `recording.History` keeps it.
    """

    index: int
    picture: np.ndarray
    losses: Mapping[str, float]
    state: Mapping[str, Any]
    model: str
    settings: Mapping[str, Any]
    history: Mapping[str, Any]


def encode(checkpoint: Checkpoint) -> bytes:
    """The file's bytes. Raises TypeError for a state of other things than `logic.Run` may give."""
    leaves = dict(_leaves(checkpoint.state, STATE))
    arrays = {path: np.asarray(leaf, order="C") for path, leaf in leaves.items() if _is_array(leaf)}
    plain = {
        "index": checkpoint.index,
        "losses": dict(checkpoint.losses),
        "plain_state": {path: leaf for path, leaf in leaves.items() if path not in arrays},
        "model": checkpoint.model,
        "settings": dict(checkpoint.settings),
        "history": dict(checkpoint.history),
    }
    pictures = {PICTURE: np.asarray(checkpoint.picture, order="C")}
    return save(pictures | arrays, metadata={JSON_KEY: json.dumps(plain)})


def read(path: Path) -> Checkpoint:
    """Raises BadInput for whatever is no checkpoint of a run."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadInput(f"The checkpoint {path} is too large.")
        with safe_open(path, framework="numpy") as file:
            plain = json.loads((file.metadata() or {})[JSON_KEY])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _checkpoint(plain, arrays)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(
            f"The checkpoint {path} is broken ({shortened(error, 200)}). Delete it to go on"
            " without it."
        ) from None


def _checkpoint(plain: dict[str, Any], arrays: dict[str, np.ndarray]) -> Checkpoint:
    picture, state = arrays.pop(PICTURE), plain.pop("plain_state")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError("its picture is none")
    if not isinstance(plain["index"], int) or plain["index"] < 1:
        raise ValueError("its step is none")
    if not all(isinstance(plain[name], dict) for name in ("losses", "settings", "history")):
        raise ValueError("its facts are none")
    return Checkpoint(picture=picture, state=_tree(state | arrays)[STATE], **plain)


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "__array__")


def _leaves(tree: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}/{key}")
        else:
            yield f"{path}/{key}", value


def _tree(leaves: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {STATE: {}}
    for path, leaf in leaves.items():
        *branches, name = path.split("/")
        place = tree
        for branch in branches:
            place = place.setdefault(branch, {})
        place[name] = leaf
    return tree
