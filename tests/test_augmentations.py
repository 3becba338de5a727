"""Lists of augmentations: their grammar, their order, and what each does beside kornia's own."""

import re

import kornia.augmentation as K
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio.base.errors import BadInput
from studio.base.paths import README
from studio.engines.random_stream import RandomStream
from studio.engines.vqgan_clip import augmentations
from studio.engines.vqgan_clip.augmentation_list import (
    NAMES,
    PARAMETERS,
    USUAL,
    parameters_of,
    parse_augmentations,
    write_augmentations,
)
from studio.engines.vqgan_clip.augmentations import AugmentationList
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.settings.values import make

SIDE = 32


def pictures(count: int = 6, side: int = SIDE) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    rough = torch.rand(count, 3, 6, 6, generator=generator)
    return F.interpolate(rough, (side, side), mode="bicubic").clamp(0, 1)


def changed(text: str, batch: Tensor, seed: int = 1, first: int = 0) -> Tensor:
    return AugmentationList(parse_augmentations(text), batch.shape[-1])(batch, seed, first)


# --- the grammar -----------------------------------------------------------------------------


def test_a_list_is_read_in_its_order() -> None:
    found = parse_augmentations("sharpness(0.3, p=0.4) | affine(30, translate=0.1, p=0.8)")
    assert [item.name for item in found] == ["sharpness", "affine"]
    assert (found[0]["sharpness"], found[0]["p"]) == (0.3, 0.4)
    assert (found[1]["degrees"], found[1]["translate"], found[1]["p"]) == (30, 0.1, 0.8)
    assert found[1]["padding_mode"] == "border", "the usual value"


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("flip", "flip", {"p": 0.5}),
        ("flip()", "flip", {"p": 0.5}),
        (" Colour Jitter ( hue = .2 ) ", "colour_jitter", {"hue": 0.2, "saturation": 0.1}),
        ("color-jitter(0.1, 0.2, 0.3, 0.4, 1)", "colour_jitter", {"contrast": 0.2, "p": 1}),
        ("thin plate spline(scale=1)", "thin_plate_spline", {"scale": 1}),
        ("erasing(scale=(.1, .4), value=1)", "erasing", {"scale": (0.1, 0.4), "value": 1}),
        ("rotation([-5, 10])", "rotation", {"degrees": (-5, 10)}),
        ("affine(10, (0.3, 0.1))", "affine", {"translate": (0.3, 0.1)}),
        ("gaussian_blur((3, 5), (0.1, 2.0))", "gaussian_blur", {"kernel_size": (3, 5)}),
        ("elastic transform((21, 21), (9, 4))", "elastic_transform", {"sigma": (9, 4)}),
        ("affine(padding_mode=zeros)", "affine", {"padding_mode": "zeros"}),
        ("affine(padding_mode='zeros')", "affine", {"padding_mode": "zeros"}),
        ("flip(same_on_batch=True)", "flip", {"same_on_batch": 1}),
        ("flip(p=1, same_on_batch=off)", "flip", {"p": 1, "same_on_batch": 0}),
    ],
)
def test_spellings(text: str, name: str, values: dict) -> None:
    (found,) = parse_augmentations(text)
    assert found.name == name
    assert {parameter: found[parameter] for parameter in values} == values


