"""What a gallery for others gives away: with --kiosk pictures and prompts, with --read-only nothing
about the machine."""

import io
import json
import struct
import zipfile

import imageio.v2 as imageio
import numpy as np
import pytest
from gallery_runs import make_run, open_gallery, post, runs_on
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.gallery.plain import plain_details, plain_media, without_folders
from studio.media import video
from studio.runs import storage

SECRET = "SECRET-OF-THE-HOUSE"
ICC = b"a profile of colours" * 40
KIOSK, READ_ONLY = {"kiosk": True}, {"read_only": True}


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


def noise(size=(60, 40)):
    return Image.effect_noise(size, 90).convert("RGB")


def told_in_png(path):
    info = PngInfo()
    info.add_text("details", json.dumps({"seed": 5, "host": SECRET}))
    info.add_itxt("comment", SECRET)
    info.add_text("zipped", SECRET * 100, zip=True)
    exif = Image.Exif()
    exif[0x010E] = SECRET
    noise().save(path, pnginfo=info, exif=exif, icc_profile=ICC)


def told_in_jpeg(path):
    exif = Image.Exif()
    exif[0x010E] = SECRET
    noise().save(path, exif=exif, comment=SECRET, icc_profile=ICC, progressive=True)


def told_in_webp(path):
    exif = Image.Exif()
    exif[0x010E] = SECRET
    xmp = f"<x>{SECRET}</x>".encode()
    noise().save(path, exif=exif, xmp=xmp, icc_profile=ICC, lossless=True)


def told_in_film(path):
    part = path.with_name("part.mp4")
    film = video.VideoWriter(part, (64, 48))
    for _ in range(5):
        film.add(np.asarray(noise((64, 48))))
    film.close()
    video.finish(part, path, json.dumps({"seed": 5, "host": SECRET}))


TOLD = {
    "output.PNG": told_in_png,
    "output.jpeg": told_in_jpeg,
    "output.webp": told_in_webp,
}


def plain(path):
    with plain_media(path.open("rb")) as file:
        return file.read()


@pytest.mark.parametrize("name", TOLD)
def test_a_picture_keeps_its_pixels_and_loses_its_metadata(tmp_path, name):
    TOLD[name](tmp_path / name)
    with (tmp_path / name).open("ab") as file:
        file.write(SECRET.encode())  # where no decoder looks
    before, data = (tmp_path / name).read_bytes(), plain(tmp_path / name)
    assert len(data) == len(before)
    image, original = Image.open(io.BytesIO(data)), Image.open(tmp_path / name)
    assert np.array_equal(np.asarray(image), np.asarray(original))
    assert image.info.get("icc_profile") == ICC
    assert not {"details", "comment", "zipped", "exif", "xmp"} & image.info.keys()
    assert not image.getexif() and SECRET.encode() not in data and b"seed" not in data


def test_a_film_keeps_its_frames_and_loses_its_metadata(tmp_path):
    path = tmp_path / "anim.mp4"
    told_in_film(path)
    assert SECRET.encode() in path.read_bytes()
    data = plain(path)
    (tmp_path / "plain.mp4").write_bytes(data)
    assert SECRET.encode() not in data and b"seed" not in data
    frames, told = (imageio.mimread(p) for p in (tmp_path / "plain.mp4", path))
    assert len(frames) == 5 and np.array_equal(frames, told)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"text", b"\x89PNG\r\n\x1a\n" + b"\0\0\0\5tEXt", b"\xff\xd8\xff\xe1\0\0", b"GIF89a"),
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31) + b"tEXtabc",
        b"RIFF\0\1\0\0WEBPEXIF" + struct.pack("<I", 2**31),
        struct.pack(">I4s", 16, b"ftyp") + bytes(8) + struct.pack(">I4s", 2**31, b"udta"),
    ],
)
def test_files_that_are_unknown_or_broken_are_withheld(tmp_path, data):
    (tmp_path / "output.PNG").write_bytes(data)
    with (tmp_path / "output.PNG").open("rb") as opened, pytest.raises(OSError, match="it is"):
        plain_media(opened)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/jane/models/big.ckpt", "big.ckpt"),
        ("~/pictures/a cat.png", "a cat.png"),
        ("/home/Jane Doe/x.png", "x.png"),
        ("C:\\Users\\Jane\\x.png", "x.png"),
        ("[Errno 13] refused: '/srv/runs/1/output.PNG'", "[Errno 13] refused: 'output.PNG'"),
        ("ViT-B/32", "ViT-B/32"),
        ("1 / 2 or and/or", "1 / 2 or and/or"),
        ("https://example.org/a/b", "https://example.org/a/b"),
    ],
)
def test_paths_are_cut_to_file_names(text, told):
    assert without_folders(text) == told


