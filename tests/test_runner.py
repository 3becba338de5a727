"""From a request to a run folder, with an engine that is a few lines of numpy."""

import errno
import io
import itertools
import json
import re
import subprocess
import threading

import fake_engine
import imageio_ffmpeg
import numpy as np
import pytest
from fake_engine import FakeRun
from PIL import Image

from studio.base import files
from studio.base.errors import BadInput, RunFailed
from studio.base.stopping import Stop
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.making import progress, recipes
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import submit
from studio.media import video
from studio.media.pictures import load_picture
from studio.runs import claims, storage

T13 = (
    "run_id", "num_steps", "planned_num_steps", "text_input", "init_image", "image_prompts",
    "continue_prev_run", "prev_run_id", "seed", "Xdim", "ydim", "vqgan_ckpt", "start_time",
    "end_time", "mse_weight", "mse_weight_decay", "mse_weight_decay_steps", "tv_loss_weight",
    "translation_x", "translation_y", "rotation_angle", "zoom_factor", "transform_interval",
    "use_cutout_augmentations",
)  # fmt: skip
RESULTS = {"output.PNG", "anim.mp4", "checkpoint.safetensors"}
SMALL = {"text_input": "a", "num_steps": 4, "Xdim": 32, "ydim": 16, "vqgan_ckpt": "small"}


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    fake_engine.use(monkeypatch)


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    return fake_engine.write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture
def ask(tmp_path, assets, monkeypatch):
    """prepare() with small settings; a test may change some of them or leave some out (None).

    files: the contents of files by their names, which settings may then name.
    """
    monkeypatch.chdir(tmp_path)

    def prepared(settings_file=None, continue_run=None, files=None, **given):
        earlier = settings_file or continue_run
        for name, data in (files or {}).items():
            (tmp_path / name).write_bytes(data)
        return prepare(
            Request(
                given=given if earlier else SMALL | given,
                output_dir=tmp_path / "output",
                assets_dir=assets,
                engine=fake_engine.MODEL,
                settings_file=settings_file,
                continue_run=continue_run,
            )
        )

    return prepared


@pytest.fixture
def run(ask, assets):
    """A whole run; returns its folder."""

    def whole(on_step=None, stop=None, **how):
        folder = submit(ask(**how), "running")
        execute(folder, assets_dir=assets, on_step=on_step, stop=stop)
        return folder

    return whole


def png(colour, size=(40, 30), mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def picture(folder):
    return np.asarray(load_picture(folder.path / "output.PNG", "it"))


def names(folder):
    return sorted(path.name for path in folder.path.iterdir() if path.name != claims.CLAIMS)


def comment_in(path):
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        str(path),
        "-f",
        "ffmetadata",
        "-",
    ]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    line = next(line for line in text.split("\n") if line.startswith("comment="))
    return json.loads(re.sub(r"\\(.)", r"\1", line.removeprefix("comment=")))


# --- a whole run -----------------------------------------------------------------------------


def test_a_finished_run(run):
    folder = run(seed=5, num_steps=6)
    assert names(folder) == ["anim.mp4", "checkpoint.safetensors", "details.json", "output.PNG"]
    details = folder.read()
    assert not set(T13) - details.keys()
    assert not set(VQGANCLIPSettings.model_fields) - details.keys()
    expected = {
        "schema_version": 1,
        "status": "done",
        "error": None,
        "run_id": folder.name[-8:],
        "run_folder": folder.name,
        "num_steps": 6,
        "planned_num_steps": 6,
        "seed": 5,
        "set_seed": True,
        "clip_model": "small_clip",
        "cutn": 4,
        "init_image": None,
        "image_prompts": [],
        "continue_prev_run": False,
        "prev_run_id": None,
        "warnings": ["The engine has a remark."],
    }
    assert {key: details[key] for key in expected} == expected
    assert details["steps_per_second"] > 0 and details["losses"] == {"total": 1 / 6, "text": 0.5}
    assert details["device"] and details["torch_version"] and details["project_version"]
    assert details["queued_at"] <= details["start_time"] <= details["end_time"]


