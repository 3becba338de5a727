"""How the gallery shows a run whose picture was upscaled."""

import io
import json

import pytest
from gallery_runs import look_again, make_run, open_gallery
from PIL import Image

BLUE, RED = (0, 0, 200), (200, 0, 0)


def add_upscaled(folder, name, size, colour=RED):
    """A file beside the picture, and what details.json says of it."""
    Image.new("RGB", size, colour).save(folder / name)
    stem, _, scale = name.partition(".")[0].rpartition("-x")
    told = {"file": name, "scale": int(scale), "model": "animevideov3", "of": f"{stem}.PNG"}
    details = json.loads((folder / "details.json").read_text())
    details.setdefault("upscaled", []).append(told)
    (folder / "details.json").write_text(json.dumps(details))


def colour_of(answer) -> tuple[int, ...]:
    """The channel that is the brightest tells the picture, also in a JPEG."""
    with Image.open(io.BytesIO(answer.data)) as image:
        pixel = image.convert("RGB").getpixel((3, 3))
    return BLUE if pixel[2] > pixel[0] else RED


@pytest.fixture
def folder(tmp_path):
    found = make_run(tmp_path, 1)
    Image.new("RGB", (32, 24), BLUE).save(found / "output.PNG")
    return found


@pytest.mark.parametrize("mode", [{}, {"kiosk": True}, {"read_only": True}])
def test_the_upscaled_picture_is_shown_first(folder, mode):
    add_upscaled(folder, "output-x2.PNG", (64, 48), BLUE)
    add_upscaled(folder, "output-x4.PNG", (128, 96))
    add_upscaled(folder, "output-2-x8.PNG", (64, 64), BLUE)  # of another picture
    client = open_gallery(folder.parent, **mode)
    page = client.get(f"/runs/{folder.name}").text
    (line,) = (line for line in page.splitlines() if 'id="picture"' in line)
    assert f'src="/files/{folder.name}/output-x4.PNG' in line and 'width="128"' in line
    assert "output-x4.PNG?download=1" in page
    assert 'class="stage"' in page
    assert colour_of(client.get(f"/files/{folder.name}/output-x4.PNG")) == RED
    assert colour_of(client.get(f"/thumbs/{folder.name}")) == RED


def test_without_one_the_picture_is_shown_with_pixels_as_squares(folder):
    client = open_gallery(folder.parent)
    page = client.get(f"/runs/{folder.name}").text
    assert 'class="stage crisp"' in page and "Download ×" not in page
    assert colour_of(client.get(f"/thumbs/{folder.name}")) == BLUE


def test_one_that_is_broken_leaves_the_pictures_thumbnail(folder):
    add_upscaled(folder, "output-x4.PNG", (128, 96))
    (folder / "output-x4.PNG").write_bytes(b"none")
    client = open_gallery(folder.parent)
    assert colour_of(client.get(f"/thumbs/{folder.name}")) == BLUE
    look_again(client)
    assert client.get(f"/api/runs/{folder.name}").json["status"] == "done"


def test_other_names_are_not_served(folder):
    for name in ("output-x5.PNG", "outputs-x4.PNG", "output-x4.PNG.tmp"):
        Image.new("RGB", (9, 9)).save(folder / name, format="PNG")
        assert open_gallery(folder.parent).get(f"/files/{folder.name}/{name}").status_code == 404
