"""Chains of runs: what may be written, how they follow one another, and their film."""

import fake_engine
import imageio_ffmpeg
import pytest
from PIL import Image

from studio.base.errors import BadInput
from studio.base.stopping import Stop
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.making import chains
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import submit
from studio.runs import claims, run_index
from studio.runs.storage import RunFolder

SMALL = {"num_steps": 2, "Xdim": 32, "ydim": 16, "vqgan_ckpt": "small"}
SEASONS = ["spring", "summer", "autumn"]


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    fake_engine.use(monkeypatch)
    fake_engine.use_no_torch(monkeypatch)


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    return fake_engine.write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture
def begin(tmp_path, assets):
    """The first run of a chain."""

    def begun(rows, **given):
        listed = chains.parse(rows, VQGANCLIPSettings)
        request = Request(SMALL | given, tmp_path / "output", assets, fake_engine.MODEL)
        return chains.begin(request, listed)

    return begun


def run_all(folder, assets):
    """Compute the rest of the chain as a worker does."""
    folders = []
    while folder:
        assert execute(folder, assets_dir=assets) == "done"
        folders.append(folder)
        folder = chains.follow(folder, assets)
    return folders


def frames(path):
    return imageio_ffmpeg.count_frames_and_secs(str(path))[0]


# --- what is written -----------------------------------------------------------------------------


def test_a_file_of_stages(tmp_path):
    path = tmp_path / "stages.yaml"
    path.write_text(
        "- {prompt: a garden in spring, steps: 3, tv-loss-weight: 0.5}\n"
        "- prompt: a garden in summer\n  Cutn: 8\n  xdim:\n  set_seed: true\n"
        "- {init_image: a/b.png, image_prompt: [c.png, /d.png]}\n"
    )
    assert chains.read(path, VQGANCLIPSettings) == [
        {"text_input": "a garden in spring", "num_steps": 3, "tv_loss_weight": 0.5},
        {"text_input": "a garden in summer", "cutn": 8, "set_seed": True},
        {
            "init_image": str(tmp_path / "a/b.png"),
            "image_prompt": [str(tmp_path / "c.png"), "/d.png"],
        },
    ]


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "no stages"),
        ("[]", "no stages"),
        ("prompt: a", "no stages"),
        ("just words", "no stages"),
        ("- a\n- b", "Stage 1 .*'a'"),
        ("- {prompt: a}\n- 7", "Stage 2 .*'7'"),
        ("- {promt: a}", "Stage 1 .*'promt'.*prompt"),
        ("- {prompt: a}\n- {1: 2}", "Stage 2 .*'1'.*There are"),
        ("- {prompt: a, text_input: b}", "Stage 1 .*twice"),
        ("- {prompt: [", "yaml"),
        ("- {prompt: a}\n" * 1001, "1001 stages"),
    ],
)
def test_files_that_are_not_stages(tmp_path, text, says):
    path = tmp_path / "stages.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=says):
        chains.read(path, VQGANCLIPSettings)


def test_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(BadInput, match=r"none\.yaml"):
        chains.read(tmp_path / "none.yaml", VQGANCLIPSettings)


@pytest.mark.parametrize(
    "rows, says",
    [
        ([{"steps": 1}], "Stage 1: No prompt"),
        ([{"prompt": "a"}, {"steps": 0}], "Stage 2: --num-steps"),
        ([{"prompt": "a"}, {"prompt": "a", "cutn": "many"}], "Stage 2: --cutn.*many"),
        ([{"prompt": "a"}, {"prompt": 7}], "Stage 2: PROMPT"),
        ([{"prompt": "a"}, {"vqgan_ckpt": "none"}], "Stage 2: .*none"),
        ([{"prompt": "a"}, {"prompt": "x ^ y"}], "Stage 2: Serial"),
        ([{"prompt": "a"}, {"image_prompt": ["/none.png"]}], r"Stage 2: .*/none\.png"),
        ([{"prompt": "a", "init_image": "/none.png"}], r"Stage 1: .*/none\.png"),
        ([{"prompt": "a", "steps": -1}, {"prompt": "b"}], "Stage 1 never ends"),
    ],
)
def test_all_stages_are_checked_before_anything_is_made(begin, tmp_path, rows, says):
    with pytest.raises(BadInput, match=says):
        begin(rows)
    assert not (tmp_path / "output").exists()


# --- how they follow -----------------------------------------------------------------------------