def test_the_picture_is_that_of_the_last_step_and_every_step_is_filmed(run):
    seen = []
    folder = run(num_steps=30, on_step=lambda step: seen.append(step.picture))
    assert np.array_equal(picture(folder), seen[-1]) and picture(folder).shape == (16, 32, 3)
    film = imageio_ffmpeg.count_frames_and_secs(str(folder.path / "anim.mp4"))
    assert len(seen) == film[0] == 30


def test_the_settings_travel_in_picture_and_film(run):
    folder = run(text_input="a = b; \"c\" \\ 'd' # 🐻 | e:0.5")
    with Image.open(folder.path / "output.PNG") as image:
        travelling = json.loads(image.info["details"])
    assert comment_in(folder.path / "anim.mp4") == travelling
    assert travelling.items() <= folder.read().items()
    assert travelling.keys() >= {*VQGANCLIPSettings.model_fields, "planned_num_steps", "status"}


@pytest.mark.parametrize("pictures", [{}, {"init_image": "a", "image_prompt": ["a"]}])
def test_the_same_settings_and_seed_make_the_same_bytes(run, pictures):
    files = {"a": png("red")}
    first, second = (run(seed=3, **pictures, files=files) for _ in range(2))
    for name in ("output.PNG", "anim.mp4"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()


def test_a_random_seed_is_recorded_and_used(run):
    first, second = run(), run()
    seeds = [folder.read()["seed"] for folder in (first, second)]
    assert seeds[0] != seeds[1] and not first.read()["set_seed"]
    again = run(settings_file=first.path / "details.json")
    assert np.array_equal(picture(again), picture(first))
    assert again.read()["seed"] == seeds[0] and again.read()["set_seed"]


def test_sizes_are_floored_with_a_warning(ask):
    plan = ask(Xdim=39, ydim=17)
    assert (plan.settings.Xdim, plan.settings.ydim) == (32, 16)
    assert "39x17" in plan.warnings[0]


def test_what_is_given_wins_over_what_the_weights_recommend(ask):
    assert ask().settings.cutn == 4
    assert ask(cutn=7).settings.cutn == 7
    assert ask(vqgan_ckpt="plain").settings.cutn == 64
    assert ask(vqgan_ckpt=None).settings.vqgan_ckpt == "plain"


# --- how a run ends ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt, says, raised",
    [
        ("memory", "lower Xdim", RunFailed),
        ("bug", "ZeroDivisionError", RunFailed),
        ("disk", "disk is full", RunFailed),
        ("bad weights", "not a checkpoint", BadInput),
    ],
)
def test_a_failure_keeps_what_was_done(ask, assets, prompt, says, raised):
    folder = submit(ask(text_input=prompt), "running")
    with pytest.raises(raised, match=says):
        execute(folder, assets_dir=assets)
    details = folder.read()
    steps = 0 if prompt == "bad weights" else 2
    assert (details["status"], details["num_steps"]) == ("failed", steps)
    assert says in details["error"]
    left = {"details.json"} | (RESULTS if steps else set())
    assert set(names(folder)) == left | ({"traceback.txt"} if prompt == "bug" else set())
    if steps:
        assert imageio_ffmpeg.count_frames_and_secs(str(folder.path / "anim.mp4"))[0] == 2
        with Image.open(folder.path / "output.PNG") as image:
            assert json.loads(image.info["details"])["error"] == details["error"]


@pytest.mark.parametrize("how", ["flag", "wish", "ctrl-c"])
def test_stopping_keeps_what_was_done(ask, assets, how):
    folder = submit(ask(num_steps=-1, text_input=how), "running")
    stop = Stop()

    def at_two(step):
        if step.index == 2 and how != "ctrl-c":
            folder.request_stop() if how == "flag" else stop.request()

    assert execute(folder, assets_dir=assets, on_step=at_two, stop=stop) == "stopped"
    details = folder.read()
    assert (details["status"], details["num_steps"], details["planned_num_steps"]) == (
        "stopped",
        2,
        -1,
    )
    assert names(folder) == ["anim.mp4", "checkpoint.safetensors", "details.json", "output.PNG"]


