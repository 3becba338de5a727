"""Private operators of PyTorch, each with public operators that compute the same numbers.

The private ones are quicker. But another version of PyTorch may lack them, and another processor
may compute something else with them. So each is tried on small examples when models load. Where it
fails or disagrees, the public operators take its place, and the log says so.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
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


# --- Gradients ---------------------------------------------------------------------------------


def _examples_of_gradients() -> Iterator[tuple[Tensor, ...]]:
    grad, y = whole_numbers(2, 3, 4, 5, most=9), whole_numbers(2, 3, 4, 5, most=7) / 2
    for dtype in (torch.float32, torch.bfloat16):
        yield grad.to(dtype), y.to(dtype)


relu_gradient = Guarded(
    "gradient of a ReLU",
    quick=lambda grad, y: torch.ops.aten.threshold_backward(grad, y, 0),
    plain=lambda grad, y: grad * (y > 0),
    examples=_examples_of_gradients,
)


def _silu_gradient_plainly(grad: Tensor, y: Tensor) -> Tensor:
    """d/dy y s = s (1 + y (1 - s)), where s is the sigmoid of y."""
    s = y.float().sigmoid()
    return (grad.float() * s * (1 + y.float() * (1 - s))).to(grad.dtype)


# The quick one overwrites y.
silu_gradient = Guarded(
    "gradient of a SiLU",
    quick=lambda grad, y: torch.ops.aten.silu_backward.grad_input(grad, y, grad_input=y),
    plain=_silu_gradient_plainly,
    examples=_examples_of_gradients,
)


def _input_gradient(grad: Tensor, weight: Tensor, shape: torch.Size, padding: int) -> Tensor:
    """The gradient of a convolution of stride 1 at its input, of which only the shape matters."""
    x = torch.empty(shape, dtype=grad.dtype, memory_format=torch.channels_last)
    geometry = ([1, 1], [padding] * 2, [1, 1], False, [0, 0], 1)
    wanted = [True, False, False]  # of input, weight and bias
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry, wanted)[0]


def input_gradient_plainly(grad: Tensor, weight: Tensor, shape: torch.Size, padding: int) -> Tensor:
    """The gradient of a convolution of stride 1 at its input, as a transposed convolution."""
    return F.conv_transpose2d(grad, weight, padding=padding)


def _examples_of_convolutions() -> Iterator[tuple[Tensor, Tensor, torch.Size, int]]:
    weight = whole_numbers(4, 3, 3, 3, most=5)
    for padding in (0, 1):
        side = 4 + 2 * padding
        grad = whole_numbers(2, 4, side, side, most=5)
        yield grad, weight, torch.Size((2, 3, 6, 6)), padding


input_gradient = Guarded(
    "gradient of a convolution",
    quick=_input_gradient,
    plain=input_gradient_plainly,
    examples=_examples_of_convolutions,
)


def _norm_with_moments(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A group norm of x [B, C, H, W], its means [B, groups] and one over its deviations."""
    batch, channels, height, width = x.shape
    return torch.native_group_norm(x, weight, bias, batch, channels, height * width, groups, eps)


def _norm_with_moments_plainly(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    variance, mean = torch.var_mean(
        x.float().unflatten(1, (groups, -1)).flatten(2), 2, correction=0
    )
    return F.group_norm(x, groups, weight, bias, eps), mean, (variance + eps).rsqrt()


def _examples_of_norms() -> Iterator[tuple[Tensor, Tensor, Tensor, int, float]]:
    x = whole_numbers(2, 6, 4, 5, most=9).contiguous(memory_format=torch.channels_last)
    weight, bias = whole_numbers(2, 6, most=4) / 3
    yield x, weight, bias, 3, 1e-6


norm_with_moments = Guarded(
    "group norm with its moments",
    quick=_norm_with_moments,
    plain=_norm_with_moments_plainly,
    examples=_examples_of_norms,
)


def probe_gradients() -> None:
    """Try these operators now, so that no step has to wait for it."""
    for operator in (relu_gradient, silu_gradient, input_gradient, norm_with_moments):
        operator.probe()
