"""Square, portrait, landscape: chips beside the numbers of width and height, which stay the truth.

A chip keeps about as many pixels as there are, so a run takes about as long.
"""

from collections.abc import Callable
from math import sqrt

import streamlit as st

from studio.page.mirror import mirror
from studio.page.picker import SIZE

SHAPE = "shape"
RATIOS = {"Square": 1.0, "Portrait": 3 / 4, "Landscape": 4 / 3}  # width by height
MULTIPLES = (8, 16, 32, 64)  # that engines may ask of a side

Fits = Callable[[int, int], bool]


def show_shapes(fits: Fits) -> None:
    """The chips, and a button that swaps width and height.

    fits: whether the engine makes pictures of exactly that width and height.
    """
    state = st.session_state
    shape = _shape_of(*(state[side] for side in SIZE))
    with st.container(key="shapes", horizontal=True, wrap=False, gap="xsmall"):
        st.segmented_control(
            "Shape",
            list(RATIOS),
            default=shape,
            required=True,
            label_visibility="collapsed",
            help="The shape of the picture, with about as many pixels as now.",
            wrap=False,
            **mirror(SHAPE, shape, _reshape, fits),
        )
        st.button(
            "Swap width and height",
            icon=":material/swap_horiz:",
            key="icon-swap",
            help="Swap width and height.",
            on_click=_swap,
        )


def reshaped(width: int, height: int, ratio: float, fits: Fits) -> tuple[int, int]:
    """A size of that ratio with about as many pixels, of the smallest multiple that fits."""
    side = sqrt(max(1, abs(width * height)))
    wanted = side * sqrt(ratio), side / sqrt(ratio)
    sizes = [tuple(max(m, round(w / m) * m) for w in wanted) for m in MULTIPLES]
    found = next((size for size in sizes if fits(*size)), sizes[0])
    return found[0], found[1]


def _shape_of(width: int, height: int) -> str:
    if width == height:
        return "Square"
    return "Portrait" if width < height else "Landscape"


def _reshape(shape: str, fits: Fits) -> None:
    state = st.session_state
    width, height = (state[side] for side in SIZE)
    size = reshaped(width, height, RATIOS[shape], fits)
    state.update(zip(SIZE, size, strict=True))


def _swap() -> None:
    state = st.session_state
    state[SIZE[0]], state[SIZE[1]] = (state[side] for side in reversed(SIZE))
