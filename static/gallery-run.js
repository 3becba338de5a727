// One run: zoom, scrubber, copying, keys, and following it while it goes on.

import { isOurs, remove, say } from "./gallery.js";

const run = document.getElementById("run");
const toWall = () => {
  const cameFromWall = document.referrer && new URL(document.referrer).pathname === "/";
  if (cameFromWall) history.back();
  else document.getElementById("to-wall").click();
};

// --- Zoom ---------------------------------------------------------------------------------------

const stage = document.getElementById("stage");
const picture = document.getElementById("picture");
let zoom = 0; // 0: it fits; else screen pixels for each of the picture's

function setZoom(next) {
  const fitted = picture.clientWidth / picture.naturalWidth;
  zoom = next === 0 ? 0 : Math.min(32, Math.max(0.05, next(zoom || fitted)));
  stage.classList.toggle("zoomed", zoom > 0);
  stage.style.setProperty("--zoomed", `${picture.naturalWidth * zoom}px`);
  document.getElementById("zoom-level").textContent = zoom ? `${Math.round(zoom * 100)} %` : "";
}

const ZOOMS = {
  in: () => setZoom((now) => now * 1.5),
  out: () => setZoom((now) => now / 1.5),
  one: () => setZoom(() => 1),
  fit: () => setZoom(0),
};

if (stage) {
  document.getElementById("zoom").hidden = false;
  document.getElementById("zoom").addEventListener("click", (event) => {
    ZOOMS[event.target.dataset.zoom]?.();
  });
  stage.addEventListener("click", (event) => {
    event.preventDefault();
    if (zoom) ZOOMS.fit();
    else setZoom((now) => Math.max(1, now * 2));
  });
  stage.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      setZoom((now) => now * 1.2 ** -Math.sign(event.deltaY));
    },
    { passive: false },
  );
}

// --- Animation ----------------------------------------------------------------------------------

const film = document.getElementById("film");
const scrub = document.getElementById("scrub");

function linkScrubber() {
  if (!Number.isFinite(film.duration) || film.duration <= 0) return;
  document.getElementById("scrub-part").hidden = false;
  scrub.addEventListener("input", () => {
    film.pause();
    film.currentTime = (film.duration * scrub.value) / scrub.max;
  });
  film.addEventListener("timeupdate", () => {
    if (!film.paused) scrub.value = (scrub.max * film.currentTime) / film.duration;
  });
}

if (film) {
  if (film.readyState > 0) linkScrubber();
  film.addEventListener("loadedmetadata", linkScrubber, { once: true });
}

// --- The rest -----------------------------------------------------------------------------------

const copy = document.getElementById("copy");
if (copy && navigator.clipboard) {
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(document.getElementById("prompt").textContent);
      say("Copied.");
    } catch {
      say("The browser did not allow copying.");
    }
  });
}

document.getElementById("remove")?.addEventListener("submit", (event) => {
  event.preventDefault();
  remove(run.dataset.remove, afterRemoval);
});

function afterRemoval() {
  location.assign(`/?removed=${encodeURIComponent(run.dataset.run)}`);
}

const KEYS = {
  ArrowLeft: () => document.getElementById("newer")?.click(),
  ArrowRight: () => document.getElementById("older")?.click(),
  Escape: () => (zoom ? ZOOMS.fit() : toWall()),
  f: () => document.querySelector(".actions form.favourite")?.requestSubmit(),
  Delete: () => run.dataset.remove && remove(run.dataset.remove, afterRemoval),
  "+": () => stage && ZOOMS.in(),
  "-": () => stage && ZOOMS.out(),
  0: () => stage && ZOOMS.fit(),
};

document.addEventListener("keydown", (event) => {
  const act = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  const scrolls = event.key.startsWith("Arrow") && event.target.closest("#stage, pre, .scrolls, .strip");
  if (act && isOurs(event) && !scrolls) act();
});

/** While it goes on: its picture and its steps; when that ends, the page anew. */
async function follow() {
  try {
    const response = document.hidden ? null : await fetch("/api/activity");
    const { running } = response?.ok ? await response.json() : { running: null };
    const own = running?.find((one) => one.run_id === run.dataset.run);
    if (own && picture) {
      const address = `${picture.src.split("?")[0]}?${own.thumb.split("?")[1]}`;
      if (!picture.src.endsWith(address)) picture.src = address;
      const words = document.querySelector(".picture .progress span");
      if (words) words.textContent = own.planned ? `step ${own.step} of ${own.planned}` : `step ${own.step}`;
      const bar = document.querySelector(".picture progress");
      if (bar) bar.value = own.step;
    } else if (running && (own || run.dataset.status === "running")) {
      location.reload();
      return;
    }
  } catch {
    // The gallery was ended, or the machine slept: the next look will tell.
  }
  setTimeout(follow, 1500);
}

if (["running", "queued"].includes(run.dataset.status)) setTimeout(follow, 1500);
