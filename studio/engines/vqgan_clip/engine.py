"""VQGAN-CLIP as an engine."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from studio.engines.contract import Choices, Engine
from studio.engines.estimate import Estimate
from studio.engines.vqgan_clip.estimate import decoder_widths, estimate
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.models.catalogue import OPENAI_CLIP_MODELS, find_clip_checkpoints, find_weights
from studio.settings.run_settings import RunSettings


class VQGANCLIP(Engine):
    """A VQGAN draws, and CLIP compares the picture with the prompts."""

    settings: ClassVar = VQGANCLIPSettings
    run: ClassVar = "logic:VQGANCLIPRun"
    libraries: ClassVar = ("torch", "torchvision", "clip", "taming")

    def choices(self, assets_dir: Path) -> Mapping[str, Choices]:
        clips = [*find_clip_checkpoints(assets_dir), *OPENAI_CLIP_MODELS]
        return {
            "vqgan_ckpt": Choices(list(find_weights(assets_dir))),
            "clip_model": Choices(clips, is_open=True),
        }

    def estimate(
        self,
        settings: RunSettings,
        assets_dir: Path,
        device: str,
        past: Iterable[Mapping[str, Any]],
    ) -> Estimate:
        return estimate(settings, decoder_widths(assets_dir), device, past)
