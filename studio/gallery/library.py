"""An output folder that the gallery has open: shelf, index, thumbnails, curation.

Never imports torch.
"""

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gallery_utils import (
    ANIMATIONS,
    KINDS,
    LARGER,
    PICTURES,
    FoundRun,
    Shelf,
    is_run_name,
    kind_of,
)
from studio.base.errors import BadInput
from studio.base.faces import address_of
from studio.base.paths import ASSETS_DIR
from studio.gallery import curation, search
from studio.gallery.index import Index
from studio.gallery.plain import plain_details, plain_json, plain_media
from studio.gallery.query import Asked, read_query
from studio.gallery.search import Page, Query, Tile
from studio.gallery.sending import Opened
from studio.gallery.store import Store
from studio.gallery.upscaling import larger_of
from studio.runs.storage import ACTIVE, ID_LENGTH

if TYPE_CHECKING:
    from werkzeug.datastructures import MultiDict

    from studio.gallery.pictures import Thumbnails

APP_URL = "http://localhost:8501"
OF_THE_MACHINE = ("traceback", "checkpoint")  # kinds of files


@dataclass(frozen=True)
class Options:
    """How the gallery is shown. interval: seconds that the slideshow shows each picture.

    app_url: where the app is; "" to look for it. assets_dir: where a person's upscalers are.
    """

    per_page: int = 24
    kiosk: bool = False
    read_only: bool = False
    app_url: str = ""
    interval: float = 10.0
    hosts: tuple[str, ...] = ()  # names of this machine, beside localhost and numbers
    assets_dir: Path = ASSETS_DIR

    @property
    def can_change(self) -> bool:
        """Whether visitors may mark, remove and restore: owners may, strangers may not."""
        return not (self.kiosk or self.read_only)

    @property
    def kinds(self) -> Collection[str]:
        """The kinds of files that are shown."""
        if self.kiosk:
            return (*PICTURES, LARGER, *ANIMATIONS)
        return KINDS if self.can_change else [kind for kind in KINDS if kind not in OF_THE_MACHINE]


