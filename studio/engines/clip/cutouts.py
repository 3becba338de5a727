"""What CLIP sees of a picture: cutouts, then augmentations, then noise."""

import math
from dataclasses import dataclass, fields
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

NOISE_FACTOR = 0.1


@dataclass(frozen=True)
class _Batch:
    """Tensors that each have a row for every cutout."""

    def part(self, rows: slice, device: torch.device) -> Self:
        """Some of the rows, on the device."""
        return type(self)(*(getattr(self, f.name)[rows].to(device) for f in fields(self)))


@dataclass(frozen=True)
class Windows(_Batch):
    """Square windows on a picture, in pixels: side, left and top edge, each [N] whole numbers.

    A window may reach beyond the picture, where the colours of its edge continue.
    """

    sides: Tensor
    lefts: Tensor
    tops: Tensor


def random_windows(
    width: int, height: int, count: int, smallest: int, cut_pow: float, whole: float
) -> Windows:
    """`count` windows: the share `whole` on the whole picture, the others at random places.

    A random side is `low + u^cut_pow (high - low)`, u uniform in [0, 1), high the picture's shorter
    side, and low the smaller of high and `smallest`. The place is uniform among those inside.
    """
    whole_count = int(whole * count + 0.5)
    views, random = whole_views(width, height, whole_count), count - whole_count
    high = min(width, height)
    low = min(high, smallest)
    for_sides, for_lefts, for_tops = spread(3, random)
    sides = (low + for_sides**cut_pow * (high - low)).long()
    lefts = (for_lefts * (width - sides + 1)).long()
    tops = (for_tops * (height - sides + 1)).long()
    return Windows(
        torch.cat([views.sides, sides]),
        torch.cat([views.lefts, lefts]),
        torch.cat([views.tops, tops]),
    )


def spread(rows: int, count: int) -> Tensor:
    """Numbers in [0, 1), [rows, count]: a row has one in each of `count` equal parts, in any order.

    Each number is uniform, as with `torch.rand`. But together the numbers of a row cover the range
    evenly, so fewer are enough (McKay et al. 1979, "Latin hypercube sampling").
    """
    order = torch.rand(rows, count).argsort(dim=1)
    numbers = (order + torch.rand(rows, count)) / max(count, 1)
    return numbers.clamp(max=1 - 2**-24)  # the sum may round up


