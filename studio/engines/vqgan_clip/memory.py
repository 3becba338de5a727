"""Whether a run fits into the device's memory: said before it starts, or when memory runs out."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from studio.base.machine import machine_memory
from studio.engines.device import (
    describe,
    keep_freed_memory,
    lack_explained,
    total_memory,
)
from studio.engines.vqgan_clip import estimate
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings

ROOMIER = (0.7, 0.4)  # the sizes that are proposed take these shares of what was too much


@dataclass(frozen=True)
class MemoryPlan:
    """The memory that a run will take by an estimate, and the memory that there is."""

    settings: VQGANCLIPSettings
    assets_dir: Path
    device: torch.device

    def keep_freed_memory(self) -> None:
        """Keep freed memory if a run of ordinary size needs at most half of all.

        Pictures stay the same.
        """
        on_cpu = self.device.type == "cpu"
        is_large = estimate.is_large(estimate.worked_on(self.settings.model_dump()))
        roomy = self.needed <= self.there / 2 and not is_large
        keep_freed_memory(not on_cpu or roomy)

    @property
    def warnings(self) -> list[str]:
        """A sentence for the person if the run may be too large."""
        warning = estimate.too_large(*self._basis, self.there)
        return [f"{self._size} may be too large. {warning}"] if warning else []

    def lack_explained(self) -> AbstractContextManager[None]:
        """If memory runs out inside, raise RunFailed, which says what to lower."""
        return lack_explained(
            lambda: (
                f"There is not enough memory for {self._size} with {self.settings.cutn} cutouts."
                " Lower Xdim and ydim or the number of cutouts, or choose smaller weights."
                f"{self._sizes_that_fit()}"
            )
        )

    @property
    def needed(self) -> float:
        """Bytes that the run takes at its peak, by the estimate."""
        return estimate.memory_bytes(*self._basis)

    @property
    def there(self) -> float:
        """Bytes of memory that the device has."""
        return total_memory(self.device) or machine_memory()

    @property
    def _basis(self) -> tuple[dict[str, Any], dict[str, int], str]:
        """What `estimate` goes by: settings, the decoders' widths, the device in words."""
        widths = estimate.decoder_widths(self.assets_dir)
        return self.settings.model_dump(), widths, describe(self.device)

    @property
    def _size(self) -> str:
        return f"{self.settings.Xdim}x{self.settings.ydim}"

    def _sizes_that_fit(self) -> str:
        """Some that take clearly less memory than this run, for which the device had too little."""
        most = min(self.needed, self.there)
        sizes = [estimate.size_that_fits(*self._basis, share * most) for share in ROOMIER]
        named = " or ".join(f"{size[0]}x{size[1]}" for size in sizes if size)
        return f" By an estimate, {named} would fit." if named else ""
