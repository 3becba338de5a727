"""Large pictures of VQGAN-CLIP: the stages that they grow in, the tiles that they are made in."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import tiny_models
import torch
import torch.nn.functional as F
from PIL import Image
from slowly import slowly
from torch import nn

import logic
from logic import Step, VQGANCLIPRun
from studio.base.stopping import Stop
from studio.engines.arrays import to_tensor
from studio.engines.device import FULL_PRECISION
from studio.engines.fast.frozen_layers import NormSiLU
from studio.engines.fast.shared_norms import moments_of, shared_norms
from studio.engines.vqgan_clip import growth, tiles
from studio.engines.vqgan_clip.growth import Growth, first_steps, sizes, sizes_that_hold
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.engines.vqgan_clip.tiles import Canvas, Span, spans, weights
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import reopen, submit
from studio.models.catalogue import get_weights
from studio.runs import storage
from studio.runs.checkpoints import read
from studio.settings.values import make
from vqgan_utils import load_vqgan_model

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[1]
GROWING = {
    "text_input": "a red heart",
    "vqgan_ckpt": "tiny_f8",
    "clip_model": "tiny_clip",
    "Xdim": 96,
    "ydim": 64,
    "grow_from": 24,
    "grow_steps": 3,
    "cutn": 4,
    "step_size": 0.1,
    "set_seed": True,
    "seed": 3,
}
STAGES = [(24, 16), (48, 32), (96, 64)]
PICTURES = [*STAGES[:1] * 2, STAGES[1], *STAGES[2:] * 3]  # of six steps


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    tiny_models.write_tiny_assets(folder)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles so small that tiny pictures have several, and the same numbers on every machine."""
    monkeypatch.setattr(logic, "compute_precision", lambda _: FULL_PRECISION)
    for name, pixels in {"TILE": 48, "OVERLAP": 32, "MARGIN": 8}.items():
        monkeypatch.setattr(tiles, name, pixels)


@pytest.fixture
def canvas(assets: Path) -> Canvas:
    vqgan = load_vqgan_model(assets / "tiny_f8.yaml", assets / "tiny_f8.ckpt")
    return Canvas(vqgan, 8, in_tiles=True)


# --- stages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "factor", "grow_from", "expected"),
    [
        ((128, 128), 8, 128, [(128, 128)]),
        ((160, 144), 8, 128, [(160, 144)]),
        ((64, 256), 8, 128, [(64, 256)]),
        ((256, 256), 8, 128, [(128, 128), (256, 256)]),
        ((512, 512), 8, 128, [(128, 128), (256, 256), (512, 512)]),
        ((1000, 600), 8, 128, [(128, 72), (248, 152), (496, 304), (1000, 600)]),
        ((640, 480), 16, 256, [(320, 240), (640, 480)]),
        ((640, 480), 16, 0, [(640, 480)]),
        ((1920, 1072), 16, 0, [(1920, 1072)]),
        ((2048, 2048), 16, 0, [(256, 256), (512, 512), (1024, 1024), (2048, 2048)]),
        ((16384, 16), 16, 0, [(16384, 16)]),
    ],
)
def test_pictures_double_from_about_the_size_that_they_grow_from(
    size: tuple[int, int], factor: int, grow_from: int, expected: list[tuple[int, int]]
) -> None:
    assert sizes(*size, factor, grow_from) == expected


def test_every_size_is_one_that_the_weights_make() -> None:
    for width, height in itertools.product((8, 200, 1032, 16_384), repeat=2):
        found = sizes(width, height, 8, 128)
        assert found[-1] == (width, height)
        for before, after in itertools.pairwise(found):
            assert all(1 <= a / b <= 4 for a, b in zip(after, before, strict=True))
        assert all(side >= 8 and side % 8 == 0 for size in found for side in size)


@pytest.mark.parametrize(
    ("count", "grow_steps", "expected"),
    [
        (1, 100, [0]),
        (2, 100, [0, 100]),
        (3, 100, [0, 67, 100]),
        (4, 70, [0, 40, 60, 70]),
        (4, 1, [0, 1, 1, 1]),
    ],
)
def test_each_stage_has_half_the_steps_of_the_one_before(
    count: int, grow_steps: int, expected: list[int]
) -> None:
    assert first_steps(count, grow_steps) == expected


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        ((10, 10), STAGES),
        ((24, 100), STAGES),
        ((30, 30), STAGES[1:]),
        ((60, 40), STAGES[2:]),
        ((500, 500), STAGES[2:]),
    ],
)
def test_a_starting_picture_keeps_its_detail(
    picture: tuple[int, int], expected: list[tuple[int, int]]
) -> None:
    assert sizes_that_hold(STAGES, *picture) == expected