def whole_views(width: int, height: int, count: int) -> Windows:
    """Windows that hold the whole picture, centred and undistorted."""
    side = max(width, height)
    return Windows(
        torch.full((count,), side),
        torch.full((count,), (width - side) // 2),
        torch.full((count,), (height - side) // 2),
    )


def cut_out(
    picture: Tensor, windows: Windows, side: int, softening: Tensor | None = None
) -> Tensor:
    """The windows on a picture [1, C, H, W], each resized to [C, side, side]: [N, C, side, side].

    Resizing is bilinear with antialiasing, as in Pillow and torch. It is linear and separable, so
    two matrix products resize all windows at once: exactly, and the same on every run.
    softening: see `soften`.
    """
    height, width = picture.shape[-2:]
    across, down = (
        soften(resize_weights(windows.sides, starts, length, side), softening).to(picture.dtype)
        for starts, length in ((windows.lefts, width), (windows.tops, height))
    )
    return apply_weights(picture, across, down)


def apply_weights(picture: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """A picture [1, C, H, W] resized by weights [N, S, W] and [N, S, H]: [N, C, S, S]."""
    channels, side, width = picture.shape[1], across.shape[1], across.shape[2]
    rows = down.flatten(0, 1) @ picture[0].transpose(0, 1).flatten(1)  # [N side, C W]
    views = rows.view(-1, side * channels, width) @ across.transpose(1, 2)
    return views.view(-1, side, channels, side).transpose(1, 2)


def resize_weights(sides: Tensor, starts: Tensor, length: int, size: int) -> Tensor:
    """The weight of each pixel of a picture in each pixel of a window: [N, size, length].

    A triangle as wide as two target pixels, cut off at the window and normalised. The weights of
    pixels beyond the picture go to its edge.
    """
    over = max(0, int(-starts.min()), int((starts + sides).max()) - length)
    scale = (sides / size)[:, None, None]
    pixels = torch.arange(-over, length + over, device=sides.device)
    offsets = pixels - starts[:, None, None]
    beyond = (offsets < 0) | (offsets >= sides[:, None, None])
    reach = scale.clamp(min=1)  # of a triangle, in pixels; the unit of all that follows
    places = ((offsets + 0.5) / reach).masked_fill(beyond, math.inf)
    centres = (torch.arange(size, device=sides.device)[:, None] + 0.5) * scale / reach
    weights = 1 - (places - centres).abs_().clamp_(max=1)
    return _fold_edges(weights.div_(weights.sum(dim=-1, keepdim=True)), over)


def _fold_edges(weights: Tensor, over: int) -> Tensor:
    if not over:
        return weights
    inside = weights[..., over:-over].clone()
    inside[..., 0] += weights[..., :over].sum(dim=-1)
    inside[..., -1] += weights[..., -over:].sum(dim=-1)
    return inside


def soften(weights: Tensor, softening: Tensor | None) -> Tensor:
    """Mix each target pixel of resize weights [N, size, length], in place, with the two beside it.

    softening: [N], the share of each of the two; None leaves the weights as they are.
    """
    if softening is None:
        return weights
    moved = weights.diff(dim=1).mul_(softening[:, None, None])  # from each pixel to the next
    weights[:, :-1].add_(moved)
    weights[:, 1:].sub_(moved)
    return weights


@dataclass(frozen=True)
class Augmentations(_Batch):
    """What happens to each of N cutouts. See `random_augmentations`.

    softening: [N], for `cut_out`. source: [N, 3, 3], from a place in the result to the place that
    its colour comes from. frame: [N, 3, 3], from a place in the result to its place before the
    perspective. Places are homogeneous, with -1 and 1 at the edges. colour: [N, 3, 3], by which
    red, green and blue are multiplied. noise: [N], standard deviations.
    """

    softening: Tensor
    source: Tensor
    frame: Tensor
    colour: Tensor
    noise: Tensor


def random_augmentations(count: int, side: int) -> Augmentations:
    """Random flips, softening, turns, shifts, perspectives, colours and noise, for `side` pixels.

    Chances and strengths have the distributions of kornia's RandomHorizontalFlip(p=0.5),
    RandomSharpness(0.3, p=0.4), RandomAffine(30, (0.1, 0.1), p=0.8), RandomPerspective(0.2, p=0.4)
    and ColorJitter(hue=0.01, saturation=0.01, p=0.7). Where we differ: one resampling makes all
    three moves; the softening kernel is separable, with the same profile along each axis; hue and
    saturation turn and scale colours about the grey axis.
    """
    for_frame, for_moves, for_colour, others = spread(20, count).split([9, 4, 3, 4])
    frame = _perspectives(for_frame, side, chance=0.4, distortion=0.2)
    moves = _turns_and_shifts(for_moves, chance=0.8, degrees=30, shift=0.1)
    colour = _colours(for_colour, chance=0.7, most=0.01)
    flipped, softened, kept_sharp, noisy = others
    flips = torch.eye(3).repeat(count, 1, 1)
    flips[:, 0, 0] = torch.where(flipped < 0.5, -1.0, 1.0)
    softening = (softened < 0.4) * (1 - 0.3 * kept_sharp) * 3 / 13
    return Augmentations(softening, flips @ moves @ frame, frame, colour, NOISE_FACTOR * noisy)


def _turns_and_shifts(drawn: Tensor, chance: float, degrees: float, shift: float) -> Tensor:
    """Matrices [N, 3, 3] back from turns and shifts (a share of the side) about the centre.

    drawn: [4, N], by `spread`.
    """
    angles, x, y = (2 * drawn[1:] - 1) * (drawn[0] < chance)
    angles, x, y = angles * math.radians(degrees), x * 2 * shift, y * 2 * shift
    cos, sin, one, zero = angles.cos(), angles.sin(), torch.ones_like(x), torch.zeros_like(x)
    back = torch.stack([cos, sin, zero, -sin, cos, zero, zero, zero, one], dim=1)
    shifts = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], dim=1)
    return back.view(-1, 3, 3) @ shifts.view(-1, 3, 3)


def _perspectives(drawn: Tensor, side: int, chance: float, distortion: float) -> Tensor:
    """Matrices [N, 3, 3] back from perspectives that pull each corner inwards.

    drawn: [9, N], by `spread`.
    """
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]) * (side - 1) / side
    pulls = (drawn[1:] * (drawn[0] < chance)).T.unflatten(1, (4, 2))
    pulled = corners - corners.sign() * distortion * pulls
    return _homography(pulled, corners.expand_as(pulled))


def _homography(places: Tensor, images: Tensor) -> Tensor:
    """The projective maps [N, 3, 3] that send four places [N, 4, 2] each to four others."""
    (x, y), (u, v) = places.unbind(-1), images.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    for_u = torch.stack([x, y, one, zero, zero, zero, -x * u, -y * u], dim=-1)
    for_v = torch.stack([zero, zero, zero, x, y, one, -x * v, -y * v], dim=-1)
    solved = torch.linalg.solve(torch.cat([for_u, for_v], dim=1), torch.cat([u, v], dim=1))
    return F.pad(solved, (0, 1), value=1.0).view(-1, 3, 3)


