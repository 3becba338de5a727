"""Upscaling: pictures and films made larger by an upscaler. Torch is imported when it computes.

    Upscaling(scale=4, model="auto").check(assets_dir)       # BadInput, before anything is loaded
    work = Enlarger(Upscaling(), assets_dir)
    work.picture(source, target, on_progress=print, stop=stop)   # or work.film, or work.pixels

A target appears when it is whole. A request to stop ends the work with a KeyboardInterrupt within
about a second, and leaves nothing half-written.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studio.base.errors import BadInput
from studio.base.stopping import Stop
from studio.media import picture_files
from studio.media.film_copy import FilmCopy, frames_of
from studio.media.frames import length
from studio.media.planes import is_flat_art, read_planes, with_colours_where_transparent
from studio.models import upscalers

if TYPE_CHECKING:
    from studio.models.upscaler_networks import Network

TEXT_KEY = "upscaled"  # of the text chunk that says what upscaled a picture
LARGEST_FILM = 16384  # pixels a side that H.264's encoder takes

OnProgress = Callable[[float], None]  # called with the share that is done, from 0 to 1


@dataclass(frozen=True)
class Upscaling:
    """What a person asked for. model: a name that `upscalers.names` lists, or a file."""

    scale: int = 4
    model: str = upscalers.AUTO

    def check(self, assets_dir: Path) -> None:
        """Check it without loading anything. Raises BadInput."""
        upscalers.check_scale(self.scale)
        if self.model != upscalers.AUTO:
            upscalers.get(self.model, assets_dir)
        else:
            for name in (upscalers.FLAT_ART, upscalers.PHOTOGRAPHS):
                upscalers.get(name, assets_dir)


class Enlarger:
    """Carries out an `Upscaling`. It keeps the networks that it has loaded.

    All methods raise BadInput for files that cannot be used, and OSError for a full disk.
    """

    def __init__(self, wanted: Upscaling, assets_dir: Path, gpu: int | None = None) -> None:
        wanted.check(assets_dir)
        self.wanted, self._assets_dir, self._gpu = wanted, assets_dir, gpu
        self._networks: dict[str, Network] = {}

    def picture(
        self,
        source: Path,
        target: Path,
        on_progress: OnProgress | None = None,
        stop: Stop | None = None,
    ) -> dict[str, Any]:
        """Upscale a picture file. Returns its origin: the scale, the model, and of what it is."""
        planes = read_planes(source)
        height, width, channels = planes.pixels.shape
        scale = self.wanted.scale
        size = (width * scale, height * scale)
        picture_files.check_target(target, size)
        origin = self._origin(planes.pixels, source)
        if before := planes.text.get(TEXT_KEY):
            origin |= {"before": before}
        text = {**planes.text, TEXT_KEY: json.dumps(origin)}
        pixels = planes.pixels
        if channels in (2, 4):
            pixels = with_colours_where_transparent(pixels)
        bands = self.bands(pixels, origin["model"], target.parent, on_progress, stop)
        picture_files.write(target, size, bands, replace(planes, text=text))
        return origin

    def film(
        self,
        source: Path,
        target: Path,
        on_progress: OnProgress | None = None,
        stop: Stop | None = None,
    ) -> dict[str, Any]:
        """Upscale a film frame by frame; its sound and its rate stay. Returns as `picture` does."""
        count = length(source).frames
        frames = frames_of(source)
        first = next(frames, None)
        if first is None:
            raise BadInput(f"The video {source} has no frames that can be read.")
        if max(first.shape) * self.wanted.scale > LARGEST_FILM:
            raise BadInput(
                f"{source} would become over {LARGEST_FILM} px a side; choose a lower scale."
            )
        origin = self._origin(first, source)
        with FilmCopy(source, target) as film:
            for number, frame in enumerate(chain([first], frames), start=1):
                film.add(self._whole(frame, origin["model"], stop))
                if on_progress:
                    on_progress(min(1.0, number / count))
        return origin

    def pixels(self, pixels: np.ndarray, stop: Stop | None = None) -> np.ndarray:
        """A picture in memory, [H, W, 3] of uint8, at the wanted size."""
        return self._whole(pixels, self.model_for(pixels), stop)

    def model_for(self, pixels: np.ndarray) -> str:
        """The name of the model that is used for a picture, [H, W, C]: what `auto` chooses."""
        if self.wanted.model != upscalers.AUTO:
            return upscalers.get(self.wanted.model, self._assets_dir).name
        return upscalers.FLAT_ART if is_flat_art(pixels) else upscalers.PHOTOGRAPHS

    def _origin(self, pixels: np.ndarray, source: Path) -> dict[str, Any]:
        model = self.model_for(pixels)
        return {"scale": self.wanted.scale, "model": model, "of": source.name}

    def _whole(self, pixels: np.ndarray, model: str, stop: Stop | None) -> np.ndarray:
        return np.concatenate(list(self.bands(pixels, model, None, None, stop)))

    def bands(
        self,
        pixels: np.ndarray,
        model: str,
        scratch: Path | None,
        on_progress: OnProgress | None,
        stop: Stop | None,
    ) -> Iterator[np.ndarray]:
        """The upscaled picture from the top. scratch: a folder for what passes leave in between."""
        from studio.models.enlarging import bands  # imports torch
        from studio.models.upscaler_networks import passes

        network = self._network(model)
        ratios = passes(network.scale, self.wanted.scale)
        after_tile = _counting(pixels, ratios, network, on_progress)
        for number, ratio in enumerate(ratios, start=1):
            made = bands(pixels, network, ratio, after_tile, lambda: _end_if_asked(stop))
            if number == len(ratios):
                yield from made
            else:
                pixels = _kept(made, scratch)

    def _network(self, model: str) -> "Network":
        if model not in self._networks:
            from studio.engines import device as devices  # imports torch
            from studio.models.upscaler_networks import load

            name = model if self.wanted.model == upscalers.AUTO else self.wanted.model
            upscaler = upscalers.get(name, self._assets_dir)
            self._networks[model] = load(upscaler, devices.pick_device(self._gpu))
        return self._networks[model]


def _counting(
    pixels: np.ndarray,
    ratios: Iterable[Fraction],
    network: "Network",
    on_progress: OnProgress | None,
) -> Callable[[], None]:
    """What to call after each tile: it tells the progress."""
    from studio.models.enlarging import tile_count

    (height, width), total, done = pixels.shape[:2], 0, 0
    for ratio in ratios:
        total += tile_count((width, height), network)
        width, height = int(width * ratio), int(height * ratio)

    def after_tile() -> None:
        nonlocal done
        done += 1
        if on_progress:
            on_progress(done / total)

    return after_tile


def _end_if_asked(stop: Stop | None) -> None:
    if stop and stop.requested:
        raise KeyboardInterrupt


def _kept(bands: Iterable[np.ndarray], scratch: Path | None) -> np.ndarray:
    """The rows of a picture as one array, in a file that nobody else sees; in memory without."""
    if scratch is None:
        return np.concatenate(list(bands))
    rows, shape, kind = 0, (0, 0), np.dtype(np.uint8)
    with tempfile.TemporaryFile(dir=scratch) as file:
        for band in bands:
            file.write(np.ascontiguousarray(band).data)
            rows, shape, kind = rows + len(band), band.shape[1:], band.dtype
        file.flush()
        return np.memmap(file, kind, "r", shape=(rows, *shape))


def target_for(source: Path, scale: int, folder: Path | None = None, suffix: str = "") -> Path:
    """The usual name: `picture-x4.png` beside `picture.jpg`, or in another folder.

    suffix: of the file; "" for that of the source if it is a PNG, else `.png`.
    """
    suffix = suffix or (source.suffix if source.suffix.lower() == ".png" else ".png")
    return (folder or source.parent) / f"{source.stem}-x{scale}{suffix}"
