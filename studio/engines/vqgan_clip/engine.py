"""VQGAN-CLIP as an engine."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from studio.base.errors import BadInput
from studio.engines.clip.prompts import Prompt, parse_prompts, write_prompts
from studio.engines.contract import Choices, Engine, ForeignSettings
from studio.engines.estimate import Estimate
from studio.engines.prompt_parts import Length, PromptPart
from studio.engines.vqgan_clip import xibqgan
from studio.engines.vqgan_clip.estimate import decoder_widths, estimate
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.models import clip_text
from studio.models.catalogue import (
    OPENAI_CLIP_MODELS,
    PUBLISHED_VQGANS,
    VQGANWeights,
    find_clip,
    find_clip_checkpoints,
    find_weights,
)
from studio.settings.run_settings import RunSettings

LARGER_WEIGHTS = (
    "Larger weights paint whole scenes and know styles: ./download-weights.sh, in the studio's"
    " folder, lists them and gets them."
)


class VQGANCLIP(Engine):
    """A VQGAN draws, and CLIP compares the picture with the prompts."""

    settings: ClassVar = VQGANCLIPSettings
    run: ClassVar = "logic:VQGANCLIPRun"
    libraries: ClassVar = ("torch", "torchvision", "clip", "taming")

    def choices(self, assets_dir: Path) -> Mapping[str, Choices]:
        clips = _in_order(find_clip_checkpoints(assets_dir), OPENAI_CLIP_MODELS)
        return {
            "vqgan_ckpt": Choices(_in_order(find_weights(assets_dir), PUBLISHED_VQGANS)),
            "clip_model": Choices(clips, is_open=True),
        }

    def introduction(self, values: Mapping[str, Any], assets_dir: Path) -> str:
        weights = _chosen(values, assets_dir)
        draws = ""
        with suppress(BadInput):
            draws = weights.draws if weights else ""
        return f"{weights.name} draws {draws} {LARGER_WEIGHTS}" if weights and draws else ""

    def examples(self, values: Mapping[str, Any], assets_dir: Path) -> Sequence[Path]:
        weights = _chosen(values, assets_dir)
        return weights.examples() if weights else ()

    def foreign_settings(self, content: Any, path: Path) -> ForeignSettings | None:
        return xibqgan.settings_of(content, path)

    def prompt_parts(self, text: str) -> Sequence[PromptPart]:
        return [PromptPart(p.text, p.weight, str(p.stop)) for p in parse_prompts(text)]

    def prompt_text(self, parts: Sequence[PromptPart]) -> str:
        return write_prompts(
            Prompt(part.text, part.weight, float(part.rest or -math.inf)) for part in parts
        )

    def length(self, text: str, values: Mapping[str, Any], assets_dir: Path) -> Length | None:
        tokens = clip_text.encode(text)
        if tokens is None:
            return None
        room = None
        with suppress(BadInput):
            room = clip_text.room(find_clip(assets_dir, str(values.get("clip_model"))))
        end = [] if room is None else tokens[room:]
        return Length(len(tokens), room, clip_text.decode(end) if end else "")

    def estimate(
        self,
        settings: RunSettings,
        assets_dir: Path,
        device: str,
        past: Iterable[Mapping[str, Any]],
    ) -> Estimate:
        return estimate(settings, decoder_widths(assets_dir), device, past)


def _in_order(there: Iterable[str], published: Iterable[str]) -> list[str]:
    """Names, each once: those of files that are there, and then those that can be had."""
    return list(dict.fromkeys([*there, *published]))


def _chosen(values: Mapping[str, Any], assets_dir: Path) -> VQGANWeights | None:
    """The chosen weights, if they are there."""
    return find_weights(assets_dir).get(str(values.get("vqgan_ckpt")))
