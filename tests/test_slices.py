"""Runs whose picture is made from nine slices, and their slices as files."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image
from slowly import slowly

import generate
import logic
from logic import Step
from studio.base.errors import BadInput
from studio.base.stopping import Stop
from studio.cli import generating
from studio.engines.device import FULL_PRECISION
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.engines.vqgan_clip.slice_plan import due, fitted_to_slices, made_boxes, slice_seed
from studio.engines.vqgan_clip.slicing import Slicing
from studio.making import slices
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import reopen, submit
from studio.media.nine_slices import NAMES, blended, boxes
from studio.runs import storage
from studio.runs.checkpoints import read
from studio.runs.storage import RunFolder
from studio.settings.values import make

ROOT = Path(__file__).resolve().parents[1]
NINE = {
    "text_input": "a red heart",
    "vqgan_ckpt": "tiny_f8",
    "clip_model": "tiny_clip",
    "Xdim": 72,
    "ydim": 48,
    "slices": "nine",
    "save_nine": True,
    "slice_steps": 2,
    "grow_from": 24,
    "grow_steps": 3,
    "cutn": 4,
    "step_size": 0.1,
    "set_seed": True,
    "seed": 3,
}
ALL = 3 + 9 * 2  # steps
PROMPTS = ["", "a sun", "", "", "a tree", "", "", "", "grass"]


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    tiny_models.write_tiny_assets(folder)
    return folder


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers on every machine."""
    monkeypatch.setattr(logic, "compute_precision", lambda _: FULL_PRECISION)


# --- the plan ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_steps", "slice_steps", "begins_with_picture", "fitting", "is_told"),
    [
        (150, 0, False, {"slice_steps": 12, "grow_steps": 42}, False),
        (10, 0, False, {"slice_steps": 1, "grow_steps": 1}, False),
        (9, 0, False, {"slice_steps": 1, "grow_steps": 1}, True),
        (1, 0, False, {"slice_steps": 1, "grow_steps": 1}, True),
        (90, 0, True, {"slice_steps": 10}, False),
        (95, 0, True, {"slice_steps": 10, "num_steps": 90}, True),
        (4, 0, True, {"slice_steps": 1}, True),
        (-1, 0, False, {"slice_steps": 50}, False),
        (280, 20, False, {}, False),
        (279, 20, False, {}, True),
        (180, 20, True, {}, False),
        (500, 20, True, {}, False),
    ],
)
def test_the_steps_of_a_run_are_shared_out(
    num_steps: int,
    slice_steps: int,
    begins_with_picture: bool,
    fitting: dict[str, int],
    is_told: bool,
) -> None:
    found, said = fitted_to_slices(num_steps, slice_steps, 100, begins_with_picture)
    assert (found, bool(said)) == (fitting, is_told)
    steps, each = found.get("num_steps", num_steps), found.get("slice_steps", slice_steps)
    if num_steps > 9 and not is_told and not slice_steps:
        assert steps == 9 * each + (0 if begins_with_picture else found["grow_steps"])


def test_steps_that_were_shared_out_stay(assets: Path) -> None:
    settings = make(VQGANCLIPSettings, NINE | {"slice_steps": 0, "num_steps": 40})
    fitted, _ = settings.fitted(assets)
    assert (fitted.slice_steps, fitted.grow_steps) == (3, 13)
    assert fitted.fitted(assets) == (fitted, [])


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([0] * 9, 0),
        ([1, *[0] * 8], 0),
        ([2, 2, 1, *[0] * 6], 2),
        ([2, 2, 2, *[0] * 6], 3),
        ([2, 2, 2, 2, 0, 2, 2, 2, 2], 4),
        ([2] * 9, 0),
        ([4, 3, *[2] * 7], 1),
        ([4] * 8 + [3], 8),
    ],
)
def test_slices_are_made_one_after_the_other(steps: Sequence[int], expected: int) -> None:
    assert due(steps, each=2) == expected


