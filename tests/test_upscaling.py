"""Upscaling files: kinds of pictures, films, folders, runs, what survives, what is refused."""

import errno
import io
import json
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from studio import commands
from studio.base.errors import BadInput
from studio.base.paths import ASSETS_DIR, ROOT
from studio.base.stopping import Stop
from studio.making import upscaling
from studio.making.recipes import from_file
from studio.making.upscaling import Enlarger, Upscaling
from studio.media import picture_files, planes
from studio.media.film_copy import frames_of
from studio.media.frames import length
from studio.media.png_writer import PngWriter
from studio.media.video import ffmpeg

EXAMPLE = ASSETS_DIR / "emoji_f8.examples" / "1-a-red-heart.png"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def upscale(*words: object) -> int:
    return commands.main(["upscale", *map(str, words)])


def last_line(capsys) -> Path:
    return Path(capsys.readouterr().out.splitlines()[-1])


def heart(side: int = 40) -> Image.Image:
    return Image.open(EXAMPLE).convert("RGB").resize((side, side))


def looks_like(path: Path, wanted: Image.Image, scale: int) -> bool:
    """Whether a file shows the picture, larger."""
    with Image.open(path) as found:
        assert found.size == (wanted.width * scale, wanted.height * scale)
        mode = "RGBA" if found.has_transparency_data else "RGB"
        small = np.asarray(found.convert(mode).resize(wanted.size, Image.Resampling.BOX), float)
    return bool(np.abs(small - np.asarray(wanted.convert(mode))).mean() < 8)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_a_picture_is_made_larger_beside_itself(scale, tmp_path, capsys):
    heart().save(tmp_path / "a.png")
    assert upscale(tmp_path / "a.png", "--scale", scale) == 0
    assert last_line(capsys) == tmp_path / f"a-x{scale}.png"
    assert looks_like(tmp_path / f"a-x{scale}.png", heart(), scale)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a-x{scale}.png", "a.png"]


def test_eight_times_is_four_times_and_then_twice(tmp_path):
    heart(24).save(tmp_path / "a.png")
    upscale(tmp_path / "a.png", "--scale", 8)
    upscale(tmp_path / "a.png", "--output", tmp_path / "b.png")
    upscale(tmp_path / "b.png", "--scale", 2)
    one, two = (np.asarray(Image.open(tmp_path / name)) for name in ("a-x8.png", "b-x2.png"))
    assert (one == two).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_kinds_of_pngs_come_out_as_they_went_in(mode, tmp_path):
    picture = heart().convert("RGBA" if "A" in mode else "RGB")
    if "A" in mode:
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture = picture.quantize(64, dither=0) if mode == "P" else picture.convert(mode)
    picture.save(tmp_path / "a.png")
    upscale(tmp_path / "a.png")
    with Image.open(tmp_path / "a-x4.png") as found:
        assert found.mode == {"P": "RGB", "1": "L"}.get(mode, mode)
    if mode != "1":  # dithered, it changes
        assert looks_like(tmp_path / "a-x4.png", picture, 4)


def test_grey_of_16_bits_keeps_its_depth(tmp_path):
    values = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    upscale(tmp_path / "a.png", "--scale", 2)
    with Image.open(tmp_path / "a-x2.png") as found:
        assert found.mode == "I;16"
        made = np.asarray(found).astype(float)
    assert np.abs(made[::2, ::2] - values).mean() < 700
    assert len(np.unique(made)) > 256


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_keep_their_depth(channels, tmp_path):
    pixels = np.random.default_rng(0).integers(20000, 40000, (20, 24, channels), np.uint16)
    pixels[..., 3:] = 65535
    write_png(tmp_path / "a.png", pixels)
    found = planes.read_planes(tmp_path / "a.png").pixels
    assert found.dtype == np.uint16 and (found == pixels).all()
    upscale(tmp_path / "a.png", "--scale", 2)
    made = planes.read_planes(tmp_path / "a-x2.png").pixels
    assert made.dtype == np.uint16 and made.shape == (40, 48, channels)


def write_png(path: Path, pixels: np.ndarray, band: int = 7) -> None:
    with path.open("wb") as file:
        writer = PngWriter(file, (pixels.shape[1], pixels.shape[0]), pixels)
        for top in range(0, len(pixels), band):
            writer.add(pixels[top : top + band])
        writer.close()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_in_bands_is_what_pillow_reads(channels, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (23, 17, channels), np.uint8)
    write_png(tmp_path / "a.png", pixels)
    found = np.asarray(Image.open(tmp_path / "a.png")).reshape(pixels.shape)
    assert (found == pixels).all()


