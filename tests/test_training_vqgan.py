"""The VQGAN's trainer: its formulas, and that its weights are taming's own once exported."""

import math

import pytest
import torch
import torch.nn.functional as F

from training import train_vqgan as trainer
from vqgan_utils import load_vqgan_model, vector_quantize

PARAMS = {
    "embed_dim": 4,
    "n_embed": 16,
    "ddconfig": {
        "double_z": False, "z_channels": 8, "resolution": 16, "in_channels": 3, "out_ch": 3,
        "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [8], "dropout": 0.0,
    },
}  # fmt: skip


@pytest.fixture
def model() -> trainer.Autoencoder:
    torch.manual_seed(0)
    model = trainer.Autoencoder(PARAMS).requires_grad_(False)
    for parameter in model.parameters():  # biases and norms as training leaves them
        parameter += 0.05 * torch.randn_like(parameter)
    return model


def test_rescaled_weights_do_the_same_with_tamings_epsilon(model):
    pictures, z = torch.rand(2, 3, 16, 16) * 2 - 1, torch.randn(2, 4, 8, 8)
    trainer.set_epsilon(model, trainer.EPSILON)
    encoded, decoded = model.encode(pictures), model.decode(z)
    exported = trainer.Autoencoder(PARAMS).requires_grad_(False)
    unscaled = trainer.Autoencoder(PARAMS).requires_grad_(False)
    exported.load_state_dict(trainer.rescaled(model.state_dict()))
    unscaled.load_state_dict(model.state_dict())
    torch.testing.assert_close(exported.encode(pictures), encoded, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(exported.decode(z), decoded, rtol=1e-4, atol=1e-5)
    assert (unscaled.decode(z) - decoded).abs().max() > 0.01


def test_rescaling_can_be_undone(model):
    exported = trainer.rescaled(model.state_dict())
    for name, value in trainer.rescaled(exported, 1 / trainer.SCALE).items():
        torch.testing.assert_close(value, model.state_dict()[name], msg=name)


def test_nearest_codes_by_brute_force():
    z, codebook = torch.randn(2, 3, 4, 5), torch.randn(7, 3)
    codes = trainer.nearest_codes(z, codebook)
    for b in range(2):
        for y in range(4):
            for x in range(5):
                distances = [math.dist(z[b, :, y, x].tolist(), code.tolist()) for code in codebook]
                assert codes[b, y, x] == distances.index(min(distances))
    looked_up = trainer.look_up(codes, codebook)
    torch.testing.assert_close(looked_up[1, :, 2, 3], codebook[codes[1, 2, 3]])


def test_the_codebook_moves_to_the_mean_of_what_falls_on_each_code():
    codebook = torch.tensor([[0.0, 0.0], [10.0, 10.0]])
    average = trainer.CodebookAverage(codebook, decay=0.9)
    z = torch.tensor([[1.0, 3.0, 9.0], [1.0, 1.0, 9.0]]).view(1, 2, 1, 3)
    codes = trainer.nearest_codes(z, codebook)
    for _ in range(200):
        average.update(z, codes, codebook)
    torch.testing.assert_close(codebook, torch.tensor([[2.0, 1.0], [9.0, 9.0]]))


def test_k_means_finds_well_separated_groups():
    torch.manual_seed(1)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    vectors = (centres[:, None] + 0.1 * torch.randn(3, 50, 2)).flatten(0, 1)
    codebook = torch.zeros(12, 2)
    trainer.CodebookAverage(codebook).place(vectors, codebook)
    assert torch.cdist(vectors, codebook).amin(1).max() < 0.5


def test_only_unused_codes_restart_on_current_outputs():
    codebook = torch.tensor([[0.0], [1.0], [100.0]])
    average = trainer.CodebookAverage(codebook)
    average.counts.copy_(torch.tensor([5.0, 5.0, 0.0]))
    z = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 7.0]).view(1, 1, 1, 8)
    assert average.restart_unused(z, codebook) == 1
    assert codebook.flatten().tolist() == [0.0, 1.0, 7.0]
    average.counts.fill_(1)
    assert average.restart_unused(z, codebook) == 0