def test_settings_without_the_machine():
    details = {
        "host": "vm", "device": "CPU", "last_crash": "x", "seed": 1, "text_input": "/a/b",
        "image_prompts": ["/home/jane/x.png"], "error": {"in": "/home/jane/y"},
    }  # fmt: skip
    told = {"seed": 1, "text_input": "/a/b", "image_prompts": ["x.png"], "error": {"in": "y"}}
    assert plain_details(details) == told


# --- The two modes -----------------------------------------------------------------------------


@pytest.fixture
def told(output):
    """A run in which every file holds secrets."""
    folder = make_run(
        output, 1, text_input="a red heart", host=SECRET, device=SECRET, vqgan_ckpt=f"/{SECRET}/w",
        error=f"refused: /{SECRET}/x", last_crash=SECRET, parent=None, seed=4711,
    )  # fmt: skip
    told_in_png(folder / "output.PNG")
    told_in_film(folder / "anim.mp4")
    told_in_jpeg(folder / "init-image.JPEG")
    told_in_jpeg(folder / "image-prompt-1.JPEG")
    (folder / "traceback.txt").write_text(SECRET)
    (folder / "checkpoint.safetensors").write_text(SECRET)
    return folder


def everything(client, folder):
    """The body of every answer about a run, by address; of zips the bodies of their files."""
    run = f"/runs/{folder.name}"
    addresses = ["/", "/?q=heart", "/slideshow", run, f"{run}/all.zip", f"/thumbs/{folder.name}"]
    addresses += [f"/compare?a={folder.name}&b={folder.name}", "/trash", "/api/runs"]
    addresses += [f"/api{run}", "/api/activity", "/api/slides/next", "/runs/nobody"]
    addresses += [f"/files/{folder.name}/{path.name}" for path in folder.iterdir()]
    bodies = {}
    for address in addresses:
        answer = client.get(address)
        bodies[address] = answer.data if answer.status_code < 400 else b""
        if answer.mimetype == "application/zip" and answer.status_code == 200:
            archive = zipfile.ZipFile(io.BytesIO(answer.data))
            assert archive.testzip() is None
            for name in archive.namelist():
                bodies[name] = archive.read(name)
    return bodies


@pytest.mark.parametrize("options", [KIOSK, READ_ONLY])
def test_nothing_about_the_machine_is_given_away(output, told, options):
    bodies = everything(open_gallery(output, **options), told)
    assert [address for address, body in bodies.items() if SECRET.encode() in body] == []
    picture = Image.open(io.BytesIO(bodies[f"/files/{told.name}/output.PNG"]))
    assert "details" not in picture.info and picture.size == (60, 40)
    assert bodies[f"/files/{told.name}/anim.mp4"]


def test_the_owner_gets_every_file_as_it_is(output, told):
    client = open_gallery(output)
    for path in told.iterdir():
        assert client.get(f"/files/{told.name}/{path.name}").data == path.read_bytes()


def test_read_only_still_shows_the_settings(output, told):
    client = open_gallery(output, read_only=True)
    page = client.get(f"/runs/{told.name}").text
    assert "<dd>4711</dd>" in page and "details.json" in page and "traceback" not in page
    assert client.get(f"/files/{told.name}/details.json").json["seed"] == 4711
    assert client.get(f"/api/runs/{told.name}").json["details"]["vqgan_ckpt"] == "w"


