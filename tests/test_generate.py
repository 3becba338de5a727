"""The command line, on tiny weights: options, exit statuses, and what a signal leaves."""

import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_engine
import imageio_ffmpeg
import pytest
import tiny_models
from PIL import Image

import generate
from studio.base.errors import BadInput
from studio.cli import generating
from studio.engines import registry
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.media import video
from studio.runs import storage
from studio.settings.declare import meta, option_name

ROOT = Path(__file__).parents[1]
RESULTS = {"output.PNG", "anim.mp4", "details.json", "checkpoint.safetensors", ".claims"}
SMALL = ["--num-steps", "2", "--xdim", "32", "--ydim", "32", "--cutn", "1"]


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    tiny_models.write_tiny_assets(folder)
    return folder


@pytest.fixture
def folders(tmp_path, assets):
    return ["--output-dir", str(tmp_path / "output"), "--assets-dir", str(assets)]


@pytest.fixture
def generated(folders, capsys):
    """Run the command line in this process: status, lines on stdout, lines on stderr."""

    def whole(*words):
        status = generate.main([*map(str, words), *folders])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return whole


def details_of(folder):
    return json.loads((Path(folder) / "details.json").read_text())


# --- whole runs ----------------------------------------------------------------------------------


def test_the_main_job(generated, tmp_path):
    status, out, err = generated("a red heart", *SMALL, "--seed", 2**64 - 1)
    assert status == 0
    folder = Path(out[-1])
    assert folder.parent == tmp_path / "output"
    assert {path.name for path in folder.iterdir()} == RESULTS
    details = details_of(folder)
    assert (details["status"], details["text_input"]) == ("done", "a red heart")
    assert (details["seed"], details["set_seed"], details["num_steps"]) == (2**64 - 1, True, 2)
    assert Image.open(folder / "output.PNG").size == (32, 32)
    assert any("loss" in line and "2/2" in line for line in err)
    assert any(details["device"] in line for line in err)

    status, out, _ = generated("--settings", folder / "output.PNG")
    assert status == 0
    pictures = [(Path(f) / "output.PNG") for f in (folder, out[-1])]
    assert Image.open(pictures[0]).tobytes() == Image.open(pictures[1]).tobytes()

    status, out, _ = generated("--continue-run", folder.name[-8:], "--xdim", 64, "--num-steps", 1)
    child = details_of(out[-1])
    assert (status, child["prev_run_id"]) == (0, details["run_id"])
    assert (child["Xdim"], child["ydim"], child["text_input"]) == (64, 32, "a red heart")


def test_scrolling_films_a_frame_a_step(generated):
    status, out, _ = generated("a", *SMALL, "--translation-x", "-5", "--transform-interval", 2)
    details = details_of(out[-1])
    assert status == 0 and details["use_scrolling_zooming"]
    film = imageio_ffmpeg.count_frames_and_secs(str(Path(out[-1]) / "anim.mp4"))
    assert film[0] == details["num_steps"] == 2


def test_a_file_that_is_not_a_checkpoint_leaves_no_folder(generated, assets, tmp_path):
    wrong = tmp_path / "wrong.pt"
    wrong.write_bytes((assets / "tiny_f8.ckpt").read_bytes())
    status, out, err = generated("a", *SMALL, "--clip-model", wrong)
    assert (status, out) == (2, []) and len(err) == 1 and "wrong.pt" in err[0]
    assert not list((tmp_path / "output").iterdir())


