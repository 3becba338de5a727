"""Continuing: n steps and then m more are n + m steps; other settings keep what they can."""

import json

import numpy as np
import pytest
import tiny_models

from studio.base.errors import BadInput
from studio.making import execute as executing
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import reopen, submit
from studio.runs import storage
from studio.runs.checkpoints import read

BASE = {
    "text_input": "a red heart",
    "vqgan_ckpt": "tiny_f8",
    "clip_model": "tiny_clip",
    "Xdim": 32,
    "ydim": 32,
    "cutn": 2,
    "step_size": 0.1,
}
MSE = {"use_mse_regularization": True, "mse_weight_decay_steps": 2, "mse_weight_decay": 0.2}
SCROLL = {"use_scrolling_zooming": True, "translation_x": 5, "zoom_factor": 1.1}
SCROLL |= {"rotation_angle": 3.0, "transform_interval": 2}


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    tiny_models.write_tiny_assets(folder)
    tiny_models.write_vqgan(folder, "other_f8", tiny_models.vq_config(), seed=1)
    return folder


@pytest.fixture
def run(tmp_path, assets):
    """A whole run; returns its folder."""

    def whole(continue_run=None, settings_file=None, **given):
        earlier = continue_run or settings_file
        request = Request(
            given=given if earlier else BASE | given,
            output_dir=tmp_path / "output",
            assets_dir=assets,
            continue_run=continue_run and continue_run.name,
            settings_file=settings_file,
        )
        folder = submit(prepare(request), "running")
        execute(folder, assets_dir=assets)
        return folder

    return whole


def end_of(folder):
    return read(folder.path / storage.CHECKPOINT)


def start_of(folder, assets, monkeypatch):
    """The engine's state at the beginning of a run."""
    states = []
    load = executing._load

    def loaded(*args):
        engine = load(*args)
        states.append(engine.state_dict())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("studio.making.execute._load", loaded)
        execute(folder, assets_dir=assets)
    return states[0]


def same(one, other):
    """Whether two states are the same, bit for bit."""
    assert one.keys() == other.keys()
    return all(
        same(value, other[key]) if isinstance(value, dict) else np.array_equal(value, other[key])
        for key, value in one.items()
    )


# --- n + m ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, m", [(1, 1), (1, 4), (3, 2), (4, 3)])
@pytest.mark.parametrize("changes", [MSE, MSE | SCROLL, {"use_cutout_augmentations": False}])
def test_n_and_then_m_are_one_run(run, n, m, changes):
    at_once = end_of(run(num_steps=n + m, seed=7, **changes))
    first = run(num_steps=n, seed=7, **changes)
    second = end_of(run(first, num_steps=m))
    assert np.array_equal(second.picture, at_once.picture)
    assert second.losses == at_once.losses
    assert (second.index, at_once.index) == (m, n + m)
    assert same(second.state | {"frames": 0}, at_once.state | {"frames": 0})


def test_three_runs_are_one(run):
    at_once = end_of(run(num_steps=6, **MSE, **SCROLL, seed=1))
    last = run(run(run(num_steps=1, **MSE, **SCROLL, seed=1), num_steps=2), num_steps=3)
    assert np.array_equal(end_of(last).picture, at_once.picture)
    assert (last.read()["stage"], len(last.read()["ancestors"])) == (3, 2)


@pytest.mark.parametrize("seed", [{}, {"seed": 7}, {"set_seed": False}])
def test_the_parents_own_seed_does_not_reseed(run, seed):
    parent = run(num_steps=2)
    if seed.get("seed"):
        seed = {"seed": parent.read()["seed"]}
    children = [end_of(run(parent, num_steps=2, **how)) for how in ({}, seed)]
    assert np.array_equal(children[0].picture, children[1].picture)
    at_once = run(num_steps=4, seed=parent.read()["seed"])
    assert np.array_equal(end_of(at_once).picture, children[0].picture)


def test_a_setting_that_makes_no_difference_does_not_count(run):
    """Such as a weight whose switch is off, which the page sends all the same."""
    parent = run(num_steps=2, seed=7)
    plain = end_of(run(parent, num_steps=2))
    off = {"use_mse_regularization": False, "mse_weight": 3.0, "checkpoint_seconds": 1.0}
    assert np.array_equal(end_of(run(parent, num_steps=2, **off)).picture, plain.picture)


def test_a_continued_run_is_made_again_from_its_details(run):
    child = run(run(num_steps=2, **MSE), num_steps=2)
    again = run(settings_file=child.path / "details.json")
    assert np.array_equal(end_of(again).picture, end_of(child).picture)


# --- with other settings -------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path, assets, monkeypatch):
    """The state in which a run that continues another begins."""

    def begin(parent, **given):
        request = Request(given, tmp_path / "output", assets, continue_run=parent.name)
        return start_of(submit(prepare(request), "running"), assets, monkeypatch)

    return begin


