"""Real-ESRGAN's architectures in the way that is quick on a CPU.

On a CPU, NNPACK's Winograd convolutions (Lavin and Gray 2015, "Fast Algorithms for Convolutional
Neural Networks") take half the time of torch's own. bfloat16 is no quicker, and these networks turn
its errors into visible ones: they decide where an edge runs. The networks compute in bands of rows
that the processor's cache holds. Everything else is as in the modules of spandrel, against which
the tests hold it.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BAND = 8192  # pixels that go through all layers at once, as many as the processor's cache holds
LEAST_ROWS = 8  # of a band
ROWS = 32  # that a single convolution computes at once, to need little memory
TAIL_ROWS, TAIL_SIGHT = 32, 2  # of what goes through the end of an RRDBNet at once; seen beside it
WORTHWHILE = 16  # channels in and out, from which Winograd's convolutions save time
SLOPE = 0.2  # of an RRDBNet's leaky ReLUs
SHARE = 0.2  # of what a block of an RRDBNet adds to its input

Forward = Callable[[Tensor], Tensor]


def quick(module: nn.Module) -> Forward:
    """The network as a function of pictures [1, 3, H, W] in float32; other networks as they are."""
    if _is_compact(module):
        return Compact(module)
    if _is_plain_rrdb(module):
        return RRDB(module)
    return module


def _is_compact(module: Any) -> bool:
    return type(module).__name__ == "SRVGGNetCompact" and module.act_type == "prelu"


def _is_plain_rrdb(module: Any) -> bool:
    """Whether an RRDBNet is built as those of Real-ESRGAN at x4."""
    if type(module).__name__ != "RRDBNet" or module.shuffle_factor:
        return False
    kinds = [type(part).__name__ for part in module.model]
    wanted = ["Conv2d", "ShortcutBlock", *["Upsample", "Conv2d", "LeakyReLU"] * 2]
    blocks = [part for part in module.model[1].sub if hasattr(part, "RDB1")]
    fancy = any(getattr(block.RDB1, "conv1x1", None) is not None for block in blocks)
    return kinds == [*wanted, "Conv2d", "LeakyReLU", "Conv2d"] and not fancy


@cache
def winograd_works() -> bool:
    """Whether torch has NNPACK here, and it multiplies as torch's own convolution does."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 8, 21, 19, generator=generator), torch.randn(4, 8, 3, 3)
    try:
        if not torch.backends.nnpack.is_available():  # this also sets NNPACK up
            return False
        found = _by_nnpack(x, weight, torch.ones(4), 0)
    except (AttributeError, RuntimeError):
        return False
    wanted = F.conv2d(x, weight, torch.ones(4), padding=(0, 1))
    return torch.allclose(found, wanted, atol=1e-3)


def _by_nnpack(x: Tensor, weight: Tensor, bias: Tensor, rows: int) -> Tensor:
    convolve: Any = vars(torch)["_nnpack_spatial_convolution"]
    return convolve(x.contiguous(), weight, bias, [rows, 1], [1, 1])


class _Conv:
    """A 3x3 convolution, perhaps with a leaky ReLU after it."""

    def __init__(self, conv: Any, rectifies: bool = False) -> None:
        pays = min(conv.weight.shape[:2]) >= WORTHWHILE
        self.by_winograd = pays and conv.weight.device.type == "cpu" and winograd_works()
        self.weight, self.bias = conv.weight, conv.bias
        self.rectifies = rectifies

    def __call__(self, x: Tensor) -> Tensor:
        """The convolution of a picture with zeros around it, a band of rows at a time."""
        y = x.new_empty(1, len(self.weight), *x.shape[2:])
        padded = F.pad(x[:, :, :0], (0, 0, 1, 0))  # a row of zeros
        for top in range(0, x.shape[2], ROWS):
            above = x[:, :, top - 1 : top] if top else padded
            below = x[:, :, top + ROWS : top + ROWS + 1]
            rows = [above, x[:, :, top : top + ROWS], below if below.shape[2] else padded]
            y[:, :, top : top + ROWS] = self.inside(torch.cat(rows, 2))
        return y

    def inside(self, x: Tensor) -> Tensor:
        """The convolution for all rows but the first and the last."""
        if self.by_winograd:
            y = _by_nnpack(x, self.weight, self.bias, 0)
        else:
            y = F.conv2d(x, self.weight, self.bias, padding=(0, 1))
        return F.leaky_relu_(y, SLOPE) if self.rectifies else y