def test_solid_stays_solid_and_edges_have_no_dark_fringe(tmp_path):
    picture = np.zeros((32, 32, 4), np.uint8)
    picture[8:24, 8:24] = (250, 200, 40, 255)  # the rest is black, unseen
    Image.fromarray(picture).save(tmp_path / "a.png")
    upscale(tmp_path / "a.png")
    found = np.asarray(Image.open(tmp_path / "a-x4.png"))
    assert (found[40:88, 40:88, 3] == 255).all() and (found[:24, :, 3] == 0).all()
    seen = found[found[..., 3] > 20][:, :3].astype(int)
    assert np.abs(seen - (250, 200, 40)).max() < 40


def test_cmyk_becomes_rgb_of_the_same_look(tmp_path):
    heart().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    upscale(tmp_path / "a.jpg", "--model", "animevideov3")
    with Image.open(tmp_path / "a-x4.png") as found:
        assert found.mode == "RGB"
    assert looks_like(tmp_path / "a-x4.png", heart(), 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotation_in_exif_is_done_once(orientation, tmp_path):
    picture = heart().crop((0, 0, 40, 28))
    exif = Image.Exif()
    exif[planes.ORIENTATION], exif[0x010F] = orientation, "Camera"
    picture.save(tmp_path / "a.png", exif=exif)
    wanted = planes.read_planes(tmp_path / "a.png")
    assert wanted.pixels.shape[:2] == ((28, 40) if orientation < 5 else (40, 28))
    with Image.open(tmp_path / "a.png") as saved:
        assert (np.asarray(ImageOps.exif_transpose(saved)) == wanted.pixels).all()
    upscale(tmp_path / "a.png", "--scale", 2)
    with Image.open(tmp_path / "a-x2.png") as found:
        assert found.size == (wanted.pixels.shape[1] * 2, wanted.pixels.shape[0] * 2)
        assert found.getexif().get(planes.ORIENTATION, 1) == 1
        assert found.getexif()[0x010F] == "Camera"


def test_a_profile_stays_with_its_pixels(tmp_path):
    heart().save(tmp_path / "a.png", icc_profile=SRGB)
    upscale(tmp_path / "a.png", "--scale", 2)
    with Image.open(tmp_path / "a-x2.png") as found:
        assert found.info["icc_profile"] == SRGB


def test_settings_survive_and_say_what_upscaled_them(tmp_path):
    info = PngInfo()
    info.add_text("details", json.dumps({"text_input": "ein Herz ♥", "seed": 7}))
    info.add_text("other", "kept")
    heart().save(tmp_path / "a.png", pnginfo=info)
    upscale(tmp_path / "a.png", "--scale", 2)
    with Image.open(tmp_path / "a-x2.png") as found:
        text = dict(found.text)
    assert json.loads(text["details"])["text_input"] == "ein Herz ♥"
    assert text["other"] == "kept"
    assert json.loads(text["upscaled"]) == {"scale": 2, "model": "animevideov3", "of": "a.png"}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_the_picture_can_be_made_again_from_the_upscaled_file(suffix, tmp_path):
    target = tmp_path / f"b{suffix}"
    assert upscale(EXAMPLE, "--scale", 2, "--output", target) == 0
    told = json.loads(Image.open(EXAMPLE).text["details"])
    values = from_file(target, tmp_path, "VQGAN-CLIP").values
    assert values["text_input"] == told["text_input"] and values["seed"] == told["seed"]
    assert values == from_file(EXAMPLE, tmp_path, "VQGAN-CLIP").values


def test_auto_tells_flat_art_from_a_photograph():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).resize((160, 160))
    examples = [np.asarray(Image.open(p)) for p in EXAMPLE.parent.glob("*.png")]
    assert all(map(planes.is_flat_art, examples)) and not planes.is_flat_art(np.asarray(noise))
    work = Enlarger(Upscaling(), ASSETS_DIR)
    assert work.model_for(examples[0]) == "animevideov3"
    assert work.model_for(np.asarray(noise)) == "x4plus"


def test_the_command_says_which_model_auto_chose(tmp_path, capsys):
    heart(20).save(tmp_path / "a.png")
    upscale(tmp_path / "a.png")
    assert "animevideov3" in capsys.readouterr().err


# --- Folders -----------------------------------------------------------------------------------


