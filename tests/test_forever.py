"""Series without an end, and runs like one that a person likes: what follows, with which seed."""

import os
import signal

import fake_engine
import pytest
from test_queue_of_machines import Studio
from waiting import wait_for

from studio.base.errors import RunFailed
from studio.base.stopping import Stop
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.making import forever, variations
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import submit
from studio.queue import run_queue
from studio.queue.next_stages import enqueue_missing, enqueue_next
from studio.queue.options import StudioOptions
from studio.runs import run_index, trash
from studio.runs.claims import claimed
from studio.settings.common import MAX_SEED

SMALL = {"text_input": "a heart", "num_steps": 2, "Xdim": 32, "ydim": 16, "vqgan_ckpt": "small"}


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    fake_engine.use(monkeypatch)
    fake_engine.use_no_torch(monkeypatch)


@pytest.fixture
def options(tmp_path):
    return StudioOptions(tmp_path / "output", fake_engine.write_assets(tmp_path / "assets"))


@pytest.fixture
def begin(options):
    """The first run of a series."""

    def begun(parent=None, **given):
        request = Request(
            SMALL | given, options.output_dir, options.assets_dir, fake_engine.MODEL,
            continue_run=parent and parent.name, new_seed=True,
        )  # fmt: skip
        return submit(prepare(request), belongs=forever.FIRST | {"batch": "ours"})

    return begun


def compute(folder, options, **how):
    """As a worker does; returns the run that follows."""
    with claimed(folder.path) as claim:
        execute(folder, assets_dir=options.assets_dir, claim=claim, **how)
        enqueue_next(folder, options)
    return next(iter(line(options)), None)


def line(options):
    waiting = run_queue.waiting(run_index.entries(options.output_dir))
    return [entry.folder for entry in waiting]


@pytest.mark.parametrize("seed", [None, 7, MAX_SEED])
def test_a_run_is_followed_by_one_with_a_new_seed(begin, options, seed):
    folder, found = begin(**({"set_seed": True, "seed": seed} if seed else {})), []
    for _ in range(3):
        found.append(folder.read())
        folder = compute(folder, options)
    seeds = [details["seed"] for details in found]
    assert len(set(seeds)) == 3
    assert not seed or seeds == [(seed + n) % (MAX_SEED + 1) for n in range(3)]
    assert {d["batch"] for d in found} == {"ours"}
    assert {d["set_seed"] for d in found} == {bool(seed)}
    assert [(d["planned_num_steps"], d["Xdim"], d["cutn"]) for d in found] == [(2, 32, 4)] * 3
    assert len(line(options)) == 1


def test_each_run_of_a_series_continues_the_same_run(begin, options):
    parent = submit(prepare(Request(SMALL, options.output_dir, options.assets_dir)), "running")
    execute(parent, assets_dir=options.assets_dir)
    first = begin(parent)
    later = compute(compute(first, options), options)
    assert later.read()["ancestors"] == [parent.name]
    assert (later.path / "start.safetensors").is_file()
    assert later.read()["inputs_sha256"] == first.read()["inputs_sha256"]
    seeds = [folder.read()["seed"] for folder in (parent, first, later)]
    assert len(set(seeds)) == 3


def test_a_run_that_a_person_stops_is_followed_by_one_of_full_length(begin, options):
    stop = Stop()
    following = compute(begin(num_steps=9), options, on_step=lambda step: stop.request(), stop=stop)
    assert following.read()["planned_num_steps"] == 9


def test_a_failure_ends_the_series(begin, options):
    folder = begin(text_input="memory", num_steps=5)
    with pytest.raises(RunFailed):
        compute(folder, options)
    enqueue_next(folder, options)
    assert line(options) == []


def test_ending_a_series_lets_nothing_follow(begin, options):
    folder = begin()
    forever.end(run_index.entries(options.output_dir))
    assert compute(folder, options) is None
    assert not forever.goes_on(run_index.entries(options.output_dir)[0])


def test_a_series_that_is_ended_while_the_next_run_is_made_ends(begin, options, monkeypatch):
    folder = begin()

    def submit_while_ended(*args):
        forever.end(run_index.entries(options.output_dir))
        return submit(*args)

    monkeypatch.setattr(forever, "submit", submit_while_ended)
    assert compute(folder, options) is None
    assert [entry.name for entry in run_index.entries(options.output_dir)] == [folder.name]
    enqueue_missing(options)
    assert line(options) == []


def test_what_was_taken_out_of_the_queue_is_not_followed(begin, options):
    later = compute(begin(), options)
    run_queue.cancel(later)
    trash.move_to_trash(options.output_dir, later.name)
    enqueue_missing(options)
    assert line(options) == []


def test_the_next_run_is_made_once_wherever_its_making_was_cut_off(begin, options):
    folder = begin()
    with claimed(folder.path) as claim:
        execute(folder, assets_dir=options.assets_dir, claim=claim)
        enqueue_missing(options)
        assert line(options) == [], "the owner of the run does it"
    enqueue_missing(options)
    (following,) = line(options)
    folder.update(forever={"after": None})  # as if killed before it was noted
    enqueue_missing(options)
    assert [one.name for one in line(options)] == [following.name]


@pytest.mark.parametrize("odd", [True, "yes", [1], {"followed_by": 7}])
def test_odd_details_do_no_harm(begin, options, odd):
    folder = begin()
    folder.update(forever=odd, status="done")
    enqueue_missing(options)
    enqueue_next(folder, options)
    assert line(options) == []


def test_a_series_outlives_its_worker(tmp_path):
    """Killed in the middle of a run; two workers take turns, and no run is made twice."""
    studio = Studio(tmp_path)
    given = SMALL | {"num_steps": 8, "set_seed": True, "seed": 1}
    plan = prepare(Request(given, studio.output_dir, studio.assets, "VQGAN-CLIP"))
    run_queue.enqueue(plan, belongs=forever.FIRST | {"batch": "ours"})
    try:
        studio.start()
        studio.start()
        wait_for(lambda: studio.steps(2), "the second run")
        os.kill(studio.steps(2)[0][0], signal.SIGKILL)
        wait_for(lambda: studio.steps(4), "the fourth run")
        forever.end(run_index.entries(studio.output_dir))
        wait_for(lambda: not {"queued", "running"} & studio.statuses().keys(), "the end")
    finally:
        studio.close()
    runs = run_index.entries(studio.output_dir)
    seeds = sorted(entry.details["seed"] for entry in runs)
    assert seeds == list(range(1, len(runs) + 1)), "each once, none left out"
    assert {entry.status for entry in runs} == {"done"}


# --- runs like another ---


def test_runs_like_another_continue_it_with_seeds_of_their_own(options):
    given = SMALL | {"set_seed": True, "seed": 5}
    winner = submit(prepare(Request(given, options.output_dir, options.assets_dir)), "running")
    execute(winner, assets_dir=options.assets_dir)
    plans = [prepare(request) for request in variations.like(winner, 4, options.assets_dir)]
    seeds = {plan.settings.seed for plan in plans}
    assert len(seeds) == 4 and 5 not in seeds
    assert {tuple(plan.ancestors) for plan in plans} == {(winner.name,)}
    assert all(plan.checkpoint for plan in plans)


def test_a_variation_of_a_variation_takes_steps_of_the_same_size(options):
    first = VQGANCLIPSettings.varied({"vqgan_ckpt": "plain"}, options.assets_dir)
    again = VQGANCLIPSettings.varied({"vqgan_ckpt": "plain"} | first, options.assets_dir)
    assert first == again and first["step_size"] > 0.05