class Compact:
    """An SRVGGNetCompact that takes a picture through all its layers in bands of rows.

    Each layer keeps the last two rows that it saw for its next band, so no row is computed twice,
    and a picture is the same as if it went through as a whole.
    """

    def __init__(self, module: Any) -> None:
        convs = [part for part in module.body if isinstance(part, nn.Conv2d)]
        self.convs = [_Conv(conv) for conv in convs]
        self.slopes = [part.weight for part in module.body if isinstance(part, nn.PReLU)]
        self.scale = module.upscale

    def __call__(self, x: Tensor) -> Tensor:
        change = torch.cat([F.pixel_shuffle(band, self.scale) for band in self._bands(x)], 2)
        return change.add_(F.interpolate(x, scale_factor=self.scale, mode="nearest"))

    def _bands(self, x: Tensor) -> Iterator[Tensor]:
        """What the last convolution makes of [1, 3, H, W], a few rows at a time."""
        seen = [self._row_of_zeros(conv, x) for conv in self.convs]
        rows = max(LEAST_ROWS, BAND // x.shape[3])
        for top in range(0, x.shape[2], rows):
            is_last = top + rows >= x.shape[2]
            band: Tensor | None = x[:, :, top : top + rows]
            for number, conv in enumerate(self.convs):
                band = self._through(number, conv, band, seen, is_last)
                if band is None:
                    break
            if band is not None:
                yield band

    def _through(
        self, number: int, conv: _Conv, band: Tensor, seen: list[Tensor], is_last: bool
    ) -> Tensor | None:
        """A band through one layer; None while there are too few rows. seen: rows from before."""
        rows = [seen[number], band]
        if is_last:
            rows.append(self._row_of_zeros(conv, band))
        band = torch.cat(rows, 2)
        seen[number] = band[:, :, -2:].clone()
        if band.shape[2] < 3:
            return None
        y = conv.inside(band)
        if number == len(self.slopes):
            return y
        return F.prelu(y, self.slopes[number])

    def _row_of_zeros(self, conv: _Conv, like: Tensor) -> Tensor:
        return like.new_zeros(1, conv.weight.shape[1], 1, like.shape[3])


class RRDB:
    """An RRDBNet that enlarges four times."""

    def __init__(self, module: Any) -> None:
        first, shortcut, *rest = module.model
        *blocks, after = shortcut.sub
        self.first = _Conv(first)
        self.blocks = [[_dense(b) for b in (r.RDB1, r.RDB2, r.RDB3)] for r in blocks]
        self.after = _Conv(after)
        up, up_again, hr, last = (part for part in rest if isinstance(part, nn.Conv2d))
        self.ups = [_Conv(conv, rectifies=True) for conv in (up, up_again)]
        self.hr, self.last = _Conv(hr, rectifies=True), _Conv(last)

    def __call__(self, x: Tensor) -> Tensor:
        trunk = start = self.first(x)
        room = x.new_empty(1, self.blocks[0][0][-1].weight.shape[1], *x.shape[2:])
        for blocks in self.blocks:
            inner = trunk
            for convs in blocks:
                inner = torch.add(inner, _through_dense(convs, inner, room), alpha=SHARE)
            trunk = torch.add(trunk, inner, alpha=SHARE)
        seen = start + self.after(trunk)
        return torch.cat(list(self._enlarged(seen)), 2)

    def _enlarged(self, x: Tensor) -> Iterator[Tensor]:
        """The end of the network, in bands that see a little beyond their rows."""
        for top in range(0, x.shape[2], TAIL_ROWS):
            above = min(TAIL_SIGHT, top)
            y = x[:, :, top - above : top + TAIL_ROWS + TAIL_SIGHT]
            for up in self.ups:
                y = up(F.interpolate(y, scale_factor=2, mode="nearest"))
            yield self.last(self.hr(y))[:, :, 4 * above :][:, :, : 4 * TAIL_ROWS]


def _dense(block: Any) -> list[_Conv]:
    *growing, last = (block.conv1, block.conv2, block.conv3, block.conv4, block.conv5)
    return [*(_Conv(conv[0], rectifies=True) for conv in growing), _Conv(last[0])]


def _through_dense(convs: list[_Conv], x: Tensor, seen: Tensor) -> Tensor:
    """Each convolution sees the input and what all before it made. seen: room for all of these."""
    *growing, last = convs
    end = x.shape[1]
    seen[:, :end] = x
    for conv in growing:
        begin, end = end, end + len(conv.weight)
        seen[:, begin:end] = conv(seen[:, :begin])
    return last(seen)