def test_a_state_tells_the_stage() -> None:
    growth = Growth.planned(STAGES, 3)
    assert growth.due(1) is None
    assert growth.due(3) == replace(growth, number=2)
    after = growth.due(2)
    assert after is not None
    assert (after.size, after.grows_to) == (STAGES[1], STAGES[2])
    again = Growth.of_state(after.state(), STAGES[2])
    assert again and again.size == after.size and again.grows_to == after.grows_to
    assert replace(after, number=2).due(1000) is None
    assert replace(after, number=2).due(0) is None
    assert Growth.planned(STAGES[:1], 3).state() == {}
    for size in (STAGES[1], (96, 96)):
        with pytest.raises(ValueError, match="does not grow to"):
            Growth.of_state(after.state(), size)


# --- tiles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 5, 6, 7, 20, 97, 1000])
@pytest.mark.parametrize(("longest", "overlap"), [(6, 2), (9, 4), (72, 8)])
def test_spans_cover_everything_and_overlap(length: int, longest: int, overlap: int) -> None:
    found = spans(length, longest, overlap)
    assert (found[0].start, found[-1].stop) == (0, length)
    assert len({span.stop - span.start for span in found}) == 1
    assert found[0].stop <= longest
    for before, after in itertools.pairwise(found):
        assert before.start < after.start <= before.stop - overlap


