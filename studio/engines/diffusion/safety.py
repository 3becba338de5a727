"""The safety checker that some weights bring: which pictures to hide."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from studio.base.errors import BadInput
from studio.base.files import read_json

TAKEN = (  # from a stranger's configuration of the pictures that the checker sees
    *("size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std"),
    *("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"),
)


@dataclass(frozen=True)
class Checker:
    """diffusers' StableDiffusionSafetyChecker. prepare: makes what it sees of pictures."""

    network: Any
    prepare: Any
    dtype: torch.dtype

    @torch.no_grad()
    def __call__(self, pictures: Sequence[np.ndarray]) -> list[bool]:
        """Which of the pictures, uint8 [H, W, 3], are to be hidden. Each is looked at alone."""
        return [self._finds_fault(picture) for picture in pictures]

    def _finds_fault(self, picture: np.ndarray) -> bool:
        seen = self.prepare(Image.fromarray(picture), return_tensors="pt").pixel_values
        seen = seen.to(self.network.device, self.dtype)
        _, found = self.network(clip_input=seen, images=np.zeros((1, 1, 1, 3)))
        return bool(found[0])


def extractor(path: Path) -> Any:
    """transformers' CLIPImageProcessor by its configuration. Raises BadInput."""
    from transformers import CLIPImageProcessor

    told = read_json(path)
    try:
        return CLIPImageProcessor(**{name: told[name] for name in TAKEN if name in told})
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path} is not a configuration of CLIP's pictures: {error}.") from None
