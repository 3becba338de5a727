"""Pictures from strangers, to RGB and to the wanted size. Never imports torch."""

import io
import logging
import math
import stat
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from studio.base.errors import BadInput

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff")
MAX_FILE_BYTES = 200_000_000
MAX_PIXELS = 80_000_000
MAX_SIDE = 65_000  # a JPEG, the format of our copies, has at most 65,535
JPEG_QUALITY = 95
ORIENTATION = 0x0112

# Without a handler, Python prints what Pillow logs.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class _Quiet:
    """Within it, Pillow does not warn: we report what is wrong with a stranger's file.

    Filters of warnings belong to the whole process. So the earlier filters come back when the last
    thread has left.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            self._inside += 1

    def __exit__(self, *error: Any) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(*error)


_quiet = _Quiet()


@contextmanager
def opened_image(file: BinaryIO, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """A stranger's image file, of which only the header has been read.

    Raises Image.UnidentifiedImageError, Image.DecompressionBombError from twice the size at which
    Pillow warns, and whatever else a broken file makes Pillow raise.
    """
    with _quiet, Image.open(file, formats=formats) as image:
        yield image


def load_picture(source: Path | bytes, what: str) -> Image.Image:
    """An image file as RGB: its first frame, turned as its EXIF says, transparency on white.

    what: names the picture in messages. Raises BadInput for anything but a usable picture. The
    header tells the size, before anything is decoded.
    """
    return _decode(read_picture(source, what), what)


def read_picture(source: Path | bytes, what: str) -> bytes:
    """The bytes of an image file. Raises BadInput for anything but an ordinary, readable file."""
    if isinstance(source, bytes):
        return _not_empty(source, what)
    try:
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadInput(f"{what} is not a file. Give an image file ({_formats()}).")
        if status.st_size > MAX_FILE_BYTES:
            raise BadInput(f"{what} is over {MAX_FILE_BYTES // 1_000_000} MB. Give a smaller one.")
        return _not_empty(source.read_bytes(), what)
    except FileNotFoundError:
        raise BadInput(f"{what} does not exist. Give the path of an image file.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "a file cannot have that name"
        raise BadInput(f"{what} cannot be read: {reason}.") from None


def _not_empty(data: bytes, what: str) -> bytes:
    if not data:
        raise BadInput(f"{what} is empty: it has 0 bytes. Save it again, or give another.")
    return data


def saved_copy(source: Path | bytes, what: str) -> bytes:
    """The JPEG of a picture that a run keeps and uses: the run sees what the JPEG decodes to.

    A plain RGB JPEG is kept as it is, so a copy of a copy is the same picture.
    Raises BadInput as `load_picture` does.
    """
    data = read_picture(source, what)
    image = _decode(data, what)
    return data if _is_plain_jpeg(data) else encode_jpeg(image, JPEG_QUALITY)


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """An RGB image as JPEG without chroma subsampling."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def encode_png(image: Image.Image, text: Mapping[str, str] | None = None) -> bytes:
    """An RGB image as PNG, with text chunks by their keys."""
    chunks, buffer = PngInfo(), io.BytesIO()
    for key, value in (text or {}).items():
        chunks.add_text(key, value)
    image.save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def cover(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale so that the picture covers `size` (width, height), and cut off the rest evenly."""
    return image if image.size == size else ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def scaled(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The whole picture at `size` (width, height), stretched where the shape differs."""
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def at_size(pictures: Sequence[np.ndarray], size: tuple[int, int] | None) -> Sequence[np.ndarray]:
    """Pictures [H, W, 3] of one size at `size` (width, height); None leaves them as they are."""
    if size is None or not len(pictures) or pictures[0].shape[1::-1] == size:
        return pictures
    return [np.asarray(scaled(Image.fromarray(picture), size)) for picture in pictures]


def crop_or_cover(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The middle of the picture where both sides are large enough, else `cover`."""
    left, top = ((have - want) // 2 for have, want in zip(image.size, size, strict=True))
    if left < 0 or top < 0:
        return cover(image, size)
    return image.crop((left, top, left + size[0], top + size[1]))


def check_rgb(pictures: Sequence[np.ndarray]) -> None:
    """Raises ValueError unless all pictures are uint8 [H, W, 3], and of one size."""
    for picture in pictures:
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            found = f"{picture.dtype} {list(picture.shape)}"
            raise ValueError(f"a picture is {found}; it must be uint8 [H, W, 3]")
    if len({picture.shape for picture in pictures}) > 1:
        raise ValueError("the pictures differ in size")


def tiled(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures [H, W, 3] of one size as one: side by side, in about as many rows as columns."""
    if len(pictures) == 1:
        return pictures[0]
    columns = math.ceil(math.sqrt(len(pictures)))
    missing = -len(pictures) % columns
    cells = [*pictures, *[np.zeros_like(pictures[0])] * missing]
    rows = [np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    return np.vstack(rows)


def _decode(data: bytes, what: str) -> Image.Image:
    try:
        with opened_image(io.BytesIO(data)) as image:
            _check_size(image.size, what)
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise BadInput(f"{what} is not an image that can be read. Give {_formats()}.") from None
    except (Image.DecompressionBombError, MemoryError):
        raise _too_large(what, "") from None
    except BadInput:
        raise
    except Exception:  # a decoder may raise anything for a broken file
        raise BadInput(f"{what} is broken. Save it again, or give another.") from None


def _check_size(size: tuple[int, int], what: str) -> None:
    if size[0] * size[1] > MAX_PIXELS or max(size) > MAX_SIDE:
        raise _too_large(what, f" ({size[0]}x{size[1]})")


def _too_large(what: str, found: str) -> BadInput:
    return BadInput(
        f"{what} is too large{found}: at most {MAX_PIXELS // 1_000_000} megapixels and"
        f" {MAX_SIDE:,} px a side. Make it smaller."
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_deep_grey(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """16-bit and float greys, which Pillow would clip at 255."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    white = 65535 if image.mode != "F" else 1 if values.max() <= 1 else 255
    grey = np.clip(values * (255 / white), 0, 255).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _is_plain_jpeg(data: bytes) -> bool:
    with opened_image(io.BytesIO(data)) as image:
        is_rgb_jpeg = image.format == "JPEG" and image.mode == "RGB"
        return is_rgb_jpeg and image.getexif().get(ORIENTATION, 1) == 1


def _formats() -> str:
    return "a PNG, JPEG, WebP, GIF, BMP or TIFF"
