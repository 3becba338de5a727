// The wall: keys, removing, and the search form.

import { isOurs } from "./gallery.js";
import { follow, focusRun, refresh } from "./gallery-refresh.js";
import { offerUndo, remove } from "./gallery-removal.js";

const search = document.getElementById("search");
const tiles = () => [...document.querySelectorAll("#wall .tile:not([inert])")];
const current = () => document.activeElement.closest(".tile");

// --- Keys ---------------------------------------------------------------------------------------

/** The tile one row above or below: the tile of the nearest row that is most nearly in line. */
function vertical(tile, direction) {
  const from = tile.getBoundingClientRect();
  const middle = from.left + from.width / 2;
  let best = null;
  for (const other of tiles()) {
    const box = other.getBoundingClientRect();
    const down = (box.top - from.top) * direction;
    if (down < from.height / 2) continue;
    const rank = down * 10 + Math.abs(box.left + box.width / 2 - middle);
    if (!best || rank < best.rank) best = { rank, other };
  }
  return best?.other;
}

function step(key) {
  const all = tiles();
  const at = all.indexOf(current());
  if (at < 0) return all.find((tile) => tile.getBoundingClientRect().bottom > 0);
  if (key === "ArrowRight") return all[at + 1];
  if (key === "ArrowLeft") return all[at - 1];
  return vertical(all[at], key === "ArrowDown" ? 1 : -1);
}

function onKey(event) {
  const tile = current();
  if (event.key.startsWith("Arrow")) {
    const next = step(event.key);
    if (next) {
      event.preventDefault();
      focusRun(next.dataset.run);
    }
  } else if (event.key === "Escape") {
    closeFilters();
    document.activeElement.blur();
  } else if (tile && event.key.toLowerCase() === "f") {
    tile.querySelector("form.favourite")?.requestSubmit();
  } else if (tile?.dataset.remove && event.key === "Delete") {
    removeTile(tile);
  }
}

document.addEventListener("keydown", (event) => isOurs(event) && onKey(event));

// --- Removing -----------------------------------------------------------------------------------

/** The focus moves at once, so that the next key press means the next run. */
async function removeTile(tile) {
  const all = tiles();
  const at = all.indexOf(tile);
  focusRun((all[at + 1] ?? all[at - 1])?.dataset.run);
  tile.inert = true;
  const removal = await remove(tile.dataset.remove);
  tile.inert = false;
  if (!removal) return focusRun(tile.dataset.run);
  tile.remove();
  offerUndo(removal);
  refresh();
}

/** A run's own page leads here after the run was removed. */
function takeOver(notice) {
  offerUndo({ run: notice.dataset.removed, undo: notice.action });
  notice.remove();
  const address = new URL(location.href);
  address.searchParams.delete("removed");
  history.replaceState(null, "", address);
}

const notice = document.getElementById("removed");
if (notice) takeOver(notice);

// --- Searching ----------------------------------------------------------------------------------

const filters = search.querySelector(".filters");

function closeFilters() {
  filters?.removeAttribute("open");
}

search.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  closeFilters();
  event.target.blur();
});
// The address says only what was chosen.
search.addEventListener("submit", () => {
  for (const field of search.elements) {
    field.disabled = field.name && ["", field.dataset.default].includes(field.value);
  }
});
addEventListener("pageshow", () => {
  for (const field of search.elements) field.disabled = false;
});
document.addEventListener("click", (event) => {
  if (filters && !filters.contains(event.target)) closeFilters();
});

follow();
