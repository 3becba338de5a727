"""The estimate of VQGAN-CLIP's runs: time and memory, told before they start."""

import pytest

from studio.engines import upscaling_time
from studio.engines.estimate import estimate_in_words, together
from studio.engines.vqgan_clip import estimate
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings

WIDTHS = {"small": 32, "large": 128}


def chosen(**changes):
    values = {"text_input": "x", "vqgan_ckpt": "small", "num_steps": 100, "cutn": 64}
    return VQGANCLIPSettings(**values | changes)


def past_run(settings, steps_per_second, seconds):
    """The details of a run that took so long in all."""
    times = {"start_time": "2026-01-01T00:00:00+00:00"}
    times["end_time"] = f"2026-01-01T00:{seconds // 60:02}:{seconds % 60:02}+00:00"
    return settings.model_dump() | {"device": "CPU", "steps_per_second": steps_per_second} | times


def test_earlier_runs_on_the_same_device_and_weights_set_the_estimate():
    wanted = chosen()
    past = [past_run(wanted, 4.0, 28)]
    told = estimate.estimate(wanted, WIDTHS, "CPU", past)
    assert told.measured and told.seconds == pytest.approx(3 + 25)
    twice = estimate.estimate(chosen(num_steps=200), WIDTHS, "CPU", past)
    assert twice.seconds == pytest.approx(3 + 50)
    assert not estimate.estimate(wanted, WIDTHS, "GPU 0 (X)", past).measured


THREAD = "CPU (x86_64, 1 threads)"
EMOJI = {"vqgan_ckpt": "emoji_f8", "clip_model": "emoji_clip", "text_input": "x"}
TOOK = {  # seconds a step by side and cutouts, of the bundled weights where PRODUCT_SPEED is from
    (64, 12): 0.053,
    (128, 12): 0.093,
    (256, 12): 0.28,
    (384, 12): 0.6,
    (512, 12): 1.2,
    (128, 64): 0.15,
    (256, 64): 0.37,
}


@pytest.fixture
def as_measured(monkeypatch):
    """On the machine that the constants were measured on."""
    monkeypatch.setattr(estimate, "product_speed", lambda: estimate.PRODUCT_SPEED)
    monkeypatch.setattr(estimate, "cpu_flags", lambda: {estimate.EIGHT_BITS_FLAG})


def emoji(side, cutn, steps=100):
    return VQGANCLIPSettings(Xdim=side, ydim=side, cutn=cutn, num_steps=steps, **EMOJI)


@pytest.mark.parametrize("side, cutn", TOOK)
def test_a_first_guess_is_within_a_factor_of_2(as_measured, side, cutn):
    told = estimate.estimate(emoji(side, cutn), {"emoji_f8": 64}, THREAD, [])
    assert 0.5 < told.seconds_per_step / TOOK[side, cutn] < 2


@pytest.mark.parametrize("before, wanted", [((64, 12), (512, 12)), ((512, 12), (64, 12))])
def test_small_runs_tell_of_large_ones_and_large_of_small(as_measured, before, wanted):
    past = [past_run(emoji(*before), 1 / TOOK[before], 59) | {"device": THREAD}]
    told = estimate.estimate(emoji(*wanted), {"emoji_f8": 64}, THREAD, past)
    assert told.measured and 0.5 < told.seconds_per_step / TOOK[wanted] < 2


UPSCALED = {  # seconds of side, scale, and whether it is flat art, on the machine of PRODUCT_SPEED
    (128, 4, True): 0.12,
    (512, 4, True): 1.78,
    (512, 2, True): 1.78,
    (512, 4, False): 66.0,
    (128, 8, True): 2.1,
}


