"""Sketches that runs start from: what draws them, its file, and how they fill a picture."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from studio.base.errors import BadInput
from studio.engines.vqgan_clip import sketch
from studio.engines.vqgan_clip.sketch import SIDE, Sketcher
from studio.models.catalogue import find_sketcher
from vqgan_utils import load_clip_model

ASSETS = Path(__file__).parents[1] / "assets"
CLIP = ASSETS / "emoji_clip.pt"


@pytest.fixture
def sketcher() -> Sketcher:
    torch.manual_seed(0)
    return Sketcher(embed_dim=8, hands=3).eval()


@pytest.fixture
def wish() -> torch.Tensor:
    torch.manual_seed(1)
    return F.normalize(torch.randn(1, 8), dim=-1)


@pytest.fixture
def file(sketcher: Sketcher, tmp_path: Path) -> Path:
    path = tmp_path / "one.sketcher.safetensors"
    save_file(sketcher.state_dict(), path)
    return path


def test_every_hand_draws_the_wish_in_its_own_way(sketcher: Sketcher, wish: torch.Tensor) -> None:
    drawn = sketcher.draw(wish)
    assert drawn.shape == (3, 3, SIDE, SIDE)
    assert drawn.min() >= 0 and drawn.max() <= 1
    alone = sketcher(wish, torch.tensor([1])).clamp(0, 1)
    torch.testing.assert_close(drawn[1:2], alone)
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn, sketcher.draw(-wish))


def test_a_file_of_any_precision_loads_in_float32(
    sketcher: Sketcher, wish: torch.Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "half.safetensors"
    save_file({name: part.half() for name, part in sketcher.state_dict().items()}, path)
    loaded = sketch.load_sketcher(path, embed_dim=8)
    assert {part.dtype for part in loaded.parameters()} == {torch.float32}
    assert not any(part.requires_grad for part in loaded.parameters()) and not loaded.training
    torch.testing.assert_close(loaded.draw(wish), sketcher.draw(wish), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("read.weight", None),
        ("hands.weight", None),
        ("hands.weight", torch.zeros(0, sketch.WIDTH)),
        ("hands.weight", torch.zeros(())),
        ("hands.weight", torch.zeros(2**61, 0)),
        ("hands.weight", torch.zeros(sketch.MAX_HANDS + 1, sketch.WIDTH)),
        ("more", torch.zeros(1)),
        ("colour.bias", torch.zeros(11)),
        ("colour.bias", torch.zeros(12, dtype=torch.int32)),
        ("colour.bias", torch.zeros(12, dtype=torch.complex64)),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    sketcher: Sketcher, tmp_path: Path, name: str, value: torch.Tensor | None
) -> None:
    state = sketcher.state_dict() | {name: value}
    path = tmp_path / "wrong.safetensors"
    save_file({name: part for name, part in state.items() if part is not None}, path)
    with pytest.raises(BadInput, match=rf"is not a sketcher for the CLIP beside it \({name}"):
        sketch.load_sketcher(path, embed_dim=8)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e300])
def test_a_file_whose_numbers_are_not_finite_is_refused(
    sketcher: Sketcher, tmp_path: Path, value: float
) -> None:
    bias = torch.full((12,), value, dtype=torch.float64)
    path = tmp_path / "wrong.safetensors"
    save_file(sketcher.state_dict() | {"colour.bias": bias}, path)
    with pytest.raises(BadInput, match=r"colour\.bias"):
        sketch.load_sketcher(path, embed_dim=8)


def test_a_loaded_sketcher_no_longer_depends_on_its_file(
    sketcher: Sketcher, wish: torch.Tensor, file: Path
) -> None:
    loaded = sketch.load_sketcher(file, embed_dim=8)
    file.write_bytes(bytes(file.stat().st_size))
    torch.testing.assert_close(loaded.draw(wish), sketcher.draw(wish))


def test_a_sketcher_of_another_clip_is_refused(file: Path) -> None:
    with pytest.raises(BadInput, match=r"not a sketcher .*read\.weight"):
        sketch.load_sketcher(file, embed_dim=16)


def test_a_file_that_is_cut_off_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(BadInput):
        sketch.load_sketcher(file, embed_dim=8)


def test_a_sketcher_is_found_beside_its_clip(file: Path) -> None:
    assert find_sketcher(file.with_name("one.pt")) == file
    assert find_sketcher(file.with_name("other.pt")) is None


@pytest.mark.parametrize(("height", "width"), [(64, 160), (160, 64), (64, 64)])
def test_a_sketch_fills_the_middle_and_its_edges_continue(height: int, width: int) -> None:
    torch.manual_seed(0)
    drawn = F.interpolate(torch.rand(1, 3, 4, 4), SIDE, mode="bicubic").clamp(0, 1)
    fitted = sketch.fit(drawn, height, width)
    assert fitted.shape == (1, 3, height, width) and fitted.min() >= 0 and fitted.max() <= 1
    top, left = (height - 64) // 2, (width - 64) // 2
    middle = fitted[..., top : top + 64, left : left + 64]
    small = F.interpolate(middle, SIDE, mode="area")
    torch.testing.assert_close(small, drawn, atol=0.06, rtol=0)
    assert torch.equal(fitted[..., :1, :1], middle[..., :1, :1])
    assert torch.equal(fitted[..., -1:, -1:], middle[..., -1:, -1:])


# --- The bundled one -----------------------------------------------------------------------------

PALETTE = {
    "red": (0.85, 0.2, 0.2),
    "blue": (0.2, 0.4, 0.85),
    "yellow": (0.95, 0.8, 0.2),
    "green": (0.3, 0.6, 0.3),
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
}


def colour_of(part: torch.Tensor) -> str:
    """The name of the colour nearest to the mean of [3, h, w]."""
    mean = part.mean((1, 2))
    return min(PALETTE, key=lambda name: (mean - torch.tensor(PALETTE[name])).norm())


@pytest.mark.parametrize(
    ("prompt", "middle", "corner"),
    [
        ("a red heart", "red", "white"),
        ("a green tree", "green", "white"),
        ("a yellow lemon on a blue background", "yellow", "blue"),
        ("a red apple on a green background", "red", "green"),
    ],
)
def test_the_bundled_sketcher_draws_things_in_their_colours_on_their_ground(
    prompt: str, middle: str, corner: str
) -> None:
    perceptor = load_clip_model(CLIP)
    sketcher = sketch.load_sketcher(find_sketcher(CLIP), perceptor.embed_dim)
    half = SIDE // 2
    for drawn in sketcher.draw(perceptor.encode_text([prompt])):
        assert colour_of(drawn[:, half - 4 : half + 4, half - 4 : half + 4]) == middle
        assert colour_of(drawn[:, :3, :3]) == corner