@pytest.mark.parametrize("text", ["", " ", "|", " | | "])
def test_nothing_is_an_empty_list(text: str) -> None:
    assert parse_augmentations(text) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sharpnes(0.3)", f"There is no augmentation 'sharpnes'. There are: {', '.join(NAMES)}."),
        ("flip | blur", "There is no augmentation 'blur'. There are: flip,"),
        ("(0.3)", "There is no augmentation"),
        ("flip)(", "There is no augmentation"),
        ("sharpness(q=1)", "sharpness takes no 'q'. It takes: sharpness, p, same_on_batch."),
        ("sharpness(p=2)", "sharpness: 'p' must be a number from 0 to 1; it was 2."),
        ("sharpness(p=-1)", "'p' must be a number from 0 to 1"),
        ("sharpness(p=1e999)", "'p' must be a number from 0 to 1"),
        ("sharpness(p=true)", "'p' must be a number from 0 to 1; it was true"),
        ("sharpness(p=(0, 1))", "'p' must be a number from 0 to 1"),
        ("sharpness(0.1, 0.2, false, 4)", "sharpness takes 3 values at most"),
        ("sharpness(0.1, sharpness=0.2)", "sharpness got 'sharpness' twice"),
        ("sharpness(p=0.1, p=0.2)", "sharpness got 'p' twice"),
        (
            "gaussian_blur(4)",
            "'kernel_size' must be an odd whole number from 3 to 31, or two of them; it was 4",
        ),
        ("gaussian_blur((3, 4))", "'kernel_size' must be an odd whole number from 3 to 31, or two"),
        ("motion_blur((3, 3))", "'kernel_size' must be an odd whole number from 3 to 31; it was"),
        ("gaussian_blur(3.5)", "'kernel_size' must be an odd whole number"),
        ("gaussian_blur(border_type=mirror)", "constant or reflect or replicate or circular"),
        ("erasing(scale=0.2)", "'scale' must be a pair of numbers from 0.001 to 1, such as"),
        ("erasing(scale=(0.4, 0.1))", "'scale' must be a pair"),
        ("erasing(scale=(0.1, 0.2, 0.3))", "'scale' must be a pair"),
        ("rotation(400)", "'degrees' must be a number from -360 to 360, or a pair"),
        ("flip(same_on_batch=maybe)", "'same_on_batch' must be true or false; it was maybe"),
        ("flip(p=)", "'flip(p=)' cannot be read. Write it like 'flip(p=0.5)'; it takes: p"),
        ("flip(p=0.5)(1)", "cannot be read"),
        ("flip(__import__('os'))", "cannot be read"),
        ("flip(*p)", "cannot be read"),
        ("flip(**p)", "cannot be read"),
        ("flip(p=1+1)", "cannot be read"),
        ("flip(p=" + "9" * 1900 + ")", "must be a number"),
        ("flip(" + "[" * 1900, "There is no augmentation"),
        ("flip(" + "[" * 900 + "]" * 900 + ")", "cannot be read"),
        ("flip(\0)", "cannot be read"),
        ("|".join(["flip"] * 21), "There are 21 augmentations. Use at most 20."),
    ],
)
def test_mistakes_name_what_is_good(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        parse_augmentations(text)
    with pytest.raises(BadInput, match=f"--augmentations must .*{re.escape(said.rstrip('.'))}"):
        make(VQGANCLIPSettings, {"text_input": "a", "augmentations": text})


@pytest.mark.parametrize("text", [USUAL, *NAMES, "erasing(scale=(.1, .3), p=1) | crop(0.3)"])
def test_what_is_written_is_read_again(text: str) -> None:
    found = parse_augmentations(text)
    assert parse_augmentations(write_augmentations(found)) == found


def test_the_help_names_them_all() -> None:
    text = VQGANCLIPSettings.model_fields["augmentations"].description or ""
    assert all(name in text for name in NAMES)


# --- what they do ----------------------------------------------------------------------------

WITH_KORNIA = {
    "flip": K.RandomHorizontalFlip(p=1.0),
    "colour_jitter(0.1, 0.2, 0.3, 0.04)": K.ColorJitter(0.1, 0.2, 0.3, 0.04, p=1.0),
    "sharpness(0.4)": K.RandomSharpness(0.4, p=1.0),
    "gaussian_noise(0.1, 0.2)": K.RandomGaussianNoise(0.1, 0.2, p=1.0),
    "gaussian_blur(5, (0.5, 2))": K.RandomGaussianBlur((5, 5), (0.5, 2.0), p=1.0),
    "motion_blur(7, 30, (-0.5, 0.5))": K.RandomMotionBlur(
        7, (-30.0, 30.0), (-0.5, 0.5), border_type="replicate", resample="bilinear", p=1.0
    ),
    "perspective(0.4)": K.RandomPerspective(0.4, p=1.0),
    "rotation(40)": K.RandomRotation(40.0, p=1.0),
    "affine(20, 0.2, (0.8, 1.1), 10)": K.RandomAffine(
        20.0, (0.2, 0.2), (0.8, 1.1), 10.0, padding_mode="border", p=1.0
    ),
    "elastic_transform(21, 6, 2)": K.RandomElasticTransform(
        (21, 21), (6.0, 6.0), (2.0, 2.0), p=1.0
    ),
    "thin_plate_spline(0.3)": K.RandomThinPlateSpline(0.3, p=1.0),
    "crop(0.25)": K.RandomCrop((SIDE, SIDE), padding=8, padding_mode="reflect", p=1.0),
    "erasing((0.1, 0.3), (0.5, 2), 0.5)": K.RandomErasing((0.1, 0.3), (0.5, 2.0), 0.5, p=1.0),
    "resized_crop((0.3, 0.9))": K.RandomResizedCrop(
        (SIDE, SIDE), (0.3, 0.9), (0.75, 1.333), cropping_mode="resample", p=1.0
    ),
}


def test_there_is_a_comparison_for_each() -> None:
    assert {parse_augmentations(text)[0].name for text in WITH_KORNIA} == set(NAMES)


@pytest.mark.parametrize("text", WITH_KORNIA)
def test_each_is_kornias(text: str) -> None:
    """With the same random numbers; ours draws a number for each cutout's chance first."""
    always = f"{text.removesuffix(')')}, p=1)" if "(" in text else f"{text}(p=1)"
    batch = pictures()
    with RandomStream(1):
        torch.rand(len(batch))
        expected = WITH_KORNIA[text](batch)
    ours = changed(always, batch)
    torch.testing.assert_close(ours, expected)
    assert not torch.equal(ours, batch)


def test_the_order_counts() -> None:
    """Erasing before a turn is turned, after it is not. Each draws its own numbers."""
    erasing, turn = "erasing((0.2, 0.2), (1, 1), p=1)", "rotation((45, 45), p=1)"
    white = torch.ones(3, 3, SIDE, SIDE)
    turned = changed(f"{erasing} | {turn}", white)
    straight = changed(f"{turn} | {erasing}", white)

    def plain(*steps: tuple[nn.Module, int]) -> Tensor:
        result = white
        for step, seed in steps:
            with RandomStream(1 + seed * augmentations.SEEDS_APART):
                torch.rand(3)
                result = step(result)
        return result

    erase = K.RandomErasing((0.2, 0.2), (1.0, 1.0), p=1.0)
    rotate = K.RandomRotation((45.0, 45.0), p=1.0)
    torch.testing.assert_close(turned, plain((erase, 0), (rotate, 1)))
    torch.testing.assert_close(straight, plain((rotate, 0), (erase, 1)))
    assert not torch.allclose(turned, straight, atol=0.1)


def test_chances_are_each_cutouts_own() -> None:
    batch = pictures(1).repeat(600, 1, 1, 1)
    touched = (changed("flip(p=0.3)", batch) != batch).flatten(1).any(dim=1)
    assert 0.24 < touched.float().mean() < 0.36
    assert torch.equal(changed("flip(p=0)", batch), batch)


def test_all_cutouts_can_get_the_same() -> None:
    batch = pictures(1).repeat(8, 1, 1, 1)
    same = changed("affine(same_on_batch=true, p=1)", batch)
    assert (same == same[0]).all() and not torch.equal(same, batch)
    later = changed("affine(same_on_batch=true, p=1)", batch[:3], first=8)
    assert torch.equal(later[0], same[0]), "also those that CLIP looks at later"
    apart = changed("affine(p=1)", batch)
    assert not torch.equal(apart[0], apart[1])
    assert not torch.equal(changed("affine(p=1)", batch, first=8), apart)


def test_seeds_say_everything_and_others_draw_on_undisturbed() -> None:
    text = " | ".join(f"{name}(p=0.7)" for name in NAMES)
    before = torch.get_rng_state()
    first = changed(text, pictures())
    torch.rand(7)
    torch.set_rng_state(before)
    assert torch.equal(changed(text, pictures()), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(changed(text, pictures(), seed=2), first)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("end", ["low", "high"])
def test_the_ends_of_every_range_work(name: str, end: str) -> None:
    for parameter, kind in parameters_of(name).items():
        if kind.kind in ("word", "switch") or parameter == "p":
            continue
        number = kind.low if end == "low" else kind.high
        number = int(number) if kind.kind in ("odd", "odds") else number
        value = f"({number}, {number})" if kind.kind == "pair" else f"{number}"
        batch = pictures(3).requires_grad_()
        found = changed(f"{name}({parameter}={value}, p=1)", batch)
        assert found.shape == batch.shape and found.isfinite().all(), parameter
        (gradient,) = torch.autograd.grad(found.sum(), batch)
        assert gradient.isfinite().all(), parameter


@pytest.mark.parametrize("name", NAMES)
def test_flat_pictures_have_finite_gradients(name: str) -> None:
    for colour in (0.0, 0.5, 1.0):
        batch = torch.full((4, 3, SIDE, SIDE), colour, requires_grad=True)
        found = changed(f"{name}(p=1)", batch)
        upstream = torch.from_numpy(np.random.default_rng(0).normal(size=found.shape)).float()
        (gradient,) = torch.autograd.grad(found, batch, upstream)
        assert gradient.isfinite().all(), colour


def test_the_readme_tells_each_with_its_usual_values() -> None:
    text = README.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (`\w+=.*) \|$", text, re.MULTILINE))
    told = {name: re.findall(r"`([^`]+)`", rows[name]) for name in NAMES}
    for name, values in told.items():
        assert [value.partition("=")[0] for value in values] == list(PARAMETERS[name])
        (read,) = parse_augmentations(f"{name}({', '.join(values)})")
        (usual,) = parse_augmentations(name)
        for value, same in zip(read.values, usual.values, strict=True):
            assert value == same or value[1] == pytest.approx(same[1], rel=1e-3)
