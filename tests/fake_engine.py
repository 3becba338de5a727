"""An engine that needs no weights and no torch, to test everything around an engine.

Its pictures depend on its input: on the seed, or on the picture that it starts from.
"""

import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import yaml

from studio import engines
from studio.base.errors import BadInput, RunFailed
from studio.engines import registry
from studio.engines.contract import Step
from studio.engines.vqgan_clip.engine import VQGANCLIP
from studio.runs import details_keys

MODEL = "Fake"


class FakeRun:
    """Shifts a picture by one row a step. Certain prompts make it fail at step 3."""

    frames_per_second = 24
    keeps_parts = False

    def __init__(
        self,
        settings,
        *,
        assets_dir,
        device,
        start_image=None,
        mask=None,
        image_prompts=(),
        image_weights=(),
    ):
        self.settings, self.start_image, self.image_prompts = settings, start_image, image_prompts
        self.image_weights = image_weights
        self.warnings = ["The engine has a remark."]
        self.notes = {}
        self.index = 0

    def load_model(self):
        if self.settings.text_input == "bad weights":
            raise BadInput("This is not a checkpoint.")

    def model_init(self):
        if self.start_image is not None:
            self.picture = np.asarray(self.start_image)
        else:
            size = (self.settings.ydim, self.settings.Xdim, 3)
            self.picture = np.random.default_rng(self.settings.seed).integers(
                0, 256, size, np.uint8
            )

    def iterate(self):
        self.index += 1
        if self.index == 3 and self.settings.text_input in FAILURES:
            raise FAILURES[self.settings.text_input]
        if self.index > 1:
            self.picture = np.roll(self.picture, 1, axis=0)
        return Step(self.index, self.picture, {"total": 1 / self.index, "text": 0.5})

    def pictures_now(self):
        return ()

    def state_dict(self):
        return {"frames": self.index, "picture": self.picture.copy(), "random": {"seed": 1}}

    def load_state_dict(self, state):
        self.index, self.picture = state["frames"], state["picture"]

    def continue_from(self, state, how, reseed):
        self.continued = (how, reseed)
        if how != "from its picture":
            self.picture = state["picture"]


class FakeEngine(VQGANCLIP):
    run = f"{__name__}:FakeRun"
    libraries = ()


FAILURES = {
    "memory": RunFailed("Out of memory: lower Xdim, ydim or cutn."),
    "bug": ZeroDivisionError("a bug"),
    "ctrl-c": KeyboardInterrupt(),
    "disk": OSError(28, "No space left on device"),
}


def use(monkeypatch):
    """Register the fake engine besides the real one, and make it the default."""
    monkeypatch.setitem(registry.ENGINES, MODEL, f"{__name__}:FakeEngine")
    monkeypatch.setattr(registry, "DEFAULT", MODEL)
    monkeypatch.setattr(details_keys, "FIRST_ENGINE", MODEL)  # that of runs of the older layout


def use_no_torch(monkeypatch):
    """Compute without torch, so that a test may fork and starts at once."""
    device = types.ModuleType("device")
    device.pick_device = lambda gpu: gpu
    device.describe = lambda device: "fake device"
    monkeypatch.setitem(sys.modules, "studio.engines.device", device)
    monkeypatch.setattr(engines, "device", device, raising=False)


def write_assets(folder: Path) -> Path:
    """Files that look like weights as long as nobody loads them: f = 8."""
    folder.mkdir(parents=True, exist_ok=True)
    model = {"target": "taming.models.vqgan.VQModel"}
    model["params"] = {"ddconfig": {"ch_mult": [1, 1, 1, 1]}}
    recommended = {"clip_model": "small_clip", "cutn": 4}
    for name, config in {
        "small": {"model": model, "recommended": recommended},
        "plain": {"model": model},
    }.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
        _write_zip(folder / f"{name}.ckpt")
    _write_zip(folder / "small_clip.pt")
    return folder


def _write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02.")
