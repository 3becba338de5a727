"""Noise prompts, `SEED:WEIGHT`: random directions that the picture is pulled to. No torch."""

from collections.abc import Iterable
from dataclasses import dataclass

from studio.base.errors import BadInput, shortened
from studio.settings.common import MAX_SEED
from studio.settings.weighted import check_weight, is_number

MOST = 100
LIKE = "Write it as SEED:WEIGHT, such as 123:0.1."


@dataclass(frozen=True)
class NoisePrompt:
    """seed: of the random embedding, a whole number in [0, 2^64). weight: a negative one repels."""

    seed: int
    weight: float


def split_noise_prompts(texts: str | Iterable[str]) -> list[str]:
    """The texts of single prompts; each of `texts` may hold several, with `|` between them."""
    texts = [texts] if isinstance(texts, str) else texts
    return [part.strip() for text in texts for part in text.split("|") if part.strip()]


def parse_noise_prompts(texts: str | Iterable[str]) -> list[NoisePrompt]:
    """The prompts of such texts. Without a weight, it is 1. Raises BadInput."""
    found = [_parse_one(part) for part in split_noise_prompts(texts)]
    if len(found) > MOST:
        raise BadInput(f"There are {len(found)} noise prompts. Give at most {MOST}.")
    return found


def _parse_one(part: str) -> NoisePrompt:
    seed, colon, weight = (word.strip() for word in part.partition(":"))
    if not (seed.isascii() and seed.isdecimal() and len(seed) <= 20 and int(seed) <= MAX_SEED):
        raise BadInput(
            f"'{shortened(part, 40)}' has no seed, a whole number from 0 to {MAX_SEED}. {LIKE}"
        )
    if colon and not is_number(weight):
        raise BadInput(f"'{shortened(part, 40)}' has no weight after the seed. {LIKE}")
    prompt = NoisePrompt(int(seed), float(weight) if colon else 1.0)
    check_weight(prompt.weight, f"The noise prompt '{shortened(part)}'")
    return prompt
