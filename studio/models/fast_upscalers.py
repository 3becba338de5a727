"""Real-ESRGAN's architectures in the way that is quick on a CPU.

On a CPU, NNPACK's Winograd convolutions (Lavin and Gray 2015, "Fast Algorithms for Convolutional
Neural Networks") take half the time of torch's own. bfloat16 is no quicker, and these networks turn
its errors into visible ones: they decide where an edge runs. The networks compute in bands of rows
that the processor's cache holds. Everything else is as in the modules of spandrel, against which
the tests hold it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio.models.side_by_side import CarryOut, Piece, Pulse, nothing, side_by_side

BAND = 4608  # pixels that go through a layer at once, as many as the processor's cache holds
WINOGRAD = 6  # rows that NNPACK makes at once
TAIL_ROWS, TAIL_SIGHT = 30, 2  # of what goes through the end of an RRDBNet at once; seen beside it
WORTHWHILE = 16  # channels in and out, from which Winograd's convolutions save time
SLOPE = 0.2  # of an RRDBNet's leaky ReLUs
SHARE = 0.2  # of what a block of an RRDBNet adds to its input

Forward = Callable[[Tensor, Pulse], Tensor]
Edge = Future[Tensor]  # the last rows that a layer saw of a band


def quick(module: nn.Module) -> Forward | None:
    """The network as a function of pictures [1, 3, H, W] in float32; None for other networks."""
    if _is_compact(module):
        return Compact.of(module)
    if _is_plain_rrdb(module):
        return RRDB(module)
    return None


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
    """Whether torch has NNPACK here, and it multiplies as torch's own convolution does.

    NNPACK makes its threads at its first use, as many as torch then has, and lets one call at a
    time use them. With one thread, calls of several of ours go on at once.
    """
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _multiplies_well()
    finally:
        torch.set_num_threads(count)


def _multiplies_well() -> bool:
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(1, 8, 21, 19, generator=generator),
        torch.randn(4, 8, 3, 3, generator=generator),
    )
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

    def __init__(self, weight: Tensor, bias: Tensor, rectifies: bool = False) -> None:
        pays = min(weight.shape[:2]) >= WORTHWHILE
        self.by_winograd = pays and weight.device.type == "cpu" and winograd_works()
        self.weight, self.bias, self.rectifies = weight, bias, rectifies

    @classmethod
    def of(cls, module: Any, rectifies: bool = False) -> "_Conv":
        return cls(module.weight, module.bias, rectifies)

    def whole(
        self, x: Tensor, carry_out: CarryOut, out: Tensor | None = None, onto: Tensor | None = None
    ) -> Tensor:
        """The convolution of a picture with zeros around it, a band of rows at a time.

        out: where it is written. onto: what a share of it is added to.
        """
        y = x.new_empty(1, len(self.weight), *x.shape[2:]) if out is None else out
        tops = range(0, x.shape[2], band_rows(x.shape[3]))
        carry_out(partial(self._band, x, slice(top, top + tops.step), y, onto) for top in tops)
        return y

    def _band(self, x: Tensor, rows: slice, y: Tensor, onto: Tensor | None) -> None:
        zeros = F.pad(x[:, :, :0], (0, 0, 1, 0))  # a row of them
        above = x[:, :, rows.start - 1 : rows.start] if rows.start else zeros
        below = x[:, :, rows.stop : rows.stop + 1]
        seen = [above, x[:, :, rows], below if below.shape[2] else zeros]
        made = self.inside(torch.cat(seen, 2))
        if onto is None:
            y[:, :, rows] = made
        else:
            torch.add(onto[:, :, rows], made, alpha=SHARE, out=y[:, :, rows])

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
    and a picture is the same as if it went through as a whole. A band may follow the one above it a
    layer behind, in another thread.
    """

    def __init__(self, convs: Iterable[Sequence[Any]], slopes: Sequence[Tensor]) -> None:
        """convs: weights and biases. slopes: of the PReLUs after all convolutions but the last."""
        self.convs, self.slopes = [_Conv(*conv) for conv in convs], slopes
        self.scale = math.isqrt(len(self.convs[-1].weight) // 3)

    @classmethod
    def of(cls, module: Any) -> "Compact":
        """That of spandrel."""
        convs = [part for part in module.body if isinstance(part, nn.Conv2d)]
        slopes = [part.weight for part in module.body if isinstance(part, nn.PReLU)]
        return cls([(conv.weight, conv.bias) for conv in convs], slopes)

    @property
    def sight(self) -> int:
        """How many pixels away something makes a difference."""
        return len(self.convs)

    def __call__(self, x: Tensor, pulse: Pulse = nothing) -> Tensor:
        height, width = x.shape[2:]
        made = x.new_empty(1, 3, height * self.scale, width * self.scale)
        with side_by_side(x.device, pulse) as carry_out:
            carry_out(self._bands(x, made))
        return made

    def _bands(self, x: Tensor, made: Tensor) -> Iterator[Piece]:
        """Pieces that each take a few rows of [1, 3, H, W] through all layers, into `made`."""
        rows, height = band_rows(x.shape[3]), x.shape[2]
        above = [_known(self._row_of_zeros(conv, x)) for conv in self.convs]
        for top in range(0, height, rows):
            below = [Future[Tensor]() for _ in self.convs]
            yield partial(self._band, x, slice(top, min(top + rows, height)), made, above, below)
            above = below

    def _band(
        self, x: Tensor, rows: slice, made: Tensor, above: list[Edge], below: list[Edge]
    ) -> None:
        """A band through all layers. above, below: each layer's rows for this band and the next."""
        is_last = rows.stop == x.shape[2]
        band: Tensor | None = x[:, :, rows]
        try:
            for number in range(len(self.convs)):
                band = self._through(number, band, above[number], below[number], is_last)
            if band is not None:
                late = len(self.convs)  # each layer makes one row less, until the last band
                self._show(band, x, slice(max(0, rows.start - late), None), made)
        except BaseException as error:
            for edge in below:
                if not edge.done():
                    edge.set_exception(error)  # who waits for it gets it
            raise

    def _through(
        self, number: int, band: Tensor | None, above: Edge, below: Edge, is_last: bool
    ) -> Tensor | None:
        """A band through one layer; None while there are too few rows."""
        conv, seen = self.convs[number], above.result()
        if band is None:
            below.set_result(seen)
            return None
        rows = [seen, band]
        if is_last:
            rows.append(self._row_of_zeros(conv, band))
        band = torch.cat(rows, 2)
        below.set_result(band[:, :, -2:].clone())
        if band.shape[2] < 3:
            return None
        y = conv.inside(band)
        if number == len(self.slopes):
            return y
        return F.prelu(y, self.slopes[number])

    def _show(self, band: Tensor, x: Tensor, rows: slice, made: Tensor) -> None:
        """Write rows: what the last convolution made, as pixels, and the picture's own beneath."""
        scale, (height, width) = self.scale, band.shape[2:]
        change = band.view(1, 3, scale, scale, height, width).permute(0, 1, 4, 2, 5, 3)
        beneath = x[:, :, rows][:, :, :height, None, :, None]
        parts = made.view(1, 3, -1, scale, width, scale)
        torch.add(change, beneath, out=parts[:, :, rows][:, :, :height])

    def _row_of_zeros(self, conv: _Conv, like: Tensor) -> Tensor:
        return like.new_zeros(1, conv.weight.shape[1], 1, like.shape[3])


def _known(rows: Tensor) -> Edge:
    edge: Edge = Future()
    edge.set_result(rows)
    return edge


def band_rows(width: int) -> int:
    """How many rows of a picture go through a layer at once."""
    return -(-BAND // (width * WINOGRAD)) * WINOGRAD


class RRDB:
    """An RRDBNet that enlarges four times."""

    def __init__(self, module: Any) -> None:
        first, shortcut, *rest = module.model
        *blocks, after = shortcut.sub
        self.first = _Conv.of(first)
        self.blocks = [[_dense(b) for b in (r.RDB1, r.RDB2, r.RDB3)] for r in blocks]
        self.after = _Conv.of(after)
        up, up_again, hr, last = (part for part in rest if isinstance(part, nn.Conv2d))
        self.ups = [_Conv.of(conv, rectifies=True) for conv in (up, up_again)]
        self.hr, self.last = _Conv.of(hr, rectifies=True), _Conv.of(last)

    def __call__(self, x: Tensor, pulse: Pulse = nothing) -> Tensor:
        with side_by_side(x.device, pulse) as carry_out:
            seen = self._seen(x, carry_out)
            return torch.cat(list(self._enlarged(seen, carry_out)), 2)

    def _seen(self, x: Tensor, carry_out: CarryOut) -> Tensor:
        """What the blocks see in a picture."""
        trunk = start = self.first.whole(x, carry_out)
        room = x.new_empty(1, self.blocks[0][0][-1].weight.shape[1], *x.shape[2:])
        for blocks in self.blocks:
            inner = trunk
            for convs in blocks:
                inner = _through_dense(convs, inner, room, carry_out)
            trunk = torch.add(trunk, inner, alpha=SHARE)
        return self.after.whole(trunk, carry_out).add_(start)

    def _enlarged(self, x: Tensor, carry_out: CarryOut) -> Iterator[Tensor]:
        """The end of the network, in bands that see a little beyond their rows."""
        for top in range(0, x.shape[2], TAIL_ROWS):
            above = min(TAIL_SIGHT, top)
            y = x[:, :, top - above : top + TAIL_ROWS + TAIL_SIGHT]
            for up in self.ups:
                y = up.whole(F.interpolate(y, scale_factor=2, mode="nearest"), carry_out)
            y = self.last.whole(self.hr.whole(y, carry_out), carry_out)
            yield y[:, :, 4 * above :][:, :, : 4 * TAIL_ROWS]


def _dense(block: Any) -> list[_Conv]:
    *growing, last = (block.conv1, block.conv2, block.conv3, block.conv4, block.conv5)
    return [*(_Conv.of(conv[0], rectifies=True) for conv in growing), _Conv.of(last[0])]


def _through_dense(convs: list[_Conv], x: Tensor, seen: Tensor, carry_out: CarryOut) -> Tensor:
    """Each convolution sees the input and what all before it made. seen: room for all of these."""
    *growing, last = convs
    end = x.shape[1]
    seen[:, :end] = x
    for conv in growing:
        begin, end = end, end + len(conv.weight)
        conv.whole(seen[:, :begin], carry_out, out=seen[:, begin:end])
    return last.whole(seen, carry_out, onto=x)
