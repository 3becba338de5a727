"""Which runs continue which. Never imports torch."""

from dataclasses import dataclass

from studio.gallery.search import Tile, get_tile, select_tiles
from studio.gallery.store import Store

MAX_ANCESTORS = 40
MAX_RELATIVES = 60


@dataclass(frozen=True)
class Lineage:
    """A run's relatives. ancestors: the oldest first, the parent last.

    missing: the parent that the run names but that is not here, or "".
    """

    ancestors: list[Tile]
    siblings: list[Tile]
    children: list[Tile]
    missing: str = ""

    def __bool__(self) -> bool:
        return bool(self.ancestors or self.siblings or self.children or self.missing)


def lineage(store: Store, tile: Tile) -> Lineage:
    """The relatives of a run, as `parent` names them, or `prev_run_id` in older layouts."""
    ancestors: list[Tile] = []
    seen, parent = {tile.name}, _parent(store, tile)
    while parent and parent.name not in seen and len(ancestors) < MAX_ANCESTORS:
        ancestors.insert(0, parent)
        seen.add(parent.name)
        parent = _parent(store, parent)
    family = _children(store, ancestors[-1]) if ancestors else []
    siblings = [relative for relative in family if relative.name != tile.name]
    missing = "" if ancestors else tile.parent or tile.prev8 or ""
    return Lineage(ancestors, siblings, _children(store, tile), missing)


def _parent(store: Store, tile: Tile) -> Tile | None:
    if tile.parent and (parent := get_tile(store, tile.parent)):
        return parent
    if not tile.prev8:
        return None
    where = "id8 = ? AND (began, name) < (?, ?)"
    found = select_tiles(store, where, [tile.prev8, tile.began, tile.name], limit=1)
    return found[0] if found else None


def _children(store: Store, tile: Tile) -> list[Tile]:
    where = "parent = ? OR (parent IS NULL AND prev8 = ? AND (began, name) > (?, ?))"
    values = [tile.name, tile.id8, tile.began, tile.name]
    return select_tiles(store, where, values, limit=MAX_RELATIVES)[::-1]
