"""Pictures of any kind as planes to compute with, and back: what makes a picture look as it does.

A picture is [H, W, C] with C = 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha), of uint8 or
uint16. Palettes, CMYK and other colour spaces become RGB; a rotation that EXIF tells of is done.
Never imports torch.
"""

import io
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageFilter, UnidentifiedImageError

from studio.base.errors import BadInput, RunFailed
from studio.media.exif import text_in_exif
from studio.media.pictures import (
    MAX_PIXELS,
    MAX_SIDE,
    ORIENTATION,
    opened_image,
    read_picture,
)
from studio.media.png_writer import SIGNATURE
from studio.media.video import ffmpeg

PNG_DEPTH, PNG_COLOUR = 24, 25  # where a PNG tells bits per channel and its colour type
DEEP_COLOURS = {2: ("rgb48le", 3), 4: ("rgba64le", 4), 6: ("rgba64le", 4)}  # by colour type
# What each orientation of EXIF asks for: turns to the left by 90 degrees, then a mirror image.
TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False)}
TURNS |= {7: (1, True), 8: (1, False)}
SAMPLE = 512  # pixels a side, to judge by
FLAT_BITS = 4.9  # of brightness; photographs have more, flat art less


@dataclass(frozen=True)
class Planes:
    """A picture's pixels, and what its file carries beside them.

    text: of a PNG's text chunks. exif: without the orientation. icc: the profile of the pixels.
    """

    pixels: np.ndarray
    text: Mapping[str, Any] = field(default_factory=dict)
    exif: bytes = b""
    icc: bytes = b""


def read_planes(path: Path) -> Planes:
    """A picture file as planes: its first frame. Raises BadInput for anything else."""
    what = f"The picture {path}"
    data = read_picture(path, what)
    try:
        with opened_image(io.BytesIO(data)) as image:
            _check_size(image.size, what)
            image.load()
            return _planes(image, data)
    except UnidentifiedImageError:
        raise BadInput(f"{what} is not an image that can be read.") from None
    except (Image.DecompressionBombError, MemoryError):
        raise _too_large(what) from None
    except BadInput:
        raise
    except Exception:  # a decoder may raise anything for a broken file
        raise BadInput(f"{what} is broken or cut off. Save it again, or give another.") from None


def is_flat_art(pixels: np.ndarray) -> bool:
    """Whether a picture looks drawn in flat colours, rather than photographed.

    In flat art few levels of brightness make up most of the picture. So the entropy of its 64
    levels tells, after a median filter has taken out noise and thin lines.
    """
    step = max(1, min(pixels.shape[:2]) // SAMPLE)
    colours = to_eight_bits(pixels)[::step, ::step, : 3 if pixels.shape[2] > 2 else 1]
    image = Image.fromarray(np.repeat(colours, 3 // colours.shape[2], 2)).convert("L")
    levels = np.asarray(image.filter(ImageFilter.MedianFilter(5))) // 4
    shares = np.bincount(levels.ravel(), minlength=64) / levels.size
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum()) < FLAT_BITS


def to_eight_bits(pixels: np.ndarray) -> np.ndarray:
    """The pixels as uint8."""
    return pixels if pixels.dtype == np.uint8 else ((pixels + 128.0) / 257).astype(np.uint8)


def with_colours_where_transparent(pixels: np.ndarray) -> np.ndarray:
    """[H, W, 2 or 4] whose fully transparent pixels have the colours of their neighbours.

    What lies unseen there would otherwise be mixed into the edges of what is seen.
    """
    seen = (pixels[..., -1:] > 0).astype(np.float32)
    if seen.all() or not seen.any():
        return pixels
    colours = _spread(pixels[..., :-1] * seen, seen)
    filled = np.where(seen > 0, pixels[..., :-1], colours.round().astype(pixels.dtype))
    return np.concatenate([filled, pixels[..., -1:]], 2)


def _spread(colours: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Colours (times their weights) averaged over ever larger squares until all have some."""
    if weights.all() or min(weights.shape[:2]) < 2:
        total = max(float(weights.sum()), 1e-6)
        mean = colours.sum((0, 1)) / total
        return np.where(weights > 0, colours / np.maximum(weights, 1e-6), mean)
    below = _spread(_halved(colours), _halved(weights)).repeat(2, 0).repeat(2, 1)
    below = below[: weights.shape[0], : weights.shape[1]]
    return np.where(weights > 0, colours / np.maximum(weights, 1e-6), below)


def _halved(values: np.ndarray) -> np.ndarray:
    height, width = values.shape[:2]
    even = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    return even.reshape(-(-height // 2), 2, -(-width // 2), 2, -1).mean((1, 3))


def _planes(image: Image.Image, data: bytes) -> Planes:
    text = {k: v for k, v in getattr(image, "text", {}).items() if isinstance(v, str)}
    exif, icc = image.getexif(), image.info.get("icc_profile") or b""
    turn = exif.pop(ORIENTATION, 1)
    pixels = _deep_pixels(image, data)
    if pixels is None:
        pixels, icc = _pixels(image, icc)
    text |= text_in_exif(exif)
    return Planes(_turned(pixels, turn), text, exif.tobytes() if len(exif) else b"", icc)


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    turns, mirrored = TURNS.get(orientation, (0, False))
    pixels = np.rot90(pixels, turns)
    return np.ascontiguousarray(pixels[:, ::-1] if mirrored else pixels)


def _deep_pixels(image: Image.Image, data: bytes) -> np.ndarray | None:
    """Those of 16 bits a channel; None for other pictures."""
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey(image)
    is_deep = data.startswith(SIGNATURE) and data[PNG_DEPTH] == 16
    if not is_deep or data[PNG_COLOUR] not in DEEP_COLOURS:
        return None
    layout, channels = DEEP_COLOURS[data[PNG_COLOUR]]  # Pillow would give 8 bits
    try:
        command = [*ffmpeg(), "-noautorotate", "-f", "png_pipe", "-i", "-", "-frames:v", "1"]
    except RunFailed:
        return None
    command += ["-f", "rawvideo", "-pix_fmt", layout, "-"]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    found = np.frombuffer(done.stdout, "<u2")
    if found.size != image.width * image.height * channels:
        return None
    return found.reshape(image.height, image.width, channels)


def _deep_grey(image: Image.Image) -> np.ndarray:
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    white = 65535.0
    if image.mode == "F":
        white = 1.0 if values.max() <= 1 else 255.0
    return np.clip(values * (65535 / white), 0, 65535).round().astype(np.uint16)[..., None]


def _pixels(image: Image.Image, icc: bytes) -> tuple[np.ndarray, bytes]:
    """Of 8 bits a channel, and the profile that holds for them."""
    if image.mode in ("RGB", "RGBA", "LA", "L"):
        mode = image.mode
    elif image.mode == "1":
        mode = "L"
    elif image.mode in ("P", "PA"):
        mode = "RGB"
    else:
        image, icc = _as_srgb(image, icc), b""
        mode = "RGB"
    if image.has_transparency_data:
        mode = {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    pixels = np.asarray(image.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[..., None], icc


def _as_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """CMYK and the like, by the profile where it can be used."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        found = ImageCms.profileToProfile(
            image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        found = None
    return found or image.convert("RGB")


def _check_size(size: tuple[int, int], what: str) -> None:
    if size[0] * size[1] > MAX_PIXELS or max(size) > MAX_SIDE:
        raise _too_large(what)


def _too_large(what: str) -> BadInput:
    return BadInput(
        f"{what} is too large: at most {MAX_PIXELS // 1_000_000} megapixels and {MAX_SIDE:,} px a"
        " side. Make it smaller."
    )
