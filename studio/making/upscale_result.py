"""Upscaling what a run makes, as its settings ask: the result, and perhaps all that is shown live.

Never imports torch before it computes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from studio.base.errors import BadInput, RunFailed
from studio.base.files import disk_failure
from studio.base.stopping import Stop
from studio.making.recording import Recording
from studio.making.run_upscaling import EitherStop, with_upscaled
from studio.making.upscaling import TEXT_KEY, Enlarger, Upscaling, target_for
from studio.media import picture_files
from studio.media.planes import Planes
from studio.models.upscalers import AUTO, FLAT_ART, SMALL
from studio.runs import storage
from studio.settings.run_settings import RunSettings

LARGEST = 16384  # pixels a side: weights recommend upscaling whatever a picture's size


class ResultUpscaler:
    """Upscales for one run. What goes wrong is a warning of the run, which is done all the same."""

    def __init__(
        self, settings: RunSettings, recording: Recording, assets_dir: Path, gpu: int | None
    ) -> None:
        self._recording, self._settings = recording, settings
        self._assets_dir, self._gpu = assets_dir, gpu
        self._work: Enlarger | None = None

    def show_live(self) -> None:
        """Let the live pictures be upscaled, if the settings ask for it."""
        if self._settings.upscale_always:
            self._recording.show_live(self._live)

    def upscale(self, stop: Stop) -> None:
        """Upscale the result of a run whose steps are all made. A stop leaves it as it is."""
        if not self._settings.scale or not len(self._recording.pictures):
            return
        stop = EitherStop(stop, self._recording.folder)
        try:
            for number, picture in enumerate(self._recording.pictures):
                self._picture(number, picture, stop)
            if self._settings.upscale_always:
                self._film(stop)
        except KeyboardInterrupt:
            self._recording.warn(["The picture was not upscaled, as the run was stopped then."])
        except OSError as error:
            self._recording.warn([f"The picture was not upscaled. {disk_failure(error)}"])
        except (BadInput, RunFailed) as error:
            self._recording.warn([f"The picture was not upscaled. {error}"])

    def _enlarger(self, picture: np.ndarray) -> Enlarger:
        if self._work is None:
            model = FLAT_ART if max(picture.shape) <= SMALL else AUTO
            wanted = Upscaling(self._settings.scale, model)
            self._work = Enlarger(wanted, self._assets_dir, self._gpu)
        return self._work

    def _live(self, picture: np.ndarray) -> np.ndarray:
        return self._enlarger(picture).pixels(picture)

    def _picture(self, number: int, picture: np.ndarray, stop: Stop) -> None:
        name = storage.picture_name(number + 1)
        work, scale = self._enlarger(picture), self._settings.scale
        origin = {"scale": scale, "model": work.model_for(picture), "of": name}
        target = target_for(self._recording.folder.path / name, scale)
        text = {**self._recording.text_at_the_end(number), TEXT_KEY: json.dumps(origin)}
        size = (picture.shape[1] * scale, picture.shape[0] * scale)
        if max(size) > LARGEST:
            raise BadInput(f"It would be {size[0]}x{size[1]}, over {LARGEST} px a side.")
        bands = work.bands(picture, origin["model"], target.parent, None, stop)
        picture_files.write(target, size, bands, Planes(picture, text))
        self._note(target, origin)

    def _film(self, stop: Stop) -> None:
        folder = self._recording.folder.path
        self._recording.end_film()
        target = target_for(folder / storage.VIDEO, self._settings.scale, suffix=".mp4")
        origin = self._enlarger(self._recording.pictures[0]).film(
            folder / storage.LIVE_VIDEO, target, stop=stop
        )
        self._note(target, origin | {"of": storage.VIDEO})

    def _note(self, target: Path, origin: dict[str, Any]) -> None:
        self._recording.note(with_upscaled(self._recording.details, target, origin))
