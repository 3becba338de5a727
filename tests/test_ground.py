"""The ground of a picture: where it is, when it is kept, and how a loss keeps it."""

from collections import deque

import numpy as np
import pytest
import torch
from PIL import Image

from logic import VQGANCLIPRun
from studio.engines.vqgan_clip.ground import Ground, border_colour, kept_ground
from training.cleanness import cleanness, ground_of
from training.evaluate import ASSETS, default_settings

WHITE, BLUE, RED = (1.0, 1.0, 1.0), (0.2, 0.4, 0.9), (0.9, 0.1, 0.1)


def picture(ground=WHITE, height=40, width=48):
    """A red ring on a plain ground, with that ground's colour in its middle, too."""
    y, x = np.indices((height, width))
    distance = np.hypot(y - height / 2, x - width / 2)
    pixels = np.empty((height, width, 3), np.float32)
    pixels[:] = ground
    pixels[(distance > 6) & (distance < 14)] = RED
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def noise(height=40, width=48):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def flooded(pixels):
    """The ground by a flood from each pixel of the border: slow and obvious."""
    colours = pixels[0].permute(1, 2, 0).numpy()
    height, width = colours.shape[:2]
    edge = [(y, x) for y in range(height) for x in range(width)
            if y in (0, height - 1) or x in (0, width - 1)]  # fmt: skip
    usual = np.median(np.stack([colours[place] for place in edge]), axis=0)
    near = np.abs(colours - usual).max(axis=-1) < 0.1
    found, queue = np.zeros((height, width), bool), deque(edge)
    while queue:
        y, x = queue.popleft()
        if 0 <= y < height and 0 <= x < width and near[y, x] and not found[y, x]:
            found[y, x] = True
            queue.extend((y + v, x + u) for v in (-1, 0, 1) for u in (-1, 0, 1))
    return found


@pytest.mark.parametrize("colour", [WHITE, BLUE])
def test_the_ground_is_linked_with_the_border(colour):
    pixels = picture(colour)
    pixels[..., :20, 2] = 0.0  # a bar along an edge, to get around
    ground = Ground.of(pixels)
    assert np.array_equal(ground.mask[0, 0].numpy() > 0, flooded(pixels))
    assert not ground.mask[0, 0, 18:22, 22:26].any()


def test_a_winding_way_leads_to_ground():
    pixels = torch.ones(1, 3, 32, 32)
    for row in range(2, 30, 2):
        pixels[..., row, 1:31] = 0
        pixels[..., row, 30 if row % 4 else 1] = 1
    pixels[..., 1:31, 1] = pixels[..., 1:31, 30] = 0
    pixels[..., 1, 15] = pixels[..., 15, 15] = 1
    assert np.array_equal(Ground.of(pixels).mask[0, 0].numpy() > 0, flooded(pixels))


@pytest.mark.parametrize("height, width", [(512, 512), (300, 700), (256, 1024)])
def test_a_large_picture_has_the_ground_of_a_small_one(height, width):
    large = picture(height=height, width=width)
    mask = Ground.of(large).mask[0, 0].numpy() > 0
    assert mask.shape == (height, width)
    assert np.mean(mask != flooded(large)) < 0.002


def test_a_picture_of_many_colours_has_no_ground():
    assert Ground.of(noise()) is None


def test_a_border_of_one_colour_for_the_most_part_is_enough():
    pixels = picture()
    pixels[..., :, :30] = noise()[..., :30]
    assert Ground.of(pixels) is None
    pixels = picture()
    pixels[..., :, :10] = noise()[..., :10]
    assert Ground.of(pixels).mask.any()


@pytest.mark.parametrize(
    "begun, sketched, is_kept",
    [
        (WHITE, [WHITE], True),
        (WHITE, [(0.95, 0.9, 0.97)], True),
        (WHITE, [BLUE], False),
        (BLUE, [BLUE, BLUE, WHITE], True),
        (BLUE, [WHITE, WHITE, BLUE], False),
        (WHITE, None, True),
    ],
)
def test_a_ground_is_kept_where_the_prompts_ask_for_it(begun, sketched, is_kept):
    sketches = sketched and torch.cat([picture(colour, 32, 32) for colour in sketched])
    assert (kept_ground(picture(begun), sketches) is not None) == is_kept


def test_the_border_colour_is_the_median():
    assert border_colour(picture(BLUE)).tolist() == pytest.approx(BLUE)


def test_the_loss_is_the_mean_difference_on_the_ground():
    begun = picture()
    ground = Ground.of(begun)
    assert ground.loss(begun) == 0
    other = begun.clone()
    other[:, 1] -= 0.5 * ground.mask[:, 0]
    share = float(ground.mask.mean())
    assert float(ground.loss(other)) == pytest.approx(0.5 * share / 3, rel=0.1)
    thing = begun * ground.mask  # what is no ground may change
    assert ground.loss(thing + (1 - ground.mask) * noise()) == 0


def test_its_gradient_pulls_back_just_as_hard_from_near_and_far():
    begun = picture()
    ground = Ground.of(begun)
    strengths = []
    for far in (0.1, 0.5):
        changed = (begun - far).requires_grad_()
        ground.loss(changed).backward()
        assert (changed.grad[ground.mask.expand_as(begun) > 0] < 0).all()
        assert not changed.grad[ground.mask.expand_as(begun) == 0].any()
        strengths.append(float(changed.grad.abs().max()))
    assert strengths[0] == pytest.approx(strengths[1], rel=0.05)


# --- The bundled weights, as a person gets them --------------------------------------------------


def bundled_steps(count, start_image=None, **changes):
    settings = default_settings("a bus").model_copy(update=changes)
    where = {"assets_dir": ASSETS, "device": torch.device("cpu")}
    run = VQGANCLIPRun(settings, **where, start_image=start_image)
    run.load_model()
    run.model_init()
    return [run.iterate() for _ in range(count)]


def first_and_last(steps):
    return (np.asarray(steps[i].picture, np.float32) / 255 for i in (0, -1))


def test_the_bundled_weights_keep_their_ground_clean():
    sketch, kept = first_and_last(bundled_steps(20))
    same_sketch, free = first_and_last(bundled_steps(20, ground_weight=0.0))
    assert np.array_equal(sketch, same_sketch)
    clean, dirty = (cleanness(picture, sketch).ground for picture in (kept, free))
    assert clean < 0.5 * dirty
    things = ground_of(sketch) == 0
    assert np.abs(kept - sketch)[things].mean() > 0.02  # things change as they did


@pytest.mark.parametrize(
    ("prompt", "is_kept"),
    [("a red heart", True), ("a red heart on a blue background", False)],
)
def test_the_bundled_weights_free_a_ground_when_asked_for_another(prompt, is_kept):
    start = Image.new("RGB", (128, 128), "white")
    start.paste((220, 30, 30), (40, 40, 88, 88))
    (step,) = bundled_steps(1, start, text_input=prompt)
    assert ("ground" in step.losses) == is_kept


@pytest.mark.parametrize("rows", [3, 8, 100])
def test_the_ground_is_differentiated_row_by_row(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.engines.vqgan_clip.ground.ROWS", rows)
    torch.manual_seed(0)
    kept = Ground(torch.rand(1, 3, 16, 10), torch.rand(1, 1, 16, 10).round())
    picture = torch.rand(1, 3, 16, 10, requires_grad=True)
    expected = 0.7 * kept.loss(picture)
    (wanted,) = torch.autograd.grad(expected, picture)
    gradient = torch.ones_like(picture)
    found = kept.differentiate(picture, 0.7, gradient)
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(gradient, 1 + wanted.detach())
