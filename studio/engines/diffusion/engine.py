"""Diffusion as an engine."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from studio.base.errors import BadInput
from studio.engines.contract import Choices, Download, Engine, ForeignSettings
from studio.engines.diffusion.chunks import ROOM
from studio.engines.diffusion.estimate import estimate
from studio.engines.diffusion.inversions import inversions_in
from studio.engines.diffusion.layers import ModelLayers
from studio.engines.diffusion.parameters import foreign_settings_of_parameters, parameters_text
from studio.engines.diffusion.prompt_grammar import prompt_parts, prompt_text, without_networks
from studio.engines.diffusion.published import look_up
from studio.engines.diffusion.settings import ENLARGING, SEEDS, DiffusionSettings
from studio.engines.diffusion.text_length import prompt_length
from studio.engines.diffusion.vaes import OF_WEIGHTS, find_vaes
from studio.engines.diffusion.weights import Weights, find_weights, get_weights, is_elsewhere
from studio.engines.estimate import Estimate
from studio.engines.prompt_parts import Length, PromptPart
from studio.media.parameters_text import KEY, parameters_in, read_parameters
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
            "vae": Choices([OF_WEIGHTS, *find_vaes(assets_dir)], is_open=True),
            "hires_upscaler": Choices(enlarging, is_open=True),
        }

    def lacks(self, values: Mapping[str, Any], assets_dir: Path) -> str:
        name = str(values.get("weights") or "")
        return name if is_elsewhere(assets_dir, name) else ""

    def look_up(self, name: str, assets_dir: Path) -> Download:
        return look_up(name, assets_dir)

    def introduction(self, values: Mapping[str, Any], assets_dir: Path) -> str:
        weights = _chosen(values, assets_dir)
        return f"{weights.name} draws {weights.draws}" if weights and weights.draws else ""

    def examples(self, values: Mapping[str, Any], assets_dir: Path) -> Sequence[Path]:
        weights = _chosen(values, assets_dir)
        return weights.examples() if weights else ()

    def texts(self, details: Mapping[str, Any], number: int) -> Mapping[str, str]:
        try:
            seed = (int(details["seed"]) + number) % SEEDS
            return {KEY: parameters_text({**details, **_as_planned(details), "seed": seed})}
        except (KeyError, TypeError, ValueError):  # details that are not of a whole run
            return {}

    def settings_in_picture(self, image: Image.Image, assets_dir: Path) -> ForeignSettings | None:
        text = parameters_in(image)
        # Cameras and phones leave comments, too; settings have keys.
        if text is None or not (KEY in image.info or read_parameters(text).pairs):
            return None
        return foreign_settings_of_parameters(text, self.settings, list(find_weights(assets_dir)))

    def prompt_parts(self, text: str) -> Sequence[PromptPart]:
        return prompt_parts(text)

    def prompt_text(self, parts: Sequence[PromptPart]) -> str:
        return prompt_text(parts)

    def length(self, text: str, values: Mapping[str, Any], assets_dir: Path) -> Length | None:
        with suppress(BadInput, ValueError, TypeError):
            steps, weights = int(values.get("num_steps") or 20), _chosen(values, assets_dir)
            named = inversions_in([without_networks(text)], assets_dir)
            return prompt_length(
                text,
                steps,
                weights.path / "tokenizer" if weights else None,
                {inversion.name: inversion.vectors for inversion in named},
                ModelLayers(weights).text_room if weights else ROOM,
            )
        return None

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


def _as_planned(details: Mapping[str, Any]) -> dict[str, Any]:
    """The number of steps that the schedule has, also of a run that was stopped."""
    planned = details.get("planned_num_steps")
    return {} if planned is None else {"num_steps": planned}


def _chosen(values: Mapping[str, Any], assets_dir: Path) -> Weights | None:
    """The chosen weights, if they are there and whole."""
    with suppress(BadInput):
        vae = str(values.get("vae") or OF_WEIGHTS)
        return get_weights(assets_dir, str(values.get("weights")), vae)
    return None
