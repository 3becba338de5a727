"""The optimiser of the latent, beside a slow one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from optimiser import LatentAdam


def latent(height, width):
    return torch.randn(1, 3, height, width, requires_grad=True)


def slow_adam(gradients, step_size):
    """The moves of Adam, written out, for each of some gradients."""
    m = v = 0
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        yield -step_size * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)


def moved(z, gradients, **kwargs):
    optimiser = LatentAdam(z, **kwargs)
    for gradient in gradients:
        z.grad = gradient.clone()
        optimiser.step()
        assert z.grad is None
    return optimiser


def test_one_scale_is_adam():
    torch.manual_seed(0)
    z, gradients = latent(4, 5), torch.randn(6, 1, 3, 4, 5)
    other = z.detach().clone().requires_grad_()
    adam = torch.optim.Adam([other], lr=0.2)
    for other.grad in gradients:
        adam.step()
    moved(z, gradients, step_size=0.2, scales=1)
    torch.testing.assert_close(z, other, rtol=1e-5, atol=1e-6)


def test_several_scales_add_up():
    torch.manual_seed(1)
    z, gradients = latent(8, 6), torch.randn(5, 1, 3, 8, 6)
    expected = z.detach().clone()
    for height, width in ((8, 6), (4, 3), (2, 2), (1, 1)):
        means = [F.adaptive_avg_pool2d(g, (height, width)) for g in gradients]
        for move in slow_adam(means, 0.3):
            expected += F.interpolate(move, (8, 6), mode="bilinear")
    moved(z, gradients, step_size=0.3, scales=9)  # more than make a difference
    torch.testing.assert_close(z.detach(), expected, rtol=1e-4, atol=1e-4)


def test_a_coarse_scale_moves_an_area_as_one():
    z = torch.zeros(1, 1, 4, 4, requires_grad=True)
    moved(z, [torch.ones(1, 1, 4, 4)], step_size=0.1, scales=3)
    torch.testing.assert_close(z.detach(), torch.full((1, 1, 4, 4), -0.3))


@pytest.mark.parametrize("scales", [1, 3])
def test_going_on_with_its_moments_is_the_same(scales):
    torch.manual_seed(2)
    start, gradients = latent(4, 4).detach(), torch.randn(7, 1, 3, 4, 4)
    whole, part = (start.clone().requires_grad_() for _ in range(2))
    moved(whole, gradients, step_size=0.1, scales=scales)
    first = moved(part, gradients[:3], step_size=0.1, scales=scales)
    state = {name: value.numpy() for name, value in first.state_dict().items()}
    second = LatentAdam(part, 0.1, scales)
    assert second.fits(state) and second.state_dict() == {} and not second.fits({})
    second.load_state_dict(state)
    for part.grad in gradients[3:]:
        second.step()
    assert torch.equal(part, whole)
    assert state["step"] == 3, "the state is not changed by going on"
    assert np.array_equal(state["exp_avg_0"], first.state_dict()["exp_avg_0"])


@pytest.mark.parametrize("height, width, scales", [(4, 4, 2), (4, 5, 3), (8, 8, 3)])
def test_moments_of_other_scales_or_sizes_do_not_fit(height, width, scales):
    z = latent(4, 4)
    state = moved(z, [torch.ones_like(z)], step_size=0.1, scales=3).state_dict()
    assert not LatentAdam(latent(height, width), 0.1, scales).fits(state)
