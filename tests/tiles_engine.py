"""An engine unlike VQGAN-CLIP: no prompt, no size, no losses, and several pictures or none.

Called as a script, it serves the queue in place of `studio.queue.worker_process`, which would not
know this engine.
"""

import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np

from studio.engines import registry
from studio.engines.contract import Choices, Engine, Run, Step
from studio.settings import common
from studio.settings.declare import setting
from studio.settings.run_settings import RunSettings

NAME = "Tiles"
COLOURS = {"warm": (220, 90, 40), "cold": (40, 120, 220)}
TILES = {"warm": 2, "cold": 5}  # that a palette recommends
STEP_SECONDS = 0.05


class TilesSettings(RunSettings):
    RECOMMEND: ClassVar = ("palette",)

    num_steps: int = common.num_steps(4)
    set_seed: bool = common.set_seed()
    seed: int = common.seed()
    checkpoint_seconds: float = common.checkpoint_seconds()
    upscale: common.Scale = common.upscale()
    upscale_always: bool = common.upscale_always()
    palette: str = setting("warm", "Palette", "The colours of the tiles.")
    tiles: int = setting(2, "Tiles", "How many pictures to make; 0 makes none.", ge=0, le=9)
    cutn: str = setting("plain", "Cut", "A text, where another engine has a number.")

    @classmethod
    def recommended(cls, values, assets_dir):
        palette = values.get("palette") or "warm"
        return {"palette": palette, "tiles": TILES[palette]}


class TilesRun(Run):
    Settings = TilesSettings

    def load_model(self):
        pass

    def model_init(self):
        self.steps = 0

    def iterate(self):
        self.steps += 1
        time.sleep(STEP_SECONDS)
        colour = np.array(COLOURS[self.settings.palette])
        pictures = [
            np.full((96, 96, 3), colour * (1 - n / 12), np.uint8)
            for n in range(self.settings.tiles)
        ]
        return Step(self.steps, pictures=pictures)

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


class Tiles(Engine):
    settings = TilesSettings
    run = "tiles_engine:TilesRun"

    def choices(self, assets_dir):
        return {"palette": Choices(list(COLOURS))}


class Unavailable(Tiles):
    libraries = ("a_library_that_is_not_there",)


def use():
    """Register the engine after the others."""
    registry.ENGINES[NAME] = "tiles_engine:Tiles"


if __name__ == "__main__":
    from studio.queue import worker_process

    sys.path.insert(0, str(Path(__file__).parent))
    use()
    sys.exit(worker_process.main())
