"""The latent's steps: Adam's own, and those that hold it to where it began."""

import math

import pytest
import torch
from torch import Tensor

from studio.engines.vqgan_clip.latent import Latent

STEP, CHANNELS = 0.1, 4


def gradients(count: int, side: int = 3) -> list[Tensor]:
    torch.manual_seed(0)
    strengths = torch.logspace(-2, 1, side * side).view(1, 1, side, side)
    return list(torch.randn(count, 1, CHANNELS, side, side) * strengths)


def moved(latent: Latent, along: list[Tensor]) -> Tensor:
    for gradient in along:
        latent.z.grad = gradient.clone()
        latent.move()
    return latent.z.detach()


def held_step_by_step(z: Tensor, along: list[Tensor], hold: float) -> Tensor:
    """The same by numbers and loops, from the formula."""
    start, sums, square = z.clone(), torch.zeros_like(z), 0.0
    for count, gradient in enumerate(along, start=1):
        sums = 0.9 * sums + 0.1 * gradient
        square = 0.999 * square + 0.001 * float((gradient**2).mean())
        scale = math.sqrt(square / (1 - 0.999**count)) + 1e-8
        for y in range(z.shape[2]):
            for x in range(z.shape[3]):
                average = sums[0, :, y, x] / (1 - 0.9**count)
                way = z[0, :, y, x] - STEP * average / scale - start[0, :, y, x]
                length = float(way.square().sum()) ** 0.5
                back = hold * STEP * math.sqrt(CHANNELS)
                share = 0.0 if length <= back else (length - back) / length
                z[0, :, y, x] = start[0, :, y, x] + share * way
    return z


@pytest.mark.parametrize("hold", [0.1, 0.5, 2.0])
def test_held_steps_equal_the_formula(hold: float) -> None:
    z = torch.randn(1, CHANNELS, 3, 3)
    expected = held_step_by_step(z.clone(), gradients(12), hold)
    torch.testing.assert_close(moved(Latent(z, STEP, hold), gradients(12)), expected)


def test_without_a_hold_the_steps_are_those_of_adam() -> None:
    z = torch.randn(1, CHANNELS, 3, 3)
    expected = z.clone().requires_grad_()
    optimiser = torch.optim.Adam([expected], lr=STEP)
    for gradient in gradients(5):
        expected.grad = gradient.clone()
        optimiser.step()
    assert torch.equal(moved(Latent(z, STEP), gradients(5)), expected.detach())


def test_weak_places_stay_where_they_began_and_strong_ones_leave() -> None:
    z = torch.randn(1, CHANNELS, 3, 3)
    away = (moved(Latent(z, STEP, 0.5), gradients(20)) - z).norm(dim=1).flatten()
    assert not away[:5].any()
    assert away[-1] > STEP


def test_a_place_whose_gradient_changes_its_sign_stays() -> None:
    steady = torch.ones(1, CHANNELS, 1, 2)
    wavering = torch.tensor([1.0, -1.0])
    along = [steady * torch.stack([torch.ones(()), wavering[n % 2]]) for n in range(40)]
    z = torch.zeros(1, CHANNELS, 1, 2)
    end = moved(Latent(z, STEP, 0.3), along)
    assert end[..., 1].abs().max() < STEP < end[..., 0].abs().min()


def test_a_place_returns_when_its_gradient_ends() -> None:
    z = torch.randn(1, CHANNELS, 1, 1)
    latent = Latent(z, STEP, 0.5)
    assert not torch.equal(moved(latent, [torch.ones_like(z)] * 5), z)
    torch.testing.assert_close(moved(latent, [torch.zeros_like(z)] * 60), z)


def test_the_hold_may_change_between_steps() -> None:
    z, along = torch.randn(1, CHANNELS, 3, 3), gradients(10)
    changing, free = Latent(z, STEP), Latent(z, STEP)
    moved(changing, along[:5])
    assert torch.equal(changing.z, moved(free, along[:5]))
    changing.hold = 0.5
    assert not torch.equal(moved(changing, along[5:]), moved(free, along[5:]))
    assert torch.isfinite(changing.z).all()