@pytest.mark.parametrize("side, scale, is_flat_art", UPSCALED)
def test_upscaling_at_the_end_is_part_of_the_time(monkeypatch, side, scale, is_flat_art):
    monkeypatch.setattr(upscaling_time, "product_speed", lambda: estimate.PRODUCT_SPEED)
    widths = {"emoji_f8": 64 if is_flat_art else 128}
    plain = emoji(side, 12)
    larger = plain.model_copy(update={"upscale": scale})
    without, told = (estimate.estimate(s, widths, THREAD, []).seconds for s in (plain, larger))
    assert told - without == pytest.approx(UPSCALED[side, scale, is_flat_art], rel=0.25)
    past = past_run(larger, 4.0, 28) | {"device": THREAD}
    measured = estimate.estimate(larger, widths, THREAD, [past]).seconds
    assert measured == pytest.approx(max(28, 25 + told - without)), "counted once"


def test_a_film_of_upscaled_frames_takes_the_time_of_each(monkeypatch):
    monkeypatch.setattr(upscaling_time, "product_speed", lambda: estimate.PRODUCT_SPEED)
    of = upscaling_time.upscaling_seconds
    settings = emoji(128, 12, steps=50).model_dump() | {"upscale_always": True}
    once = of(settings | {"num_steps": 0}, THREAD, is_flat_art=True)
    assert of(settings, THREAD, is_flat_art=True) == pytest.approx(51 * once)
    assert of(settings, "GPU 0 (X)", is_flat_art=True) < once


def test_the_speed_of_this_machine_is_told_by_a_product():
    assert 1e8 < estimate.product_speed() < 1e12


def test_several_runs_take_their_times_together():
    each = [estimate.estimate(chosen(num_steps=n), WIDTHS, "CPU", []) for n in (10, 20)]
    told = together(each, 3)
    assert told.seconds == pytest.approx(3 * (each[0].seconds + each[1].seconds))
    endless = estimate.estimate(chosen(num_steps=-1), WIDTHS, "CPU", [])
    assert together([each[0], endless]).seconds is None
    words = estimate_in_words(told, "CPU", 6, waiting=120.0)
    assert "for 6 runs, after about 2 min for the runs before it, and" in words


@pytest.mark.parametrize("odd", [{"Xdim": 10**400}, {"Xdim": float("inf")}, {"cutn": "many"}])
def test_odd_earlier_runs_are_passed_over(odd):
    past = [chosen().model_dump() | {"device": "CPU", "steps_per_second": 4.0} | odd]
    assert not estimate.estimate(chosen(), WIDTHS, "CPU", past).measured


@pytest.mark.parametrize("changes", [{"Xdim": 512}, {"cutn": 512}, {"vqgan_ckpt": "large"}])
def test_more_work_takes_longer_and_more_memory(changes):
    less = estimate.estimate(chosen(cutn=8), WIDTHS, "CPU", [])
    more = estimate.estimate(chosen(**{"cutn": 8} | changes), WIDTHS, "CPU", [])
    assert more.seconds > less.seconds
    assert more.memory_bytes > less.memory_bytes


def test_memory_does_not_grow_with_many_cutouts():
    many, more = (chosen(cutn=n).model_dump() for n in (64, 512))
    assert estimate.memory_bytes(many, WIDTHS, "CPU") == estimate.memory_bytes(more, WIDTHS, "CPU")


def test_a_size_beyond_the_memory_is_named_with_one_that_fits(monkeypatch):
    monkeypatch.setattr(estimate, "machine_memory", lambda: 4e9)
    large = chosen(Xdim=1600, ydim=800, vqgan_ckpt="large")
    told = estimate.estimate(large, WIDTHS, "CPU", [])
    width, height = estimate.size_that_fits(large.model_dump(), WIDTHS, "CPU", 4e9)
    assert f"more memory than the 4 GB available: {width}x{height} would fit." in (
        estimate_in_words(told, "CPU")
    )
    assert width == pytest.approx(2 * height, abs=2 * estimate.SIDES)
    fitting = chosen(Xdim=width, ydim=height, vqgan_ckpt="large")
    assert estimate.estimate(fitting, WIDTHS, "CPU", []).too_large == ""
    assert estimate.memory_bytes(fitting.model_dump(), WIDTHS, "CPU") > 3e9
    assert estimate.size_that_fits(large.model_dump(), WIDTHS, "CPU", 1e9) is None


