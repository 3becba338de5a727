"""The settings `upscale` and `upscale_always` of a run."""

import errno
import json
from pathlib import Path

import fake_engine
import numpy as np
import pytest
from PIL import Image

from studio.base.errors import BadInput
from studio.base.paths import ASSETS_DIR
from studio.base.stopping import Stop
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.making import recording, upscale_result, upscaling
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.submit import submit
from studio.making.upscaling import Enlarger
from studio.media.frames import length
from studio.media.png_writer import PngWriter
from studio.runs.storage import RunFolder

SMALL = {"text_input": "a", "num_steps": 3, "Xdim": 32, "ydim": 24, "vqgan_ckpt": "small"}


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    fake_engine.use(monkeypatch)


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    return fake_engine.write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture
def begin(tmp_path, assets):
    def begun(**given: object) -> RunFolder:
        request = Request(
            given=SMALL | given,
            output_dir=tmp_path / "output",
            assets_dir=assets,
            engine=fake_engine.MODEL,
        )
        return submit(prepare(request))

    return begun


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def files(folder: RunFolder) -> set[str]:
    return {path.name for path in folder.path.iterdir()}


def test_the_result_is_upscaled_beside_the_picture(begin, assets):
    plain, large = begin(seed=1, set_seed=True), begin(seed=1, set_seed=True, upscale=2)
    for folder in (plain, large):
        assert execute(folder, assets_dir=assets) == "done"
    assert files(large) - files(plain) == {"output-x2.PNG"}
    picture = pixels(large.path / "output.PNG")
    assert (picture == pixels(plain.path / "output.PNG")).all()
    assert pixels(large.path / "output-x2.PNG").shape == (48, 64, 3)
    with Image.open(large.path / "output-x2.PNG") as image:
        text = dict(image.text)
    (told,) = large.read()["upscaled"]
    assert told == {"file": "output-x2.PNG", **json.loads(text["upscaled"])}
    assert told["scale"] == 2 and told["of"] == "output.PNG"
    with Image.open(large.path / "output.PNG") as image:
        assert json.loads(text["details"]).keys() == json.loads(image.text["details"]).keys()
    details = json.loads(text["details"])
    assert details["status"] == "done" and details["num_steps"] == 3


def test_always_means_live_pictures_and_the_film_too(begin, assets, monkeypatch):
    shown: list[tuple[int, int]] = []
    encode = recording.Progress.tell

    def tell(self, index, losses, pictures):
        encode(self, index, losses, pictures)
        with Image.open(self._folder / "preview.JPEG") as image:
            shown.append(image.size)

    monkeypatch.setattr(recording.Progress, "tell", tell)
    folder = begin(upscale=2, upscale_always=True)
    assert execute(folder, assets_dir=assets) == "done"
    assert set(shown) == {(64, 48)}
    film, large = (folder.path / name for name in ("anim.mp4", "anim-x2.mp4"))
    assert length(film) == length(large)
    assert [entry["file"] for entry in folder.read()["upscaled"]] == [
        "output-x2.PNG",
        "anim-x2.mp4",
    ]
    assert "checkpoint.safetensors" in files(folder)


def test_always_alone_upscales_four_times(begin):
    folder = begin(upscale_always=True)
    assert prepare_scale(folder) == 4
    assert prepare_scale(begin()) == 0 and prepare_scale(begin(upscale=3)) == 3


def prepare_scale(folder: RunFolder) -> int:
    from studio.making.recipes import settings_in

    return settings_in(folder.read()).scale


@pytest.mark.parametrize("scale", [1, 5, 7])
def test_other_scales_are_refused(scale, begin):
    with pytest.raises(BadInput, match="0, 2, 3, 4 or 8"):
        begin(upscale=scale)


def test_a_run_that_goes_on_loses_what_showed_it_before(begin, assets):
    folder = begin(upscale=2)
    execute(folder, assets_dir=assets)
    before = pixels(folder.path / "output-x2.PNG")
    folder.update(status="stopped", planned_num_steps=4)
    stop = Stop()
    stop.request()
    reopened = RunFolder(folder.path)
    assert execute(reopened, assets_dir=assets, stop=stop) == "stopped"
    assert "output-x2.PNG" not in files(folder) and folder.read()["upscaled"] == []
    folder.update(status="stopped")
    assert execute(RunFolder(folder.path), assets_dir=assets) == "done"
    assert (pixels(folder.path / "output-x2.PNG") != before).any()


def test_a_full_disk_costs_the_upscaled_picture_alone(begin, assets, monkeypatch):
    def full(self, rows):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PngWriter, "add", full)
    folder = begin(upscale=2)
    assert execute(folder, assets_dir=assets) == "done"
    assert "output.PNG" in files(folder) and "output-x2.PNG" not in files(folder)
    assert any("was not upscaled" in warning for warning in folder.read()["warnings"])


def test_what_would_be_too_large_stays_as_it_is(begin, assets, monkeypatch):
    monkeypatch.setattr(upscale_result, "LARGEST", 63)
    folder = begin(upscale=2)
    assert execute(folder, assets_dir=assets) == "done"
    assert "output.PNG" in files(folder) and "output-x2.PNG" not in files(folder)
    assert (
        "The picture was not upscaled. It would be 64x48, over 63 px a side."
        in (folder.read()["warnings"])
    )


def test_a_small_picture_is_upscaled_by_the_quick_network(begin, assets, monkeypatch):
    monkeypatch.setattr(upscaling, "is_flat_art", lambda pixels: False)
    folder = begin(upscale=2)
    assert execute(folder, assets_dir=assets) == "done"
    (told,) = folder.read()["upscaled"]
    assert told["model"] == "animevideov3"


def test_the_bundled_weights_recommend_it():
    values = VQGANCLIPSettings.recommended({"vqgan_ckpt": "emoji_f8"}, ASSETS_DIR)
    assert values["upscale"] == 4


def test_a_stop_while_it_upscales_keeps_the_run(begin, assets, monkeypatch):
    folder = begin(upscale=2)
    network = Enlarger._network

    def stopping(self, model):
        folder.request_stop()
        return network(self, model)

    monkeypatch.setattr(Enlarger, "_network", stopping)
    assert execute(folder, assets_dir=assets) == "done"
    assert "output.PNG" in files(folder) and "output-x2.PNG" not in files(folder)