class Library:
    """What all requests share. Opening it reads every run on disk."""

    def __init__(self, output_dir: Path, options: Options) -> None:
        self.output_dir, self.options = output_dir, options
        self.shelf = Shelf(output_dir)
        self.store = Store(output_dir)
        self.index = Index(self.shelf, self.store)
        self._thumbnails: Thumbnails | None = None
        self._choices: tuple[str, search.Choices] = ("", {})

    @property
    def revision(self) -> str:
        """A text that changes whenever a page would look different."""
        marks = curation.revision(self.store)
        return "-".join(map(str, (self.index.started, self.index.revision, *marks)))

    def catch_up(self) -> None:
        """Take in what changed in the folders."""
        self.index.catch_up()
        for name in self.index.gone():
            self._small_pictures().forget(name)

    def read_query(self, arguments: "MultiDict[str, str]", *, strict: bool = False) -> Asked:
        """What an address asks for, as far as it may; see `query.read_query`."""
        options = self.options
        return read_query(arguments, options.per_page, strict=strict, kiosk=options.kiosk)

    def troubles(self) -> list[str]:
        """What is wrong with the folder, in sentences; strangers are not told where it is."""
        where = f"The folder {self.output_dir}" if self.options.can_change else "The runs' folder"
        told = [f"{where} {self.index.problem}."] if self.index.problem else []
        if self.options.can_change and not self.store.lasts:
            told.append(
                f"{where} cannot be written: favourites, tags and notes last until the gallery"
                " ends. If it becomes writable before that, they are saved."
            )
        return told

    def app_url(self, host: str) -> str:
        """Where the app is, for a browser that reached the gallery as `host`."""
        return self.options.app_url or address_of(self.output_dir, "page", host) or APP_URL

    def find(self, query: Query) -> Page:
        """The runs that match. A kiosk shows finished pictures only, and searches prompts."""
        return search.find(self.store, query, kiosk=self.options.kiosk)

    def choices(self) -> search.Choices:
        """The values that filters offer, counted again only when something changed."""
        revision = self.revision
        if self._choices[0] != revision:
            self._choices = revision, search.choices(self.store)
        return self._choices[1]

    def tile(self, run_id: str) -> Tile | None:
        """A run by its folder's name, as it is right now, or by its last 8 characters."""
        if not is_run_name(run_id):
            return None
        self.index.check(run_id)
        tile = search.get_tile(self.store, run_id)
        if tile is None and len(run_id) == ID_LENGTH:
            found = search.select_tiles(self.store, "id8 = ?", [run_id], limit=2)
            tile = found[0] if len(found) == 1 else None
        if tile and self.options.kiosk and not tile.is_whole:
            return None
        return tile

    def run(self, name: str) -> FoundRun:
        """All that a folder says, read now; an empty run if it has gone.

        Strangers get the files that are shown, and nothing about this machine.
        """
        try:
            run = self.shelf.read(name)
        except FileNotFoundError:
            return FoundRun(name, problem="Its folder is gone.")
        if self.options.can_change:
            return run
        files = {kind: files for kind, files in run.files.items() if kind in self.options.kinds}
        return replace(run, files=files, details=plain_details(run.details))

    def upscalers(self) -> list[str]:
        """The models that an upscaling may choose from."""
        from studio.models import upscalers  # pydantic, behind it, would slow the start

        return upscalers.names(self.options.assets_dir)

    def open(self, run: str, name: str) -> Opened:
        """A file of a run, for strangers without its metadata. Raises OSError."""
        kind = kind_of(name)
        if kind not in self.options.kinds:
            raise FileNotFoundError(name)
        opened = self.shelf.open(run, name)
        facts = os.fstat(opened.fileno())
        mark = f"{facts.st_mtime_ns:x}-{facts.st_size:x}"
        if self.options.can_change:
            return Opened(opened, facts.st_size, facts.st_ino, mark)
        try:
            plain = plain_json(opened) if kind == "details" else plain_media(opened)
            size = plain.seek(0, os.SEEK_END)
            plain.seek(0)
        except OSError:
            opened.close()
            raise
        return Opened(plain, size, facts.st_ino, f"{mark}-plain")

    def thumbnail(self, shelf: Shelf, run: str, picture: str, *, active: bool = False) -> bytes:
        """A small JPEG of a picture. Raises BadInput, OSError."""
        with shelf.open(run, picture) as opened:
            return self._small_pictures().get(run, opened, keep=not active and shelf is self.shelf)

    def thumbnail_of(self, tile: Tile) -> bytes:
        """A small JPEG of a run's picture. Raises BadInput, which the index then remembers."""
        if not tile.picture:
            raise BadInput("It has no picture.")
        if tile.is_small and (larger := self._larger(tile)):
            with suppress(OSError, BadInput):
                return self.thumbnail(self.shelf, tile.name, larger)
        try:
            return self.thumbnail(self.shelf, tile.name, tile.picture, active=tile.status in ACTIVE)
        except OSError as error:
            raise BadInput(f"The picture cannot be read: {error.strerror or 'gone'}.") from None
        except BadInput as error:
            if tile.status not in ACTIVE:
                self.index.note_problem(tile.name, tile.stamp, str(error))
            raise

    def _larger(self, tile: Tile) -> str:
        """The file that a finished run's picture was upscaled to; "" if it was not."""
        if not tile.picture or tile.status in ACTIVE:
            return ""
        with suppress(OSError, BadInput):
            return larger_of(self.run(tile.name), tile.picture)
        return ""

    def _small_pictures(self) -> "Thumbnails":
        if self._thumbnails is None:
            from studio.gallery.pictures import Thumbnails  # Pillow and numpy would slow the start

            self._thumbnails = Thumbnails(self.store.thumbnails)
        return self._thumbnails
