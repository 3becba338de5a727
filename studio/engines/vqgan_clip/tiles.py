"""A VQGAN's pictures of any size, in tiles that overlap, so that memory does not grow with them."""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.engines.fast.shared_norms import moments_of, shared_norms
from studio.engines.vqgan_clip.growth import TILE
from vqgan_utils import VQGAN, clamp_with_gradient, vector_quantize

OVERLAP = 64  # pixels, of two tiles side by side
# Pixels along a tile's border that count for nothing, as the tile knows no neighbours. They are no
# multiple of f, as a VQGAN's pictures have a grid of f pixels.
MARGIN = 20


class Span(NamedTuple):
    """Where a tile lies along one axis, in positions of the latent."""

    start: int
    stop: int


def spans(length: int, longest: int, overlap: int) -> list[Span]:
    """Spans that cover `length`, evenly spread: equally long, overlapping by `overlap` or more."""
    count = max(1, math.ceil((length - overlap) / (longest - overlap)))
    side = math.ceil((length + (count - 1) * overlap) / count)
    starts = (round(n * (length - side) / max(1, count - 1)) for n in range(count))
    return [Span(start, start + side) for start in starts]


def weights(cover: list[Span], unit: float) -> list[Tensor]:
    """How much each place of each span counts. They add up to 1 wherever spans overlap.

    unit: pixels that a place stands for. A weight rises from 0, MARGIN inside of a border that lies
    inside of the picture, to 1, MARGIN before the border of the neighbour.
    """
    first, last = cover[0].start, cover[-1].stop
    total = torch.zeros(last - first)
    found = []
    for span in cover:
        places = (torch.arange(span.stop - span.start) + 0.5) * unit
        weight = torch.ones_like(places)
        if span.start > first:
            weight = torch.minimum(weight, (places - MARGIN) / (OVERLAP - 2 * MARGIN))
        if span.stop < last:
            weight = torch.minimum(weight, (places.flip(0) - MARGIN) / (OVERLAP - 2 * MARGIN))
        found.append(weight.clamp(min=0))
        total[span.start - first : span.stop - first] += found[-1]
    return [w / total[s.start - first : s.stop - first] for w, s in zip(found, cover, strict=True)]


class Tile(NamedTuple):
    """A part of a latent [1, d, h, w] or picture [1, 3, H, W], and how much each pixel counts."""

    rows: slice
    columns: slice
    weight: Tensor  # [rows, columns]

    def of(self, whole: Tensor) -> Tensor:
        """The part, a view."""
        return whole[..., self.rows, self.columns]


