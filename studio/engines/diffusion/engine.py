"""Diffusion as an engine."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from studio.base.errors import BadInput
from studio.engines.contract import Choices, Engine
from studio.engines.diffusion.estimate import estimate
from studio.engines.diffusion.settings import ENLARGING, DiffusionSettings
from studio.engines.diffusion.weights import Weights, find_weights, get_weights
from studio.engines.estimate import Estimate
from studio.models import upscalers
from studio.models.catalogue import OPENAI_CLIP_MODELS, find_clip_checkpoints
from studio.settings.run_settings import RunSettings


class Diffusion(Engine):
    """Stable Diffusion and its kin: a denoiser makes a picture of noise."""

    settings: ClassVar = DiffusionSettings
    run: ClassVar = "studio.engines.diffusion.run:DiffusionRun"
    libraries: ClassVar = ("torch", "diffusers", "transformers", "safetensors", "clip")

    def choices(self, assets_dir: Path) -> Mapping[str, Choices]:
        enlarging = [*ENLARGING, *(n for n in upscalers.names(assets_dir) if n != upscalers.AUTO)]
        clips = dict.fromkeys([*find_clip_checkpoints(assets_dir), *OPENAI_CLIP_MODELS])
        return {
            "clip_model": Choices(list(clips), is_open=True),
            "weights": Choices(list(find_weights(assets_dir)), is_open=True),
            "hires_upscaler": Choices(enlarging, is_open=True),
        }

    def introduction(self, values: Mapping[str, Any], assets_dir: Path) -> str:
        weights = _chosen(values, assets_dir)
        return f"{weights.name} draws {weights.draws}" if weights and weights.draws else ""

    def examples(self, values: Mapping[str, Any], assets_dir: Path) -> Sequence[Path]:
        weights = _chosen(values, assets_dir)
        return weights.examples() if weights else ()

    def estimate(
        self,
        settings: RunSettings,
        assets_dir: Path,
        device: str,
        past: Iterable[Mapping[str, Any]],
    ) -> Estimate | None:
        assert isinstance(settings, DiffusionSettings)
        weights = _chosen(settings.model_dump(), assets_dir)
        return estimate(settings, weights, device, past) if weights else None


def _chosen(values: Mapping[str, Any], assets_dir: Path) -> Weights | None:
    """The chosen weights, if they are there and whole."""
    with suppress(BadInput):
        return get_weights(assets_dir, str(values.get("weights")))
    return None
