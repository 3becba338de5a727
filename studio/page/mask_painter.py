"""Painting a mask over the starting image. The keyboard's way is to upload one."""

import base64
import binascii
from functools import lru_cache
from pathlib import Path
from typing import Any

import streamlit as st
from PIL import Image

from studio.base.errors import BadInput
from studio.media.pictures import encode_jpeg, encode_png, load_picture
from studio.page.actions import attempt
from studio.page.components import mounted
from studio.page.kept import keep_picture
from studio.page.pictures import as_address

MASK = "mask"  # the setting, of engines that have it
KEY = "mask-painter"
PAINTED = "painted_mask"  # which canvas a mask is from, and its path
MOST_SIDE = 1024  # px: of what is painted on
MOST_CHARACTERS = 20_000_000


def show_mask_painter(start: str | None, mask: str | None, output_dir: Path, take: Any) -> None:
    """The starting image with the mask over it, to paint on.

    take: called with the path of a new mask, or None.
    """
    facts = _shown(start, mask)
    if start is None or facts is None:
        st.caption("Give a starting image to paint the mask over it.")
        return

    def painted() -> None:
        said = st.session_state[KEY].get(MASK) or {}
        with attempt(MASK):
            path = _kept_mask(str(said.get("png") or ""), Path(start), output_dir)
            new = str(path) if path else None
            st.session_state[PAINTED] = str(said.get("painter")), new
            take(new)

    st.caption("Paint over what is to be drawn anew.")
    painter, path = st.session_state.get(PAINTED) or (None, None)
    data = facts | {"painter": painter if path == mask else None}
    mounted("mask")(key=KEY, data=data, on_mask_change=painted)


def _kept_mask(png: str, start: Path, output_dir: Path) -> Path | None:
    """The file of a painted mask, at the size of the starting image; None if nothing is painted.

    Raises BadInput.
    """
    if not png:
        return None
    try:
        data = base64.b64decode(png[:MOST_CHARACTERS], validate=True)
    except binascii.Error:
        raise BadInput("The painted mask is broken. Paint it again.") from None
    mask = load_picture(data, "The painted mask")
    size = load_picture(start, "The starting image").size
    return keep_picture(output_dir, encode_png(mask.resize(size, Image.Resampling.BILINEAR)))


def _shown(start: str | None, mask: str | None) -> dict[str, Any] | None:
    """What the component shows; None if there is no starting image that can be read."""
    try:
        picture, width, height = _small(start) if start else (None, 0, 0)
    except BadInput:
        return None
    if picture is None:
        return None
    try:
        over = _small(mask)[0] if mask else ""
    except BadInput:
        over = ""
    size = {"width": width, "height": height}
    return {"name": start, "picture": picture, "mask_name": mask or "", "mask": over} | size


@lru_cache(maxsize=16)
def _small(path: str) -> tuple[str, int, int]:
    """An address that holds the picture, at most MOST_SIDE a side; its width and its height.

    Kept pictures are named by their contents. Raises BadInput.
    """
    picture = load_picture(Path(path), "The picture")
    picture.thumbnail((MOST_SIDE, MOST_SIDE))
    return as_address(encode_jpeg(picture, 90), "jpeg"), *picture.size
