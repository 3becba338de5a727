"""Runs that begin with a frame of another run's film."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from tiny_models import write_tiny_assets

from studio.base.errors import BadInput
from studio.base.stopping import Stop
from studio.cli import generating
from studio.gallery.details import readable
from studio.making import chains
from studio.making.frames import frame_of, marked_frame
from studio.making.prepare import Request, prepare
from studio.making.submit import submit
from studio.media import frames, video
from studio.media.frame_marks import FrameOf, mark_of, marked_jpeg, marked_png
from studio.media.pictures import encode_jpeg, encode_png
from studio.runs.details_keys import begins_with
from studio.runs.storage import CHECKPOINT, DETAILS, INIT_IMAGE, PICTURE, START, VIDEO, RunFolder

NAME = "20260101T000000-filmed_1"
SIZE = (33, 47)  # odd, so the film is larger
FRAMES = 60
BASE = {"text_input": "a red heart", "vqgan_ckpt": "tiny_f8", "clip_model": "tiny_clip"}


def write_film(path, count=FRAMES, size=SIZE, fps=12.5):
    """Frame n is of the grey 4 n - 4."""
    part = path.with_name("anim.part.mp4")
    writer = video.VideoWriter(part, size, fps=fps)
    for number in range(count):
        writer.add(np.full((size[1], size[0], 3), 4 * number, np.uint8))
    writer.close()
    video.finish(part, path, "")


def grey_of(picture):
    return round(float(np.asarray(picture).mean()) / 4) + 1


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    write_tiny_assets(folder)
    return folder


@pytest.fixture
def filmed(tmp_path):
    """A finished run with a film, a picture that is not its last frame, and a seed of its own."""
    folder = RunFolder(tmp_path / "output" / NAME)
    folder.path.mkdir(parents=True)
    details = {"schema_version": 1, "status": "done", "run_folder": NAME, "num_steps": FRAMES}
    folder.write(BASE | details | {"planned_num_steps": FRAMES, "Xdim": 32, "ydim": 48, "seed": 3})
    Image.new("RGB", SIZE, "red").save(folder.path / PICTURE, "PNG")
    write_film(folder.path / VIDEO)
    return folder


@pytest.fixture
def ask(filmed, assets):
    """What a request makes: the folder of a run that waits."""

    def make(given=None, **how):
        request = Request(given or {}, filmed.path.parent, assets, **how)
        return submit(prepare(request))

    return make


def test_each_frame_is_found(tmp_path):
    write_film(tmp_path / "anim.mp4")
    assert frames.length(tmp_path / "anim.mp4") == (FRAMES, 12.5)
    for number in (1, 2, 12, 13, 14, 37, FRAMES):  # beside key frames, which come every 12
        assert grey_of(frames.frame(tmp_path / "anim.mp4", number)) == number


def test_frames_of_a_film_that_was_continued(tmp_path):
    part, path = tmp_path / "anim.part.mp4", tmp_path / "anim.mp4"
    write_film(path, 20)
    video.unfinish(path, part)
    writer = video.VideoWriter(part, SIZE, keep=15, fps=12.5)
    for number in range(15, 40):
        writer.add(np.full((SIZE[1], SIZE[0], 3), 4 * number, np.uint8))
    writer.close()
    video.finish(part, path, "")
    found = [grey_of(frames.frame(path, number)) for number in (14, 15, 16, 17, 39, 40)]
    assert found == [14, 15, 16, 17, 39, 40]


@pytest.mark.parametrize("number", [-1, 0, FRAMES + 1])
def test_a_frame_that_is_not_there_is_refused(filmed, number):
    with pytest.raises(BadInput, match=f"no frame {number}: .* frames 1 to {FRAMES}"):
        frame_of(filmed, number)


def test_broken_and_missing_films_say_so(filmed):
    (filmed.path / VIDEO).write_bytes(b"no film")
    with pytest.raises(BadInput, match="is broken, so no frame"):
        frame_of(filmed, 1)
    (filmed.path / VIDEO).unlink()
    with pytest.raises(BadInput, match="has no video"):
        frame_of(filmed, 1)


def test_a_frame_has_the_size_of_the_picture(filmed):
    assert frame_of(filmed, 37).size == SIZE
    (filmed.path / PICTURE).unlink()
    assert frame_of(filmed, 37).size == (34, 48)


def test_a_run_continues_a_frame(filmed, ask):
    (filmed.path / CHECKPOINT).write_bytes(b"the state at the end, which is not used")
    run = ask(continue_run=NAME, continue_frame=37)
    details = run.read()
    assert (details["parent"], details["parent_frame"]) == (NAME, 37)
    assert (details["prev_run_id"], details["ancestors"]) == (NAME[-8:], [NAME])
    assert details["text_input"] == "a red heart" and details["seed"] != 3
    assert grey_of(Image.open(run.path / START)) == 37
    assert sorted(path.name for path in run.path.iterdir()) == [DETAILS, START]
    assert begins_with(details) == f"Continues frame 37 of {NAME}."


def test_the_film_of_all_stages_goes_on_from_the_frame(filmed, ask):
    run = ask(continue_run=NAME, continue_frame=37)
    write_film(run.path / VIDEO, 20)
    film = chains.make_video(run)
    assert film and frames.length(film) == (37 + 20, 12.5)
    found = [grey_of(frames.frame(film, number)) for number in (1, 36, 37, 38, 57)]
    assert found == [1, 36, 37, 1, 20]


def test_continuing_the_end_names_no_frame(ask):
    details = ask(continue_run=NAME).read()
    assert "parent_frame" not in details and begins_with(details) == f"Continues {NAME}."


def test_settings_bring_the_frame_along(ask):
    run = ask(continue_run=NAME, continue_frame=37)
    again = ask(settings_file=run.path / DETAILS)
    assert again.read()["parent_frame"] == 37 and again.read()["ancestors"] == [NAME]
    assert (again.path / START).read_bytes() == (run.path / START).read_bytes()
    assert again.read()["inputs_sha256"] == run.read()["inputs_sha256"]


def test_a_dropped_picture_brings_the_frame_along(ask, tmp_path):
    run = ask(continue_run=NAME, continue_frame=37)
    picture = tmp_path / "dropped.png"
    picture.write_bytes(
        encode_png(Image.new("RGB", (8, 8)), {"details": json.dumps(run.read() | {"run_id": None})})
    )
    assert ask(settings_file=picture).read()["parent_frame"] == 37


def test_a_starting_image_says_which_frame_it_is(filmed, ask, tmp_path):
    frame = tmp_path / "frame.png"
    frame.write_bytes(marked_frame(filmed, 12))
    run = ask(BASE | {"init_image": str(frame)})
    assert run.read()["init_image_from"] == {"run": NAME, "frame": 12}
    assert begins_with(run.read()) == f"Starting image: frame 12 of {NAME}."
    assert grey_of(Image.open(run.path / INIT_IMAGE)) == 12
    again = ask(settings_file=run.path / DETAILS)
    assert again.read()["init_image_from"] == {"run": NAME, "frame": 12}
    assert again.read()["inputs_sha256"] == run.read()["inputs_sha256"]
    settings, _ = readable(again.read())
    told = {line.label: line.value for line in settings}
    assert told["Starting image from"] == f"frame 12 of {NAME}"


def test_other_starting_images_say_nothing(ask, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "mine.png")
    assert "init_image_from" not in ask(BASE | {"init_image": str(tmp_path / "mine.png")}).read()


def test_a_mark_stays_with_a_picture():
    mark, picture = FrameOf(NAME, 5), Image.new("RGB", (9, 9), "teal")
    assert mark_of(marked_png(picture, mark)) == mark
    plain = encode_jpeg(picture, 95)
    jpeg = marked_jpeg(plain, mark)
    assert mark_of(jpeg) == mark_of(marked_jpeg(jpeg, mark)) == mark
    assert marked_jpeg(jpeg, mark) == jpeg and marked_jpeg(plain, None) == plain
    assert Image.open(io.BytesIO(jpeg)).tobytes() == Image.open(io.BytesIO(plain)).tobytes()


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "[]", "{}", "[" * 9999, '{"run": "a", "frame": 0}', '{"run": 1, "frame": 1}'),
        *('{"run": "a", "frame": true}', '{"run": "../a", "frame": 1}'),
        '{"run": "a", "frame": 1, "more": 2}',
    ],
)
def test_marks_of_strangers_count_as_none(text):
    assert mark_of(encode_png(Image.new("RGB", (2, 2)), {"frame-of": text})) is None


def test_the_command_line_continues_a_frame(filmed, assets, capsys):
    places = ["--output-dir", str(filmed.path.parent), "--assets-dir", str(assets), "--enqueue"]
    words = ["--continue-run", "filmed_1", "--continue-frame"]
    assert generating.run([*words, "37", *places], Stop()) == 0
    name = capsys.readouterr().out.strip()
    assert RunFolder(filmed.path.parent / name).read()["parent_frame"] == 37
    assert generating.run([*words, "61", *places], Stop()) == 2
    assert "no frame 61: the video anim.mp4 has frames 1 to 60" in capsys.readouterr().err
    assert generating.run(["a fish", "--continue-frame", "3", *places], Stop()) == 2
    assert "--continue-frame needs --continue-run RUN_ID" in capsys.readouterr().err
    assert generating.run(["--resume", "filmed_1", "--continue-frame", "3", *places], Stop()) == 2
    assert "takes no --continue-frame" in capsys.readouterr().err
