"""How clean pictures of things on a white ground are, in four numbers.

The ground is what a picture's sketch, the first frame of its run, leaves white from the border on.
A flat drawing with smooth edges has a ground, foreign colours and spots near 0, and a roughness
near 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]  # a picture [H, W, 3] with values in [0, 1], or a plane [H, W]
Mask = NDArray[np.bool_]

WHITE = 0.1  # the channels of a white pixel lie at most this far below 1
REACH = 3  # px from the middle of an edge to where its sides have their own colours
EDGE = 0.2  # the colours of both sides differ by this much at least
SMOOTH = 3.0  # px, the deviation of the Gaussian that smooths an outline
SPOT = 5  # px, the side of the median filter that wipes small spots away
SEEN = 0.12  # a mean difference of channels that catches the eye


@dataclass(frozen=True)
class Cleanness:
    """How dirty a picture is; NaN for what cannot be measured.

    ground: mean distance of the ground's channels from white.
    foreign: mean distance of the colours at edges from all mixtures of an edge's two sides.
    roughness: length of the shape's outline over that of the outline smoothed by 3 px.
    spots: share of the pixels that a small median filter changes visibly.
    """

    ground: float
    foreign: float
    roughness: float
    spots: float


def cleanness(picture: Array, sketch: Array | None = None) -> Cleanness:
    """Measure a picture [H, W, 3] in [0, 1].

    sketch: the first frame of its run, of that size; without one, the picture's own ground counts.
    """
    ground = ground_of(picture if sketch is None else sketch)
    off_white = 1 - picture[ground]
    median = ndimage.median_filter(picture, size=(SPOT, SPOT, 1), mode="nearest")
    return Cleanness(
        float(off_white.mean()) if off_white.size else float("nan"),
        foreign_colours(picture),
        roughness(picture),
        float((np.abs(picture - median).mean(axis=-1) > SEEN).mean()),
    )


def mean_cleanness(measured: Sequence[Cleanness]) -> Cleanness:
    """The mean of each number over the pictures that have it."""
    return Cleanness(*np.nanmean([astuple(one) for one in measured], axis=0).tolist())


def ground_of(picture: Array) -> Mask:
    """The white pixels that white links with the border: [H, W]."""
    white: Mask = (1 - picture).max(axis=-1) < WHITE
    labels = np.zeros(white.shape, np.int32)
    ndimage.label(white, output=labels)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.isin(labels, border[border > 0])


def foreign_colours(picture: Array) -> float:
    """Mean distance of the colours along edges from the line between the colours of both sides.

    An edge is where brightness changes fastest; its sides lie REACH px before and behind it.
    """
    smooth = _blurred(picture.mean(axis=-1), 1.0)
    slope: Array = np.stack([np.gradient(smooth, axis=axis) for axis in (0, 1)])
    steepness = np.linalg.norm(slope, axis=0)
    way = slope / np.maximum(steepness, 1e-6)
    low, high = _at(picture, -REACH * way), _at(picture, REACH * way)
    across = high - low
    is_peak = (steepness >= _at(steepness, way)) & (steepness >= _at(steepness, -way))
    edges = is_peak & (np.linalg.norm(across, axis=-1) > EDGE)
    if not edges.any():
        return float("nan")
    here, low, across = picture[edges], low[edges], across[edges]
    share = ((here - low) * across).sum(axis=-1) / np.square(across).sum(axis=-1)
    mixture = low + share.clip(0, 1)[:, None] * across
    return float(np.linalg.norm(here - mixture, axis=-1).mean())


def roughness(picture: Array) -> float:
    """The outline's length over that of the same shape smoothed; NaN where there is no shape.

    The outline lies halfway between white and what is furthest from white.
    """
    away = np.abs(1 - picture).mean(axis=-1)
    full = float(np.quantile(away, 0.98))
    if full < SEEN:
        return float("nan")
    shape = np.pad((away / full).clip(0, 1), int(3 * SMOOTH))  # outlines close at the border
    smooth = outline_length(_blurred(shape, SMOOTH))
    return outline_length(shape) / smooth if smooth else float("nan")


def outline_length(shape: Array) -> float:
    """The length in px of the lines where a plane [H, W] passes 0.5."""
    lines: Any = contour_generator(z=shape).lines(0.5)
    return float(sum(np.linalg.norm(np.diff(line, axis=0), axis=1).sum() for line in lines))


def _blurred(plane: Array, deviation: float) -> Array:
    blurred = np.empty_like(plane)
    ndimage.gaussian_filter(plane, deviation, output=blurred)
    return blurred


def _at(values: Array, offset: Array) -> Array:
    """Values [H, W] or [H, W, C] at each pixel's place plus an offset [2, H, W] in px."""
    if values.ndim == 3:
        return np.stack([_at(channel, offset) for channel in np.moveaxis(values, -1, 0)], axis=-1)
    place, found = np.indices(values.shape) + offset, np.empty_like(values)
    ndimage.map_coordinates(values, place, output=found, order=1, mode="nearest")
    return found
