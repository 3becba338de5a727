"""Whether a run fits into the device's memory: said before it starts, or when memory runs out."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from studio.base.machine import machine_memory
from studio.engines.device import (
    keep_freed_memory,
    lack_explained,
    release_freed_memory,
    total_memory,
)
from studio.engines.diffusion import estimate
from studio.engines.diffusion.settings import DiffusionSettings
from studio.engines.diffusion.weights import Weights


@dataclass(frozen=True)
class MemoryPlan:
    """The memory that a run will take by an estimate, and the memory that there is."""

    settings: DiffusionSettings
    weights: Weights
    dtype: torch.dtype
    device: torch.device

    @property
    def needed(self) -> float:
        """Bytes that the run takes at its peak, by the estimate."""
        half = self.dtype != torch.float32
        return estimate.memory_bytes(self.settings, self.weights, half)

    @property
    def there(self) -> float:
        """Bytes of memory that the device has."""
        return total_memory(self.device) or machine_memory()

    def keep_freed_memory(self) -> None:
        """Keep freed memory for small models; gaps in kept memory would double large ones'."""
        keep_freed_memory(self.device.type != "cpu" or self._is_small)

    def give_back(self) -> None:
        """Give back what large models have freed, before something else takes memory.

        What comes next, of other sizes, would not fit into the gaps.
        """
        if not self._is_small:
            release_freed_memory()

    @property
    def _is_small(self) -> bool:
        return not self.weights.is_large and self.needed <= self.there / 2

    @property
    def warnings(self) -> list[str]:
        """A sentence for the person if the run may be too large."""
        if self.needed <= self.there:
            return []
        return [
            f"{self._size} may be too large: it takes about {self.needed / 1e9:.1f} GB of memory,"
            f" and there are {self.there / 1e9:.1f} GB."
        ]

    def lack_explained(self) -> AbstractContextManager[None]:
        """If memory runs out inside, raise RunFailed, which says what to lower."""
        return lack_explained(
            lambda: (
                f"There is not enough memory for {self._size} with {self.weights.name}. Lower Xdim"
                " and ydim, set the precision to half, or choose smaller weights."
            )
        )

    @property
    def _size(self) -> str:
        return f"{self.settings.Xdim}x{self.settings.ydim}"