def _colours(drawn: Tensor, chance: float, most: float) -> Tensor:
    """Matrices [N, 3, 3] of random colour changes.

    They turn hues by up to the share `most` of a circle, and scale saturation by up to as much.
    drawn: [3, N], by `spread`.
    """
    hue, saturation = (2 * drawn[1:] - 1) * (drawn[0] < chance) * most
    angles, factors = (hue * 2 * math.pi)[:, None, None], (1 + saturation)[:, None, None]
    grey = torch.full((3, 3), 1 / 3)
    turn = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return grey + factors * (angles.cos() * (torch.eye(3) - grey) + angles.sin() * turn)


def warp(cutouts: Tensor, source: Tensor, frame: Tensor) -> Tensor:
    """Cutouts [N, C, S, S] moved as `Augmentations` say, by one bilinear sampling.

    Beyond a cutout, the colours of its edges continue; beyond the frame, it is black.
    """
    side = cutouts.shape[-1]
    moved = _sample(cutouts, _project(source, side))
    within = cutouts.new_ones(len(cutouts), side, side)
    bent = (frame != torch.eye(3, device=frame.device)).any(dim=2).any(dim=1)
    edges = (1 - _project(frame[bent], side).abs()) * side / 2 + 0.5
    within[bent] = edges.clamp(0, 1).prod(dim=-1)
    return moved.mul_(within[:, None])


def _sample(pictures: Tensor, places: Tensor) -> Tensor:
    """Bilinear samples of [N, C, S, S] at places [N, S, S, 2]; the edges' colours continue.

    On a GPU, the gradient of torch's own kernel adds up in any order. Where the same bytes are
    wanted there, four lookups replace it.
    """
    if pictures.device.type == "cpu" or not torch.are_deterministic_algorithms_enabled():
        return F.grid_sample(pictures, places, padding_mode="border", align_corners=False)
    return sample_by_lookup(pictures, places)


def sample_by_lookup(pictures: Tensor, places: Tensor) -> Tensor:
    """As `F.grid_sample` with padding_mode "border" and without align_corners, but repeatable."""
    _, channels, side, _ = pictures.shape
    x, y = (((places + 1) * side - 1) / 2).clamp(0, side - 1).flatten(1, 2).unbind(-1)
    left, top = x.floor().clamp(max=side - 2), y.floor().clamp(max=side - 2)
    across, down = (x - left)[:, None], (y - top)[:, None]
    first = (top * side + left).long()[:, None].expand(-1, channels, -1)
    colours = pictures.flatten(2)
    upper, lower = (
        torch.lerp(colours.gather(2, first + row), colours.gather(2, first + row + 1), across)
        for row in (0, side)
    )
    return torch.lerp(upper, lower, down).view_as(pictures)


def _project(maps: Tensor, side: int) -> Tensor:
    """The places that maps [N, 3, 3] send side x side pixels' centres to: [N, side, side, 2]."""
    centres = (torch.arange(side, device=maps.device) * 2 + 1) / side - 1
    from_x = maps[:, :, :1] * centres  # [N, 3, side]
    from_y = maps[:, :, 1:2] * centres + maps[:, :, 2:]
    places = from_y[..., None] + from_x[:, :, None]
    return places[:, :2].div_(places[:, 2:]).permute(0, 2, 3, 1)


def recolour(cutouts: Tensor, colour: Tensor, noise: Tensor, seed: int) -> Tensor:
    """Cutouts [N, 3, S, S] times colour [N, 3, 3], with Gaussian noise of deviations `noise` [N].

    A generator of that seed draws the noise on the cutouts' device, for a quarter of the cutouts. A
    second quarter gets the same noise, turned by 180 degrees. The other half gets the noise of the
    first half with the opposite sign (antithetic), so the noise pulls less in any direction.
    """
    generator = torch.Generator(cutouts.device).manual_seed(seed)
    colours = cutouts.flatten(2)  # [N, 3, S S]
    quarter = (-(-len(colours) // 4), *colours.shape[1:])
    drawn = torch.randn(quarter, device=cutouts.device, generator=generator)
    half = torch.cat([drawn, drawn.flip(2)])[: -(-len(colours) // 2)]
    added = torch.cat([half, -half])[: len(colours)] * noise[:, None, None]
    return torch.baddbmm(added, colour, colours).view_as(cutouts)
