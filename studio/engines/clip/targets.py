"""What CLIP pulls the picture to: embeddings of text prompts and of image prompts."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from studio.base.errors import shortened
from studio.engines.arrays import to_tensor
from studio.engines.clip.cutouts import cut_out, whole_views
from studio.engines.clip.perceptor import Perceptor
from studio.engines.clip.prompts import Prompt, parse_avoided, parse_prompts


@dataclass(frozen=True)
class Target:
    """A unit embedding [1, D] that the picture is pulled to. name: "text", "image" or "noise"."""

    name: str
    embedding: Tensor
    weight: float
    stop: float


def text_targets(text_input: str, avoid: str, perceptor: Perceptor) -> Iterator[Target]:
    """A target for each prompt of a text, and for each that is to be avoided. Raises BadInput."""
    for prompt in _prompts(text_input, avoid):
        yield Target("text", perceptor.encode_text([prompt.text]), prompt.weight, prompt.stop)


def image_targets(
    images: Sequence[Image.Image], weights: Sequence[float], perceptor: Perceptor
) -> Iterator[Target]:
    """A target for each image prompt, which CLIP sees whole, centred in a square."""
    for image, weight in zip(images, weights, strict=True):
        picture = to_tensor(image).to(perceptor.mean.device)
        height, width = picture.shape[-2:]
        view = cut_out(picture, whole_views(width, height, 1), perceptor.input_resolution)
        yield Target("image", perceptor.encode_image(view), weight, -math.inf)


def _prompts(text_input: str, avoid: str) -> list[Prompt]:
    return [*parse_prompts(text_input), *parse_avoided(avoid)]


def warnings_of_length(
    text_input: str, avoid: str, perceptor: Perceptor, clip_model: str
) -> list[str]:
    """A sentence for each prompt whose end is beyond what this CLIP can read."""
    cut = ((prompt, perceptor.cut_off(prompt.text)) for prompt in _prompts(text_input, avoid))
    return [
        f"The prompt '{shortened(prompt.text)}' is longer than {shortened(clip_model)} can read;"
        f" left out: '{shortened(end)}'."
        for prompt, end in cut
        if end
    ]