def test_each_stage_continues_the_one_before(begin, assets):
    rows = [{"prompt": season} for season in SEASONS]
    rows[1] |= {"steps": 3, "cutn": 9}
    folders = run_all(begin(rows, tv_loss_weight=0.5), assets)
    details = [folder.read() for folder in folders]
    assert [d["text_input"] for d in details] == SEASONS
    assert [(d["num_steps"], d["cutn"]) for d in details] == [(2, 4), (3, 9), (3, 9)]
    assert {d["tv_loss_weight"] for d in details} == {0.5}
    assert [d["parent"] for d in details] == [None, folders[0].name, folders[1].name]
    assert [d["stage"] for d in details] == [1, 2, 3]
    assert [d["chain"]["number"] for d in details] == [1, 2, 3]


def test_a_stage_is_made_once(begin, assets):
    first = begin([{"prompt": season} for season in SEASONS])
    assert chains.follow(first, assets) is None  # it is not done
    execute(first, assets_dir=assets)
    runs = run_index.entries(first.path.parent)
    assert [entry.name for entry in chains.unfollowed(runs)] == [first.name]
    second = chains.follow(first, assets)
    assert second.live_status() == "queued" and chains.follow(first, assets) is None
    assert not chains.unfollowed(run_index.entries(first.path.parent))


def test_a_stage_that_was_removed_does_not_come_back(begin, assets):
    first = begin([{"prompt": season} for season in SEASONS])
    execute(first, assets_dir=assets)
    chains.follow(first, assets).remove()
    assert chains.follow(first, assets) is None
    assert not chains.unfollowed(run_index.entries(first.path.parent))


def test_a_stage_whose_making_was_cut_off_is_not_made_twice(begin, assets):
    first = begin([{"prompt": season} for season in SEASONS])
    execute(first, assets_dir=assets)
    before = first.read()
    chains.follow(first, assets)
    first.write(before)
    assert chains.follow(first, assets) is None


def test_a_run_that_continues_a_stage_by_hand_is_not_a_stage(begin, assets, tmp_path):
    first = begin([{"prompt": season} for season in SEASONS])
    execute(first, assets_dir=assets)
    by_hand = Request({}, tmp_path / "output", assets, fake_engine.MODEL, continue_run=first.name)
    submit(prepare(by_hand))
    assert chains.follow(first, assets).read()["text_input"] == "summer"


def test_stopping_in_the_middle_keeps_what_is_done(begin, assets):
    first = begin([{"prompt": season} for season in SEASONS])
    execute(first, assets_dir=assets)
    second, stop = chains.follow(first, assets), Stop()
    execute(second, assets_dir=assets, on_step=lambda step: stop.request(), stop=stop)
    assert chains.follow(second, assets) is None
    assert [first.live_status(), second.live_status()] == ["done", "stopped"]
    assert frames(chains.make_video(second)) == 3


def test_a_stage_that_cannot_be_made_is_named(begin, assets, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    first = begin([{"prompt": "a"}, {"prompt": "b", "image_prompt": [str(tmp_path / "a.png")]}])
    execute(first, assets_dir=assets)
    (tmp_path / "a.png").unlink()
    with pytest.raises(BadInput, match=r"Stage 2: .*a\.png"):
        chains.follow(first, assets)


# --- their film ----------------------------------------------------------------------------------


ODD_CHAINS = [{}, {"chain": "odd"}, {"chain": {"followed_by": ["b"]}}, {"chain": {"next": [1]}}]


@pytest.mark.parametrize("odd", ODD_CHAINS)
def test_the_newest_stage_after_a_run(tmp_path, odd):
    def entry(name, details):
        return run_index.Entry(RunFolder(tmp_path / name), details)

    def followed_by(name):
        return {"chain": {"followed_by": name}}

    runs = [entry("a", followed_by("b")), entry("b", followed_by("c")), entry("c", odd)]
    assert [chains.newest_after(name, runs) for name in "abcd"] == ["c", "c", "c", "d"]
    assert chains.newest_after("b", runs[:2]) == "b"  # the next was removed
    circle = [*runs[:2], entry("c", followed_by("a"))]
    assert chains.newest_after("a", circle) == "c"


@pytest.mark.parametrize("size", [{}, {"Xdim": 64}])
def test_one_film_of_all(begin, assets, size):
    rows = [{"prompt": "spring"}, {"prompt": "summer", "steps": 4, **size}]
    first, second = run_all(begin(rows), assets)
    film = chains.make_video(second)
    assert film == second.path / "chain.mp4" and frames(film) == 6
    assert chains.make_video(first) is None
    assert [path.name for path in second.path.glob(".*")] == [claims.CLAIMS]


def test_a_film_of_runs_whose_names_are_odd(begin, assets, tmp_path):
    first, second = run_all(begin([{"prompt": "a"}, {"prompt": "b"}]), assets)
    second.update(ancestors=["../../etc", 7, first.name])
    assert frames(chains.make_video(second)) == 4
