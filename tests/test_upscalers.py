"""Upscaling networks: the published weights against ncnn, the quick forms against spandrel's."""

import itertools
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import ncnn
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import save_file
from slowly import slowly

from studio.base.errors import BadInput
from studio.base.paths import ASSETS_DIR
from studio.media.tiles import spans
from studio.models import enlarging, fast_upscalers, ncnn_weights, upscaler_networks, upscalers
from studio.models.side_by_side import nothing, side_by_side
from studio.models.upscaler_networks import Network, load, passes

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[1]
BY_SCALE = "REALESRGAN_ANIMAVIDEOV3_UP{}X"
TINY = {"num_feat": 8, "num_conv": 2, "upscale": 2}


def shipped(name: str) -> Network:
    """As a person gets it on this machine."""
    return load(upscalers.get(name, ASSETS_DIR), CPU)


def pictures() -> dict[str, np.ndarray]:
    """Ten small pictures of several kinds, [H, W, 3]."""
    rng = np.random.default_rng(0)
    examples = sorted((ASSETS_DIR / "emoji_f8.examples").glob("*.png"))
    made = {p.stem: np.asarray(Image.open(p).convert("RGB"))[20:92, 16:96] for p in examples[:3]}
    across, down = np.meshgrid(np.arange(72), np.arange(64))
    made["gradient"] = np.stack([across * 3, down * 3, 255 - across * 2], 2).astype(np.uint8)
    made["noise"] = rng.integers(0, 256, (48, 40, 3), np.uint8)
    soft = rng.integers(0, 256, (9, 9, 3), np.uint8)
    made["soft"] = np.asarray(Image.fromarray(soft).resize((64, 64), Image.Resampling.BICUBIC))
    made["photograph"] = _like_a_photograph(rng)
    checks = ((across // 4 + down // 4) % 2 * 255)[..., None].repeat(3, 2)
    made["checks"] = checks.astype(np.uint8)
    made["drawing"] = _drawn()
    made["one colour"] = np.full((33, 57, 3), (200, 30, 90), np.uint8)
    return made


def _like_a_photograph(rng: np.random.Generator) -> np.ndarray:
    """Noise of all sizes, as in a landscape."""
    total = np.zeros((72, 64, 3))
    for side in (3, 6, 12, 24, 48):
        part = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
        total += np.asarray(part.resize((64, 72), Image.Resampling.BICUBIC)) * (3.0 / side)
    total -= total.min()
    return (total / total.max() * 255).astype(np.uint8)


def _drawn() -> np.ndarray:
    image = Image.new("RGB", (70, 60), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((8, 6, 50, 48), fill="red", outline="black", width=2)
    draw.text((20, 30), "abc", fill="blue")
    return np.asarray(image.filter(ImageFilter.GaussianBlur(0.5)))


def by_ncnn(file: str, picture: np.ndarray) -> np.ndarray:
    """What the independent implementation makes of a picture."""
    folder = upscalers.get("animevideov3", ASSETS_DIR).path.parent
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.load_param(str(folder / f"{file}.param"))
    net.load_model(str(folder / f"{file}.bin"))
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32) / 255
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(planes))
    _, out = extractor.extract("output")
    return (np.array(out).clip(0, 1) * 255).round().transpose(1, 2, 0)


def differences(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    assert ours.shape == theirs.shape
    return np.abs(ours.astype(float) - theirs)


def agree(ours: np.ndarray, theirs: np.ndarray) -> bool:
    apart = differences(ours, theirs)
    return bool(apart.mean() <= 1 and apart.max() <= 6)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_animevideov3_makes_what_ncnn_makes(scale):
    network = shipped("animevideov3")
    for name, picture in pictures().items():
        ours = enlarging.enlarged(picture, network, Fraction(scale))
        assert agree(ours, by_ncnn(BY_SCALE.format(scale), picture)), name


@pytest.mark.parametrize("name", ["x4plus-anime", "x4plus"])
def test_the_larger_networks_make_what_ncnn_makes(name):
    network = shipped(name)
    for called, whole in pictures().items():
        picture = np.ascontiguousarray(whole[:20, :24])
        ours = enlarging.enlarged(picture, network, Fraction(4))
        assert agree(ours, by_ncnn(upscalers.PUBLISHED[name], picture)), called


def test_another_picture_does_not_agree():
    """The comparison can fail: a shift by one pixel is far outside of it."""
    picture = pictures()["drawing"]
    theirs = by_ncnn(BY_SCALE.format(4), picture)
    assert not agree(theirs, np.roll(theirs, 1, 1))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells of a process's threads")
def test_nnpack_makes_no_threads_of_its_own():
    """Else our threads would wait for each other, as NNPACK's take one call at a time."""
    code = """
import os, torch
from studio.models.fast_upscalers import winograd_works
torch.set_num_threads(2)
torch.ones(512, 512) @ torch.ones(512, 512)  # so that torch has made its own
before = len(os.listdir("/proc/self/task"))
assert torch.get_num_threads() == 2
winograd_works()
print(torch.get_num_threads(), len(os.listdir("/proc/self/task")) - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "0"]


@pytest.mark.parametrize("name", upscalers.PUBLISHED)
@pytest.mark.parametrize("winograd", [True, False])
def test_the_quick_forms_compute_what_spandrels_networks_compute(name, winograd, monkeypatch):
    monkeypatch.setattr(fast_upscalers, "winograd_works", lambda: winograd)
    monkeypatch.setattr(fast_upscalers, "BAND", 400)
    monkeypatch.setattr(fast_upscalers, "TAIL_ROWS", 5)
    module = upscaler_networks.descriptor(upscalers.get(name, ASSETS_DIR)).model.eval()
    x = torch.from_numpy(pictures()["soft"][:45, :38] / 255.0).float().permute(2, 0, 1)[None]
    with torch.inference_mode():
        wanted = module(x)
        found = quick_form(module)(x, nothing)
    torch.testing.assert_close(found, wanted, atol=5e-4, rtol=0)


def quick_form(module: torch.nn.Module) -> fast_upscalers.Forward:
    found = fast_upscalers.quick(module)
    assert found
    return found


@pytest.fixture
def threads():
    """Sets how many threads torch may use."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("height", [1, 2, 3, 7, 17, 18, 19, 40])
def test_bands_make_the_same_picture_as_the_whole(height, monkeypatch, threads):
    monkeypatch.setattr(fast_upscalers, "BAND", 5)
    threads(2)
    module = upscaler_networks.descriptor(upscalers.get("animevideov3", ASSETS_DIR)).model
    quick = fast_upscalers.Compact.of(module)
    x = torch.rand(1, 3, height, 5, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(quick(x), module(x), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["animevideov3", "x4plus-anime"])
def test_any_number_of_threads_makes_the_same_bytes(name, monkeypatch, threads):
    monkeypatch.setattr(fast_upscalers, "BAND", 100)
    network = shipped(name)
    picture = pictures()["photograph"][:50, :24]
    found = []
    for count in (1, 2, 5):
        threads(count)
        found.append(enlarging.enlarged(picture, network, Fraction(4)))
        assert torch.get_num_threads() == count
    assert all((other == found[0]).all() for other in found)


def test_pieces_run_side_by_side(threads):
    """Each of two pieces waits until the other one has begun."""
    threads(2)
    both = threading.Barrier(2, timeout=20)
    with side_by_side(CPU) as carry_out:
        carry_out([both.wait, both.wait])
        assert torch.get_num_threads() == 1


@pytest.mark.parametrize("count", [1, 2])
def test_what_fails_in_a_band_is_raised_and_no_other_band_waits(count, threads, monkeypatch):
    monkeypatch.setattr(fast_upscalers, "BAND", 100)
    network, inside = shipped("animevideov3"), fast_upscalers._Conv.inside
    threads(count)
    calls = iter(range(30))

    def failing(self, x):
        if next(calls, None) is None:
            raise MemoryError("none left")
        return inside(self, x)

    monkeypatch.setattr(fast_upscalers._Conv, "inside", failing)
    with pytest.raises(MemoryError, match="none left"):
        network.enlarge(torch.rand(1, 3, 60, 20))
    assert torch.get_num_threads() == count


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", [*upscalers.PUBLISHED, "own"])
def test_what_the_pulse_raises_ends_the_work_at_once(kind, count, tmp_path, threads, monkeypatch):
    monkeypatch.setattr(fast_upscalers, "BAND", 20)
    if kind == "own":
        own_upscaler(tmp_path / "upscalers" / "own.pth")
        monkeypatch.setattr(upscaler_networks, "quick", lambda module: None)
    network = load(upscalers.get(kind, tmp_path), CPU)
    threads(count)
    x, calls = torch.rand(1, 3, 40, 8), itertools.count(1)
    network.enlarge(x, lambda: next(calls))
    pulses = next(calls) - 1
    assert pulses >= 4

    left = iter(range(pulses // 2))

    def stopping():
        if next(left, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        network.enlarge(x, stopping)
    assert torch.get_num_threads() == count
    network.enlarge(x)  # without the earlier pulse


@pytest.mark.parametrize("scale", [3, 4])
def test_tiles_leave_no_seam(scale):
    network, ratio = shipped("animevideov3"), Fraction(scale)
    picture = np.asarray(Image.fromarray(pictures()["photograph"]).resize((150, 125)))
    tiled = replace(network, side=36)
    found, count = in_tiles(picture, tiled, ratio)
    assert count == enlarging.tile_count((150, 125), tiled) > 4
    assert differences(found, enlarging.enlarged(picture, network, ratio)).max() <= 1


@pytest.mark.parametrize("name", ["x4plus-anime", *slowly("x4plus")])
def test_tiles_of_the_larger_networks_leave_no_seam(name):
    network, ratio = shipped(name), Fraction(4)
    picture = np.asarray(Image.fromarray(pictures()["photograph"]).resize((224, 16)))
    found, count = in_tiles(picture, replace(network, side=24), ratio)
    assert count > 1
    assert differences(found, enlarging.enlarged(picture, network, ratio)).max() <= 1


def in_tiles(picture: np.ndarray, network: Network, ratio: Fraction) -> tuple[np.ndarray, int]:
    done: list[None] = []
    bands = enlarging.bands(picture, network, ratio, lambda: done.append(None))
    return np.concatenate(list(bands)), len(done)


@pytest.mark.parametrize("length", [1, 36, 37, 100, 119, 121, 500])
@pytest.mark.parametrize("margin", [0, 5, 20])
def test_tiles_cover_an_axis_once_with_whole_margins(length, margin):
    found = spans(length, 36, margin)
    cores = [pixel for span in found for pixel in range(span.core_start, span.core_end)]
    assert cores == list(range(length))
    for span in found:
        assert span.start in (0, span.core_start) or span.core_start - span.start >= margin
        assert span.end in (length, span.core_end) or span.end - span.core_end >= margin
        assert span.start == 0 or span.core_start - span.start >= margin
        assert span.start % 12 == span.core_start % 12 == 0


def test_flat_art_needs_no_spandrel():
    """Its import takes longer than upscaling a small picture, and 150 MB."""
    code = (
        "import sys, numpy; from studio.making.upscaling import *; from studio.base.paths import *;"
        "work = Enlarger(Upscaling(), ASSETS_DIR); work.pixels(numpy.zeros((8, 8, 3), 'uint8'));"
        "print({'spandrel', 'torchvision'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("native", "scale", "wanted"),
    [
        (4, 4, [4]),
        (4, 2, [2]),
        (4, 3, [3]),
        (4, 8, [4, 2]),
        (2, 2, [2]),
        (2, 3, [2, Fraction(3, 2)]),
        (2, 4, [2, 2]),
        (2, 8, [2, 2, 2]),
        (3, 4, [3, Fraction(4, 3)]),
        (3, 8, [3, Fraction(4, 3), 2]),
        (8, 8, [8]),
        (8, 2, [2]),
    ],
)
def test_passes_make_the_scale(native, scale, wanted):
    assert passes(native, scale) == wanted


# --- Choosing, and files of a person's own -----------------------------------------------------


def own_upscaler(path: Path, wrap: str = "") -> None:
    """A tiny SRVGGNetCompact with random weights."""
    from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact

    torch.manual_seed(0)
    state = SRVGGNetCompact(**TINY).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({wrap: state} if wrap else state, path)


@pytest.mark.parametrize("file", ["a.pth", "b.safetensors"])
@pytest.mark.parametrize("wrap", ["", "params_ema", "params"])
def test_a_file_in_the_folder_is_an_upscaler_by_its_name(file, wrap, tmp_path):
    own_upscaler(tmp_path / "upscalers" / file, wrap)
    assert upscalers.names(tmp_path)[-1] == Path(file).stem
    network = load(upscalers.get(Path(file).stem, tmp_path), CPU)
    picture = pictures()["noise"]
    assert enlarging.enlarged(picture, network, Fraction(2)).shape == (96, 80, 3)


def test_an_unknown_upscaler_is_refused_with_those_there_are(tmp_path):
    own_upscaler(tmp_path / "upscalers" / "mine.pth")
    with pytest.raises(BadInput, match=r"no upscaler 'nope'.*auto, animevideov3.*mine"):
        upscalers.get("nope", tmp_path)


def test_weights_of_something_else_are_refused_with_spandrels_reason(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(BadInput, match=r"cannot be used as an upscaler\. spandrel said: "):
        load(upscalers.get(str(tmp_path / "a.pth"), tmp_path), CPU)


class Evil:
    """Pickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_in_a_pickle_is_executed(tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"params": Evil(tmp_path / "pwned")}))
    with pytest.raises(BadInput):
        load(upscalers.get(str(tmp_path / "evil.pth"), tmp_path), CPU)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"<html>no such file</html>", b"hello"])
def test_a_file_that_is_no_checkpoint_is_refused_before_torch_reads_it(content, tmp_path):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(BadInput, match=r"a\.pth is not a checkpoint"):
        upscalers.get(str(tmp_path / "a.pth"), tmp_path)


PARAM = "7767517\n2 2\nInput in 0 1 data\nConvolution c 1 1 data out 0=2 1=1 5=1 6=2\n"


def numbers(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


def ncnn_files(folder: Path, text: str, data: bytes) -> Path:
    (folder / "a.param").write_text(text)
    (folder / "a.bin").write_bytes(data)
    return folder / "a.param"


def test_ncnns_format_is_read(tmp_path):
    (found,) = ncnn_weights.read(ncnn_files(tmp_path, PARAM, bytes(4) + numbers(1, 2, 3, 4)))[1:]
    assert found.weights[0].tolist() == [[[[1.0]]], [[[2.0]]]]
    assert found.weights[1].tolist() == [3.0, 4.0]


def test_ncnns_half_precision_is_read(tmp_path):
    data = b"\x47\x6b\x30\x01" + np.array([1, 2], "<f2").tobytes() + numbers(3, 4)
    (found,) = ncnn_weights.read(ncnn_files(tmp_path, PARAM, data))[1:]
    assert [tensor.flatten().tolist() for tensor in found.weights] == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("text", "data", "said"),
    [
        (PARAM, bytes(4) + numbers(1, 2, 3), "weights"),
        (PARAM, bytes(4) + numbers(1, 2, 3, 4, 5), "4 bytes are left over"),
        (PARAM, b"\x01\x02\x03\x04" + numbers(1, 2, 3, 4), "unknown type 0x4030201"),
        (PARAM, bytes(4) + numbers(1, 2, 3, float("nan")), "not finite"),
        ("1\n" + PARAM[8:], b"", "first line"),
        ("", b"", "weights"),
    ],
)
def test_broken_files_of_ncnn_are_refused(text, data, said, tmp_path):
    with pytest.raises(BadInput, match=said):
        ncnn_weights.read(ncnn_files(tmp_path, text, data))
