"""Private operators of PyTorch, each with public operators that compute the same numbers.

The private ones are quicker. But another version of PyTorch may lack them, and another processor
may compute something else with them. So each is tried on small examples when models load. Where it
fails or disagrees, the public operators take its place, and the log says so.
"""

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

TOLERANCE = 0.01  # of the result's norm, for bfloat16 rounds to a few thousandths

log = logging.getLogger("operators")


class Guarded:
    """A quick function of tensors, replaced by a plain one where it cannot be trusted.

    Both return a tensor, or several. examples: the arguments to try them on.
    """

    def __init__(
        self,
        name: str,
        *,
        quick: Callable[..., Any],
        plain: Callable[..., Any],
        examples: Callable[[], Iterable[tuple[Any, ...]]],
    ) -> None:
        self._name, self._quick, self._plain, self._examples = name, quick, plain, examples
        self._is_sound: bool | None = None

    def __call__(self, *args: Any) -> Any:
        """The result of the quick function if it can be trusted, else of the plain one."""
        return self._quick(*args) if self.probe() else self._plain(*args)

    def probe(self) -> bool:
        """Whether the quick function agrees with the plain one; tried once per process."""
        if self._is_sound is None:
            fault = self._fault()
            if fault:
                log.warning("PyTorch's %s is not used, so runs take longer: %s", self._name, fault)
            self._is_sound = not fault
        return self._is_sound

    def _fault(self) -> str:
        try:
            off = max(
                _off(self._quick(*_copies(args)), self._plain(*_copies(args)))
                for args in self._examples()
            )
        except Exception as error:  # a missing or changed operator fails in any way
            return f"{type(error).__name__} {str(error).partition(chr(10))[0][:160]}"
        return "" if off <= TOLERANCE else f"its result is off by {off:.1%}"


def _off(found: Any, expected: Any) -> float:
    """The relative error of results; infinite where they cannot be compared."""
    if isinstance(expected, tuple):
        return max(_off(*pair) for pair in zip(found, expected, strict=True))
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return math.inf
    found, expected = found.detach().double(), expected.detach().double()
    off = float((found - expected).norm() / expected.norm())
    return off if math.isfinite(off) else math.inf


def _copies(args: Iterable[Any]) -> list[Any]:
    """Operators may overwrite what they are given."""
    return [arg.clone() if isinstance(arg, Tensor) else arg for arg in args]


def whole_numbers(*shape: int, most: int) -> Tensor:
    """Whole numbers from -most to most in an arbitrary but fixed order, without a generator.

    The first number of each row is `most`.
    """
    numbers = torch.arange(math.prod(shape)).mul_(7919).remainder_(2 * most + 1).sub_(most)
    numbers = numbers.float().view(shape)
    numbers.flatten(1)[:, 0] = most
    return numbers
