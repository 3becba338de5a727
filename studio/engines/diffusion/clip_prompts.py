"""A prompt under CLIP guidance: in VQGAN-CLIP's grammar, `text:weight | text:weight`. No torch."""

from dataclasses import replace

from studio.engines.clip.prompts import Prompt, parse_prompts
from studio.engines.diffusion.prompt_grammar import parse_prompt


def clip_prompts(text_input: str) -> list[Prompt]:
    """The prompts that CLIP pulls to, each as plain words. Raises BadInput."""
    said = [replace(one, text=_plain(one.text)) for one in parse_prompts(text_input)]
    return [one for one in said if one.text]


def denoiser_prompt(text_input: str, clip_guidance: float) -> str:
    """What the denoiser reads, in its own grammar. Raises BadInput.

    Under CLIP guidance, it is the prompts that attract, one after the other.
    """
    if not clip_guidance:
        return text_input
    return ", ".join(one.text for one in parse_prompts(text_input) if one.weight > 0)


def _plain(text: str) -> str:
    """Without brackets, their weights and LoRAs: what stands there at the end."""
    sections = (s for one in parse_prompt(text).conditions for s in one.tree.at(1, 1))
    return " ".join("".join(piece.text for section in sections for piece in section).split())
