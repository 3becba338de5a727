"""How clean pictures are: drawings whose dirt is known."""

from dataclasses import astuple

import numpy as np
import pytest

from training.cleanness import Cleanness, cleanness, ground_of, mean_cleanness, outline_length

SIDE = 64


def disc(colour=(0.9, 0.1, 0.1), wave=0.0, ground=1.0):
    """A smooth disc of radius 20; wave: px that its edge goes in and out 24 times around."""
    y, x = np.indices((SIDE, SIDE)) - SIDE / 2
    radius = 20 + wave * np.sin(24 * np.arctan2(y, x))
    inside = (radius - np.hypot(x, y) + 0.5).clip(0, 1)[..., None]
    return (inside * np.array(colour) + (1 - inside) * ground).astype(np.float32)


def ringed(colour):
    """A disc with a ring of another colour around it, 2 px wide."""
    picture = disc()
    y, x = np.indices((SIDE, SIDE)) - SIDE / 2
    picture[np.abs(np.hypot(x, y) - 20) < 1] = colour
    return picture


def test_a_clean_drawing_is_clean():
    found = cleanness(disc())
    assert found.ground < 0.001 and found.spots < 0.002
    assert found.foreign < 0.01
    assert found.roughness == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("grey", [0.98, 0.9, 0.5])
def test_the_ground_is_where_the_sketch_is_white(grey):
    assert cleanness(disc(ground=grey), disc()).ground == pytest.approx(1 - grey, abs=1e-3)


def test_white_inside_a_shape_is_no_ground():
    picture = disc()
    picture[28:36, 28:36] = 1
    assert not ground_of(picture)[28:36, 28:36].any()
    assert ground_of(picture)[0].all()


def test_a_fringe_is_foreign_and_a_mixture_is_not():
    fringe, mixture = cleanness(ringed((0.5, 0.2, 0.9))), cleanness(ringed((0.95, 0.55, 0.55)))
    assert fringe.foreign > 0.2
    assert mixture.foreign < 0.03


@pytest.mark.parametrize("wave, low, high", [(0, 0.97, 1.03), (1, 1.08, 1.6), (3, 1.6, 4)])
def test_roughness_grows_with_the_waves_of_an_outline(wave, low, high):
    assert low < cleanness(disc(wave=wave)).roughness < high


def test_spots_are_counted_by_their_pixels():
    picture = disc()
    picture[4:60:8, 4] = 0
    assert cleanness(picture).spots == pytest.approx(cleanness(disc()).spots + 7 / SIDE**2)


def test_the_length_of_an_outline():
    assert outline_length(1 - disc((0, 0, 0))[..., 0]) == pytest.approx(2 * np.pi * 20, rel=0.03)


def test_an_empty_picture_has_a_ground_alone():
    white = np.ones((SIDE, SIDE, 3), np.float32)
    found = cleanness(white)
    assert (found.ground, found.spots) == (0, 0)
    assert np.isnan([found.foreign, found.roughness]).all()
    assert np.isnan(cleanness(white - 0.5).ground)


def test_a_mean_leaves_out_what_could_not_be_measured():
    nan = float("nan")
    mean = mean_cleanness([Cleanness(0.1, nan, 1, 0), Cleanness(0.3, 0.2, 2, 0)])
    assert astuple(mean) == pytest.approx((0.2, 0.2, 1.5, 0))
