"""What CLIP gets to see of a picture: cutouts, then augmentations, then noise."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

NOISE_FACTOR = 0.1


@dataclass(frozen=True)
class Windows:
    """Square windows on a picture, in pixels: side, left and top edge, each [N] whole numbers.

    A window may hang over the picture's edges; there it sees the edge's colours go on.
    """

    sides: Tensor
    lefts: Tensor
    tops: Tensor


def random_windows(
    width: int, height: int, count: int, smallest: int, cut_pow: float, whole: float
) -> Windows:
    """`count` windows, the share `whole` on the whole picture and the others at random places.

    A random side is `low + u^cut_pow (high - low)`, u uniform in [0, 1), high the picture's shorter
    side and low the smaller of that and `smallest`; the place is uniform among those inside.
    """
    whole_count = int(whole * count + 0.5)
    views, random = whole_views(width, height, whole_count), count - whole_count
    high = min(width, height)
    low = min(high, smallest)
    sides = (low + torch.rand(random) ** cut_pow * (high - low)).long()
    lefts = (torch.rand(random) * (width - sides + 1)).long()
    tops = (torch.rand(random) * (height - sides + 1)).long()
    return Windows(
        torch.cat([views.sides, sides]),
        torch.cat([views.lefts, lefts]),
        torch.cat([views.tops, tops]),
    )


def whole_views(width: int, height: int, count: int) -> Windows:
    """Windows that hold the whole picture, centred and undistorted."""
    side = max(width, height)
    return Windows(
        torch.full((count,), side),
        torch.full((count,), (width - side) // 2),
        torch.full((count,), (height - side) // 2),
    )


def cut_out(picture: Tensor, windows: Windows, side: int) -> Tensor:
    """The windows on a picture [1, C, H, W], each resized to [C, side, side]: [N, C, side, side].

    Resizing is bilinear with antialiasing, as Pillow's and torch's. It is linear and separable, so
    all windows at once are two matrix products: exact, and the same on every run.
    """
    channels, height, width = picture.shape[1:]
    across = resize_weights(windows.sides, windows.lefts, width, side).to(picture)
    down = resize_weights(windows.sides, windows.tops, height, side).to(picture)
    rows = picture.reshape(-1, width) @ across.flatten(0, 1).T  # [C H, N side]
    rows = rows.view(channels, height, -1, side).permute(2, 1, 0, 3).flatten(2)
    return torch.bmm(down, rows).view(-1, side, channels, side).transpose(1, 2)


def resize_weights(sides: Tensor, starts: Tensor, length: int, size: int) -> Tensor:
    """How much each of a picture's pixels counts in each pixel of a window: [N, size, length].

    A triangle as wide as two target pixels, cut off at the window and normalised; pixels beyond
    the picture's edges count for the edge.
    """
    over = max(0, int(-starts.min()), int((starts + sides).max()) - length)
    scale = (sides / size)[:, None, None]
    begin = starts[:, None, None]
    pixels = torch.arange(-over, length + over)
    centres = begin + (torch.arange(size)[:, None] + 0.5) * scale
    weights = (1 - (pixels + 0.5 - centres).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = weights * ((pixels >= begin) & (pixels < begin + sides[:, None, None]))
    return _fold_edges(weights / weights.sum(dim=-1, keepdim=True), over)


def _fold_edges(weights: Tensor, over: int) -> Tensor:
    if not over:
        return weights
    inside = weights[..., over:-over].clone()
    inside[..., 0] += weights[..., :over].sum(dim=-1)
    inside[..., -1] += weights[..., -over:].sum(dim=-1)
    return inside


def augmentations() -> nn.Module:
    """Flip, blur, turn and shift, skew and recolour cutouts [N, 3, S, S] in [0, 1]."""
    import kornia.augmentation as K  # slow to import, and not always wanted

    return nn.Sequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomSharpness(0.3, p=0.4),
        K.RandomAffine(degrees=30, translate=(0.1, 0.1), p=0.8, padding_mode="border"),
        K.RandomPerspective(0.2, p=0.4),
        K.ColorJitter(hue=0.01, saturation=0.01, p=0.7),
    )


def add_noise(cutouts: Tensor) -> Tensor:
    """Gaussian noise, up to NOISE_FACTOR strong, of another strength in each cutout.

    It is drawn where the cutouts are, by a generator that the CPU's random numbers seed.
    """
    seed = int(torch.randint(2**32, ()))
    generator = torch.Generator(cutouts.device).manual_seed(seed)
    strength = torch.rand(len(cutouts), 1, 1, 1, device=cutouts.device, generator=generator)
    noise = torch.randn(cutouts.shape, device=cutouts.device, generator=generator)
    return cutouts + NOISE_FACTOR * strength * noise
