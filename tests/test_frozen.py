"""Frozen networks against those that they are made of."""

from collections.abc import Callable

import pytest
import tiny_models
import torch
from networks import Network, assert_same, output_and_gradient, prepared_visual
from torch import Tensor, nn

from studio.engines.device import FULL_PRECISION, Precision
from studio.engines.fast import frozen, frozen_layers

Limits = tuple[Precision, float, float]

# The relative error allowed for output and gradient. The gradients of tiny random networks with
# ReLUs jump where a value rounds to the other side of zero.
PRECISIONS = [
    pytest.param((FULL_PRECISION, 1e-4, 1e-4), id="float32"),
    pytest.param((Precision(torch.bfloat16), 0.05, 0.3), id="bfloat16"),
    pytest.param((Precision(torch.float32, True), 0.05, 0.3), id="8 bits", marks=pytest.mark.vnni),
    pytest.param(
        (Precision(torch.bfloat16, True), 0.07, 0.4), id="bfloat16, 8 bits", marks=pytest.mark.vnni
    ),
]


@pytest.fixture(params=PRECISIONS)
def limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Limits:
    torch.manual_seed(0)
    monkeypatch.setattr(frozen, "WORTHWHILE", 0)  # eight bits in tiny layers too
    return request.param


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "changes",
    [{}, {"ch_mult": [1, 2, 2], "num_res_blocks": 0}, {"resamp_with_conv": False}],
    ids=str,
)
def test_decoder(changes: dict, batch: int, limits: Limits) -> None:
    plain = tiny_models.seeded_vqgan(tiny_models.vq_config(**changes)).decoder
    precision, *shares = limits
    fast = frozen.frozen_decoder(plain, precision)
    assert_same(fast, plain, torch.randn(batch, 32, 5, 7), precision.dtype, *shares)


@pytest.mark.parametrize("resnet", [False, True])
def test_visual(resnet: bool, limits: Limits) -> None:
    plain = prepared_visual(resnet)
    precision, *shares = limits
    fast = frozen.frozen_visual(plain, precision)
    assert_same(fast, plain, torch.randn(3, 3, 32, 32), precision.dtype, *shares)


@pytest.mark.vnni
def test_visual_with_eight_bits_only_in_its_larger_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    plain = prepared_visual(resnet=True)
    monkeypatch.setattr(frozen, "WORTHWHILE", 30)
    mixed = frozen.frozen_visual(plain, Precision(torch.bfloat16, True))
    assert {frozen_layers.Conv, frozen_layers.EightBitConv} <= {type(p) for p in mixed.modules()}
    assert_same(mixed, plain, torch.randn(3, 3, 32, 32), torch.bfloat16, 0.07, 0.4)


@pytest.mark.vnni
def test_pictures_are_decoded_without_eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "WORTHWHILE", 0)
    plain = tiny_models.seeded_vqgan(tiny_models.vq_config()).decoder
    z = torch.randn(1, 32, 4, 4)
    (exact, gradient), (eight, rounded) = (
        output_and_gradient(frozen.frozen_decoder(plain, Precision(torch.float32, bits)), z)
        for bits in (False, True)
    )
    assert torch.equal(exact, eight) and not torch.equal(gradient, rounded)


CONVOLUTIONS = pytest.mark.parametrize("side, padding", [(3, 1), (3, 0), (1, 0)])


@CONVOLUTIONS
@pytest.mark.parametrize("wide", [3, 8])
def test_convolutions(side: int, padding: int, wide: int) -> None:
    plain = nn.Conv2d(wide, 5, side, padding=padding)
    x = torch.randn(2, wide, 8, 12).contiguous(memory_format=torch.channels_last)
    conv = frozen_layers.Conv(plain.weight, plain.bias, FULL_PRECISION, padding)
    assert_same(conv, plain, x, torch.float32, 1e-5, 1e-5)


@pytest.mark.vnni
@CONVOLUTIONS
def test_convolutions_in_eight_bits(side: int, padding: int) -> None:
    plain = nn.Conv2d(8, 5, side, padding=padding)
    x = torch.randn(2, 8, 8, 12).contiguous(memory_format=torch.channels_last)
    weights = (plain.weight, plain.bias)
    gradient_alone = frozen_layers.EightBitGradientConv(*weights, FULL_PRECISION, padding)
    assert_same(gradient_alone, plain, x, torch.float32, 1e-5, 0.02)
    assert_same(frozen_layers.EightBitConv(*weights, padding), plain, x, torch.float32, 0.02, 0.02)


