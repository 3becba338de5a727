"""Pixels through an upscaling network, tile by tile, in rows of tiles."""

from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from studio.media.tiles import Span, grid, spans
from studio.models.side_by_side import Pulse, nothing
from studio.models.upscaler_networks import Network, reduced

ROWS = 64  # of a picture that are given on at once


def bands(
    pixels: np.ndarray,
    network: Network,
    ratio: Fraction,
    after_tile: Callable[[], None] = nothing,
    pulse: Pulse = nothing,
) -> Iterator[np.ndarray]:
    """The picture [H, W, C] enlarged `ratio` times, as bands of whole rows from the top.

    pixels: as `planes` has them. after_tile is called after each tile, and pulse during it.
    """
    size = pixels.shape[1], pixels.shape[0]
    for down, across in grid(size, network.side, network.margin):
        height = int((down.core_end - down.core_start) * ratio)
        shape = height, int(size[0] * ratio), pixels.shape[2]
        band = np.empty(shape, pixels.dtype)
        for span in across:
            tile = np.asarray(pixels[down.start : down.end, span.start : span.end])
            made = enlarged(tile, network, ratio, pulse)
            where = slice(int(span.core_start * ratio), int(span.core_end * ratio))
            band[:, where] = made[_core(down, ratio), _core(span, ratio)]
            after_tile()
        for top in range(0, height, ROWS):
            pulse()  # whoever gets them may write them slowly
            yield band[top : top + ROWS]


def tile_count(size: tuple[int, int], network: Network) -> int:
    """How many tiles a picture (width, height) has."""
    across, down = (len(spans(side, network.side, network.margin)) for side in size)
    return across * down


def enlarged(
    pixels: np.ndarray, network: Network, ratio: Fraction, pulse: Pulse = nothing
) -> np.ndarray:
    """A picture [H, W, C], or a tile of one, `ratio` times as large."""
    channels = pixels.shape[2]
    planes = [_colours(pixels[..., : 3 if channels > 2 else 1], network, ratio, pulse)]
    if channels in (2, 4):
        planes.append(_alpha(pixels[..., -1:], network, ratio, pulse))
    return np.concatenate(planes, 2)


def _core(span: Span, ratio: Fraction) -> slice:
    start, end = (int((at - span.start) * ratio) for at in (span.core_start, span.core_end))
    return slice(start, end)


def _colours(pixels: np.ndarray, network: Network, ratio: Fraction, pulse: Pulse) -> np.ndarray:
    """RGB, or grey as an RGB of equal parts."""
    most = np.iinfo(pixels.dtype).max
    y = _through(pixels.astype(np.float32) / most, network, ratio, pulse)
    y = y if pixels.shape[2] == 3 else y.mean(1, keepdim=True)
    values = np.clip(y[0].permute(1, 2, 0).numpy(), 0, 1) * most
    return values.round().astype(pixels.dtype)


def _alpha(alpha: np.ndarray, network: Network, ratio: Fraction, pulse: Pulse) -> np.ndarray:
    """Transparency as a grey picture, within the values of its neighbours: solid stays solid."""
    low, high = (_nearby(alpha, pick) for pick in (np.minimum, np.maximum))
    size = int(alpha.shape[0] * ratio), int(alpha.shape[1] * ratio)
    rows, columns = (np.arange(n) * ratio.denominator // ratio.numerator for n in size)
    where = np.ix_(rows, columns)
    if (low == high).all():
        return low[where]
    return np.clip(_colours(alpha, network, ratio, pulse), low[where], high[where])


def _nearby(values: np.ndarray, pick: np.ufunc) -> np.ndarray:
    """The least or the most in the 3x3 pixels around each."""
    padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = pick(pick(padded[:-2], padded[1:-1]), padded[2:])
    return pick(pick(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _through(values: np.ndarray, network: Network, ratio: Fraction, pulse: Pulse) -> Tensor:
    x = torch.from_numpy(values).permute(2, 0, 1)[None].expand(-1, 3, -1, -1)
    return reduced(network.enlarge(x, pulse), ratio, network.scale)
