// One run: zoom, scrubber, copying, keys, tags and note. What it shows may be replaced at any time
// (see gallery-refresh.js), so elements are looked up when they are needed.

import { change, isOurs, say } from "./gallery.js";
import { follow, refresh } from "./gallery-refresh.js";
import { remove } from "./gallery-removal.js";
import { layOver } from "./gallery-slider.js";

const find = (id) => document.getElementById(id);
const { run: name, remove: removal } = find("run").dataset;

// --- Zoom ---------------------------------------------------------------------------------------

let zoom = 0; // 0: the picture fits; else screen pixels for each pixel of the picture

function setZoom(next) {
  const picture = find("picture");
  if (!picture) return;
  const fitted = picture.clientWidth / picture.naturalWidth;
  zoom = next === 0 ? 0 : Math.min(32, Math.max(0.05, next(zoom || fitted)));
  document.body.classList.toggle("zoomed", zoom > 0);
  document.body.style.setProperty("--zoomed", `${picture.naturalWidth * zoom}px`);
  find("zoom-level").textContent = zoom ? `${Math.round(zoom * 100)} %` : "";
}

const ZOOMS = {
  in: () => setZoom((now) => now * 1.5),
  out: () => setZoom((now) => now / 1.5),
  one: () => setZoom(() => 1),
  fit: () => setZoom(0),
};

function onStage(event) {
  return event.target.closest("#stage");
}

document.addEventListener("click", (event) => {
  ZOOMS[event.target.dataset.zoom]?.();
  if (!onStage(event)) return;
  event.preventDefault();
  if (zoom) ZOOMS.fit();
  else setZoom((now) => Math.max(1, now * 2));
});
document.addEventListener(
  "wheel",
  (event) => {
    if (!event.ctrlKey || !onStage(event)) return;
    event.preventDefault();
    setZoom((now) => now * 1.2 ** -Math.sign(event.deltaY));
  },
  { passive: false },
);

// --- Before and after ---------------------------------------------------------------------------

document.addEventListener(
  "toggle",
  ({ target }) => {
    if (target.matches?.(".before-after[open]")) layOver(target.querySelector(".compare"));
  },
  true,
);

// --- Animation ----------------------------------------------------------------------------------

/** Listen to an element that may come later. */
function listen(id, kind, act) {
  document.addEventListener(kind, ({ target }) => target.id === id && act(target), true);
}

function offerScrubber(film) {
  find("scrub-part").hidden = !(Number.isFinite(film.duration) && film.duration > 0);
}

listen("film", "loadedmetadata", offerScrubber);
listen("film", "timeupdate", (film) => {
  if (!film.paused) find("scrub").value = (find("scrub").max * film.currentTime) / film.duration;
});
listen("scrub", "input", (scrub) => {
  const film = find("film");
  film.pause();
  film.currentTime = (film.duration * scrub.value) / scrub.max;
});
if (find("film")?.readyState > 0) offerScrubber(find("film"));

// --- Copying, tags and note ---------------------------------------------------------------------

async function copyPrompt() {
  try {
    await navigator.clipboard.writeText(find("prompt").textContent);
    say("Copied.");
  } catch {
    say("The browser did not allow copying.");
  }
}

listen("copy", "click", copyPrompt);

/** Send a form. What is written in other forms stays as it is. */
async function send(form) {
  const answer = await change(form.action, Object.fromEntries(new FormData(form)));
  if (!answer) return;
  if (form.elements.note) noteSaved(form.elements, answer.note);
  else form.reset();
  await refresh();
  if (!form.isConnected) find("new-tags").focus();
}

function noteSaved({ note, before }, text) {
  before.value = note.defaultValue = text;
  if (note !== document.activeElement) note.value = text;
  say("The note is saved.");
}

async function removeRun() {
  if (!(await remove(removal))) return;
  const wall = new URL(find("to-wall").href);
  wall.searchParams.set("removed", name);
  location.assign(wall);
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.id === "remove") removeRun();
  else if (form.closest(".curate")) send(form);
  else return;
  event.preventDefault();
});

// --- Keys ---------------------------------------------------------------------------------------

function toWall() {
  const cameFromWall = document.referrer && new URL(document.referrer).pathname === "/";
  if (cameFromWall && history.length > 1) history.back();
  else find("to-wall").click();
}

const KEYS = {
  ArrowLeft: () => find("before")?.click(),
  ArrowRight: () => find("after")?.click(),
  Escape: () => (zoom ? ZOOMS.fit() : toWall()),
  f: () => document.querySelector(".actions form.favourite")?.requestSubmit(),
  Delete: () => removal && removeRun(),
  "+": ZOOMS.in,
  "-": ZOOMS.out,
  0: ZOOMS.fit,
};

document.addEventListener("keydown", (event) => {
  const act = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  const scrolls = event.key.startsWith("Arrow") && event.target.closest("#stage, pre, .strip");
  if (act && isOurs(event) && !scrolls) act();
});

follow();
