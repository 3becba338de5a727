"""Random directions that the picture is pulled to."""

import math
from collections.abc import Iterator, Sequence

from studio.engines.clip.perceptor import Perceptor
from studio.engines.clip.targets import Target
from studio.engines.vqgan_clip.noise import embedding
from studio.engines.vqgan_clip.noise_prompts import parse_noise_prompts


def noise_targets(noise_prompts: Sequence[str], perceptor: Perceptor) -> Iterator[Target]:
    """A random target for each noise prompt. Raises BadInput."""
    for prompt in parse_noise_prompts(noise_prompts):
        found = embedding(prompt.seed, perceptor.embed_dim).to(perceptor.mean.device)
        yield Target("noise", found, prompt.weight, -math.inf)
