"""Pictures and states on their way between torch and the rest of the studio."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB picture as [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def to_uint8(picture: Tensor) -> np.ndarray:
    """A picture [1, 3, H, W] in [0, 1] as uint8 [H, W, 3]."""
    return (picture[0] * 255).round_().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def to_arrays(state: Any) -> Any:
    """A state of nested dicts, its tensors as numpy arrays of their own."""
    if isinstance(state, Tensor):
        return state.cpu().numpy().copy()
    if isinstance(state, dict):
        return {key: to_arrays(value) for key, value in state.items()}
    return state
