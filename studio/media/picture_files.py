"""Large pictures to files: PNGs in bands of rows, other formats at once. Never imports torch."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from studio.base.errors import BadInput
from studio.base.files import atomic_write, whole_or_absent
from studio.media.exif import with_text
from studio.media.pictures import JPEG_QUALITY, MAX_PIXELS
from studio.media.planes import Planes, to_eight_bits
from studio.media.png_writer import PngWriter, chunks_of

STREAMED = ".png"
AT_ONCE = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
SUFFIXES = (STREAMED, *AT_ONCE)


def check_suffix(path: Path, allowed: Sequence[str] = SUFFIXES) -> None:
    """Raises BadInput for a format that cannot be written."""
    if path.suffix.lower() not in allowed:
        raise BadInput(f"{path} cannot be written. Give a name ending in {', '.join(allowed)}.")


def check_target(path: Path, size: tuple[int, int]) -> None:
    """Raises BadInput for a format that cannot be written, or not at that size."""
    check_suffix(path)
    suffix = path.suffix.lower()
    if suffix != STREAMED and size[0] * size[1] > MAX_PIXELS:
        raise BadInput(
            f"{path} would be {size[0]}x{size[1]}, too large for this format. Give a .png."
        )


def write(path: Path, size: tuple[int, int], bands: Iterable[np.ndarray], beside: Planes) -> None:
    """Write bands of rows as a picture (width, height) that appears when it is whole.

    beside: what the file carries beside its pixels; its own pixels are not used. In a JPEG or WebP
    the text is in EXIF's user comment. Raises OSError, and then leaves nothing behind.
    """
    if path.suffix.lower() == STREAMED:
        _stream(path, size, bands, beside)
    else:
        atomic_write(path, _encoded(np.concatenate(list(bands)), path, beside))


def _stream(path: Path, size: tuple[int, int], bands: Iterable[np.ndarray], beside: Planes) -> None:
    chunks = chunks_of(beside.text, beside.exif, beside.icc)
    with whole_or_absent(path) as file:
        writer = None
        for band in bands:
            writer = writer or PngWriter(file, size, band, chunks)
            writer.add(band)
        assert writer  # a picture has rows
        writer.close()


def _encoded(pixels: np.ndarray, path: Path, beside: Planes) -> bytes:
    kind = AT_ONCE[path.suffix.lower()]
    pixels = to_eight_bits(pixels)
    image = Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[..., 0])
    if kind == "JPEG" and image.mode in ("LA", "RGBA"):
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    buffer = io.BytesIO()
    how: dict[str, Any] = {"quality": JPEG_QUALITY, "icc_profile": beside.icc or None}
    how |= {"subsampling": 0} if kind == "JPEG" else {}
    image.save(buffer, kind, exif=with_text(beside.exif, beside.text), **how)
    return buffer.getvalue()
