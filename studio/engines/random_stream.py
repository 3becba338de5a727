"""Random numbers of one run, whatever else its process draws."""

from hashlib import blake2b

import torch
from torch import Tensor

SEED_BITS = 32  # that the CPU's generator looks at


class RandomStream:
    """Random numbers of one run: within `with stream:` torch draws from it, and only there.

    The stream is the CPU's generator, so `state` is all there is to keep. Noise that is drawn on
    the device has to be seeded from numbers of this stream.
    seed: any whole number in [0, 2^64).
    """

    def __init__(self, seed: int) -> None:
        self.state = torch.Generator().manual_seed(_fold(seed)).get_state()

    def __enter__(self) -> None:
        self._outside = torch.get_rng_state()
        torch.set_rng_state(self.state)

    def __exit__(self, *error: object) -> None:
        self.state = torch.get_rng_state()
        torch.set_rng_state(self._outside)


def checked_random_state(state: object) -> Tensor:
    """The state of a stream from a checkpoint; fails in torch's ways where it is not one."""
    numbers = torch.tensor(state, dtype=torch.uint8)
    return torch.Generator().set_state(numbers).get_state()


def _fold(seed: int) -> int:
    """SEED_BITS of a seed: a small seed as it is, a hash of a large one."""
    if seed < 2**SEED_BITS:
        return seed
    digest = blake2b(seed.to_bytes(8, "little"), digest_size=SEED_BITS // 8).digest()
    return int.from_bytes(digest, "little")