@pytest.mark.parametrize("size", [(64, 64), (72, 48), (136, 72), (16, 16), (200, 24)])
def test_a_vqgan_makes_slices_of_its_own_sizes(size: tuple[int, int]) -> None:
    found = made_boxes(*size, 8)
    assert len({(b.right - b.left, b.bottom - b.top) for b in found}) == 1
    for larger, box in zip(found, boxes(*size), strict=True):
        assert larger.common(box) == box
        assert min(larger) >= 0 and larger.right <= size[0] and larger.bottom <= size[1]
        for made, wanted in [
            (larger.right - larger.left, box.right - box.left),
            (larger.bottom - larger.top, box.bottom - box.top),
        ]:
            assert made % 8 == 0 and 0 <= made - wanted < 8


def test_each_slice_has_a_seed_of_its_own() -> None:
    usual = [slice_seed(7, [], number) for number in range(9)]
    assert len({7, *usual}) == 10
    other = [slice_seed(7, ["", "", "5", *[""] * 6], number) for number in range(9)]
    assert [n for n in range(9) if other[n] != usual[n]] == [2]
    assert other[2] == slice_seed(5, [], 2)


@pytest.mark.parametrize("size", [(64, 48), (72, 40)])
def test_the_picture_of_slices_is_the_blended_one(size: tuple[int, int]) -> None:
    rng, (width, height) = np.random.default_rng(0), size

    def noise(width: int, height: int) -> np.ndarray:
        return rng.integers(0, 256, (height, width, 3), np.uint8)

    slicing = Slicing(size, 8, each=2)
    slicing.begin_with(noise(width, height))
    there: dict[int, np.ndarray] = {}
    for step in range(9 * 2):
        number = slicing.due
        slicing.turn_to(number, {})
        made = noise(*slicing.made_size)
        assert slicing.add(made) == (step % 2 == 1)
        box, larger = boxes(*size)[number], made_boxes(*size, 8)[number]
        left, top = box.left - larger.left, box.top - larger.top
        there[number] = made[top : top + height // 2, left : left + width // 2]
        assert slicing.under is not None
        assert np.array_equal(slicing.picture(), blended(there, slicing.under))


# --- runs ----------------------------------------------------------------------------------------

Begin = Callable[..., RunFolder]


@pytest.fixture
def begin(tmp_path: Path, assets: Path) -> Begin:
    def begun(steps: int = ALL, parent: RunFolder | None = None, **changes: Any) -> RunFolder:
        given = {"num_steps": steps} | (changes if parent else NINE | changes)
        request = Request(given, tmp_path / "output", assets, continue_run=parent and parent.name)
        return submit(prepare(request), "running")

    return begun


@pytest.fixture
def compute(assets: Path) -> Callable[..., list[Step]]:
    """Compute a run, up to a step if there is one to stop after; returns its steps."""

    def computed(folder: RunFolder, until: int = 0) -> list[Step]:
        steps, stop = [], Stop()

        def on_step(step: Step) -> None:
            steps.append(step)
            if step.index == until:
                stop.request()

        execute(folder, assets_dir=assets, stop=stop, on_step=on_step)
        return steps

    return computed


def again(folder: RunFolder, compute: Callable[..., list[Step]]) -> list[Step]:
    reopen(folder, "running")
    return compute(folder)


def pixels(folder: RunFolder, name: str = "output.PNG") -> np.ndarray:
    return np.asarray(Image.open(folder.path / name))


def files_of(folder: RunFolder) -> dict[int, bytes]:
    return {n: storage.part_path(folder.path, n).read_bytes() for n in range(9)}


def leaves_of(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: leaves_of(value) for key, value in tree.items() if key != "frames"}
    return np.asarray(tree).tobytes()


def state_of(folder: RunFolder) -> dict[str, Any]:
    return dict(read(folder.path / storage.CHECKPOINT).state)


def same(folder: RunFolder, straight: RunFolder, but: tuple[str, ...] = ()) -> None:
    """The same picture, slices and states."""
    assert np.array_equal(pixels(folder), pixels(straight))
    if not but:
        assert files_of(folder) == files_of(straight)
    states = [state_of(run) for run in (folder, straight)]
    for state in states:
        state["slices"] = {k: v for k, v in state["slices"].items() if k not in but}
    assert leaves_of(states[0]) == leaves_of(states[1])


def test_the_picture_is_that_of_its_slices(begin: Begin, compute: Any) -> None:
    folder = begin(slice_prompts=PROMPTS)
    steps = compute(folder)
    assert [step.index for step in steps] == list(range(1, ALL + 1))
    sizes = [step.picture.shape[1::-1] for step in steps if step.picture is not None]
    assert sizes == [*[(32, 24)] * 3, *[(72, 48)] * 18]
    assert steps[0].grows_to == (72, 48) and steps[-1].grows_to is None
    found = {n: np.asarray(Image.open(storage.part_path(folder.path, n))) for n in range(9)}
    assert {slice_.shape for slice_ in found.values()} == {(24, 36, 3)}
    under = state_of(folder)["slices"]["under"]
    assert np.array_equal(pixels(folder), blended(found, under))
    told = [parts for number in range(9) for parts in ([], [number])]
    assert [sorted(step.parts) for step in steps] == [*[[]] * 3, *told]
    reader = imageio_ffmpeg.read_frames(str(folder.path / "anim.mp4"))
    assert next(reader)["size"] == (72, 48) and len(list(reader)) == ALL


@pytest.mark.parametrize("first", [3, 20, *slowly(1, 5)])
def test_stopped_and_resumed_at_any_time(begin: Begin, compute: Any, first: int) -> None:
    straight, folder = begin(slice_prompts=PROMPTS), begin(slice_prompts=PROMPTS)
    compute(straight)
    compute(folder, until=first)
    assert pixels(folder).shape == (48, 72, 3)
    again(folder, compute)
    same(folder, straight)
    assert (folder.path / "output.PNG").read_bytes() == (straight.path / "output.PNG").read_bytes()


@pytest.mark.parametrize("first", [7, ALL + 3, *slowly(2, 6)])
def test_n_steps_and_m_more(begin: Begin, compute: Any, first: int) -> None:
    straight, parent = begin(ALL + 7), begin(first)
    compute(straight)
    compute(parent)
    child = begin(ALL + 7 - first, parent)
    compute(child)
    same(child, straight, but=("inherited",))


def test_without_files_a_run_resumes_as_exactly(begin: Begin, compute: Any) -> None:
    straight, folder = begin(save_nine=False), begin(save_nine=False)
    compute(straight)
    compute(folder, until=8)
    again(folder, compute)
    same(folder, straight, but=("none",))
    assert not (folder.path / storage.PARTS).exists()


def test_slices_without_prompts_of_their_own_take_smaller_steps(assets: Path) -> None:
    settings = make(VQGANCLIPSettings, NINE | {"slice_prompts": PROMPTS, "grow_steps": 1})
    run = logic.VQGANCLIPRun(settings, assets_dir=assets, device=torch.device("cpu"))
    run.load_model()
    run.model_init()
    sizes = []
    for _ in range(1 + 2 * 2):
        run.iterate()
        sizes.append(run._latent.step_size)
    assert sizes == [0.1, 0.025, 0.025, 0.1, 0.1]
    run.change(settings.model_copy(update={"step_size": 0.2}))
    assert run._latent.step_size == 0.2


def test_slices_begin_with_their_parts_of_the_starting_picture(
    begin: Begin, compute: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 72, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "start.png")
    seen, encode = [], logic.start.encode
    monkeypatch.setattr(logic.start, "encode", lambda c, x: seen.append(x) or encode(c, x))
    folder = begin(18, init_image=str(tmp_path / "start.png"))
    steps = compute(folder)
    assert len(steps) == 18 and all(step.picture.shape == (48, 72, 3) for step in steps)
    start = np.asarray(Image.open(folder.path / storage.INIT_IMAGE))
    for x, box in zip(seen, made_boxes(72, 48, 8), strict=True):
        assert np.array_equal((x[0] * 255).round().byte().permute(1, 2, 0).numpy(), box.of(start))


def test_a_slice_that_is_there_is_not_made(begin: Begin, compute: Any) -> None:
    """Even where nothing else of the run is left."""
    folder = begin()
    compute(folder, until=3 + 2 * 2 + 1)
    (folder.path / storage.CHECKPOINT).unlink()
    red = np.full((24, 36, 3), (255, 0, 0), np.uint8)
    Image.fromarray(red).save(storage.part_path(folder.path, 1))
    folder.update(status="interrupted")
    steps = again(folder, compute)
    assert [step.index for step in steps] == list(range(5, ALL + 1))
    assert folder.read()["num_steps"] == ALL
    assert np.array_equal(pixels(folder, "slices/1.PNG"), red)
    assert pixels(folder)[0, 36].tolist() == [255, 0, 0]


@pytest.mark.parametrize("is_all_lost", [False, True])
def test_killed_before_the_last_slice_was_noted(
    begin: Begin, compute: Any, is_all_lost: bool
) -> None:
    """Its file is there, and the checkpoint is from before, or from nowhere."""
    straight, folder = begin(), begin()
    compute(straight)
    compute(folder, until=ALL - 1 - 2 * is_all_lost)
    for number in range(9):
        path = storage.part_path(folder.path, number)
        path.write_bytes(storage.part_path(straight.path, number).read_bytes())
    if is_all_lost:
        (folder.path / storage.CHECKPOINT).unlink()
        folder.update(status="interrupted")
    steps = again(folder, compute)
    assert len(steps) == 3 * is_all_lost
    assert np.array_equal(pixels(folder), pixels(straight))
    assert folder.read()["num_steps"] == ALL and folder.read()["status"] == "done"


def test_a_slice_that_a_person_has_painted_is_blended(begin: Begin, compute: Any) -> None:
    folder = begin()
    compute(folder, until=ALL - 4)
    red = np.full((24, 36, 3), (255, 0, 0), np.uint8)
    for number in (4, 8):
        Image.fromarray(red).save(storage.part_path(folder.path, number))
    again(folder, compute)
    assert pixels(folder)[24, 36].tolist() == pixels(folder)[47, 71].tolist() == [255, 0, 0]


def test_a_slice_is_made_again_alone(begin: Begin, compute: Any) -> None:
    folder = begin(slice_prompts=PROMPTS)
    compute(folder)
    before, picture, state = files_of(folder), pixels(folder), state_of(folder)

    slices.forget(folder, 4)
    steps = again(folder, compute)
    assert [step.index for step in steps] == [ALL - 1, ALL]
    assert files_of(folder) == before and np.array_equal(pixels(folder), picture)
    found = state_of(folder)
    assert leaves_of(found["slices"]["pictures"]) == leaves_of(state["slices"]["pictures"])
    assert folder.read()["num_steps"] == ALL and not folder.read()["warnings"]

    for prompt, seed in ((None, 9), ("a blue whale", None)):
        slices.forget(folder, 4, prompt, seed)
        again(folder, compute)
        now = files_of(folder)
        assert {n for n in range(9) if now[n] != before[n]} == {4}
        before = now
    details = folder.read()
    assert details["slice_prompts"][4] == "a blue whale" and details["slice_seeds"][4] == "9"


def test_details_make_a_remade_picture_once_more(begin: Begin, compute: Any, assets: Path) -> None:
    folder = begin()
    compute(folder)
    slices.forget(folder, 0, prompt="a sun", seed=9)
    again(folder, compute)
    request = Request({}, folder.path.parent, assets, settings_file=folder.path / "details.json")
    repeated = submit(prepare(request), "running")
    compute(repeated)
    assert np.array_equal(pixels(repeated), pixels(folder))
    assert files_of(repeated) == files_of(folder)


def test_a_run_that_kept_no_slices_can_make_one_again(begin: Begin, compute: Any) -> None:
    kept, folder = begin(), begin(save_nine=False)
    compute(kept)
    compute(folder)
    slices.forget(folder, 8)
    assert [step.index for step in again(folder, compute)] == [ALL - 1, ALL]
    assert files_of(folder) == files_of(kept)


@pytest.mark.parametrize("damage", ["cut", *slowly(b"", b"no picture", "size")])
def test_a_damaged_slice_is_made_again(begin: Begin, compute: Any, damage: bytes | str) -> None:
    folder = begin()
    compute(folder)
    before, path = files_of(folder), storage.part_path(folder.path, 4)
    if damage == "size":
        Image.new("RGB", (10, 10)).save(path)
        storage.part_path(folder.path, 5).unlink()
    else:
        path.write_bytes(damage if isinstance(damage, bytes) else before[4][:200])
    again(folder, compute)
    assert files_of(folder) == before
    assert "made again" in " ".join(folder.read()["warnings"])


def test_a_done_run_with_all_slices_is_not_resumed(begin: Begin, compute: Any) -> None:
    folder = begin()
    compute(folder)
    with pytest.raises(BadInput, match="is done"):
        reopen(folder)
    storage.part_path(folder.path, 7).unlink()
    before = pixels(folder)
    assert len(again(folder, compute)) == 2
    assert np.array_equal(pixels(folder), before)


@pytest.mark.parametrize("first", [5, *slowly(6)])
def test_killed_while_a_slice_is_made_again(begin: Begin, compute: Any, first: int) -> None:
    folder = begin(slice_steps=6, steps=3 + 9 * 6)
    compute(folder)
    before, picture = files_of(folder), pixels(folder)
    slices.forget(folder, 2)
    reopen(folder, "running")
    compute(folder, until=3 + 8 * 6 + first - 2)
    again(folder, compute)
    assert files_of(folder) == before and np.array_equal(pixels(folder), picture)


# --- the command line ----------------------------------------------------------------------------


def options(assets: Path, output: Path, changes: Sequence[str] = ()) -> list[str]:
    return [
        *("a red heart", "--slices", "nine", "--save-nine", "--seed", "3", "--set-seed"),
        *("--vqgan-ckpt", "tiny_f8", "--clip-model", "tiny_clip", "--cutn", "4"),
        *("--xdim", "64", "--ydim", "64", "--grow-from", "32", "--checkpoint-seconds", "0"),
        *("--assets-dir", str(assets), "--output-dir", str(output), *changes),
    ]


def only_run(output: Path) -> RunFolder:
    (path,) = [p for p in output.iterdir() if not p.name.startswith(".")]
    return RunFolder(path)


def test_killed_in_the_middle_of_a_slice(assets: Path, tmp_path: Path) -> None:
    steps = ["--num-steps", "30"]
    straight = tmp_path / "straight"
    command = [sys.executable, str(ROOT / "generate.py")]
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*command, *options(assets, straight, steps)], check=True, **quiet)
    process = subprocess.Popen([*command, *options(assets, tmp_path / "killed", steps)], **quiet)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("*/slices/3.PNG")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    folder = only_run(tmp_path / "killed")
    assert folder.read()["status"] == "running"
    places = ["--assets-dir", str(assets), "--output-dir", str(tmp_path / "killed")]
    subprocess.run([*command, "--resume", folder.name, *places], check=True, **quiet)
    other = only_run(straight)
    assert files_of(folder) == files_of(other)
    assert (folder.path / "output.PNG").read_bytes() == (other.path / "output.PNG").read_bytes()


