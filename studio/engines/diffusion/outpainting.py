"""A picture with room around it, which is drawn anew. No torch."""

import numpy as np
from PIL import Image


def outpainted(
    image: Image.Image, mask: Image.Image | None, place: tuple[int, int], size: tuple[int, int]
) -> tuple[Image.Image, Image.Image]:
    """The picture on a larger one, and a mask that is white around it.

    place: of its left upper corner. size: width and height of the larger one, where the colours of
    the picture's edge continue. mask: of what else is drawn anew, of the picture's size.
    """
    (left, top), (width, height) = place, size
    right, bottom = width - left - image.width, height - top - image.height
    around = (top, bottom), (left, right)
    pixels = np.pad(np.asarray(image.convert("RGB")), (*around, (0, 0)), mode="edge")
    inside = np.zeros(image.size[::-1], np.uint8) if mask is None else np.asarray(mask.convert("L"))
    white = np.pad(inside, around, constant_values=255)
    return Image.fromarray(pixels), Image.fromarray(white).convert("RGB")