def test_a_queued_run_that_is_stopped_never_loads(ask, assets, monkeypatch):
    monkeypatch.setattr("studio.making.execute._load", lambda *_: pytest.fail("loaded"))
    folder = submit(ask())
    assert folder.live_status() == "queued"
    folder.request_stop()
    assert execute(folder, assets_dir=assets) == "stopped"
    assert names(folder) == ["details.json"] and folder.read()["num_steps"] == 0


def test_a_disk_that_fills(ask, assets, monkeypatch):
    """Files fit only into the room that the reserve gave back."""
    folder = submit(ask(num_steps=-1), "running")
    write = files.atomic_write

    def write_if_room(path, data, **how):
        if (path.parent / storage.RESERVE).exists() and path.name == storage.PREVIEW:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data, **how)

    monkeypatch.setattr(progress, "atomic_write", write_if_room)
    with pytest.raises(RunFailed, match="disk is full"):
        execute(folder, assets_dir=assets)
    assert names(folder) == ["anim.mp4", "checkpoint.safetensors", "details.json", "output.PNG"]
    assert "disk is full" in folder.read()["error"] and folder.read()["num_steps"] == 1


def test_a_disk_that_is_full_from_the_start(ask, assets, monkeypatch):
    folder = submit(ask(), "running")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "atomic_write", full)
    with pytest.raises(RunFailed, match="disk is full"):
        execute(folder, assets_dir=assets)


def test_a_film_that_cannot_be_written_stops_the_run(ask, assets, monkeypatch):
    folder = submit(ask(num_steps=-1), "running")
    films = []
    begin = video.VideoWriter.__init__

    def remember(self, *how):
        begin(self, *how)
        films.append(self)

    monkeypatch.setattr(video.VideoWriter, "__init__", remember)

    def kill_ffmpeg(step):
        films[0]._process.kill()

    with pytest.raises(RunFailed, match="video cannot be written"):
        execute(folder, assets_dir=assets, on_step=kill_ffmpeg)
    assert folder.read()["status"] == "failed"
    assert {"output.PNG", "details.json"} <= set(names(folder))


def test_a_folder_that_vanishes(ask, assets):
    folder = submit(ask(num_steps=-1), "running")
    with pytest.raises(RunFailed):
        execute(folder, assets_dir=assets, on_step=lambda step: folder.remove())


def test_live_files(ask, assets, monkeypatch):
    monkeypatch.setattr(progress, "LIVE_SECONDS", 0)
    monkeypatch.setattr(progress, "LIVE_SHARE", 1e9)
    folder = submit(ask(num_steps=3), "running")
    seen = []

    def look(step):
        details, progress = folder.read(), folder.read_progress()
        live = load_picture(folder.path / "preview.JPEG", "it")
        seen.append((details["status"], progress["step"], progress["planned_num_steps"], live.size))
        assert details["num_steps"] == step.index
        assert progress["losses"]["total"] == 1 / step.index
        assert progress["history"] == [[n, 1 / n] for n in range(1, step.index + 1)]
        assert progress["seconds_left"] >= 0 and progress["steps_per_second"] > 0

    execute(folder, assets_dir=assets, on_step=look)
    assert seen == [("running", n, 3, (32, 16)) for n in (1, 2, 3)]


def test_live_files_are_written_a_few_times_a_second_only(ask, assets, monkeypatch):
    written = []
    write = files.atomic_write

    def count(path, data, **how):
        written.append(path.name)
        write(path, data, **how)

    monkeypatch.setattr(progress, "atomic_write", count)
    monkeypatch.setattr(progress, "LIVE_SECONDS", 1000)
    execute(submit(ask(num_steps=50), "running"), assets_dir=assets)
    assert written.count("preview.JPEG") == 1


