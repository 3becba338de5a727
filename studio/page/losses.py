"""A run's losses on the page, as a curve."""

import html
from collections.abc import Sequence
from typing import Any

import streamlit as st

from studio.page.pictures import as_address

CURVE_COLOUR = "#6a9cbc"  # visible on light and dark alike


def show_losses(points: Any, losses: Any) -> None:
    """A curve of the total loss, and the losses' last values; nothing if there is no curve.

    points: pairs of step and total loss, None for a loss that was not finite.
    losses: the last values by name.
    """
    history = [point for point in points or [] if point[1] is not None]
    if len(history) < 2:
        return
    known = {name: value for name, value in (losses or {}).items() if value is not None}
    words = " · ".join(f"{name} {value:.4g}" for name, value in known.items())
    caption = f"<figcaption>Loss: {html.escape(words)}</figcaption>" if words else ""
    alt = f"Total loss, from {history[0][1]:.4g} to {history[-1][1]:.4g}"
    st.html(
        f'<figure class="losses"><img alt="{alt}" src="{as_address(_curve(history), "svg+xml")}">'
        f"{caption}</figure>"
    )


def _curve(history: Sequence[Sequence[float]]) -> bytes:
    """The total loss over the steps as SVG, which is far cheaper to redraw than a chart."""
    steps, losses = zip(*history, strict=True)
    low, across, up = min(losses), steps[-1] - steps[0], max(losses) - min(losses)
    points = " ".join(
        f"{300 * (step - steps[0]) / across:.1f},{76 - 72 * (loss - low) / (up or 1):.1f}"
        for step, loss in history
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 80" preserveAspectRatio="none">'
        f'<polyline points="{points}" fill="none" stroke="{CURVE_COLOUR}" stroke-width="2"'
        ' stroke-linejoin="round" vector-effect="non-scaling-stroke"/></svg>'
    ).encode()
