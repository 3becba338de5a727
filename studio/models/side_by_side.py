"""Work for several processors: pieces that threads carry out side by side.

Small convolutions do not gain from torch's own threads, which share each of them. So here each
thread carries out pieces of its own, and torch computes each piece in one thread. The pieces are
the same for any number of threads, and so is what they make.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

Piece = Callable[[], None]
CarryOut = Callable[[Iterable[Piece]], None]
Pulse = Callable[[], None]  # called again and again during work; what it raises ends the work


def nothing() -> None:
    """The pulse of work that nobody wants to end."""


@contextmanager
def side_by_side(device: torch.device, pulse: Pulse = nothing) -> Iterator[CarryOut]:
    """Gives a function that carries out pieces in as many threads as torch may use on a CPU.

    A piece may wait for an earlier one of the same call, as pieces begin in their order. The
    caller's thread calls the pulse.
    """
    count = torch.get_num_threads() if device.type == "cpu" else 1
    if count == 1:
        yield lambda pieces: _in_turn(pieces, pulse)
        return
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(count)
    try:
        yield lambda pieces: _together(pieces, pulse, pool)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(count)


def _in_turn(pieces: Iterable[Piece], pulse: Pulse) -> None:
    for piece in pieces:
        pulse()
        piece()


def _together(pieces: Iterable[Piece], pulse: Pulse, pool: ThreadPoolExecutor) -> None:
    for begun in [pool.submit(_inferred, piece) for piece in pieces]:
        pulse()
        begun.result()


def _inferred(piece: Piece) -> None:
    with torch.inference_mode():  # a thread has a mode of its own
        piece()
