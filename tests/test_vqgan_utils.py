"""Every formula against a slow, plain reference."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqgan_utils import (
    clamp_with_gradient,
    move_picture,
    mse_weight_at,
    prompt_loss,
    random_latent,
    replace_gradient,
    tv_loss,
    vector_quantize,
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(shape), dim=-1)


# --- Vector quantisation -----------------------------------------------------------------------


def test_quantising_picks_the_nearest_code() -> None:
    z, codebook = torch.randn(2, 4, 3, 5), torch.randn(7, 4)
    quantised = vector_quantize(z, codebook)
    for b, y, x in np.ndindex(2, 3, 5):
        distances = [float((z[b, :, y, x] - code).norm()) for code in codebook]
        assert torch.equal(quantised[b, :, y, x], codebook[int(np.argmin(distances))])


def test_quantising_passes_the_gradient_straight_through() -> None:
    z = torch.randn(1, 4, 3, 5, requires_grad=True)
    upstream = torch.randn(1, 4, 3, 5)
    vector_quantize(z, torch.randn(7, 4)).backward(upstream)
    assert torch.equal(z.grad, upstream)


def test_random_latent_is_made_of_codes() -> None:
    codebook = torch.randn(7, 4)
    z = random_latent(codebook, 20, 30)
    assert z.shape == (1, 4, 20, 30)
    assert torch.equal(vector_quantize(z, codebook), z)
    assert len(z.flatten(2)[0].T.unique(dim=0)) == 7


# --- Gradients -----------------------------------------------------------------------------------


def test_replaced_gradient_reaches_the_other_tensor() -> None:
    value, other = (torch.randn(3, requires_grad=True) for _ in range(2))
    out = replace_gradient(value, other)
    out.backward(torch.tensor([1.0, 2.0, 3.0]))
    assert torch.equal(out, value)
    assert value.grad is None
    assert other.grad.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("x", "gradient", "clamped", "passes"),
    [
        (0.5, 1.0, 0.5, True),
        (0.5, -1.0, 0.5, True),
        (1.5, 1.0, 1.0, True),  # descending lowers x: back into range
        (1.5, -1.0, 1.0, False),
        (-0.5, -1.0, 0.0, True),
        (-0.5, 1.0, 0.0, False),
        (1.0, -1.0, 1.0, True),
    ],
)
def test_clamp_lets_values_return(x: float, gradient: float, clamped: float, passes: bool) -> None:
    tensor = torch.tensor(x, requires_grad=True)
    out = clamp_with_gradient(tensor)
    out.backward(torch.tensor(gradient))
    assert out.item() == clamped
    assert tensor.grad.item() == (gradient if passes else 0.0)


# --- Losses --------------------------------------------------------------------------------------


def plain_prompt_loss(images: Tensor, prompt: Tensor, weight: float) -> float:
    """|w| mean(2 arcsin(|a - b| / 2)^2 sign(w)), one cutout at a time."""
    distances = []
    for image in images:
        length = math.dist(image.tolist(), prompt[0].tolist())
        distances.append(2 * math.asin(length / 2) ** 2 * (1 if weight > 0 else -1))
    return abs(weight) * sum(distances) / len(distances)


@pytest.mark.parametrize("weight", [1.0, 0.25, 7.5, -1.0, -0.3])
def test_prompt_loss(weight: float) -> None:
    images, prompt = unit(5, 16), unit(1, 16)
    expected = plain_prompt_loss(images, prompt, weight)
    assert prompt_loss(images, prompt, weight).item() == pytest.approx(expected, rel=1e-5)
    assert prompt_loss(images, prompt, weight, stop=9.0).item() == pytest.approx(expected, rel=1e-5)


def test_prompt_loss_is_half_the_square_of_the_angle() -> None:
    right_angle = prompt_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 1.0)
    assert right_angle.item() == pytest.approx((math.pi / 2) ** 2 / 2, rel=1e-6)


def test_descending_attracts_and_a_negative_weight_repels() -> None:
    images, prompt = unit(5, 16).requires_grad_(), unit(1, 16)
    for weight, towards in [(1.0, True), (-1.0, False)]:
        (gradient,) = torch.autograd.grad(prompt_loss(images, prompt, weight), images)
        moved = F.normalize(images - 0.1 * gradient, dim=-1)
        assert bool(((moved @ prompt.T) > (images @ prompt.T)).all()) == towards


def test_weight_scales_the_gradient() -> None:
    images, prompt = unit(5, 16).requires_grad_(), unit(1, 16)
    one, three = (
        torch.autograd.grad(prompt_loss(images, prompt, weight), images)[0] for weight in (1.0, 3.0)
    )
    torch.testing.assert_close(three, 3 * one)


def test_cutouts_under_the_stop_no_longer_pull() -> None:
    prompt = unit(1, 16)
    images = torch.cat([F.normalize(prompt + 0.1 * unit(1, 16), dim=-1), -prompt + unit(1, 16)])
    images = F.normalize(images, dim=-1).requires_grad_()
    prompt_loss(images, prompt, 1.0, stop=0.5).backward()
    assert images.grad[0].abs().max() == 0
    assert images.grad[1].abs().max() > 0


def test_equal_and_opposite_embeddings_have_finite_gradients() -> None:
    prompt = unit(1, 16)
    images = torch.cat([prompt, -prompt]).requires_grad_()
    prompt_loss(images, prompt, 1.0).backward()
    assert images.grad.isfinite().all()


def test_tv_loss() -> None:
    z = torch.randn(2, 3, 4, 5)
    roots = []
    for b, y, x in np.ndindex(2, 4, 5):
        here = z[b, :, y, x]
        across = z[b, :, y, min(x + 1, 4)] - here
        down = z[b, :, min(y + 1, 3), x] - here
        roots.append(math.sqrt((across.square() + down.square()).mean().item() + 1e-8))
    assert tv_loss(z).item() == pytest.approx(np.mean(roots), rel=1e-5)
    flat = torch.ones(1, 3, 4, 5, requires_grad=True)
    tv_loss(flat).backward()
    assert flat.grad.isfinite().all()


@pytest.mark.parametrize(
    ("weight", "decay", "every", "expected"),
    [
        # after 0, 1, 49, 50, 99, 100, 249, 250, 1000 steps
        (0.5, 0.1, 50, [0.5, 0.5, 0.5, 0.4, 0.4, 0.3, 0.1, 0.0, 0.0]),
        (-0.5, 0.1, 50, [-0.5, -0.5, -0.5, -0.4, -0.4, -0.3, -0.1, 0.0, 0.0]),
        (0.5, 0.1, 0, [0.5] * 9),
        (0.5, 0.0, 50, [0.5] * 9),
        (0.5, 0.3, 100, [0.5, 0.5, 0.5, 0.5, 0.5, 0.2, 0.0, 0.0, 0.0]),
        (0.0, 0.1, 50, [0.0] * 9),
    ],
)
def test_mse_schedule(weight: float, decay: float, every: int, expected: list[float]) -> None:
    steps = [0, 1, 49, 50, 99, 100, 249, 250, 1000]
    got = [mse_weight_at(step, weight, decay, every) for step in steps]
    assert got == pytest.approx(expected)


# --- Moves ---------------------------------------------------------------------------------------


def move(picture: np.ndarray, x: float = 0, y: float = 0, turn: float = 0, zoom: float = 1):
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None]
    return move_picture(tensor, x, y, turn, zoom)[0].permute(1, 2, 0).numpy()


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).random((8, 12, 3), dtype=np.float32)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (3, 0), (0, 2), (-5, 1), (12, 8), (100, -100)])
def test_shifts_to_the_right_and_down_with_wrap_around(x: int, y: int, picture: np.ndarray) -> None:
    np.testing.assert_allclose(move(picture, x, y), np.roll(picture, (y, x), (0, 1)), atol=1e-5)


@pytest.mark.parametrize(("degrees", "quarters"), [(90, 1), (180, 2), (270, 3), (360, 4)])
def test_turns_counter_clockwise(degrees: float, quarters: int, picture: np.ndarray) -> None:
    square = picture[:, :8]
    np.testing.assert_allclose(move(square, turn=degrees), np.rot90(square, quarters), atol=1e-5)


def test_zoom_grows_about_the_centre() -> None:
    picture = np.zeros((16, 16, 3), dtype=np.float32)
    picture[6:10, 6:10] = 1
    grown, shrunk = move(picture, zoom=2), move(picture, zoom=0.5)
    assert grown[5:11, 5:11].min() == 1
    assert grown.sum() == pytest.approx(4 * picture.sum(), rel=0.1)
    assert shrunk[7:9, 7:9].min() == 1
    assert shrunk[0, 0].min() == shrunk[0, 15].min() == 1  # the neighbouring tiles come in
    assert shrunk.sum() == pytest.approx(picture.sum(), rel=0.3)


def test_turning_comes_before_shifting(picture: np.ndarray) -> None:
    square = picture[:, :8]
    expected = np.roll(np.rot90(square), 2, axis=1)
    np.testing.assert_allclose(move(square, x=2, turn=90), expected, atol=1e-5)
