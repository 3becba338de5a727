"""The networks of a run, ready to compute: loaded, or still warm from an earlier run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from studio.engines.device import Precision
from studio.engines.vqgan_clip.sketch import Sketcher, load_sketcher
from studio.engines.warm import file_stamp, warm
from studio.models.catalogue import VQGANWeights
from vqgan_utils import VQGAN, Perceptor, load_clip_model, load_vqgan_model

ENGINE = "VQGAN-CLIP"  # as the list of engines has it
BYTES_PER_FILE_BYTE = 2  # weights are often stored in half precision, and computed with in float32

T = TypeVar("T")


@dataclass(frozen=True)
class Models:
    """Finds networks for a run. precision: of VQGAN and CLIP; sketchers draw in float32."""

    run: object
    device: torch.device
    precision: Precision

    def vqgan(self, weights: VQGANWeights) -> VQGAN:
        """A VQGAN that decodes in `precision`. Raises BadInput."""
        config, checkpoint = weights.config_path, weights.checkpoint_path

        def load() -> VQGAN:
            model = load_vqgan_model(config, checkpoint)
            return model.quicken(self.precision).to(self.device)

        return self._get("VQGAN", [config, checkpoint], load)

    def perceptor(self, path: Path) -> Perceptor:
        """A CLIP that sees in `precision`. Raises BadInput."""
        return self._get(
            "CLIP", [path], lambda: load_clip_model(path, self.precision).to(self.device)
        )

    def sketcher(self, path: Path, embed_dim: int) -> Sketcher:
        """The network that draws sketches from embeddings of a CLIP with `embed_dim` channels."""
        return self._get(
            "sketcher", [path], lambda: load_sketcher(path, embed_dim).to(self.device), embed_dim
        )

    def _get(self, slot: str, paths: list[Path], load: Callable[[], T], embed_dim: int = 0) -> T:
        stamps = tuple(map(file_stamp, paths))
        needs = BYTES_PER_FILE_BYTE * sum(stamp.size for stamp in stamps)
        key = stamps, self.precision, embed_dim
        return warm.get(ENGINE, slot, key, load, run=self.run, device=self.device, needs=needs)
