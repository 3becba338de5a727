"""Checkpoints of runs: all that an exact continuation needs, in one file that is whole or absent.

The file is safetensors: arrays, and in its header JSON for the rest. It holds no code, so that one
from a stranger can be read. Never imports torch.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from studio.base.errors import BadInput, shortened
from studio.media.pictures import check_rgb
from studio.media.video import FPS

JSON_KEY = "run"  # the header's entry that holds the JSON
PICTURE = "picture"
STATE = "state"
MAX_BYTES = 8_000_000_000


@dataclass(frozen=True)
class Checkpoint:
    """A run after one of its steps.

    index, losses: of that step. pictures: those of the last step that had any.
    state: what the engine's `state_dict` gave.
    engine, settings: what made it; the pictures in `image_prompt` by digest instead of by name.
    history: the course of the loss so far, as `progress.History` keeps it.
    frames, frames_per_second: of the film so far.
    grows_to: width and height of the finished picture, in a run whose pictures grow.
    """

    index: int
    pictures: Sequence[np.ndarray]
    losses: Mapping[str, float]
    state: Mapping[str, Any]
    engine: str
    settings: Mapping[str, Any]
    history: Mapping[str, Any]
    frames: int
    frames_per_second: float
    grows_to: tuple[int, int] | None = None

    @property
    def picture(self) -> np.ndarray | None:
        """The first of the pictures."""
        return self.pictures[0] if len(self.pictures) else None


def encode(checkpoint: Checkpoint) -> bytes:
    """The file's bytes. Raises TypeError for a state that holds what `Run.state_dict` may not."""
    leaves = dict(_leaves(checkpoint.state, STATE))
    arrays = {path: np.asarray(leaf, order="C") for path, leaf in leaves.items() if _is_array(leaf)}
    plain = {
        "index": checkpoint.index,
        "losses": dict(checkpoint.losses),
        "plain_state": {path: leaf for path, leaf in leaves.items() if path not in arrays},
        "model": checkpoint.engine,
        "settings": dict(checkpoint.settings),
        "history": dict(checkpoint.history),
        "frames": checkpoint.frames,
        "frames_per_second": checkpoint.frames_per_second,
    }
    if checkpoint.grows_to:
        plain["grows_to"] = checkpoint.grows_to
    named = zip(_picture_keys(), checkpoint.pictures, strict=False)
    pictures = {key: np.asarray(picture, order="C") for key, picture in named}
    return save(pictures | arrays, metadata={JSON_KEY: json.dumps(plain)})


def _picture_keys() -> Iterator[str]:
    yield PICTURE
    yield from (f"{PICTURE}-{number}" for number in itertools.count(2))


def read(path: Path) -> Checkpoint:
    """A run's checkpoint. Raises BadInput for any other file."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadInput(f"The checkpoint {path} is too large.")
        with safe_open(path, framework="numpy") as file:
            plain = json.loads((file.metadata() or {})[JSON_KEY])
            names = file.keys()  # safe_open is not a dict: it cannot be iterated
            arrays = {name: file.get_tensor(name) for name in names}
        return _checkpoint(plain, arrays)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(
            f"The checkpoint {path} is broken ({shortened(error, 200)}). Delete it to"
            " continue without it."
        ) from None


def _checkpoint(plain: dict[str, Any], arrays: dict[str, np.ndarray]) -> Checkpoint:
    known = itertools.takewhile(arrays.__contains__, _picture_keys())
    pictures, state = [arrays.pop(key) for key in list(known)], plain.pop("plain_state")
    check_rgb(pictures)
    if not isinstance(plain["index"], int) or plain["index"] < 1:
        raise ValueError("its step is not a number from 1")
    if not all(isinstance(plain[name], dict) for name in ("losses", "settings", "history")):
        raise ValueError("its facts are missing")
    # Older files do not count frames: each step had one.
    film = {"frames": plain["index"], "frames_per_second": FPS} | {
        name: plain.pop(name) for name in ("frames", "frames_per_second") if name in plain
    }
    # A run that makes a part of its picture again has more frames than steps.
    if film["frames"] < 0 or (film["frames"] and not pictures):
        raise ValueError("its frames are not those of its steps")
    if not 0.01 <= film["frames_per_second"] <= 1000:
        raise ValueError("its film has no usable frame rate")
    if grows_to := plain.pop("grows_to", None):
        width, height = map(int, grows_to)
        film["grows_to"] = width, height
    state, engine = _tree(state | arrays)[STATE], plain.pop("model")
    return Checkpoint(pictures=pictures, state=state, engine=engine, **film, **plain)


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
