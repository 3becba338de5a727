"""The LoRAs and textual inversions that a run's prompts name. Never imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.engines.diffusion import inversions as embeddings_folder
from studio.engines.diffusion.inversions import Inversion, get_inversions
from studio.engines.diffusion.loras import LoraFile, get_loras
from studio.engines.diffusion.prompt_grammar import (
    parse_negative,
    parse_prompt,
    without_networks,
)
from studio.engines.diffusion.weights import Weights


@dataclass(frozen=True)
class PromptFiles:
    """Files that fit the weights, and sentences about what prompts name that is not there."""

    loras: Sequence[LoraFile]
    inversions: Sequence[Inversion]
    remarks: Sequence[str]


def prompt_files(prompt: str, negative: str, weights: Weights, assets_dir: Path) -> PromptFiles:
    """Those that the two texts name. Raises BadInput for one that is missing or does not fit."""
    read = parse_prompt(prompt)
    texts = [without_networks(text) for text in (prompt, negative)]
    remarks = [*read.remarks, *parse_negative(negative).remarks]
    return PromptFiles(
        get_loras(read.loras, weights, assets_dir),
        get_inversions(texts, weights, assets_dir),
        [*remarks, *embeddings_folder.remarks(texts, assets_dir)],
    )
