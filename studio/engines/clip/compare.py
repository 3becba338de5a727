"""How far a picture is from the targets, as CLIP sees it by cutouts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from studio.engines.clip.cutouts import (
    Augmentations,
    cut_out,
    random_augmentations,
    random_windows,
    recolour,
    warp,
)
from studio.engines.clip.perceptor import Perceptor, prompt_loss
from studio.engines.clip.targets import Target
from studio.engines.clip.work import CUTOUTS_AT_A_TIME


class CutoutSettings(Protocol):
    """How many cutouts CLIP looks at, where, and whether they are augmented."""

    @property
    def cutn(self) -> int: ...
    @property
    def cut_pow(self) -> float: ...
    @property
    def whole_views(self) -> float: ...
    @property
    def use_cutout_augmentations(self) -> bool: ...


class OtherViews(Protocol):
    """Another way to cut out and augment than the usual one."""

    def draw(self, height: int, width: int) -> Any:
        """What is random, for a picture of that size."""

    def cutouts(self, picture: Tensor, rows: slice, drawn: Any, seed: int) -> Tensor:
        """Those rows of all cutouts of a picture [1, 3, H, W]: [n, 3, side, side]."""
        ...


@dataclass(frozen=True)
class Comparison:
    """Compares pictures with targets.

    smallest: a cutout's side in shares of the picture's shorter side, where that is more pixels
    than CLIP sees. views: how to cut out, if not in the usual way.
    """

    perceptor: Perceptor
    targets: Sequence[Target]
    settings: CutoutSettings
    smallest: float = 0.0
    views: OtherViews | None = None

    def cutouts_at_a_time(self) -> int:
        """How many of all cutouts CLIP looks at together, if there is enough memory."""
        of_its_size = CUTOUTS_AT_A_TIME * (224 / self.perceptor.input_resolution) ** 2
        return max(1, min(round(of_its_size), self.settings.cutn))

    def differentiate(self, picture: Tensor, at_a_time: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The gradient at a picture [1, 3, H, W] of how far it is from the targets, and how far.

        CLIP looks at `at_a_time` cutouts, and gradients gather at the picture, so that memory does
        not grow with the number of cutouts. Which windows and augmentations there are does not
        depend on `at_a_time`; the noise and kornia's augmentations do.
        """
        picture = picture.detach().requires_grad_()
        count = self.settings.cutn
        windows, augmentations, seed = self._draw(*picture.shape[-2:])
        losses: dict[str, Tensor] = {}
        for start in range(0, count, at_a_time):
            rows = slice(start, min(start + at_a_time, count))
            cutouts = self._cutouts(picture, rows, windows, augmentations, seed)
            images = self.perceptor.encode_image(cutouts)
            found = distances(images, self.targets, share=len(images) / count)
            torch.stack(list(found.values())).sum().backward()
            for name, loss in found.items():
                losses[name] = losses.get(name, 0) + loss.detach()
        assert picture.grad is not None  # every cutout has added to it
        return picture.grad, losses

    def _draw(self, height: int, width: int) -> tuple[Any, Augmentations | None, int]:
        """Random windows on a picture of that size, their augmentations, and the noise's seed."""
        if self.views:
            return self.views.draw(height, width), None, int(torch.randint(2**31, ()))
        s, side = self.settings, self.perceptor.input_resolution
        smallest = max(side, int(self.smallest * min(height, width)))
        windows = random_windows(width, height, s.cutn, smallest, s.cut_pow, s.whole_views)
        augmentations = random_augmentations(s.cutn, side) if s.use_cutout_augmentations else None
        return windows, augmentations, int(torch.randint(2**31, ()))

    def _cutouts(
        self,
        picture: Tensor,
        rows: slice,
        windows: Any,
        augmentations: Augmentations | None,
        seed: int,
    ) -> Tensor:
        """What CLIP gets of these rows: cutouts, then augmentations, then noise."""
        if self.views:
            return self.views.cutouts(picture, rows, windows, seed)
        side, device = self.perceptor.input_resolution, picture.device
        picture, windows = picture.to(self.perceptor.dtype), windows.part(rows, device)
        if augmentations is None:
            return cut_out(picture, windows, side).float()
        change = augmentations.part(rows, device)
        cutouts = cut_out(picture, windows, side, change.softening).float()
        cutouts = warp(cutouts, change.source, change.frame)
        return recolour(cutouts, change.colour, change.noise, seed + rows.start)


def distances(images: Tensor, targets: Sequence[Target], share: float) -> dict[str, Tensor]:
    """What embeddings [N, D] of cutouts, which are a `share` of all, add to the targets' losses."""
    losses: dict[str, Tensor] = {}
    for target in targets:
        loss = share * prompt_loss(images, target.embedding, target.weight, target.stop)
        losses[target.name] = losses.get(target.name, 0) + loss
    return losses