def test_a_range_of_a_plain_file_is_plain(output, told):
    address = f"/files/{told.name}/output.PNG"
    client = open_gallery(output, kiosk=True)
    whole = client.get(address)
    for start in range(0, len(whole.data) - 100, 50):
        part = client.get(address, headers={"Range": f"bytes={start}-{start + 99}"})
        assert part.status_code == 206 and part.data == whole.data[start : start + 100]
    assert whole.headers["ETag"] != open_gallery(output).get(address).headers["ETag"]


def test_a_kiosk_serves_nothing_but_pictures_and_prompts(output, told):
    bodies = everything(open_gallery(output, kiosk=True), told)
    for address, body in bodies.items():
        assert b"4711" not in body and b"seed" not in body and b"emoji_clip" not in body, address
    allowed = {f"/files/{told.name}/{name}" for name in ("output.PNG", "anim.mp4")}
    assert {a for a in bodies if a.startswith("/files/") and bodies[a]} == allowed


@pytest.mark.parametrize("status", ["failed", "interrupted", "running", "queued", "broken"])
def test_a_kiosk_shows_only_runs_that_ended_well(output, status):
    good = [make_run(output, n, status=s).name for n, s in enumerate(("done", "stopped"))][::-1]
    facts = {"heartbeat": storage.now()} if status == "running" else {}
    bad = make_run(output, 5, status=status, text_input="unhappy", **facts)
    (bad / "anim.mp4").write_bytes(b"1")
    client = open_gallery(output, kiosk=True)
    assert runs_on(client.get("/")) == good
    assert {run["run_id"] for run in client.get("/api/runs").json["runs"]} == set(good)
    for address in ("/runs/{}", "/thumbs/{}", "/api/runs/{}", "/files/{}/output.PNG"):
        assert client.get(address.format(bad.name)).status_code == 404, address
    assert "unhappy" not in client.get(f"/slideshow?at={bad.name}").text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        *(("q=heart", 1), ("q=4711", 0), ("q=seed", 0), ("q=emoji_clip", 0), ("q=心", 1)),
        *(("q=庭", 0), ("q=-heart", 0), ("status=failed", 1), ("weights=other", 1)),
        *(("steps_min=1000", 1), ("size=1x1", 1), ("date_to=1999-01-01", 1), ("tag=x", 1)),
    ],
)
def test_a_kiosk_cannot_be_asked_for_settings(output, query, found):
    make_run(output, 1, text_input="a heart 心", seed=4711, note="庭")
    assert len(runs_on(open_gallery(output, kiosk=True).get(f"/?{query}"))) == found


@pytest.mark.parametrize("options", [KIOSK, READ_ONLY])
def test_the_path_of_a_missing_folder_is_not_told(output, options):
    name = make_run(output, 1).name
    client = open_gallery(output, **options)
    output.rename(output.with_name("elsewhere"))
    for address in ("/", f"/runs/{name}", "/slideshow", "/api/runs"):
        assert str(output) not in client.get(address).text
    assert "is not there any more" in client.get("/").text


@pytest.mark.parametrize("options", [KIOSK, READ_ONLY])
def test_strangers_do_not_see_removed_runs(output, options):
    name, other = (make_run(output, n).name for n in (1, 2))
    post(open_gallery(output), f"/runs/{name}/trash")
    client = open_gallery(output, **options)
    for address in ("/trash", f"/trash/{name}/thumb"):
        assert client.get(address).status_code == 404
    assert name not in client.get(f"/?removed={name}").text
    is_offered = "Choose a run to compare" in client.get(f"/?compare={other}").text
    assert is_offered == (options == READ_ONLY)


def test_a_thumbnail_has_no_metadata(output):
    folder = make_run(output, 1)
    told_in_png(folder / "output.PNG")
    data = open_gallery(output).get(f"/thumbs/{folder.name}").data
    assert SECRET.encode() not in data and not Image.open(io.BytesIO(data)).info.get("comment")