@pytest.mark.parametrize("dtype, share", [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("side", [8, 40])  # torch's own norm, and ours
def test_a_group_norm_and_its_silu(side: int, dtype: torch.dtype, share: float) -> None:
    torch.manual_seed(0)
    assert 8**2 <= frozen_layers.SMALL < 40**2
    norm = nn.GroupNorm(4, 12)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, -1, 1)
    x = 3 * torch.randn(2, 12, side, side).contiguous(memory_format=torch.channels_last) + 1
    fast, plain = frozen_layers.NormSiLU(norm, dtype), nn.Sequential(norm, nn.SiLU())
    assert_same(fast, plain, x, dtype, share, share)
    assert fast(x.to(dtype)).is_contiguous(memory_format=torch.channels_last)


def _conv(precision: Precision) -> Callable[[nn.Conv2d], frozen_layers.FrozenLayer]:
    return lambda plain: frozen_layers.Conv(plain.weight, plain.bias, precision, 1, rectifies=True)


def _eight_bit_conv(plain: nn.Conv2d) -> frozen_layers.FrozenLayer:
    return frozen_layers.EightBitConv(plain.weight, plain.bias, 1, rectifies=True)


@pytest.mark.parametrize(
    "make, dtype, share",
    [
        pytest.param(_conv(FULL_PRECISION), torch.float32, 1e-5, id="float32"),
        pytest.param(_conv(Precision(torch.bfloat16)), torch.bfloat16, 0.02, id="bfloat16"),
        pytest.param(
            *(_conv(Precision(torch.bfloat16, True)), torch.bfloat16, 0.02),
            id="packed",
            marks=pytest.mark.vnni,
        ),
        pytest.param(
            _eight_bit_conv, torch.float32, 0.03, id="8 bits", marks=pytest.mark.vnni
        ),
    ],
)  # fmt: skip
def test_a_sum_and_a_relu_after_a_convolution(
    make: Callable[[nn.Conv2d], frozen_layers.FrozenLayer], dtype: torch.dtype, share: float
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 5, 3, padding=1)
    layer = make(plain)

    def of_both(network: Network) -> Network:
        return lambda both: network(*both.split([8, 5], dim=1))

    both = torch.randn(2, 13, 8, 12).contiguous(memory_format=torch.channels_last)
    expected = of_both(lambda x, added: (plain(x) + added).relu())
    assert_same(of_both(layer), expected, both, dtype, share, 5 * share)
    assert_same(layer, nn.Sequential(plain, nn.ReLU()), both[:, :8], dtype, share, 5 * share)


@pytest.mark.vnni
def test_doubling_with_a_gradient_in_eight_bits() -> None:
    conv = nn.Conv2d(16, 5, 3, padding=1)
    plain = nn.Sequential(nn.Upsample(scale_factor=2.0, mode="nearest"), conv)
    x = torch.randn(2, 16, 8, 12).contiguous(memory_format=torch.channels_last)
    kernels = frozen_layers.doubled_kernels(conv.weight)
    doubling = frozen_layers.EightBitGradientDoublingConv(kernels, conv.bias, torch.float32)
    assert_same(doubling, plain, x, torch.float32, 1e-5, 0.02)


@pytest.mark.parametrize("wide", [3, 8])
def test_halving_convolution(wide: int) -> None:
    plain = nn.Conv2d(wide, 5, 3, 2, 1)
    x = torch.randn(2, wide, 8, 12).contiguous(memory_format=torch.channels_last)
    halving = frozen_layers.HalvingConv(plain.weight, plain.bias, FULL_PRECISION)
    assert_same(halving, plain, x, torch.float32, 1e-5, 1e-5)


def test_patches_are_a_convolution_whose_windows_do_not_overlap() -> None:
    plain = nn.Conv2d(3, 7, 4, 4, bias=False)
    patches, x = frozen_layers.Patches(plain, torch.float32), torch.randn(2, 3, 8, 12)
    in_order = nn.Sequential(plain, nn.Flatten(2))  # [N, C, n]
    assert_same(lambda x: patches(x).mT, in_order, x, torch.float32, 1e-5, 1e-5)


def test_long_attention_is_short_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = torch.randn(3, 1, 2, 30, 8).unbind(0)
    short = frozen_layers.attend(q, k, v)
    monkeypatch.setattr(frozen_layers, "SHORT", 8)
    torch.testing.assert_close(frozen_layers.attend(q, k, v), short)


def test_nothing_is_kept_for_the_gradients_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_layers, "SMALL", 0)  # as in large pictures
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

    assert kept(frozen.frozen_decoder(plain, FULL_PRECISION)) < 0.3 * kept(plain)


@pytest.mark.parametrize(
    "precision",
    [
        FULL_PRECISION,
        pytest.param(Precision(torch.float32, True), marks=pytest.mark.vnni),
        pytest.param(Precision(torch.bfloat16, True), marks=pytest.mark.vnni),
    ],
)
def test_no_layer_keeps_the_memory_of_its_input(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "WORTHWHILE", 0)
    plain = tiny_models.seeded_vqgan(tiny_models.vq_config()).decoder
    layers = frozen.frozen_decoder(plain, precision).modules()
    kinds = {type(layer): layer for layer in layers if isinstance(layer, frozen_layers.FrozenLayer)}
    assert len(kinds) >= 2
    for layer in kinds.values():
        x = torch.randn(1, layer.weight.shape[1], 4, 4, requires_grad=True).to(precision.dtype) * 1
        added = torch.zeros_like(layer(x)) + 1
        held = [part.untyped_storage()._weak_ref() for part in (x, added)]
        y = layer(x, added)
        del x, added
        assert y.requires_grad and all(map(torch.UntypedStorage._expired, held))