def test_a_folder_goes_on_with_the_missing_pictures(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png", "b.jpg", "c.gif", "notes.txt"):
        heart(16).save(folder / name) if "txt" not in name else (folder / name).touch()
    done = tmp_path / "in-x4"
    done.mkdir()
    (done / "a-x4.png").write_bytes(b"there")
    assert upscale(folder) == 0
    assert last_line(capsys) == done
    names = sorted(p.name for p in done.iterdir())
    assert names == ["a-x4.png", "b.jpg-x4.png", "b.png-x4.png", "c-x4.png"]
    assert (done / "a-x4.png").read_bytes() == b"there"
    assert upscale(folder) == 0


def test_a_broken_picture_in_a_folder_keeps_no_other_from_being_made(tmp_path, capsys):
    heart(16).save(tmp_path / "b.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "b.png").read_bytes()[:200])
    out = tmp_path / "out"
    assert upscale(tmp_path, "--output", out) == 1
    said = capsys.readouterr()
    assert "a.png is broken or cut off" in said.err and said.out.splitlines() == [str(out)]
    assert [p.name for p in out.iterdir()] == ["b-x4.png"]


def test_a_kill_leaves_whole_files_or_none(tmp_path):
    """The process dies at its second tile; what begins again makes the picture."""
    heart(16).save(tmp_path / "a.png")
    code = (
        "import os, sys; from studio.models import enlarging; from studio import commands;"
        "enlarging.enlarged = lambda *_: os._exit(9);"
        "commands.main(['upscale', sys.argv[1]])"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=False)
    assert done.returncode == 9
    assert not list(tmp_path.glob("**/a-x4.png"))
    assert upscale(tmp_path, "--output", tmp_path / "out") == 0
    assert looks_like(tmp_path / "out" / "a-x4.png", heart(16), 4)


# --- Films and runs ----------------------------------------------------------------------------


def film(path: Path, *, sound: bool = True, rate: str = "30000/1001", frames: int = 5) -> Path:
    words = [*ffmpeg(), "-f", "lavfi", "-i", f"testsrc=s=32x26:r={rate}"]
    words += ["-f", "lavfi", "-i", "sine"] if sound else []
    words += ["-frames:v", str(frames), "-shortest", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(words, check=True)
    return path


def probe(path: Path) -> str:
    words = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path)]
    return subprocess.run(words, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
def test_a_film_keeps_its_sound_its_rate_and_its_frames(name, tmp_path, capsys):
    source = film(tmp_path / name)
    assert upscale(source, "--scale", 2, "--model", "animevideov3") == 0
    target = tmp_path / "a-x2.mp4"
    assert last_line(capsys) == target
    assert length(target) == length(source)
    assert "29.97 fps" in probe(target) and "Audio:" in probe(target)
    for small, large in zip(frames_of(source), frames_of(target), strict=True):
        assert large.shape == (52, 64, 3)
        again = np.asarray(Image.fromarray(large).resize((32, 26), Image.Resampling.BOX), float)
        assert np.abs(again - small).mean() < 20
    assert not list(tmp_path.glob(".*"))


def test_a_film_without_sound_has_none_later(tmp_path):
    source = film(tmp_path / "a.mp4", sound=False, rate="24")
    assert upscale(source, "--scale", 2, "--model", "animevideov3") == 0
    assert "Audio:" not in probe(tmp_path / "a-x2.mp4")


@pytest.mark.parametrize("content", [b"", b"no film at all"])
def test_a_film_without_frames_is_refused_before_a_model_loads(content, tmp_path, monkeypatch):
    monkeypatch.setattr(Enlarger, "_network", None)
    (tmp_path / "a.mp4").write_bytes(content)
    assert upscale(tmp_path / "a.mp4") == 2
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_sound_alone_is_no_film(tmp_path, capsys):
    words = [*ffmpeg(), "-f", "lavfi", "-i", "sine=d=0.1", str(tmp_path / "a.mp4")]
    subprocess.run(words, check=True)
    assert upscale(tmp_path / "a.mp4") == 2
    assert "a.mp4" in capsys.readouterr().err


def run_folder(output_dir: Path, **details: object) -> Path:
    folder = output_dir / "20260101T120000-abcdefgh"
    folder.mkdir(parents=True)
    told = {"run_id": "abcdefgh", "text_input": "a red heart", "status": "done", **details}
    (folder / "details.json").write_text(json.dumps(told))
    return folder


def test_the_pictures_of_a_run_are_upscaled_in_its_folder(tmp_path, capsys):
    folder = run_folder(tmp_path)
    for name in ("output.PNG", "output-2.PNG"):
        heart(16).save(folder / name)
    assert upscale("abcdefgh", "--output-dir", tmp_path) == 0
    assert last_line(capsys) == folder / "output-x4.PNG"
    assert looks_like(folder / "output-2-x4.PNG", heart(16), 4)
    told = json.loads((folder / "details.json").read_text())["upscaled"]
    assert [entry["file"] for entry in told] == ["output-x4.PNG", "output-2-x4.PNG"]
    assert told[0]["of"] == "output.PNG" and told[0]["model"] == "animevideov3"


@pytest.mark.parametrize("status", ["queued", "running"])
def test_a_run_that_is_being_made_is_left_alone(status, tmp_path, capsys):
    from studio.runs.details import now

    heart(16).save(run_folder(tmp_path, status=status, heartbeat=now()) / "output.PNG")
    assert upscale("abcdefgh", "--output-dir", tmp_path) == 2
    assert "Wait until it has ended" in capsys.readouterr().err


# --- Progress, stopping, bad input -------------------------------------------------------------


def test_progress_rises_to_the_whole(tmp_path):
    heart(20).save(tmp_path / "a.png")
    shares: list[float] = []
    Enlarger(Upscaling(8), ASSETS_DIR).picture(
        tmp_path / "a.png", tmp_path / "b.png", shares.append
    )
    assert shares == sorted(shares) and shares[-1] == 1 and len(shares) > 1


def test_a_stop_leaves_nothing_half_written(tmp_path):
    heart(20).save(tmp_path / "a.png")
    stop = Stop()
    stop.request()
    with pytest.raises(KeyboardInterrupt):
        Enlarger(Upscaling(8), ASSETS_DIR).picture(
            tmp_path / "a.png", tmp_path / "b.png", stop=stop
        )
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path, monkeypatch, capsys):
    heart(16).save(tmp_path / "a.png")

    def full(self, rows):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PngWriter, "add", full)
    assert upscale(tmp_path / "a.png") == 1
    said = capsys.readouterr()
    assert "The disk is full, so" in said.err and said.out == ""
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def bomb() -> bytes:
    """A PNG whose header claims 30000x30000 pixels."""
    data = io.BytesIO()
    Image.new("L", (1, 1)).save(data, "PNG")
    found = bytearray(data.getvalue())
    found[16:24] = (30000).to_bytes(4, "big") * 2
    import zlib

    found[29:33] = zlib.crc32(bytes(found[12:29])).to_bytes(4, "big")
    return bytes(found)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (bomb(), "too large"),
        (b"", "empty"),
        (b"hello", "not an image"),
        (EXAMPLE.read_bytes()[:3000], "broken or cut off"),
    ],
)
def test_a_picture_that_is_none_is_refused_before_a_model_loads(
    content, said, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(Enlarger, "_network", None)
    (tmp_path / "a.png").write_bytes(content)
    assert upscale(tmp_path / "a.png") == 2
    found = capsys.readouterr()
    assert said in found.err and found.err.count("\n") == 1 and found.out == ""
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{dir}/a.png", "--scale", "5"], "choose from 2, 3, 4, 8"),
        (["{dir}/a.png", "--model", "nope"], "There is no upscaler 'nope'"),
        (["{dir}/a.png", "--model", "{dir}/a.png"], "a.png is no upscaler"),
        (["{dir}/missing.png"], "does not exist"),
        (["nosuchid"], "There is no run 'nosuchid'"),
        (["{dir}/a.png", "{dir}/a.png", "--output", "{dir}/b.png"], "Give a folder"),
        (["{dir}/a.png", "--output", "{dir}/no/b.png"], "There is no folder"),
        (["{dir}/a.png", "--output", "{dir}/a.png"], "is the picture itself"),
        (["{dir}/a.png", "--output", "{dir}/a.mp4"], "Give a name ending in .png"),
        (["{dir}/empty"], "holds no pictures"),
        ([], "required: PATH"),
    ],
)
def test_bad_choices_are_refused_in_one_line(words, said, tmp_path, capsys):
    heart(16).save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    assert upscale(*(word.format(dir=tmp_path) for word in words)) == 2
    found = capsys.readouterr()
    assert said in found.err and found.err.count("\n") == 1 and found.out == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "empty"]


def test_a_jpeg_that_would_be_too_large_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"Give a \.png"):
        picture_files.check_target(tmp_path / "a.jpg", (16384, 16384))
    picture_files.check_target(tmp_path / "a.png", (16384, 16384))


def test_importing_it_leaves_torch_unimported():
    code = (
        "import sys, studio.making.upscaling, studio.cli.upscaling; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
    assert upscaling.target_for(Path("a/b.jpg"), 2) == Path("a/b-x2.png")
