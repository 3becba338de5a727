"""Thumbnails, and the settings inside pictures. Never imports torch."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, ImageOps

from studio.base import files
from studio.base.errors import BadInput
from studio.base.files import atomic_write
from studio.media.pictures import encode_jpeg, opened_image
from studio.runs import storage

SIDE = 512  # of a thumbnail, the longer one, in pixels
QUALITY = 88
MAX_PIXELS = 25_000_000  # of a picture that gets a thumbnail: 100 MB in memory
XP_TITLE, XP_COMMENT = 0x9C9B, 0x9C9C
OTHER_NAMES = {"text_prompts": "text_input", "iterations": "num_steps", "model": "vqgan_ckpt"}

# One picture at a time, and always in the same thread: decoding takes memory, and every thread that
# decodes would keep some of it.
_decoder = ThreadPoolExecutor(1, "thumbnails")


class Thumbnails:
    """Small copies of pictures in a folder of their own, each made once.

    A thumbnail's file has its picture's time, so that a changed picture gets a new one.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, name: str, picture: BinaryIO, *, keep: bool = True) -> bytes:
        """A JPEG of the open picture of the run `name`. Raises BadInput, which says what is wrong.

        keep: whether to save it, which is not worth it for a picture that changes all the time.
        """
        made = os.fstat(picture.fileno()).st_mtime_ns
        path = self._path(name) if keep else None
        if path and (saved := _read(path, made)):
            return saved
        data = _decoder.submit(small_copy, picture).result()
        if path:
            _save(path, data, made)
        return data

    def forget(self, name: str) -> None:
        """Drop the thumbnail of a run that is gone."""
        if path := self._path(name):
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path | None:
        key = sha256(name.encode("utf-8", "backslashreplace")).hexdigest()[:32]
        return self._folder and self._folder / key[:2] / f"{key}.jpg"


def small_copy(picture: BinaryIO) -> bytes:
    """A JPEG of at most SIDE x SIDE. Raises BadInput if the picture is unusable.

    Small pictures grow by a whole factor, so that their pixels stay squares.
    """
    try:
        with opened_image(picture) as image:
            image.draft("RGB", (SIDE * 2, SIDE * 2))
            _check_size(image)
            image.load()
            image = _fitted(image)
        image.info.clear()  # the encoder would copy a comment from there
        return encode_jpeg(image, QUALITY)
    except BadInput:
        raise
    except Image.UnidentifiedImageError:
        raise BadInput("The picture's file cannot be read as a picture.") from None
    except (Image.DecompressionBombError, MemoryError):
        raise BadInput("The picture is too large for a thumbnail.") from None
    except Exception:  # a broken file can make a decoder raise anything
        raise BadInput("The picture is broken: it cannot be decoded to its end.") from None


def measure(picture: BinaryIO, name: str) -> tuple[tuple[int, int], str]:
    """Width and height from the header, and what is wrong, or ""; (0, 0) if unknown."""
    try:
        with opened_image(picture) as image:
            size, is_jpeg = image.size, image.format == "JPEG"
        end = picture.seek(-min(64, picture.seek(0, os.SEEK_END)), os.SEEK_END)
        cut = is_jpeg and end >= 0 and b"\xff\xd9" not in picture.read()
        return size, f"{name} is cut off: its end is missing." if cut else ""
    except Image.DecompressionBombError:
        return (0, 0), f"{name} is too large to be shown."
    except Exception:  # a broken file can make a decoder raise anything
        return (0, 0), f"{name} cannot be read as a picture."


def embedded_details(picture: BinaryIO) -> dict[str, Any]:
    """The settings in a picture's text chunks or EXIF; another program's under our names.

    Empty if there are none. Raises OSError.
    """
    try:
        with opened_image(picture) as image:
            found = {str(k): v for k, v in image.info.items() if isinstance(v, str)}
            found |= _from_exif(image)
    except Exception:
        return {}
    if storage.PNG_KEY in found:
        try:
            return files.parse_json(found[storage.PNG_KEY], "The picture's text")
        except BadInput:
            return {}
    known = {OTHER_NAMES.get(key, key): _number(value) for key, value in found.items()}
    return known if "text_input" in known else {}


def _fitted(image: Image.Image) -> Image.Image:
    """As RGB at a thumbnail's size; reduced first, since large pictures come in all modes."""
    if max(image.size) > SIDE * 2:
        factor = max(image.size) // (SIDE * 2) + 1
        if image.mode in ("RGB", "RGBA", "L", "LA"):
            image = image.reduce(factor)
        else:
            size = [max(1, side // factor) for side in image.size]
            image = image.resize(size, Image.Resampling.NEAREST)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = image.point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    factor = SIDE // max(image.size)
    if factor > 1:
        return image.resize([side * factor for side in image.size], Image.Resampling.NEAREST)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadInput(f"The picture is too large for a thumbnail ({width}x{height}).")


def _from_exif(image: Image.Image) -> dict[str, str]:
    """What Windows shows as title and comments; some programs keep all settings there."""
    exif = image.getexif()
    pairs = re.findall(r"(\w+): (.*?)(?=, \w+: |$)", _utf16(exif.get(XP_COMMENT)), re.DOTALL)
    title = _utf16(exif.get(XP_TITLE))
    return dict(pairs) | ({"text_prompts": title} if title else {})


def _utf16(value: Any) -> str:
    data = bytes(value) if isinstance(value, bytes | tuple) else b""
    return data.decode("utf-16-le", "replace").rstrip("\0")


def _number(text: str) -> int | str:
    return int(text) if re.fullmatch(r"\d{1,20}", text) else text


def _read(path: Path, made: int) -> bytes | None:
    try:
        return path.read_bytes() if path.stat().st_mtime_ns == made else None
    except OSError:
        return None


def _save(path: Path, data: bytes, made: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, data, durable=False)
        os.utime(path, ns=(made, made))
    except OSError:
        pass  # a cache: without it the thumbnail is made again
