"""Diffusion's quick layers against diffusers' own."""

import copy
from typing import Any

import pytest
import tiny_diffusion
import torch
from torch import Tensor

from studio.engines.diffusion import fast
from studio.engines.diffusion.fast import (
    DoublingConv2d,
    PackedConv2d,
    PackedLinear,
    PlainAttention,
    attend,
    quickened,
)

FLOAT, HALF = torch.float32, torch.bfloat16
SHARE = {FLOAT: 1e-5, HALF: 0.03}  # of the result's norm that it may be off


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def off(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def kinds(network: torch.nn.Module) -> set[type]:
    layers = {type(part) for part in network.modules()}
    return layers | {type(getattr(part, "processor", None)) for part in network.modules()}


def let_edges_meet(*networks: torch.nn.Module) -> None:
    for network in networks:
        for part in network.modules():
            if isinstance(part, torch.nn.Conv2d) and part.padding != (0, 0):
                part.padding_mode = "circular"


def unets() -> tuple[Any, Any]:
    """One in float32, and a copy."""
    plain = tiny_diffusion.tiny_unet(cross_attention_dim=32).requires_grad_(False)
    return plain, copy.deepcopy(plain)


@torch.no_grad()
@pytest.mark.vnni
@pytest.mark.parametrize("dtype", [FLOAT, HALF])
@pytest.mark.parametrize("meet", [False, True])
def test_a_unets_answers_stay_the_same_at_each_size(dtype: torch.dtype, meet: bool) -> None:
    plain, ours = unets()
    quick = quickened(quickened(ours.to(dtype)))
    assert {PackedConv2d, PackedLinear} <= kinds(quick)
    assert (PlainAttention in kinds(quick)) == (dtype == HALF)
    if meet:
        let_edges_meet(plain, quick)
    tokens = torch.randn(2, 9, 32)
    for batch, height, width in ((1, 8, 8), (2, 8, 8), (1, 7, 10), (1, 8, 8)):
        x, time, read = torch.randn(batch, 4, height, width), torch.tensor(500), tokens[:batch]
        expected = plain(x, time, encoder_hidden_states=read).sample
        found = quick(x.to(dtype), time, encoder_hidden_states=read.to(dtype)).sample
        assert found.dtype == dtype and off(found, expected) <= SHARE[dtype]


@torch.no_grad()
@pytest.mark.vnni
@pytest.mark.parametrize("dtype", [FLOAT, HALF])
@pytest.mark.parametrize("meet", [False, True])
def test_an_autoencoder_stays_the_same(dtype: torch.dtype, meet: bool) -> None:
    plain: Any = tiny_diffusion.tiny_vae()
    quick = quickened(copy.deepcopy(plain.requires_grad_(False)).to(dtype))
    assert DoublingConv2d in kinds(quick.decoder)
    if meet:
        let_edges_meet(plain, quick)
    for shape in ((1, 4, 6, 5), (2, 4, 8, 8)):
        latent = torch.randn(shape)
        expected = plain.decode(latent).sample
        assert off(quick.decode(latent.to(dtype)).sample, expected) <= SHARE[dtype]
    picture = torch.rand(1, 3, 48, 40)
    expected = plain.encode(picture).latent_dist.mode()
    assert off(quick.encode(picture.to(dtype)).latent_dist.mode(), expected) <= SHARE[dtype]


def test_gradients_flow_back_as_before() -> None:
    plain: Any = tiny_diffusion.tiny_vae()
    quick = quickened(copy.deepcopy(plain.requires_grad_(False)))
    wanted = torch.randn(1, 3, 48, 40)
    gradients = []
    for vae in (plain, quick):
        latent = torch.linspace(-1, 1, 120).view(1, 4, 6, 5).requires_grad_()
        (vae.decode(latent).sample * wanted).sum().backward()
        gradients.append(latent.grad)
    assert off(gradients[1], gradients[0]) <= 1e-4


def test_a_unets_gradient_flows_back_in_half_precision_too() -> None:
    plain, ours = unets()
    quick = quickened(ours.to(HALF))
    wanted, read = torch.randn(1, 4, 8, 8), torch.randn(1, 9, 32)
    gradients = []
    for unet, dtype in ((plain, FLOAT), (quick, HALF)):
        x = torch.linspace(-1, 1, 256).view(1, 4, 8, 8).to(dtype).requires_grad_()
        answer = unet(x, torch.tensor(500), encoder_hidden_states=read.to(dtype)).sample
        (answer * wanted.to(dtype)).sum().backward()
        gradients.append(x.grad)
    assert off(gradients[1], gradients[0]) <= 0.1


@torch.no_grad()
@pytest.mark.parametrize("room", [0, fast.ROOM])
@pytest.mark.parametrize("shape", [(2, 50, 50, 3, 8), (1, 64, 7, 2, 40), (2, 1, 9, 1, 16)])
def test_attention_is_exact_up_to_rounding(
    room: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All heads at once, and in parts of a few rows of which the last is shorter."""
    monkeypatch.setattr(fast, "ROOM", room)
    monkeypatch.setattr(fast, "SCORES", 150)
    batch, count, others, heads, width = shape
    q = torch.randn(batch, count, heads * width)
    k, v = torch.randn(2, batch, others, heads * width).add(1)
    split = [x.double().unflatten(2, (heads, width)).transpose(1, 2) for x in (q, k, v)]
    weights = (split[0] @ split[1].transpose(2, 3) / width**0.5).softmax(-1)
    expected = (weights @ split[2]).transpose(1, 2).flatten(2)
    assert off(attend(q, k, v, heads), expected) <= 1e-5
    assert off(attend(q.to(HALF), k.to(HALF), v.to(HALF), heads), expected) <= 0.02


@torch.no_grad()
def test_without_packed_weights_layers_stay_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "can_pack", lambda dtype: False)
    plain, ours = unets()
    x, read = torch.randn(1, 4, 8, 8), torch.randn(1, 9, 32)
    quick = quickened(ours)
    assert PackedConv2d not in kinds(quick) and PackedLinear not in kinds(quick)
    expected = plain(x, torch.tensor(5), encoder_hidden_states=read).sample
    assert torch.equal(quick(x, torch.tensor(5), encoder_hidden_states=read).sample, expected)


@torch.no_grad()
@pytest.mark.vnni
def test_packed_weights_can_be_read_as_they_were() -> None:
    plain, ours = unets()
    quick = quickened(ours)
    quick(torch.randn(1, 4, 8, 8), torch.tensor(5), encoder_hidden_states=torch.randn(1, 9, 32))
    theirs = dict(plain.named_modules())
    packed = [
        (name, layer)
        for name, layer in quick.named_modules()
        if isinstance(layer, (PackedConv2d, PackedLinear))
    ]
    assert packed
    for name, layer in packed:
        assert torch.equal(layer.weight, theirs[name].weight)
