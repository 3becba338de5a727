"""Pictures from strangers: what is read, how, and what is refused."""

import io
import os
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from studio.base.errors import BadInput
from studio.media.pictures import (
    MAX_PIXELS,
    cover,
    crop_or_cover,
    encode_png,
    load_picture,
    opened_image,
    saved_copy,
    scaled,
)

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width, height):
    """A PNG that claims a size and holds nothing."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + body


def half_transparent(mode):
    image = Image.new("RGBA", (4, 4), (*RED, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 2))
    return image.convert(mode)


def palette_with_transparency():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *RED])
    image.paste(0, (0, 0, 4, 2))
    return encoded(image, transparency=0)


def animated(kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


@pytest.mark.parametrize(
    "data, top, bottom",
    [
        (encoded(Image.new("RGB", (4, 4), RED)), RED, RED),
        (encoded(Image.new("RGB", (4, 4), RED), "BMP"), RED, RED),
        (encoded(half_transparent("RGBA")), WHITE, RED),
        (encoded(half_transparent("RGBA"), "WEBP", lossless=True), WHITE, RED),
        (encoded(half_transparent("LA")), WHITE, (76, 76, 76)),
        (palette_with_transparency(), WHITE, RED),
        (encoded(Image.new("RGB", (4, 4), RED), transparency=RED), WHITE, WHITE),
        (animated("GIF"), RED, RED),
        (animated("WEBP"), RED, RED),
        (animated("PNG"), RED, RED),
        (animated("TIFF"), RED, RED),
        (encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF"), RED, RED),
        (encoded(Image.new("1", (4, 4), 1)), WHITE, WHITE),
        (encoded(Image.new("L", (4, 4), 51)), (51,) * 3, (51,) * 3),
        (encoded(Image.new("I;16", (4, 4), 51 * 257)), (51,) * 3, (51,) * 3),
        (encoded(Image.new("F", (4, 4), 0.2), "TIFF"), (51,) * 3, (51,) * 3),
        (encoded(Image.new("F", (4, 4), 51.0), "TIFF"), (51,) * 3, (51,) * 3),
    ],
)
def test_read_as_rgb(data, top, bottom):
    image = load_picture(data, "it")
    assert (image.mode, image.size) == ("RGB", (4, 4))
    assert (image.getpixel((0, 0)), image.getpixel((0, 3))) == (top, bottom)


def test_cmyk_jpeg():
    image = load_picture(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), "it")
    red, green, blue = image.getpixel((4, 4))
    assert red > 240 and green < 15 and blue < 15


def test_turned_as_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is on the right
    data = encoded(Image.new("RGB", (8, 4), RED), "JPEG", exif=exif)
    assert load_picture(data, "it").size == (4, 8)
    assert load_picture(saved_copy(data, "it"), "it").size == (4, 8)


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"


@pytest.mark.parametrize(
    "data, says",
    [
        (b"", "is empty"),
        (b"hello", "not an image"),
        (SVG, "not an image"),
        (b"%PDF-1.4", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (encoded(NOISE)[:2000], "broken"),
        (encoded(NOISE, "JPEG")[:800], "broken"),
        (encoded(NOISE, "WEBP")[:800], "broken|not an image"),
        (png_header(4, 4000), "broken"),
        (png_header(60_000, 60_000), "too large"),
        (png_header(MAX_PIXELS // 8000 + 1, 8000), "too large"),
        (png_header(70_000, 2), "too large"),
    ],
)
def test_refused(data, says, recwarn):
    with pytest.raises(BadInput, match=says) as refused:
        load_picture(data, "The starting image 'x'")
    assert str(refused.value).startswith("The starting image 'x'")
    assert not recwarn.list


def test_refused_paths(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    sparse = tmp_path / "sparse.png"
    with sparse.open("wb") as file:
        file.truncate(10**9)
    for path in (
        tmp_path,
        tmp_path / "none",
        fifo,
        sparse,
        tmp_path / ("x" * 300),
        tmp_path / "\0",
    ):
        with pytest.raises(BadInput, match=r"^it "):
            load_picture(path, "it")


def test_a_saved_copy_is_what_is_used():
    copy = saved_copy(encoded(NOISE), "it")
    assert Image.open(io.BytesIO(copy)).format == "JPEG"
    assert np.abs(np.asarray(load_picture(copy, "it"), float) - np.asarray(NOISE)).mean() < 4
    assert saved_copy(copy, "it") == copy  # a copy of a copy is the same picture
    grey = encoded(Image.new("L", (4, 4), 9), "JPEG")
    assert Image.open(io.BytesIO(saved_copy(grey, "it"))).mode == "RGB"
    with pytest.raises(BadInput):
        saved_copy(encoded(NOISE, "JPEG")[:800], "it")


def test_encode_png_carries_text():
    data = encode_png(NOISE, {"key": "grüße"})
    image = Image.open(io.BytesIO(data))
    assert image.info["key"] == "grüße"
    assert np.array_equal(np.asarray(image), np.asarray(NOISE))


def stripes():
    """100 wide, 40 high; the grey of each column is its number."""
    return Image.fromarray(np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (40, 1, 3)))


def test_cover_scales_and_cuts_evenly():
    small = np.asarray(cover(stripes(), (20, 20)))
    assert small.shape == (20, 20, 3)
    assert abs(int(small[10, 0, 0]) - 30) <= 1 and abs(int(small[10, 19, 0]) - 69) <= 1
    large = np.asarray(cover(stripes(), (200, 40)))
    assert large.shape == (40, 200, 3) and abs(int(large[0, 100, 0]) - 50) <= 1


def test_cover_of_a_sliver_needs_no_huge_picture_on_the_way():
    assert cover(Image.new("RGB", (60_000, 1), RED), (64, 64)).getpixel((9, 9)) == RED


def test_cover_leaves_the_right_size_alone():
    image = stripes()
    assert cover(image, (100, 40)) is image


def test_scaled_keeps_the_whole_picture():
    whole = np.asarray(scaled(stripes(), (25, 80)))
    assert whole.shape[:2] == (80, 25)
    assert whole[0, 0, 0] < 5 and whole[0, -1, 0] > 90
    assert scaled(stripes(), stripes().size) == stripes()


def test_crop_or_cover():
    cut = np.asarray(crop_or_cover(stripes(), (20, 20)))
    assert cut[0, :, 0].tolist() == list(range(40, 60))
    assert crop_or_cover(stripes(), (120, 20)).size == (120, 20)
    covered = crop_or_cover(stripes(), (50, 80))
    assert covered.size == (50, 80)
    assert np.array_equal(np.asarray(covered), np.asarray(cover(stripes(), (50, 80))))


def test_pillows_warnings_are_silent_only_here(recwarn):
    """However many threads read at the same time, and in whichever order they end."""
    before = list(warnings.filters)
    bomb = png_header(10_000, 10_000)  # Pillow would warn of it
    entered, leave = threading.Event(), threading.Event()

    def read_slowly():
        with opened_image(io.BytesIO(bomb)):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=read_slowly)
    thread.start()
    entered.wait()
    with opened_image(io.BytesIO(bomb)) as image:
        leave.set()
        thread.join()
        assert image.size == (10_000, 10_000) and warnings.filters != before
    assert warnings.filters == before
    with pytest.raises(Image.UnidentifiedImageError), opened_image(io.BytesIO(b"none")):
        pass
    assert warnings.filters == before and not recwarn.list
    warnings.warn("of somebody else's", stacklevel=1)
    assert len(recwarn.list) == 1