def test_damaged_latents_keep_their_gradient_and_mostly_their_codes():
    torch.manual_seed(0)
    codebook = torch.randn(16, 4)
    z = torch.randn(64, 4, 8, 8, requires_grad=True)
    z_q = z + (trainer.look_up(trainer.nearest_codes(z, codebook), codebook) - z).detach()
    damaged = trainer.damage(z_q, z, codebook)
    changed = (damaged != z_q).any(1).flatten(1).float().mean(1)
    assert (changed == 1).float().mean() < 0.3  # those that skip quantisation
    assert (changed == 0).float().mean() > 0.25
    assert changed[changed < 1].max() < 0.5
    damaged.sum().backward()
    assert z.grad.mean() > 0.9


def random_perceptual_weights() -> dict[str, torch.Tensor]:
    """With the shapes of stlpips-pytorch's file; training needs that package, the tests do not."""
    weights = {"scaling_layer.shift": torch.randn(1, 3, 1, 1) * 0.1,
               "scaling_layer.scale": torch.full((1, 3, 1, 1), 0.45),
               "net.slice2.4.filt": torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).expand(
                   64, 1, 3, 3) / 16}  # fmt: skip
    widths = (3, 64, 192, 384, 256, 256)
    layers = ("slice1.0", "slice2.5", "slice3.9", "slice4.11", "slice5.13")
    for i, (layer, side) in enumerate(zip(layers, (11, 5, 3, 3, 3), strict=True)):
        fan_in = widths[i] * side**2
        weights[f"net.{layer}.weight"] = (
            torch.randn(widths[i + 1], widths[i], side, side) * (2 / fan_in) ** 0.5
        )
        weights[f"net.{layer}.bias"] = torch.zeros(widths[i + 1])
        weights[f"lin{i}.model.1.weight"] = torch.rand(1, widths[i + 1], 1, 1)
    return weights


def test_perceptual_distance_grows_with_change_and_merges_its_first_layers():
    torch.manual_seed(0)
    distance = trainer.PerceptualDistance(random_perceptual_weights())
    a = torch.rand(2, 3, 64, 64) * 2 - 1
    near, far = a + 0.05 * torch.randn_like(a), torch.rand(2, 3, 64, 64) * 2 - 1
    assert torch.equal(distance(a, a), torch.zeros(2))
    assert (distance(a, near) < distance(a, far)).all()
    # The merged first layer against a stride 1 convolution and a blur, away from the border.
    weight, bias = distance.net_slice1_0_weight, distance.net_slice1_0_bias
    x = (a - distance.scaling_layer_shift) / distance.scaling_layer_scale
    plain = F.pad(F.conv2d(x, weight, bias, padding=2), (2, 2, 2, 2), mode="reflect")
    blur = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0])) / 16
    plain = F.relu(F.conv2d(plain, blur.expand(64, 1, 3, 3), stride=2, groups=64))
    merged = distance.features(a)[0]
    inner = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(merged[inner], plain[inner], rtol=1e-3, atol=1e-4)


def test_the_shipped_configuration_and_weights_belong_together():
    model = load_vqgan_model(trainer.CONFIG, trainer.WEIGHTS)
    assert trainer.WEIGHTS.stat().st_size < 18e6
    colours = torch.tensor([[0.8, -0.6, -0.6], [-0.5, 0.1, 0.7], [0.9, 0.8, -0.4]])
    plain = colours[:, :, None, None].expand(-1, -1, 64, 64).contiguous()
    made = model.decode(vector_quantize(model.encode(plain), model.codebook))
    assert (made - plain).abs().mean() < 0.15
    # Flat stays nearly flat; the first weights shipped are at 0.10 to 0.12 of [-1, 1].
    assert made[:, :, 8:-8, 8:-8].std(dim=(2, 3)).max() < 0.15