def test_history_stays_short():
    history = progress.History(8)
    for step in range(1, 1001):
        history.add(step, step / 2)
    steps = [step for step, _ in history.points]
    assert 4 <= len(steps) <= 8 and steps[0] == 1 and steps[-1] > 800
    assert len({b - a for a, b in itertools.pairwise(steps)}) == 1
    history = progress.History(8)
    history.add(1, float("nan"))
    assert history.points == [(1, None)]


def test_two_runs_at_once_share_no_file(ask, assets):
    folders = [submit(ask(num_steps=20, seed=n), "running") for n in range(2)]
    threads = [
        threading.Thread(target=execute, args=[f], kwargs={"assets_dir": assets}) for f in folders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, folder in enumerate(folders):
        assert (folder.read()["status"], folder.read()["seed"]) == ("done", n)
        assert imageio_ffmpeg.count_frames_and_secs(str(folder.path / "anim.mp4"))[0] == 20


# --- pictures in -------------------------------------------------------------------------------


def test_a_run_uses_what_its_saved_copies_decode_to(ask, assets, tmp_path, monkeypatch):
    used = {}
    begin = FakeRun.__init__

    def spy(self, settings, **parts):
        used.update(parts)
        begin(self, settings, **parts)

    monkeypatch.setattr(FakeRun, "__init__", spy)
    (tmp_path / "start.png").write_bytes(png((255, 0, 0, 0), mode="RGBA"))
    prompts = ["one.png", "two.png"]
    files = {"one.png": png("red"), "two.png": png("blue")}
    start = str(tmp_path / "start.png")
    folder = submit(ask(init_image=start, image_prompt=prompts, files=files), "running")
    execute(folder, assets_dir=assets)
    copies = ["image-prompt-1.JPEG", "image-prompt-2.JPEG", "init-image.JPEG"]
    assert set(names(folder)) == RESULTS | {"details.json", *copies}
    details = folder.read()
    assert details["init_image"] == copies[2]
    assert details["image_prompt"] == details["image_prompts"] == copies[:2]
    for image, name in zip([*used["image_prompts"], used["start_image"]], copies, strict=True):
        assert np.array_equal(image, load_picture(folder.path / name, "it"))
    assert used["start_image"].getpixel((0, 0)) == (255, 255, 255)


def test_a_run_may_have_image_prompts_only(run):
    folder = run(text_input=None, image_prompt=["a"], files={"a": png("red")})
    assert folder.read()["text_input"] == "" and folder.read()["status"] == "done"


@pytest.mark.parametrize("name", ["init_image", "image_prompt"])
def test_broken_pictures_are_refused_by_name(ask, tmp_path, name):
    wrong = "broken.png" if name == "init_image" else ["broken.png"]
    with pytest.raises(BadInput, match=r"'broken\.png'"):
        ask(files={"broken.png": png("red")[:50]}, **{name: wrong})
    assert not (tmp_path / "output").exists()


# --- continuing --------------------------------------------------------------------------------


def test_continuing_takes_over_picture_and_settings(run):
    parent = run(text_input="first", cutn=9, tv_loss_weight=0.5)
    child = run(continue_run=parent.run_id, num_steps=1)
    details = child.read()
    assert np.array_equal(picture(child), picture(parent))
    starts = {"start.PNG", "start.safetensors"}
    assert set(names(child)) == RESULTS | starts | {"details.json"}
    expected = {
        "text_input": "first",
        "cutn": 9,
        "tv_loss_weight": 0.5,
        "continue_prev_run": True,
        "prev_run_id": parent.run_id,
        "parent": parent.name,
        "stage": 2,
        "ancestors": [parent.name],
        "seed": parent.read()["seed"],
        "planned_num_steps": 1,
        "init_image": None,
    }
    assert {key: details[key] for key in expected} == expected


def test_continuing_keeps_a_seed_that_was_set(run):
    parent = run(seed=7)
    assert run(continue_run=parent.name).read()["seed"] == 7
    assert run(continue_run=parent.name, set_seed=False).read()["seed"] == 7


def test_continuing_at_another_size(run):
    parent = run(Xdim=64, ydim=64)
    small = {"continue_run": parent.run_id, "Xdim": 32, "ydim": 16, "num_steps": 1}
    whole = Image.fromarray(picture(parent)).resize((32, 16), Image.Resampling.LANCZOS)
    scaled, default = run(continue_resize="scale", **small), run(**small)
    assert np.array_equal(picture(scaled), np.asarray(whole))
    assert np.array_equal(picture(default), np.asarray(whole))
    cropped = run(continue_resize="crop", **small)
    assert np.array_equal(picture(cropped), picture(parent)[24:40, 16:48])
    kept = run(continue_resize="keep", **small)
    assert np.array_equal(picture(kept), picture(parent))
    assert "The size stays 64x64" in " ".join(kept.read()["warnings"])
    recorded = [
        [f.read()[n] for n in ("continue_resize", "Xdim")] for f in (default, cropped, kept)
    ]
    assert recorded == [["scale", 32], ["crop", 32], ["keep", 64]]


@pytest.mark.parametrize("how", ["scale", "crop", "keep"])
def test_a_run_continued_at_another_size_is_made_again_from_its_details(run, how):
    parent = run(Xdim=64, ydim=64)
    child = run(continue_run=parent.name, Xdim=32, ydim=48, num_steps=1, continue_resize=how)
    again = run(settings_file=child.path / "details.json")
    assert again.read()["inputs_sha256"] == child.read()["inputs_sha256"]
    assert np.array_equal(picture(again), picture(child))


def test_a_run_from_before_continue_resize_was_recorded_is_made_again_as_it_was(run):
    parent = run(Xdim=64, ydim=64)
    child = run(continue_run=parent.name, Xdim=32, ydim=32, num_steps=1, continue_resize="crop")
    details = child.read()
    del details["continue_resize"]
    child.write(details)
    again = run(settings_file=child.path / "details.json")
    assert np.array_equal(picture(again), picture(child))


def test_settings_of_a_run_whose_state_is_gone_say_so(run):
    child = run(continue_run=run().name, num_steps=1)
    file = child.path / "details.json"
    assert run(settings_file=file).read()["warnings"] == child.read()["warnings"]
    (child.path / "start.safetensors").unlink()
    assert "start.safetensors, is not there" in " ".join(run(settings_file=file).read()["warnings"])


def test_settings_of_a_run_that_continued_a_picture_alone_lack_nothing(run):
    parent = run()
    (parent.path / "checkpoint.safetensors").unlink()
    child = run(continue_run=parent.name, num_steps=1)
    again = run(settings_file=child.path / "details.json")
    assert again.read()["warnings"] == child.read()["warnings"]


def test_continuing_with_another_prompt_and_a_starting_image(run):
    parent = run(init_image="a", image_prompt=["b"], files={"a": png("red"), "b": png("blue")})
    child = run(
        continue_run=parent.run_id, text_input="b", init_image="c", files={"c": png("green")}
    )
    details = child.read()
    assert details["text_input"] == "b" and details["image_prompt"] == ["image-prompt-1.JPEG"]
    assert details["init_image"] is None and not (child.path / "init-image.JPEG").exists()
    assert any("starting image is not used" in warning for warning in details["warnings"])
    copies = [(f.path / "image-prompt-1.JPEG").read_bytes() for f in (parent, child)]
    assert copies[0] == copies[1]


def test_continuing_a_stopped_run(ask, run, assets):
    folder = submit(ask(num_steps=9), "running")
    execute(folder, assets_dir=assets, on_step=lambda step: folder.request_stop())
    child = run(continue_run=folder.run_id)
    assert child.read()["planned_num_steps"] == 9


@pytest.mark.parametrize("status", ["queued", "running"])
def test_an_active_run_cannot_be_continued(ask, status):
    folder = submit(ask(), status)
    with pytest.raises(BadInput, match=f"still {status}"):
        ask(continue_run=folder.run_id)


def test_a_run_without_a_picture_cannot_be_continued(ask, run):
    folder = run()
    (folder.path / "output.PNG").unlink()
    (folder.path / "checkpoint.safetensors").unlink()
    with pytest.raises(BadInput, match="no picture"):
        ask(continue_run=folder.run_id)
    (folder.path / "output.PNG").write_bytes(b"\x89PNG")
    with pytest.raises(BadInput, match=r"output\.PNG"):
        ask(continue_run=folder.run_id)


def test_continuing_nothing(ask):
    with pytest.raises(BadInput, match="no run 'nothing1'"):
        ask(continue_run="nothing1")


# --- settings from earlier runs ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["details.json", "output.PNG"])
def test_settings_make_the_same_picture_again(run, name):
    files = {"a": png("red"), "b": png("blue")}
    first = run(cutn=9, init_image="a", image_prompt=["b"], files=files)
    again = run(settings_file=first.path / name)
    assert np.array_equal(picture(again), picture(first))
    for key in {*VQGANCLIPSettings.model_fields, "planned_num_steps"} - {"set_seed"}:
        assert again.read()[key] == first.read()[key]
    for copy in ("init-image.JPEG", "image-prompt-1.JPEG"):
        assert (again.path / copy).read_bytes() == (first.path / copy).read_bytes()


def test_what_is_given_wins_over_a_settings_file(run):
    first = run(cutn=9)
    details = run(settings_file=first.path / "details.json", text_input="other").read()
    assert (details["text_input"], details["cutn"]) == ("other", 9)


def test_settings_of_a_continued_run_make_its_picture_again(run):
    parent = run(seed=1)
    child = run(continue_run=parent.run_id, seed=2)
    again = run(settings_file=child.path / "details.json")
    assert np.array_equal(picture(again), picture(child))
    assert again.read()["prev_run_id"] == parent.run_id
    fresh = run(settings_file=child.path / "details.json", init_image="a", files={"a": png("red")})
    assert not fresh.read()["continue_prev_run"] and fresh.read()["init_image"]


def test_a_picture_that_was_moved_finds_its_run(run, tmp_path):
    first = run(init_image="a", files={"a": png("red")})
    moved = tmp_path / "downloads" / "nice.png"
    moved.parent.mkdir()
    moved.write_bytes((first.path / "output.PNG").read_bytes())
    again = run(settings_file=moved)
    assert np.array_equal(picture(again), picture(first))
    for folder in (first, again):
        folder.remove()
    with pytest.raises(BadInput, match=r"starting image.*init-image\.JPEG"):
        run(settings_file=moved)


OLDER = {
    "run_id": "abcdefgh",
    "num_steps": 3,
    "planned_num_steps": 5,
    "text_input": "an older run",
    "init_image": True,
    "image_prompts": True,
    "continue_prev_run": False,
    "prev_run_id": None,
    "seed": 2**63,
    "Xdim": 40,
    "ydim": 32,
    "vqgan_ckpt": "small",
    "start_time": "20210101T000000",
    "end_time": "20210101T000100",
    "mse_weight": 0,
    "mse_weight_decay": 0,
    "mse_weight_decay_steps": 0,
    "tv_loss_weight": 0.001,
    "use_cutout_augmentations": False,
    "commit_sha": "0" * 40,
}


@pytest.fixture
def older(tmp_path):
    """A run folder of the older layout."""
    path = tmp_path / "output" / "20210101T000000-abcdefgh"
    path.mkdir(parents=True)
    for name in ("init-image.JPEG", "image-prompt-1.JPEG", "image-prompt-2.JPEG", "output.PNG"):
        load_picture(png("red"), "it").save(path / name)
    (path / "details.json").write_text(json.dumps(OLDER))
    return path


def test_the_older_layout_as_settings(run, older):
    details = run(settings_file=older / "details.json").read()
    expected = {
        "text_input": "an older run",
        "seed": 2**63,
        "num_steps": 5,
        "Xdim": 40,
        "use_mse_regularization": False,
        "use_tv_loss_regularization": True,
        "use_scrolling_zooming": False,
        "use_cutout_augmentations": False,
        "init_image": "init-image.JPEG",
        "image_prompts": ["image-prompt-1.JPEG", "image-prompt-2.JPEG"],
    }
    assert {key: details[key] for key in expected} == expected


def test_settings_of_a_stopped_run_make_its_picture_again(ask, run, assets):
    folder = submit(ask(num_steps=-1, seed=3), "running")
    stop = Stop()

    def stop_at_three(step):
        if step.index == 3:
            stop.request()

    execute(folder, assets_dir=assets, on_step=stop_at_three, stop=stop)
    for name in ("details.json", "output.PNG"):
        again = run(settings_file=folder.path / name)
        assert again.read()["planned_num_steps"] == 3
        assert np.array_equal(picture(again), picture(folder))


def test_the_older_layout_of_a_continued_run_finds_the_picture_that_it_continued(run, older):
    parent = older.with_name("20200101T000000-12345678")
    parent.mkdir()
    load_picture(png("green"), "it").save(parent / "output.PNG")
    changes = {"continue_prev_run": True, "prev_run_id": "12345678", "init_image": False}
    (older / "details.json").write_text(json.dumps(OLDER | changes))
    again = run(settings_file=older / "details.json")
    with Image.open(again.path / "start.PNG") as start:
        assert start.size == (40, 32) and start.getpixel((20, 16)) == (0, 128, 0)
    (parent / "output.PNG").unlink()
    with pytest.raises(BadInput, match="picture that it continued"):
        run(settings_file=older / "details.json")


def test_the_older_layout_continued(run, older):
    (older / "output.PNG").rename(older / "output.png")
    details = run(continue_run="abcdefgh").read()
    assert details["prev_run_id"] == "abcdefgh" and details["text_input"] == "an older run"
    assert len(details["image_prompts"]) == 2


@pytest.mark.parametrize(
    "change, says",
    [
        ({"Xdim": "wide"}, "Xdim"),
        ({"cutn": 0}, "cutn"),
        ({"mse_weight": float("nan")}, "mse_weight"),
        ({"seed": -1}, "seed"),
        ({"planned_num_steps": 0}, "num_steps"),
        ({"text_input": ["a"]}, "text_input"),
        ({"vqgan_ckpt": "../../etc"}, "no weights named"),
        ({"image_prompts": ["a"] * 5}, "image prompt"),
        ({"image_prompts": 7, "run_folder": "../.."}, None),
        ({"run_folder": "x" * 5000}, None),
        ({"run_folder": "/etc", "init_image": "/etc/passwd", "unknown": {"a": 1}}, None),
    ],
)
def test_settings_from_strangers(ask, older, change, says):
    path = older / "details.json"
    path.write_text(json.dumps(OLDER | change))
    if says is None:
        assert ask(settings_file=path).settings.text_input == "an older run"
        return
    with pytest.raises(BadInput, match=says):
        ask(settings_file=path)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", png("red"), b"\x89PNG\r\n\x1a\n", b"[" * 10**5, b" " * 50_000_000]
)
def test_files_that_are_not_settings(ask, tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(BadInput, match="file"):
        ask(settings_file=path)


def test_settings_files_that_do_not_exist(ask, tmp_path):
    for path in (tmp_path / "none", tmp_path, tmp_path / "\0"):
        with pytest.raises(BadInput, match="Give the details"):
            ask(settings_file=path)


def test_recipes_leave_out_what_is_not_a_setting(older):
    (older / "details.json").write_text(json.dumps(OLDER | {"status": "done", "nonsense": 1}))
    recipe = recipes.from_file(older / "details.json", older.parent, fake_engine.MODEL)
    assert not recipe.values.keys() - VQGANCLIPSettings.model_fields.keys()


def test_an_output_folder_that_cannot_be_written(ask, tmp_path):
    (tmp_path / "output").touch()
    with pytest.raises(BadInput, match="cannot be written"):
        submit(ask())
