// What every page of the gallery does beyond what plain HTML does.

const POLL = 1500; // milliseconds between looks at what changed
const TOAST = 10000;

const token = document.querySelector('meta[name="csrf-token"]')?.content;
const toast = document.getElementById("toast");
let toastTimer;

/** Say something for a while, with a button where there is something to do about it. */
export function say(text, label, act) {
  toast.replaceChildren(document.createTextNode(text));
  if (label) {
    const button = document.createElement("button");
    button.textContent = label;
    button.addEventListener("click", () => {
      toast.hidden = true;
      act();
    });
    toast.append(button);
  }
  toast.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (toast.hidden = true), TOAST);
}

/** Send a change. Returns the answer, or null after saying why not. */
export async function change(address, fields = {}) {
  try {
    const response = await fetch(address, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams({ token, ...fields }),
    });
    const answer = await response.json();
    if (response.ok) return answer;
    say(answer.error);
  } catch {
    say("The gallery does not answer. Is it still running?");
  }
  return null;
}

/** Whether a key is meant for the page, not for a field or for the browser. */
export function isOurs(event) {
  const modified = event.ctrlKey || event.altKey || event.metaKey;
  return !modified && !event.target.closest("input, textarea, select, video");
}

async function toggleFavourite(form) {
  const button = form.querySelector("button");
  const answer = await change(form.action, { on: form.elements.on.value });
  if (!answer) return;
  button.setAttribute("aria-pressed", answer.favourite);
  form.elements.on.value = answer.favourite ? 0 : 1;
}

document.addEventListener("submit", (event) => {
  if (event.target.matches("form.favourite")) {
    event.preventDefault();
    toggleFavourite(event.target);
  }
});

/** Move a run to the trash; `then` runs once it is there. */
export async function remove(address, then) {
  const answer = await change(address);
  if (!answer) return;
  say("Moved to the trash.", "Undo", async () => {
    if (await change(answer.undo)) refresh();
  });
  then();
}

// --- The wall -----------------------------------------------------------------------------------

const wall = () => document.getElementById("wall");
const part = () => document.getElementById("wall-part");
const tiles = () => [...(wall()?.children ?? [])];
const current = () => document.activeElement?.closest?.(".tile");

function focusTile(tile) {
  tile?.querySelector(".open").focus();
  tile?.scrollIntoView({ block: "nearest" });
}

/** The tile one row above or below: of those on the nearest row the one most nearly in line. */
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

function onWallKey(event) {
  const tile = current();
  if (event.key.startsWith("Arrow")) {
    const next = step(event.key);
    if (next) {
      event.preventDefault();
      focusTile(next);
    }
  } else if (event.key === "Escape") {
    document.querySelector(".filters[open]")?.removeAttribute("open");
    document.activeElement?.blur();
  } else if (tile && event.key.toLowerCase() === "f") {
    tile.querySelector("form.favourite")?.requestSubmit();
  } else if (tile && (event.key === "Delete" || event.key === "Backspace")) {
    removeTile(tile);
  }
}

function removeTile(tile) {
  if (!tile.dataset.remove) return;
  const next = tile.nextElementSibling ?? tile.previousElementSibling;
  remove(tile.dataset.remove, () => {
    tile.remove();
    focusTile(next);
    refresh();
  });
}

/** Load the wall anew and change only what is different, so that focus and scrolling stay. */
async function refresh() {
  if (!part()) return location.reload();
  const response = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const fresh = page.getElementById("wall-part");
  const focused = current()?.dataset.run;
  const old = new Map(tiles().map((tile) => [tile.dataset.run, tile]));
  for (const tile of fresh.querySelectorAll(".tile")) {
    const known = old.get(tile.dataset.run);
    if (known && known.dataset.html === tile.outerHTML) tile.replaceWith(known);
    else tile.dataset.html = tile.outerHTML;
  }
  part().replaceWith(fresh);
  if (focused && !current()) {
    tiles().find((tile) => tile.dataset.run === focused)?.querySelector(".open").focus();
  }
}

function showProgress({ run_id, thumb, step, planned }) {
  const tile = tiles().find((one) => one.dataset.run === run_id);
  const image = tile?.querySelector(".frame img");
  if (!image) return tile !== undefined;
  if (image.getAttribute("src") !== thumb) image.src = thumb;
  const bar = tile.querySelector("progress");
  if (bar) bar.value = step;
  const words = tile.querySelector(".progress span");
  if (words) words.textContent = planned ? `step ${step} of ${planned}` : `step ${step}`;
  return words === null;
}

async function look() {
  if (document.hidden) return;
  try {
    const response = await fetch("/api/activity");
    if (!response.ok) return;
    const { revision, running } = await response.json();
    const lacking = running.map(showProgress).some(Boolean);
    if (lacking || revision !== part().dataset.revision) await refresh();
  } catch {
    // The gallery was ended, or the machine slept: the next look will tell.
  }
}

async function follow() {
  await look();
  setTimeout(follow, POLL);
}

if (part()) {
  for (const tile of tiles()) tile.dataset.html = tile.outerHTML;
  document.addEventListener("keydown", (event) => isOurs(event) && onWallKey(event));
  document.addEventListener("visibilitychange", look);
  addEventListener("pageshow", (event) => event.persisted && look());
  setTimeout(follow, POLL);
  const search = document.getElementById("search");
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    search.querySelector(".filters").removeAttribute("open");
    event.target.blur();
  });
  search.addEventListener("submit", () => {
    for (const field of search.elements) {
      field.disabled = field.name && ["", field.dataset.default].includes(field.value);
    }
  });
  addEventListener("pageshow", () => {
    for (const field of search.elements) field.disabled = false;
  });
  document.addEventListener("click", (event) => {
    const filters = search.querySelector(".filters[open]");
    if (filters && !filters.contains(event.target)) filters.removeAttribute("open");
  });
}