@pytest.mark.parametrize(
    "changes", [{"text_input": "a dog"}, {"step_size": 0.2}, {"cutn": 3}, {"mse_weight": 2.0}]
)
def test_other_settings_continue_from_the_latent(run, begun, changes):
    parent = run(num_steps=3, seed=7, **MSE)
    state, end = begun(parent, **changes), end_of(parent).state
    assert np.array_equal(state["z"], end["z"])
    assert np.array_equal(state["mse_target"], end["z"]) and state["optimisation_steps"] == 0
    assert same(state["adam"], end["adam"]) and state["adam"]["exp_avg"].any()
    assert np.array_equal(state["random"], end["random"])


def test_another_seed_draws_other_numbers(run, begun):
    parent = run(num_steps=3, seed=7, **MSE)
    state, end = begun(parent, seed=8), end_of(parent).state
    assert np.array_equal(state["z"], end["z"]) and np.array_equal(state["mse_target"], end["z"])
    assert not np.array_equal(state["random"], end["random"])
    assert np.array_equal(state["random"], begun(parent, seed=8)["random"])


@pytest.mark.parametrize("changes", [{"Xdim": 48}, {"vqgan_ckpt": "other_f8"}])
def test_another_size_or_vqgan_continues_from_the_picture(run, begun, changes):
    parent = run(num_steps=3, seed=7, **MSE)
    state, end = begun(parent, **changes), end_of(parent).state
    assert not state["adam"] and state["optimisation_steps"] == 0
    assert np.array_equal(state["mse_target"], state["z"])
    assert not np.array_equal(state["z"][..., :4], end["z"])
    assert np.array_equal(state["random"], end["random"])


def test_without_a_checkpoint_it_continues_from_the_picture(run, begun):
    parent = run(num_steps=3, seed=7)
    (parent.path / storage.CHECKPOINT).unlink()
    state = begun(parent)
    assert not state["adam"]


def test_a_checkpoint_that_does_not_fit_is_reported(run, assets):
    parent = run(num_steps=2)
    other = run(num_steps=1, Xdim=64)
    path = parent.path / storage.CHECKPOINT
    path.write_bytes((other.path / storage.CHECKPOINT).read_bytes())
    parent.update(status="interrupted", planned_num_steps=5)
    reopen(parent)
    with pytest.raises(BadInput, match="does not fit"):
        execute(parent, assets_dir=assets)


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0{}      ", None])
def test_a_broken_checkpoint_is_reported(run, assets, data):
    parent = run(num_steps=1)
    path = parent.path / storage.CHECKPOINT
    path.write_bytes(path.read_bytes()[:-5] if data is None else data)
    with pytest.raises(BadInput, match=r"checkpoint .* is broken .* Delete it"):
        run(parent)
    path.unlink()
    assert run(parent).read()["status"] == "done"


# --- lineage and older runs ----------------------------------------------------------------------


def test_the_lineage(run):
    first = run(num_steps=1)
    second = run(first, text_input="b", num_steps=1)
    third = run(second, num_steps=1)
    facts = [
        [f.read()[k] for k in ("parent", "stage", "ancestors", "prev_run_id")]
        for f in (first, second, third)
    ]
    assert facts == [
        [None, 1, [], None],
        [first.name, 2, [first.name], first.run_id],
        [second.name, 3, [first.name, second.name], second.run_id],
    ]
    assert third.read()["text_input"] == "b"


def test_a_prompt_that_is_refused_today_matters_only_if_it_is_kept(run):
    parent = run(num_steps=1)
    parent.update(text_input="spring ^ summer", cutn=5000)
    with pytest.raises(BadInput):
        run(parent, cutn=2)
    child = run(parent, text_input="summer", cutn=2, num_steps=1)
    assert child.read()["text_input"] == "summer"


def test_a_starting_image_that_is_gone_is_not_missed(run):
    parent = run(num_steps=1)
    parent.update(init_image="init-image.JPEG")
    assert run(parent, num_steps=1).read()["status"] == "done"


def test_runs_of_the_older_layout_are_continued_with_their_lineage(run, tmp_path):
    names = [f"2021010{n}T000000-{'abc'[n] * 8}" for n in range(3)]
    picture = (run(num_steps=1).path / "output.PNG").read_bytes()
    for n, name in enumerate(names):
        folder = tmp_path / "output" / name
        folder.mkdir()
        (folder / "output.PNG").write_bytes(picture)
        details = {"text_input": "old", "Xdim": 32, "ydim": 32, "vqgan_ckpt": "tiny_f8"}
        details |= {"run_id": name[-8:], "num_steps": 3, "continue_prev_run": n > 0}
        details["prev_run_id"] = names[n - 1][-8:] if n else None
        (folder / "details.json").write_text(json.dumps(details))
    child = run(storage.RunFolder(folder), num_steps=1).read()
    assert (child["parent"], child["stage"], child["ancestors"]) == (names[2], 4, names)