class ClosedPipe(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


def test_a_run_continues_if_nobody_reads_its_output(folders, monkeypatch, tmp_path):
    fake_engine.use(monkeypatch)
    monkeypatch.setattr(sys, "stderr", ClosedPipe())
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    assert generate.main(["a", "--engine", "Fake", *SMALL, *folders]) == 0
    (folder,) = (tmp_path / "output").iterdir()
    assert details_of(folder)["status"] == "done"


# --- stages and resuming -------------------------------------------------------------------------


def test_stages_and_their_film(generated, tmp_path):
    path = tmp_path / "stages.yaml"
    path.write_text(
        "- prompt: spring\n- {prompt: summer, steps: 3}\n- {prompt: autumn, xdim: 64}\n"
    )
    status, out, err = generated("--stages", path, *SMALL)
    details = [details_of(folder) for folder in out]
    assert status == 0 and [d["text_input"] for d in details] == ["spring", "summer", "autumn"]
    assert [d["num_steps"] for d in details] == [2, 3, 3]
    assert [d["stage"] for d in details] == [1, 2, 3]
    film = Path(out[-1]) / "chain.mp4"
    assert imageio_ffmpeg.count_frames_and_secs(str(film))[0] == 8
    assert any(str(film) in line for line in err)


def test_stages_are_done_even_if_their_film_fails(generated, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(video, "join", full)
    (tmp_path / "stages.yaml").write_text("- prompt: spring\n- prompt: summer\n")
    status, out, err = generated("--stages", tmp_path / "stages.yaml", *SMALL)
    assert (status, len(out)) == (0, 2) and "could not be made" in err[-1]


@pytest.mark.parametrize(
    "text, says",
    [("- {prompt: a, cutn: 0}", "Stage 1: --cutn"), ("- {stepps: 3}", "stepps"), ("", "no stages")],
)
def test_bad_stages_make_nothing(generated, tmp_path, text, says):
    path = tmp_path / "stages.yaml"
    path.write_text(text)
    status, out, err = generated("--stages", path, *SMALL)
    assert (status, out) == (2, []) and len(err) == 1 and re.search(says, err[0]), err
    assert not (tmp_path / "output").exists()


def test_a_chain_resumes_where_it_was_stopped(generated, tmp_path, monkeypatch):
    path = tmp_path / "stages.yaml"
    path.write_text("- prompt: spring\n- prompt: summer\n- prompt: autumn\n")
    status, out, _ = generated("--stages", path, *SMALL)
    second, third = map(Path, out[1:])
    shutil.rmtree(third)  # as if the process had died before it was made
    chain = details_of(second)["chain"]
    storage.RunFolder(second).update(chain=chain | {"followed_by": None})
    status, again, _ = generated("--resume", second.name)
    assert (status, len(again)) == (0, 1) and details_of(again[0])["text_input"] == "autumn"
    assert imageio_ffmpeg.count_frames_and_secs(str(Path(again[0]) / "chain.mp4"))[0] == 6


@pytest.mark.parametrize(
    "words", [["a"], ["--seed", "1"], ["--continue-run", "x"], ["--stages", "x"], ["--settings=x"]]
)
def test_what_is_resumed_stays_as_it_was(generated, words):
    status, _, err = generated("--resume", "abcdefgh", *words)
    assert status == 2 and "--continue-run" in err[0]


def test_what_is_done_is_not_resumed(generated):
    _, out, _ = generated("a", *SMALL)
    status, _, err = generated("--resume", Path(out[-1]).name)
    assert status == 2 and "is done" in err[0] and (Path(out[-1]) / "output.PNG").exists()


def test_a_run_that_cannot_be_resumed_stays(generated, assets, tmp_path):
    _, out, _ = generated("a", *SMALL)
    folder = storage.RunFolder(Path(out[-1]))
    folder.update(status="interrupted", planned_num_steps=5, clip_model="gone.pt")
    status, _, err = generated("--resume", folder.name)
    assert status == 2 and "gone.pt" in err[-1]
    assert {"output.PNG", "checkpoint.safetensors", "anim.mp4"} <= {
        path.name for path in folder.path.iterdir()
    }


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "No prompt"),
        ([""], "No prompt"),
        ([" | "], "No prompt"),
        (["a", "--num-steps", "0"], "--num-steps must be 1"),
        (["a", "--num-steps", "-2"], "--num-steps must"),
        (["a", "--num-steps", "many"], "many"),
        (["a", "--num-steps"], "--num-steps"),
        (["a", "--num-steps", "--xdim", "64"], "--num-steps"),
        (["a", "--xdim", "4"], "--xdim"),
        (["a", "--ydim", "100000"], "--ydim"),
        (["a", "--seed", "-1"], "--seed"),
        (["a", "--seed", str(2**64)], "--seed"),
        (["a", "--mse-weight", "nan", "--no-use-mse-regularization"], "--mse-weight"),
        (["a", "--tv-loss-weight", "-inf"], "--tv-loss-weight"),
        (["a", "--zoom-factor", "0"], "--zoom-factor"),
        (["a", "--transform-interval", "0"], "--transform-interval"),
        (["a", "--vqgan-ckpt", "none"], "tiny_f8"),
        (["a", "--vqgan-ckpt", "../tiny_f8"], "tiny_f8"),
        (["a", "--clip-model", "none"], "tiny_clip.*ViT-B/32"),
        (["a", "--init-image", "/nowhere.png"], "nowhere.png"),
        (["a", "--init-image", ""], "starting image"),
        (["a", "--image-prompt", __file__], "not an image"),
        (["a", "--image-prompt", "/dev/zero"], "not a file"),
        (["a", "--continue-run", "nothing1"], "nothing1"),
        (["a", "--settings", __file__], "something other than a run.s details.*output.PNG"),
        (["a", "--settings", "/nowhere"], "nowhere"),
        (["a", "--gpu", "first"], "--gpu"),
        (["a", "--gpu", "-1"], "GPU -1"),
        (["a", "--gpu", "99"], "GPU 99"),
        (["a", "--num-stepz", "3"], "--num-steps"),
        (["a", "--nonsense"], "no option --nonsense"),
        (["a", "--num", "3"], "no option --num"),
        (["a", "-q"], "no option -q"),
        (["a", "red", "heart"], "quotes"),
        (["spring ^ summer"], "Serial"),
        (["a:nan"], "weight"),
        (["a", "--init-image", os.devnull], "not a file"),
        (["a" * 20_000], "at most 10,000 characters"),
        (["a" * 9_000 + ":99999"], "has the weight"),
        (["a", "--num-steps", "9" * 9_000], "--num-steps must"),
        (["a", "--init-image", "x" * 9_000], "cannot be read"),
        (["a", "--settings", "x" * 9_000], "cannot be read"),
        (["a", "--stages", "x" * 9_000], "cannot be read"),
        (["a", "--clip-model", "x" * 9_000], "no CLIP"),
        (["a", "--vqgan-ckpt", "x" * 9_000], "no weights"),
        (["a", "--continue-run", "x" * 9_000], "no run"),
        (["--resume", "x" * 9_000], "no run"),
        (["--cancel", "x" * 9_000], "no run"),
        (["a", "--gpu", "x" * 9_000], "--gpu"),
        (["a", "--" + "x" * 9_000], "no option"),
        (["a", "x" * 9_000], "quotes"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(generated, tmp_path, words, says):
    status, out, err = generated(*words)
    assert (status, out) == (2, [])
    assert len(err) == 1 and re.search(says, err[0]) and len(err[0]) < 600, err
    output = tmp_path / "output"
    assert not output.exists() or not list(output.iterdir())


def test_an_output_folder_that_cannot_be_written(capsys, assets):
    status = generate.main(["a", "--output-dir", "/dev/null/x", "--assets-dir", str(assets)])
    assert status == 2 and "--output-dir" in capsys.readouterr().err


def test_a_bug_is_one_line_too(generated, monkeypatch):
    monkeypatch.setattr(generating, "prepare", lambda request: 1 / 0)
    status, _, err = generated("a")
    assert status == 1 and len(err) == 1 and "ZeroDivisionError" in err[0]


# --- options --------------------------------------------------------------------------------------


def given(*words):
    return dict(generating.parse(words).request.given)


OF_WORDS = VQGANCLIPSettings.model_fields.keys() - {"text_input", "slice_prompts"}  # a file


@pytest.mark.parametrize("name", sorted(OF_WORDS))
def test_every_setting_is_an_option(name):
    default = VQGANCLIPSettings.model_fields[name].default
    if isinstance(default, bool):
        assert given(option_name(name)) == {name: True}
        assert given(option_name(f"no_{name}")) == {name: False}
    elif name == "slice_seeds":
        assert given("a", option_name(name), "7") == {"text_input": "a", name: ["7"]}
    elif name in ("image_prompt", "noise_prompt"):
        option = option_name(name)
        assert given(option, "a", f"{option}=b") == {name: ["a", "b"]}
    else:
        assert given("a", option_name(name), "7") == {"text_input": "a", name: "7"}


@pytest.mark.parametrize("number", ["-1", "-0.5", "1e-3", "-1e-3", "-.5", "-inf"])
def test_numbers_of_any_look(number):
    assert (
        given("--mse-weight", number) == given(f"--mse-weight={number}") == {"mse_weight": number}
    )


PROMPTS = [
    "photo:abc",
    "a:1 | b:-1",
    "https://a.b:80/c?d=e&f=%20",
    "ein Bär 🐻",
    "\"'`$(x)",
    "-1 °C",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_of_any_look(prompt):
    for place in range(3):
        words = ["--xdim", "64", "--set-seed"][: place + place % 2]
        rest = ["--xdim", "64", "--set-seed"][place + place % 2 :]
        assert given(*words, prompt, *rest)["text_input"] == prompt


@pytest.mark.parametrize("prompt", ["--dashes", "-q", "--seed", "--"])
def test_a_prompt_that_looks_like_an_option(prompt):
    assert given("--seed", "3", "--", prompt) == {"text_input": prompt, "seed": "3"}


def test_help_tells_everything(capsys):
    with pytest.raises(SystemExit) as ended:
        generating.parse(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    for name in VQGANCLIPSettings.model_fields:
        assert option_name(name) in text
    for word in ("8 to 16384 px", "default: 150", "--gpu", "--continue-run", "--settings"):
        assert word in text


def test_help_and_bad_input_need_no_torch(tmp_path):
    code = "import sys, generate\ntry: generate.main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules"
    for words in (["--help"], ["a", "--xdim", "1"]):
        subprocess.run(
            [sys.executable, "-c", code, *words], cwd=ROOT, check=True, capture_output=True
        )


def test_an_engine_is_chosen_by_name(monkeypatch):
    assert generating.parse(["a"]).request.engine == "VQGAN-CLIP"
    fake_engine.use(monkeypatch)
    assert generating.parse(["a", "--engine", "Fake"]).request.engine == "Fake"
    with pytest.raises(BadInput, match=", ".join(registry.names())):
        generating.parse(["a", "--engine", "none"])
    with pytest.raises(BadInput, match="expected one argument"):
        generating.parse(["a", "--engine"])


def test_a_group_is_switched_on_by_its_values():
    switches = {meta(field)["group"] for field in VQGANCLIPSettings.model_fields.values()} - {None}
    assert switches == {
        "set_seed",
        "slices",
        "use_cutout_augmentations",
        "use_mse_regularization",
        "use_tv_loss_regularization",
        "use_scrolling_zooming",
    }


# --- signals --------------------------------------------------------------------------------------


ENDLESS = ["a", *SMALL, "--num-steps", "-1"]


class Process:
    """generate.py as a process of its own."""

    def __init__(self, output, assets, words=ENDLESS):
        self.output = output
        words = [sys.executable, str(ROOT / "generate.py"), *words]
        words += ["--output-dir", str(output), "--assets-dir", str(assets)]
        self.process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            process_group=0,
        )

    def wait_for(self, name):
        """Wait until the run's folder holds such a file."""
        for _ in itertools.repeat(None, 3000):
            if any(self.output.glob(f"*/{name}")):
                return
            assert self.process.poll() is None, self.process.stderr.read()
            time.sleep(0.1)
        raise AssertionError(f"there never was a {name}")

    def end(self, signum, group=False):
        """Exit status, the run's folder (None without one), and stderr."""
        (os.killpg if group else os.kill)(self.process.pid, signum)
        out, err = self.process.communicate(timeout=300)
        lines = out.splitlines()
        return self.process.returncode, Path(lines[-1]) if lines else None, err


@pytest.fixture
def process(tmp_path, assets):
    going = Process(tmp_path / "output", assets)
    yield going
    if going.process.poll() is None:
        going.process.kill()
        going.process.communicate()


@pytest.mark.parametrize("signum, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_what_is_there(process, signum, status):
    process.wait_for("preview.JPEG")
    found, folder, err = process.end(signum, group=True)  # as a terminal does it
    assert found == status and "Traceback" not in err
    assert {path.name for path in folder.iterdir()} == RESULTS
    details = details_of(folder)
    frames = imageio_ffmpeg.count_frames_and_secs(str(folder / "anim.mp4"))[0]
    assert (details["status"], details["planned_num_steps"]) == ("stopped", -1)
    assert frames == details["num_steps"] >= 1


def test_a_signal_while_models_load(process):
    process.wait_for("details.json")
    status, folder, err = process.end(signal.SIGTERM)
    assert status == 143 and "Traceback" not in err
    details = details_of(folder)
    assert (details["status"], details["num_steps"]) == ("stopped", 0)


def test_a_kill_leaves_the_live_files(process):
    process.wait_for("preview.JPEG")
    status, _, _ = process.end(signal.SIGKILL)
    (folder,) = process.output.iterdir()
    assert status == -signal.SIGKILL and details_of(folder)["status"] == "running"
    assert Image.open(folder / "preview.JPEG").size == (32, 32)
    assert (folder / "anim.part.mp4").exists()


# --- the queue -----------------------------------------------------------------------------------


def test_enqueue_list_cancel(generated, tmp_path):
    status, out, err = generated("a red heart", *SMALL, "--enqueue")
    assert status == 0 and len(out) == 1
    folder = tmp_path / "output" / out[0]
    details = details_of(folder)
    assert (details["status"], details["planned_num_steps"]) == ("queued", 2)
    assert any("No worker is running" in line for line in err)
    later = generated("a blue fish", *SMALL, "--enqueue")[1][0]

    status, out, _ = generated("--list")
    assert status == 0
    assert [line.split(maxsplit=3) for line in out] == [
        [folder.name, "queued", "0/2", "a red heart"],
        [later, "queued", "0/2", "a blue fish"],
    ]
    assert generated("--cancel", folder.name[-8:])[0] == 0
    assert details_of(folder)["status"] == "stopped"
    assert [line.split()[1] for line in generated("--list")[1]] == ["stopped", "queued"]
    status, _, err = generated("--cancel", folder.name)
    assert status == 2 and "stopped already" in err[0]


def test_enqueue_refuses_what_a_run_would(generated, tmp_path):
    status, out, err = generated("a", "--xdim", 1, "--enqueue")
    assert (status, out) == (2, []) and "--xdim" in err[0]
    status, out, err = generated("a", "--queue-url", "http://x", "--enqueue")
    assert (status, out) == (2, []) and "redis://HOST" in err[0]
    assert not (tmp_path / "output").exists()


def test_the_queue_is_managed_without_torch(folders):
    script = (
        "import sys, generate\n"
        "for words in (['a', '--enqueue'], ['--list']):\n"
        f"    assert generate.main([*words, *{folders!r}]) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- kills ----------------------------------------------------------------------------------------

LONG = ["a | b:-0.5", "--num-steps", "30", "--xdim", "32", "--ydim", "32", "--cutn", "2"]
LONG += ["--seed", "5", "--use-mse-regularization", "--mse-weight-decay-steps", "3"]
LONG += ["--checkpoint-seconds", "0"]


def kill_and_resume(kills, tmp_path, assets):
    """A run that is killed again and again, at random; it ends as one that was left alone."""
    left_alone = Process(tmp_path / "alone", assets, LONG).process  # on as many threads
    left_alone.communicate(timeout=600)
    assert left_alone.returncode == 0
    (alone,) = (tmp_path / "alone").iterdir()
    while kills:
        output = tmp_path / f"killed-{kills}"
        going = Process(output, assets, LONG)
        going.wait_for("details.json")
        (folder,) = output.iterdir()
        while kills and details_of(folder)["status"] != "done":
            wait_for_steps(folder, random.randint(0, 30), going.process)
            going.process.kill()  # which does nothing to one that has just ended
            going.process.communicate()
            kills -= 1
            if details_of(folder)["status"] == "done":
                break
            storage.RunFolder(folder).update(heartbeat=None)
            going = Process(output, assets, ["--resume", folder.name])
        going.process.communicate(timeout=600)
        for name in ("output.PNG", "checkpoint.safetensors"):
            assert (folder / name).read_bytes() == (alone / name).read_bytes()
        left = {path.name for path in folder.iterdir()}
        assert left - {"progress.json", "preview.JPEG"} == RESULTS  # killed once done
        assert imageio_ffmpeg.count_frames_and_secs(str(folder / "anim.mp4"))[0] == 30


def wait_for_steps(folder, steps, process):
    run = storage.RunFolder(folder)
    while process.poll() is None and run.read_progress().get("step", 0) < steps:
        time.sleep(0.02)


def test_kill_9(tmp_path, assets, capfd):
    kill_and_resume(1, tmp_path, assets)


@pytest.mark.slow
def test_kill_9_at_fifty_moments(tmp_path, assets, capfd):
    kill_and_resume(50, tmp_path, assets)
