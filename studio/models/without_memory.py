"""Building a network whose weights come later: without memory, and without drawing numbers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@contextmanager
def without_memory() -> Iterator[None]:
    """Networks that are built here lie on the meta device: `load_state_dict(..., assign=True)`."""
    with torch.device("meta"), _Unset():
        yield


class _Unset(TorchFunctionMode):
    """Without memory, no numbers are drawn, scaled or masked.

    On the meta device torch would import its compiler for that: more than a second.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in (Tensor.mul, Tensor.div, Tensor.triu_, nn.init.normal_):
            return next(iter(args), None)
        return (torch.empty if func is torch.randn else func)(*args, **(kwargs or {}))