class Canvas:
    """A VQGAN whose latents z [1, d, h, w] and pictures [1, 3, h f, w f] may be large.

    factor: f. in_tiles: whether to cut up what is larger than a tile. Tiles are blended. Their
    attention sees the tile alone; their group norms take the moments that a reduced picture of the
    whole had when it was encoded.
    """

    def __init__(self, vqgan: VQGAN, factor: int, in_tiles: bool) -> None:
        self.vqgan, self.factor, self.in_tiles = vqgan, factor, in_tiles
        self._moments: Tensor | None = None  # of the decoder's norms

    @property
    def codebook(self) -> Tensor:
        """The code vectors, [n, d]."""
        return self.vqgan.codebook

    def is_whole(self, z: Tensor) -> bool:
        """Whether a latent is one tile."""
        return len(self._spans(z.shape[-2])) * len(self._spans(z.shape[-1])) == 1

    def state(self) -> dict[str, Any]:
        """What decoding depends on, beside the latent; nothing where that is one tile."""
        return {} if self._moments is None else {"moments": self._moments}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` gave."""
        found = state.get("moments")
        device = self.codebook.device
        self._moments = None if found is None else torch.tensor(found, device=device)

    def decode(self, z: Tensor) -> Tensor:
        """The picture in [0, 1] of the codes nearest to z. No gradient goes through tiles."""
        if self.is_whole(z):
            return self._decode(z)
        height, width = (side * self.factor for side in z.shape[-2:])
        picture = torch.zeros(1, 3, height, width, device=z.device)
        with torch.no_grad(), shared_norms(self.vqgan.decoder, self._moments_for(z)):
            for part, shown in self._tiles(z):
                shown.of(picture).addcmul_(self._decode(part.of(z)), shown.weight)
        return picture

    def pull(
        self, z: Tensor, picture: Tensor, gradient: Tensor, losses: Iterable[Tensor] = ()
    ) -> None:
        """Add to z's gradient what a gradient at its picture means for it, and those of losses.

        picture: what `decode` gave. losses: on z itself. Tiles are decoded again, one at a time.
        """
        if self.is_whole(z):
            pulled = (picture * gradient).sum()  # its gradient at the picture is that gradient
            torch.autograd.backward(sum(losses, pulled))
            return
        torch.autograd.backward(sum(losses, (z * 0).sum()))
        assert z.grad is not None
        with shared_norms(self.vqgan.decoder, self._moments_for(z)):
            for part, shown in self._tiles(z):
                of_part = part.of(z).detach().clone().requires_grad_()
                wanted = shown.of(gradient) * shown.weight
                (self._decode(of_part) * wanted).sum().backward()
                assert of_part.grad is not None
                part.of(z.grad).add_(of_part.grad)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Pictures in [-1, 1] as latents before quantisation, in float32."""
        d, (height, width) = self.codebook.shape[1], x.shape[-2:]
        z = torch.zeros(1, d, height // self.factor, width // self.factor, device=x.device)
        if self.is_whole(z):
            self._moments = None
            return self._encode(x)
        reduced, of_encoder = moments_of(self.vqgan.encoder, lambda: self._encode(self._reduced(x)))
        with shared_norms(self.vqgan.encoder, of_encoder):
            for part, shown in self._tiles(z):
                part.of(z).addcmul_(self._encode(shown.of(x)), part.weight)
        _, self._moments = moments_of(self.vqgan.decoder, lambda: self._decode(reduced))
        return z

    def _moments_for(self, z: Tensor) -> Tensor:
        """Those of the picture that was encoded; where none was, those of the middle of z."""
        if self._moments is None:
            rows, columns = (_middle(self._spans(side)) for side in z.shape[-2:])
            middle = z.detach()[..., rows, columns]
            with torch.no_grad():
                _, found = moments_of(self.vqgan.decoder, lambda: self._decode(middle))
            self._moments = found
        return self._moments

    def _reduced(self, x: Tensor) -> Tensor:
        """A large picture as one tile."""
        scale = TILE / max(x.shape[-2:])
        height, width = (
            max(1, int(side * scale / self.factor)) * self.factor for side in x.shape[-2:]
        )
        return F.interpolate(x, (height, width), mode="bilinear", antialias=True)

    def _encode(self, x: Tensor) -> Tensor:
        return self.vqgan.encode(x).float()

    def _decode(self, z: Tensor) -> Tensor:
        decoded = self.vqgan.decode(vector_quantize(z, self.codebook))
        return clamp_with_gradient((decoded.float() + 1) / 2)

    def _spans(self, length: int) -> list[Span]:
        if not self.in_tiles:
            return [Span(0, length)]
        return spans(length, max(2, TILE // self.factor), max(1, OVERLAP // self.factor))

    def _tiles(self, z: Tensor) -> Iterator[tuple[Tile, Tile]]:
        """The tiles of a latent, each with its part of the picture."""
        down, across = (self._spans(side) for side in z.shape[-2:])
        of_latent, of_picture = (_tiles(down, across, n, self.factor) for n in (1, self.factor))
        yield from zip(of_latent, of_picture, strict=True)


def _middle(cover: list[Span]) -> slice:
    return slice(*cover[len(cover) // 2])


def _tiles(down: list[Span], across: list[Span], per_position: int, factor: int) -> Iterator[Tile]:
    """Tiles, row by row. per_position: how many places of them there are for one of the latent."""
    unit = factor / per_position
    ends = [[Span(*(per_position * end for end in span)) for span in way] for way in (down, across)]
    rows, columns = (zip(way, weights(way, unit), strict=True) for way in ends)
    for (row, tall), (column, wide) in product(rows, columns):
        yield Tile(slice(*row), slice(*column), tall[:, None] * wide)
