"""Weights that end the name of an image prompt."""

import io

import fake_engine
import pytest
from PIL import Image

from studio.base.errors import BadInput
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import reopen, submit
from studio.runs import checkpoints
from studio.settings.weighted import picture_and_weight, with_weight


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.png", ("a.png", 1)),
        ("a.png:0.5", ("a.png", 0.5)),
        ("a.png:-2", ("a.png", -2)),
        ("a.png:1e-3", ("a.png", 0.001)),
        ("C:\\pictures\\a.png", ("C:\\pictures\\a.png", 1)),
        ("C:\\pictures\\a.png:3", ("C:\\pictures\\a.png", 3)),
        ("a:b.png", ("a:b.png", 1)),
        (":3", (":3", 1)),
        ("a.png:", ("a.png:", 1)),
        ("a\0b.png:2", ("a\0b.png", 2)),
    ],
)
def test_only_a_number_at_the_end_is_a_weight(text, found):
    assert picture_and_weight(text) == found


def test_a_file_of_the_whole_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "take:2").write_bytes(b"")
    assert picture_and_weight("take:2") == ("take:2", 1)
    assert picture_and_weight("take:2:2") == ("take:2", 2)
    assert picture_and_weight("take:3") == ("take", 3)


@pytest.mark.parametrize("weight", ["10001", "-1e9", "nan", "inf"])
def test_a_weight_that_cannot_be_used_is_said(weight):
    with pytest.raises(BadInput, match=rf"image prompt 'a\.png:{weight}' has the weight .*10000"):
        picture_and_weight(f"a.png:{weight}")


@pytest.mark.parametrize("weight", [1.0, 2.0, 0.1, -1 / 3, 1e-7])
def test_what_is_written_is_read(weight):
    assert picture_and_weight(with_weight("a.png", weight)) == ("a.png", weight)
    assert with_weight("a.png", 1.0) == "a.png" and with_weight("a.png", 2.0) == "a.png:2"


@pytest.fixture
def assets(tmp_path, monkeypatch):
    fake_engine.use(monkeypatch)
    return fake_engine.write_assets(tmp_path / "assets")


@pytest.fixture
def ask(tmp_path, assets):
    """prepare() with two image prompts, of which the second repels."""
    prompts = []
    for name, weight in (("red", ""), ("blue", ":-0.5")):
        buffer = io.BytesIO()
        Image.new("RGB", (40, 30), name).save(buffer, "PNG")
        (tmp_path / f"{name}.png").write_bytes(buffer.getvalue())
        prompts.append(f"{tmp_path / name}.png{weight}")

    def prepared(**how):
        small = {"num_steps": 2, "Xdim": 32, "ydim": 16, "vqgan_ckpt": "small"}
        given = {} if how else small | {"image_prompt": prompts}
        places = {"output_dir": tmp_path / "output", "assets_dir": assets}
        return prepare(Request(given=given, engine=fake_engine.MODEL, **places, **how))

    return prepared


@pytest.fixture
def weights_seen(monkeypatch):
    """The weights that each run is given."""
    seen = []
    make = fake_engine.FakeRun.__init__

    def spy(self, *args, **how):
        make(self, *args, **how)
        seen.append(self.image_weights)

    monkeypatch.setattr(fake_engine.FakeRun, "__init__", spy)
    return seen


NAMES = ["image-prompt-1.JPEG", "image-prompt-2.JPEG"]


def test_a_run_says_its_weights_where_it_names_its_prompts(ask, assets, weights_seen):
    folder = submit(ask(), "running")
    details = folder.read()
    assert details["image_prompts"] == NAMES
    assert details["image_prompt"] == [NAMES[0], f"{NAMES[1]}:-0.5"]
    execute(folder, assets_dir=assets)
    known = checkpoints.read(folder.path / "checkpoint.safetensors").settings["image_prompt"]
    assert [text.partition(":")[2] for text in known] == ["", "-0.5"]
    assert weights_seen == [[1.0, -0.5]]


@pytest.mark.parametrize("how", ["settings", "continue"])
def test_weights_come_along(ask, assets, weights_seen, how):
    first = submit(ask(), "running")
    execute(first, assets_dir=assets)
    path = first.path / "details.json"
    plan = ask(settings_file=path) if how == "settings" else ask(continue_run=first.name)
    again = submit(plan, "running")
    execute(again, assets_dir=assets)
    assert weights_seen == [[1.0, -0.5]] * 2
    assert again.read()["image_prompt"] == first.read()["image_prompt"]


def test_a_resumed_run_keeps_its_weights(ask, assets, weights_seen):
    folder = submit(ask(), "running")
    execute(folder, assets_dir=assets, on_step=lambda step: folder.request_stop())
    assert folder.read()["status"] == "stopped"
    reopen(folder, "running")
    execute(folder, assets_dir=assets)
    assert weights_seen == [[1.0, -0.5]] * 2


def test_details_that_say_nothing_of_weights_mean_one(ask, assets, weights_seen):
    folder = submit(ask(), "running")
    folder.update(image_prompt=NAMES)
    again = submit(ask(settings_file=folder.path / "details.json"), "running")
    folder.update(image_prompt=None)
    oldest = submit(ask(settings_file=folder.path / "details.json"), "running")
    for one in (again, oldest):
        execute(one, assets_dir=assets)
        assert one.read()["image_prompt"] == NAMES
    assert weights_seen == [[1.0, 1.0]] * 2