def test_slice_prompts_from_a_file(assets: Path, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeff\r\na sun \r\n\r\n\r\na tree\r\n\r\n\r\n\r\ngrass\r\n".encode())
    argv = options(assets, tmp_path / "output", ["--slice-prompts", str(path)])
    settings = prepare(generating.parse(argv).request).settings
    assert settings.model_dump()["slice_prompts"] == PROMPTS
    alone = generating.parse(["a", "--slice-prompts", str(path), "--assets-dir", str(assets)])
    assert prepare(alone.request).settings.model_dump()["slices"] == "nine"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--slice-prompts", "EIGHT"], "nine lines"),
        (["--slice-prompts", "TEN"], "nine lines"),
        (["--slice-prompts", "missing.txt"], "missing.txt cannot be read"),
        (["--slice-prompts", "BINARY"], "no text file"),
        (["--slice-prompts", "SERIAL"], "Serial prompts"),
        (["--slice-seeds", "1|2"], "nine seeds"),
        (["--slice-seeds", "a||||||||"], "whole numbers"),
        (["--xdim", "8"], "too small for nine slices"),
        (["--slices", "ten"], "one or nine"),
        (["--use-scrolling-zooming"], "cannot scroll"),
        (["--remake", "4"], "needs --resume"),
    ],
)
def test_bad_input_is_refused_before_a_model_is_loaded(
    assets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: list[str],
    said: str,
) -> None:
    files = {
        "EIGHT": b"a\n" * 8,
        "TEN": b"a\n" * 10,
        "BINARY": b"\xff\xfe\x00\xff",
        "SERIAL": b"a ^ b\n" * 9,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    changes = [str(tmp_path / word) if word in files else word for word in changes]
    assert generate.main(options(assets, tmp_path / "output", changes)) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--remake", "9"], "There is no slice '9'"),
        (["--remake", "-1"], "There is no slice '-1'"),
        (["--remake", "NNW"], "There is no slice 'NNW'"),
        (["--remake", "4", "--cutn", "3"], "takes no --cutn"),
        (["--remake", "4", "--seed", "x"], "must be whole numbers"),
        (["--remake", "4", "--slice-prompts", "EIGHT"], "nine lines"),
    ],
)
def test_a_slice_that_cannot_be_made_again(
    begin: Begin, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    folder = begin()
    folder.update(status="done")
    places = ["--output-dir", str(folder.path.parent)]
    before, eight = folder.read(), folder.path.parent / "eight.txt"
    eight.write_text("a\n" * 8)
    words = [str(eight) if word == "EIGHT" else word for word in words]
    assert generate.main(["--resume", folder.name, *words, *places]) == 2
    assert said in capsys.readouterr().err
    assert folder.read() == before


def test_only_ended_runs_with_slices_make_one_again(begin: Begin, compute: Any) -> None:
    folder = begin(slices="one", save_nine=False, steps=1)
    with pytest.raises(BadInput, match="is running"):
        slices.forget(folder, 4)
    compute(folder)
    with pytest.raises(BadInput, match="has no slices"):
        slices.forget(folder, 4)
    parent = begin()
    compute(parent)
    child = begin(3, parent)
    compute(child)
    with pytest.raises(BadInput, match="another run"):
        slices.forget(child, 4)


def test_remake_by_name_from_the_command_line(begin: Begin, compute: Any, assets: Path) -> None:
    folder = begin()
    compute(folder)
    before = files_of(folder)
    places = ["--assets-dir", str(assets), "--output-dir", str(folder.path.parent)]
    assert generate.main(["--resume", folder.name, "--remake", "ne", "a sun", *places]) == 0
    now = files_of(folder)
    assert {n for n in range(9) if now[n] != before[n]} == {NAMES.index("NE")}


def test_slices_of_bundled_weights(tmp_path: Path, compute: Any) -> None:
    """Default settings, in the precision that this machine picks; large slices are in tiles."""
    request = Request(
        {"text_input": "a red heart", "slices": "nine", "save_nine": True, "num_steps": 10}
        | {"Xdim": 136, "ydim": 128, "cutn": 8, "set_seed": True, "upscale": 0},
        tmp_path,
        ROOT / "assets",
    )
    runs = []
    for until in (0, 5):
        folder = submit(prepare(request), "running")
        execute_in(folder, until)
        runs.append(folder)
    straight, stopped = runs
    reopen(stopped, "running")
    execute(stopped, assets_dir=ROOT / "assets")
    assert files_of(stopped) == files_of(straight)
    assert np.array_equal(pixels(stopped), pixels(straight))


def execute_in(folder: RunFolder, until: int) -> None:
    stop = Stop()
    execute(
        folder,
        assets_dir=ROOT / "assets",
        stop=stop,
        on_step=lambda step: stop.request() if step.index == until else None,
    )


def test_a_slice_from_a_file_goes_on_from_it(
    begin: Begin, compute: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin(ALL + 2)
    compute(folder, until=4)
    (folder.path / storage.CHECKPOINT).unlink()
    own = np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8)
    (folder.path / storage.PARTS).mkdir(exist_ok=True)
    Image.fromarray(own).save(storage.part_path(folder.path, 0))
    folder.update(status="interrupted")
    seen, encode = [], logic.start.encode
    monkeypatch.setattr(logic.start, "encode", lambda c, x: seen.append(x) or encode(c, x))
    again(folder, compute)
    last = (seen[-1][0] * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(last[:24, :36], own)