@pytest.mark.parametrize("unit", [1, 2, 8])
def test_weights_blend_from_one_tile_into_the_next(unit: int) -> None:
    cover = [Span(*(end * 8 // unit for end in span)) for span in spans(40, 6, 4)]
    found, total = weights(cover, unit), torch.zeros(320 // unit)
    for span, weight in zip(cover, found, strict=True):
        total[span.start : span.stop] += weight
    torch.testing.assert_close(total, torch.ones_like(total))
    margin = 8 // unit
    assert all(weight[:margin].eq(0).all() for weight in found[1:])
    assert all(weight[-margin:].eq(0).all() for weight in found[:-1])
    assert found[0][0] == found[-1][-1] == 1


def blended(canvas: Canvas, z: torch.Tensor) -> torch.Tensor:
    """The picture as a sum of its tiles, with its gradient."""
    height, width = z.shape[-2:]
    down, across = (spans(side, tiles.TILE // 8, 4) for side in (height, width))
    whole = Canvas(canvas.vqgan, 8, in_tiles=False)
    picture: Any = torch.zeros(1, 3, 8 * height, 8 * width)
    by_pixel = [[Span(8 * a, 8 * b) for a, b in way] for way in (down, across)]
    tall, wide = (weights(way, 1) for way in by_pixel)
    for (row, weight_y), (column, weight_x) in itertools.product(
        zip(down, tall, strict=True), zip(across, wide, strict=True)
    ):
        part = whole.decode(z[..., slice(*row), slice(*column)])
        shown = weight_y[:, None] * weight_x * part
        beside = (8 * column.start, 8 * (width - column.stop))
        picture = picture + F.pad(shown, (*beside, 8 * row.start, 8 * (height - row.stop)))
    return picture


def test_tiles_and_their_gradient_are_those_of_blended_parts(canvas: Canvas) -> None:
    torch.manual_seed(0)
    z = torch.randn(1, 4, 9, 13, requires_grad=True)
    picture = canvas.decode(z)
    with shared_norms(canvas.vqgan.decoder, canvas.state()["moments"]):
        expected = blended(canvas, z)
    torch.testing.assert_close(picture, expected.detach())
    gradient, held = torch.randn_like(picture), 0.1 * z.square().sum()
    ((expected * gradient).sum() + held).backward()
    wanted, z.grad = z.grad, None
    canvas.pull(z, picture, gradient, [0.1 * z.square().sum()])
    torch.testing.assert_close(z.grad, wanted)
    z.grad = None
    canvas.pull(z, picture, torch.zeros_like(gradient))
    assert z.grad is not None and not z.grad.any()


def test_one_tile_is_the_whole_picture(canvas: Canvas) -> None:
    z = torch.randn(1, 4, 6, 5)
    whole = Canvas(canvas.vqgan, 8, in_tiles=False)
    assert torch.equal(canvas.decode(z), whole.decode(z))
    x = torch.rand(1, 3, 48, 40)
    assert torch.equal(canvas.encode(x), canvas.vqgan.encode(x))


def test_latents_of_tiles_are_blended(canvas: Canvas) -> None:
    x = torch.rand(1, 3, 40, 72)
    reduced = F.interpolate(x, (24, 48), mode="bilinear", antialias=True)
    _, moments = moments_of(canvas.vqgan.encoder, lambda: canvas.vqgan.encode(reduced))
    expected = torch.zeros(1, 4, 5, 9)
    cover = spans(9, 6, 4)
    with shared_norms(canvas.vqgan.encoder, moments):
        for span, weight in zip(cover, weights(cover, 8), strict=True):
            part = canvas.vqgan.encode(x[..., 8 * span.start : 8 * span.stop])
            expected[..., slice(*span)] += part * weight
    torch.testing.assert_close(canvas.encode(x), expected)


@pytest.mark.parametrize("is_quick", [False, True])
def test_norms_with_their_own_moments_are_the_usual_ones(assets: Path, is_quick: bool) -> None:
    torch.manual_seed(0)
    vqgan = load_vqgan_model(assets / "tiny_f8.yaml", assets / "tiny_f8.ckpt")
    if is_quick:
        vqgan.quicken(FULL_PRECISION)
    z = torch.randn(1, 4, 5, 6)
    expected, moments = moments_of(vqgan.decoder, lambda: vqgan.decode(z))
    with shared_norms(vqgan.decoder, moments):
        torch.testing.assert_close(vqgan.decode(z), expected, atol=1e-4, rtol=1e-4)
        crop = vqgan.decode(z[..., :3])
    assert not torch.allclose(crop[..., :8], vqgan.decode(z[..., :3])[..., :8])
    assert torch.equal(vqgan.decode(z), expected)


def test_the_gradient_of_a_norm_with_given_moments() -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(2, 6, 1e-6)
    nn.init.normal_(norm.weight)
    moments = torch.tensor([[[0.1, -0.2], [0.9, 1.7]]])
    x = torch.randn(1, 6, 5, 7, requires_grad=True)
    mean, variance = moments[0].repeat_interleave(3, dim=1)[..., None, None]
    normed = (x - mean) / (variance + 1e-6).sqrt()
    expected = F.silu(normed * norm.weight[:, None, None] + norm.bias[:, None, None])
    upstream = torch.randn(1, 6, 5, 7)
    (wanted,) = torch.autograd.grad((expected * upstream).sum(), x)
    for network in (nn.Sequential(NormSiLU(norm, torch.float32)), nn.Sequential(norm, nn.SiLU())):
        with shared_norms(network, moments):
            found = network(x)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad((found * upstream).sum(), x)[0], wanted)


def test_tiles_resemble_the_picture_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tile alone would have contrasts of its own."""
    monkeypatch.setattr(tiles, "TILE", 192)
    weights = get_weights(ROOT / "assets", "emoji_f8")
    vqgan = load_vqgan_model(weights.config_path, weights.checkpoint_path)
    whole, tiled = (Canvas(vqgan, 8, in_tiles) for in_tiles in (False, True))
    example = Image.open(weights.examples()[0]).resize((320, 256))
    z = tiled.encode(to_tensor(example) * 2 - 1)
    expected, shared = whole.decode(z), tiled.decode(z)
    alone = blended(tiled, z)
    off = (shared - expected).abs().mean()
    print(off * 255, (alone - expected).abs().mean() * 255)
    assert off < 4 / 255 and off < 0.6 * (alone - expected).abs().mean()


# --- runs ----------------------------------------------------------------------------------------


def ready(assets: Path, start_image: Image.Image | None = None, **changes: Any) -> VQGANCLIPRun:
    settings = make(VQGANCLIPSettings, GROWING | changes)
    run = VQGANCLIPRun(settings, assets_dir=assets, device=CPU, start_image=start_image)
    run.load_model()
    run.model_init()
    return run


def shown(run: VQGANCLIPRun, count: int) -> list[tuple[int, ...]]:
    steps = [run.iterate() for _ in range(count)]
    return [step.picture.shape[1::-1] for step in steps if step.picture is not None]


def test_a_picture_grows(assets: Path) -> None:
    assert shown(ready(assets), 6) == PICTURES
    assert (
        shown(ready(assets, use_scrolling_zooming=True, transform_interval=1), 2) == [(96, 64)] * 2
    )
    assert shown(ready(assets, grow_from=0), 2) == [(96, 64)] * 2


def test_a_picture_grows_from_a_starting_picture(assets: Path) -> None:
    grey = Image.new("RGB", (40, 30), "grey")
    assert shown(ready(assets, grey), 4) == [(48, 32)] * 3 + [(96, 64)]
    assert shown(ready(assets, grey.resize((300, 200))), 1) == [(96, 64)]


def test_each_stage_begins_with_the_picture_before_it(
    assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    enlarged = logic.start.enlarged
    monkeypatch.setattr(
        logic.start,
        "enlarged",
        lambda picture, size: seen.append((picture, size)) or enlarged(picture, size),
    )
    run = ready(assets)
    for _ in range(2):
        run.iterate()
    z = torch.from_numpy(run.state_dict()["z"])
    run.iterate()
    ((picture, size),) = seen
    assert size == STAGES[1]
    assert torch.equal(picture, run._canvas.decode(z))


def test_pictures_that_do_not_grow_keep_no_trace_of_it(assets: Path) -> None:
    """So that they and their states are those of earlier versions, byte for byte."""
    run = ready(assets, Xdim=24, ydim=24)
    step = run.iterate()
    assert step.grows_to is None and "growth" not in run.state_dict()


Begin = Callable[..., Any]


@pytest.fixture
def begin(tmp_path: Path, assets: Path) -> Begin:
    def begun(steps: int, parent: Any = None, **changes: Any) -> Any:
        given = {"num_steps": steps} | ({} if parent else GROWING | changes)
        request = Request(given, tmp_path / "output", assets, continue_run=parent and parent.name)
        return submit(prepare(request), "running")

    return begun


def same(folder: Any, straight: Any) -> None:
    ends = [read(run.path / storage.CHECKPOINT) for run in (folder, straight)]
    leaves = [leaves_of(end.state) for end in ends]
    assert leaves[0] == leaves[1]
    found, expected = (np.asarray(Image.open(r.path / "output.PNG")) for r in (folder, straight))
    assert np.array_equal(found, expected)


def leaves_of(tree: Any, but: tuple[str, ...] = ("frames",)) -> Any:
    if isinstance(tree, dict):
        return {key: leaves_of(value) for key, value in tree.items() if key not in but}
    return np.asarray(tree).tobytes()


@pytest.mark.parametrize("first", [2, *slowly(1, 3, 4)])
def test_stopped_and_resumed_or_continued_in_every_stage(
    begin: Begin, assets: Path, first: int
) -> None:
    straight = begin(6)
    execute(straight, assets_dir=assets)

    folder, stop = begin(6), Stop()

    def stop_there(step: Step) -> None:
        if step.index == first:
            stop.request()

    execute(folder, assets_dir=assets, stop=stop, on_step=stop_there)
    assert Image.open(folder.path / "output.PNG").size == (96, 64)
    reopen(folder, "running")
    execute(folder, assets_dir=assets)
    same(folder, straight)
    assert (folder.path / "output.PNG").read_bytes() == (straight.path / "output.PNG").read_bytes()

    parent = begin(first)
    execute(parent, assets_dir=assets)
    child = begin(6 - first, parent)
    execute(child, assets_dir=assets)
    same(child, straight)


def test_a_film_has_one_size(begin: Begin, assets: Path) -> None:
    folder = begin(4)
    execute(folder, assets_dir=assets)
    reader = imageio_ffmpeg.read_frames(str(folder.path / "anim.mp4"))
    assert next(reader)["size"] == (96, 64)
    assert len(list(reader)) == 4


def test_a_run_that_ended_small_is_continued_at_its_own_size(begin: Begin, assets: Path) -> None:
    parent = begin(1)
    execute(parent, assets_dir=assets)
    request = Request(
        {"num_steps": 1, "continue_resize": "keep", "Xdim": 40},
        parent.path.parent,
        assets,
        continue_run=parent.name,
    )
    assert prepare(request).settings.model_dump()["Xdim"] == 96


@pytest.mark.parametrize(("steps", "is_told"), [(2, True), (3, True), (4, False), (-1, False)])
def test_too_few_steps_to_grow_are_told(assets: Path, steps: int, is_told: bool) -> None:
    warnings = ready(assets, num_steps=steps).warnings
    assert any("full size after 3 steps" in warning for warning in warnings) == is_told
    assert not ready(assets, num_steps=steps, Xdim=24, ydim=24).warnings


def test_a_size_up_to_16384_is_taken() -> None:
    settings = make(VQGANCLIPSettings, GROWING | {"Xdim": 16_384, "ydim": 16_384})
    assert sizes(settings.Xdim, settings.ydim, 8, 128)[0] == (128, 128)
    assert growth.is_large(2048, 2048, 0) and not growth.is_large(1536, 1536, 0)