def test_frames_of_several_steps_take_several_steps():
    still, moving = chosen(), chosen(use_scrolling_zooming=True, transform_interval=10)
    times = [estimate.estimate(s, WIDTHS, "CPU", []).seconds_per_step for s in (still, moving)]
    assert times[1] == pytest.approx(10 * times[0])


@pytest.mark.parametrize("odd", [{}, {"num_steps": "many"}, {"vqgan_ckpt": None}])
def test_odd_details_of_earlier_runs_do_no_harm(odd):
    past = [{"device": "CPU", "steps_per_second": None} | odd]
    assert not estimate.estimate(chosen(), WIDTHS, "CPU", past).measured


def test_a_picture_that_grows_takes_less_time_and_memory_than_one_in_one_piece(as_measured):
    growing = emoji(1024, 12).model_copy(update={"grow_from": 128, "num_steps": 150})
    whole = growing.model_copy(update={"grow_from": 0})
    few, many = (estimate.estimate(s, {"emoji_f8": 64}, THREAD, []) for s in (growing, whole))
    assert few.seconds < 0.8 * many.seconds and few.memory_bytes < 0.6 * many.memory_bytes
    larger = growing.model_copy(update={"Xdim": 2048, "ydim": 2048})
    more = estimate.estimate(larger, {"emoji_f8": 64}, THREAD, [])
    assert 2 < more.seconds / few.seconds < 4.5
    assert more.memory_bytes - few.memory_bytes < 0.5e9


def test_the_time_of_a_growing_picture_is_that_of_its_sizes(as_measured):
    growing = emoji(512, 12, steps=150).model_copy(update={"grow_from": 128})
    told = estimate.estimate(growing, {"emoji_f8": 64}, THREAD, []).seconds_per_step
    at = {
        side: estimate.estimate(emoji(side, 12), {"emoji_f8": 64}, THREAD, []) for side in TOOK_AT
    }
    expected = sum(at[side].seconds_per_step * steps for side, steps in TOOK_AT.items()) / 150
    assert told == pytest.approx(expected)


TOOK_AT = {128: 80, 256: 40, 512: 30}


@pytest.mark.parametrize("older", [{}, {"grow_steps": 100}])
def test_earlier_runs_without_growth_still_tell(as_measured, older):
    details = past_run(emoji(128, 12), 1 / TOOK[128, 12], 59) | {"device": THREAD}
    past = {k: v for k, v in details.items() if k not in ("grow_from", "grow_steps")} | older
    assert estimate.estimate(emoji(128, 12), {"emoji_f8": 64}, THREAD, [past]).measured


def test_slices_take_the_memory_and_time_of_a_quarter(as_measured):
    whole = emoji(1024, 12, steps=100)
    nine = whole.model_copy(update={"slices": "nine", "grow_steps": 40, "slice_steps": 10})
    part = emoji(512, 12)
    told = [estimate.estimate(s, {"emoji_f8": 64}, THREAD, []) for s in (whole, nine, part)]
    memory = [one.memory_bytes for one in told]
    assert memory[2] < memory[1] < 1.2 * memory[2] < memory[0]
    small = estimate.estimate(emoji(128, 12), {"emoji_f8": 64}, THREAD, [])
    from_128 = nine.model_copy(update={"grow_from": 128})
    found = estimate.estimate(from_128, {"emoji_f8": 64}, THREAD, []).seconds_per_step
    expected = 0.4 * small.seconds_per_step + 0.6 * told[2].seconds_per_step
    assert found == pytest.approx(expected)
    from_picture = from_128.model_copy(update={"init_image": "a.png"})
    found = estimate.estimate(from_picture, {"emoji_f8": 64}, THREAD, []).seconds_per_step
    assert found == pytest.approx(told[2].seconds_per_step)
