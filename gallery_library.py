"""An output folder as the gallery has it open: shelf, index, thumbnails, curation.

Never imports torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import gallery_curation
import gallery_search
from errors import BadInput
from gallery_index import Index
from gallery_search import Page, Query, Tile
from gallery_store import Store
from gallery_utils import Run, Shelf, is_run_name
from storage import ACTIVE, ID_LENGTH

if TYPE_CHECKING:
    from gallery_pictures import Thumbnails

APP_URL = "http://localhost:8501"


@dataclass(frozen=True)
class Options:
    """How the gallery shows itself. interval: seconds that the slideshow stays on a picture."""

    per_page: int = 24
    kiosk: bool = False
    read_only: bool = False
    app_url: str = APP_URL
    interval: float = 10.0
    hosts: tuple[str, ...] = ()  # names by which it may be called, beside localhost and numbers

    @property
    def can_change(self) -> bool:
        """Whether people may mark, remove and restore."""
        return not (self.kiosk or self.read_only)


class Library:
    """What all requests share. Opening it takes in every run that is on disk."""

    def __init__(self, output_dir: Path, options: Options) -> None:
        self.output_dir, self.options = output_dir, options
        self.shelf = Shelf(output_dir)
        self.store = Store(output_dir)
        self.index = Index(self.shelf, self.store)
        self._thumbnails: Thumbnails | None = None
        self._choices: tuple[str, gallery_search.Choices] = ("", {})

    @property
    def revision(self) -> str:
        """Another text when a page would look another way."""
        marks = gallery_curation.revision(self.store)
        return "-".join(map(str, (self.index.started, self.index.revision, *marks)))

    def catch_up(self) -> None:
        """See what changed in the folders."""
        self.index.catch_up()
        for name in self.index.gone():
            self._small_pictures().forget(name)

    def find(self, query: Query) -> Page:
        """The runs that match. A kiosk shows whole pictures only."""
        return gallery_search.find(self.store, query, only_pictures=self.options.kiosk)

    def choices(self) -> gallery_search.Choices:
        """What the filters can choose from, counted anew only when something changed."""
        revision = self.revision
        if self._choices[0] != revision:
            self._choices = revision, gallery_search.choices(self.store)
        return self._choices[1]

    def tile(self, run_id: str) -> Tile | None:
        """A run by its folder's name, as it is right now, or by its last 8 characters."""
        if not is_run_name(run_id):
            return None
        self.index.check(run_id)
        tile = gallery_search.get_tile(self.store, run_id)
        if tile is None and len(run_id) == ID_LENGTH:
            found = gallery_search.select_tiles(self.store, "id8 = ?", [run_id], limit=2)
            tile = found[0] if len(found) == 1 else None
        if tile and self.options.kiosk and not tile.is_whole:
            return None
        return tile

    def run(self, name: str) -> Run:
        """All that a folder says, read now; an empty run where it went meanwhile."""
        try:
            return self.shelf.read(name)
        except FileNotFoundError:
            return Run(name, problem="Its folder is gone.")

    def thumbnail(self, shelf: Shelf, run: str, picture: str, *, active: bool = False) -> bytes:
        """A small JPEG of a picture. Raises BadInput, OSError."""
        with shelf.open(run, picture) as opened:
            return self._small_pictures().get(run, opened, keep=not active and shelf is self.shelf)

    def thumbnail_of(self, tile: Tile) -> bytes:
        """A small JPEG of a run's picture. Raises BadInput, which is then known of the run."""
        if not tile.picture:
            raise BadInput("It has no picture.")
        try:
            return self.thumbnail(self.shelf, tile.name, tile.picture, active=tile.status in ACTIVE)
        except OSError as error:
            raise BadInput(f"The picture cannot be read: {error.strerror or 'gone'}.") from None
        except BadInput as error:
            if tile.status not in ACTIVE:
                self.index.note_problem(tile.name, tile.stamp, str(error))
            raise

    def _small_pictures(self) -> "Thumbnails":
        if self._thumbnails is None:
            from gallery_pictures import Thumbnails  # Pillow and numpy would slow the start

            self._thumbnails = Thumbnails(self.store.thumbnails)
        return self._thumbnails
