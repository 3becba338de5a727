"""Frozen networks against those that they are made of."""

from collections.abc import Callable

import pytest
import tiny_models
import torch
from clip.model import build_model
from torch import Tensor, nn

import frozen

Network = Callable[[Tensor], Tensor]

# What output and gradient may differ by, as shares of their size; the gradients of tiny random
# networks with ReLUs jump where a value rounds to the other side of zero.
PRECISIONS = [(torch.float32, 1e-4, 1e-4), (torch.bfloat16, 0.05, 0.3)]


def output_and_gradient(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """What a network makes of x, and the gradient at x of a fixed function of it."""
    x = x.detach().requires_grad_()
    y = network(x)
    upstream = torch.linspace(-1, 1, y.numel()).view(y.shape).to(y.dtype)
    return y.float(), torch.autograd.grad(y, x, upstream)[0].float()


def assert_same(
    fast: Network, plain: Network, x: Tensor, dtype: torch.dtype, *shares: float
) -> None:
    """Output and gradient differ by at most these shares of their size."""
    of_fast, of_plain = output_and_gradient(fast, x.to(dtype)), output_and_gradient(plain, x)
    for ours, theirs, share in zip(of_fast, of_plain, shares, strict=True):
        assert (ours - theirs).norm() <= share * theirs.norm()


@pytest.fixture(params=PRECISIONS, ids=["float32", "bfloat16"])
def precision(request: pytest.FixtureRequest) -> tuple[torch.dtype, float, float]:
    torch.manual_seed(0)
    return request.param


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "changes",
    [{}, {"ch_mult": [1, 2, 2], "num_res_blocks": 0}, {"resamp_with_conv": False}],
    ids=str,
)
def test_decoder(changes: dict, batch: int, precision: tuple[torch.dtype, float, float]) -> None:
    plain = tiny_models.seeded_vqgan(tiny_models.vq_config(**changes)).decoder
    fast = frozen.frozen_decoder(plain, precision[0])
    assert_same(fast, plain, torch.randn(batch, 32, 5, 7), *precision)


@pytest.mark.parametrize("resnet", [False, True])
def test_visual(resnet: bool, precision: tuple[torch.dtype, float, float]) -> None:
    plain = build_model(tiny_models.clip_state_dict(resnet)).float().visual.eval()
    for norm in (part for part in plain.modules() if isinstance(part, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(norm.weight, 0.5, 2)
    plain.requires_grad_(False)
    fast = frozen.frozen_visual(plain, precision[0])
    assert_same(fast, plain, torch.randn(3, 3, 32, 32), *precision)


@pytest.mark.parametrize("kernel, stride, padding", [(3, 2, 1), (3, 1, 1), (1, 1, 0), (4, 4, 0)])
@pytest.mark.parametrize("wide", [3, 8])
def test_convolutions(kernel: int, stride: int, padding: int, wide: int) -> None:
    plain = nn.Conv2d(wide, 5, kernel, stride, padding)
    x = torch.randn(2, wide, 8, 12).contiguous(memory_format=torch.channels_last)
    assert_same(frozen.frozen_conv(plain, torch.float32), plain, x, torch.float32, 1e-5, 1e-5)


def test_patches_are_a_convolution_whose_windows_lie_side_by_side() -> None:
    plain = nn.Conv2d(3, 7, 4, 4, bias=False)
    patches, x = frozen.Patches(plain, torch.float32), torch.randn(2, 3, 8, 12)
    in_order = nn.Sequential(plain, nn.Flatten(2))  # [N, C, n]
    assert_same(lambda x: patches(x).mT, in_order, x, torch.float32, 1e-5, 1e-5)


def test_long_attention_is_short_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = torch.randn(3, 1, 2, 30, 8).unbind(0)
    short = frozen.attend(q, k, v)
    monkeypatch.setattr(frozen, "SHORT", 8)
    torch.testing.assert_close(frozen.attend(q, k, v), short)


def test_nothing_is_kept_for_the_gradients_of_weights() -> None:
    plain = tiny_models.seeded_vqgan(tiny_models.vq_config()).decoder
    z = torch.randn(1, 32, 4, 4, requires_grad=True)

    def kept(network: nn.Module) -> int:
        weights = {part.data_ptr() for part in [*network.parameters(), *network.buffers()]}
        found: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in weights:
                found[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = network(z)
        assert output.requires_grad
        return sum(found.values())

    assert kept(frozen.frozen_decoder(plain, torch.float32)) < 0.5 * kept(plain)
