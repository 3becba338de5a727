// One picture after the other, by itself. Two images take turns; nothing is kept of what was shown.
// Whatever fails, the last picture stays until the next one is there.

import { isOurs } from "./gallery.js";

const RETRY = 2000; // milliseconds, while there is nothing to show or the gallery does not answer
const SKIP = 1000; // milliseconds, after a picture that cannot be shown
const PATIENCE = 20000; // milliseconds, with a server or a picture that does not come
const IDLE = 3000; // milliseconds, after the last move of the pointer

const screen = document.getElementById("screen");
const caption = document.getElementById("caption");
const pauseButton = document.getElementById("pause");
const playButton = document.getElementById("play");
const interval = Number(screen.dataset.interval) * 1000;

let { cursor, animation } = screen.dataset;
let timer;
let idleTimer;
let paused = false;
let turn = 0; // what was started in an earlier turn must no longer be shown

const [shown, waiting] = screen.querySelectorAll(".slide");
let front = shown;
let back = waiting;

/** The image of a frame, made once. */
function imageOf(frame) {
  let image = frame.querySelector("img");
  if (!image) {
    image = document.createElement("img");
    frame.replaceChildren(image);
  }
  return image;
}

function plan(delay) {
  clearTimeout(timer);
  if (!paused) timer = setTimeout(next, delay);
}

async function next() {
  clearTimeout(timer);
  const own = ++turn;
  const answer = await ask();
  if (own !== turn) return;
  if (!answer?.slide) return plan(RETRY);
  const isThere = await load(answer.slide);
  if (own !== turn) return;
  cursor = answer.cursor; // even if the picture cannot be shown
  if (isThere) show(answer.slide);
  plan(isThere ? interval : Math.min(interval, SKIP));
}

/** The next slide and its cursor; null if the gallery does not answer. */
async function ask() {
  try {
    const response = await fetch(`${screen.dataset.next}?after=${encodeURIComponent(cursor)}`, {
      signal: AbortSignal.timeout(PATIENCE),
    });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

/** Load a slide behind the one that is shown. Returns whether it can be shown. */
async function load(slide) {
  const image = imageOf(back);
  image.alt = slide.prompt;
  image.src = slide.picture;
  return canBeShown(image);
}

async function canBeShown(image) {
  const late = new Promise((_, refuse) => setTimeout(refuse, PATIENCE));
  try {
    await Promise.race([image.decode(), late]);
    return true;
  } catch {
    return false;
  }
}

function show(slide) {
  stopFilm();
  front.classList.remove("shown");
  back.classList.add("shown");
  [front, back] = [back, front];
  caption.textContent = slide.prompt;
  animation = slide.animation;
  playButton.hidden = !animation;
}

// --- On request ---------------------------------------------------------------------------------

function playFilm() {
  if (!animation) return;
  turn += 1;
  stopFilm();
  const film = document.createElement("video");
  film.muted = true;
  film.playsInline = true;
  film.src = animation;
  const endFilm = () => {
    stopFilm();
    plan(interval);
  };
  const watch = () => {
    if (!film.isConnected) return;
    clearTimeout(timer);
    timer = setTimeout(endFilm, PATIENCE);
  };
  for (const end of ["ended", "error"]) film.addEventListener(end, endFilm);
  film.addEventListener("timeupdate", watch);
  front.append(film);
  imageOf(front).hidden = true;
  film.play().catch(endFilm);
  watch();
}

function stopFilm() {
  const film = front.querySelector("video");
  if (!film) return;
  film.pause();
  film.removeAttribute("src");
  film.load();
  film.remove();
  imageOf(front).hidden = false;
}

function setPaused(value) {
  turn += 1;
  paused = value;
  pauseButton.setAttribute("aria-pressed", paused);
  pauseButton.textContent = paused ? "Play" : "Pause";
  clearTimeout(timer);
  plan(interval);
}

function toggleFullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.documentElement.requestFullscreen?.().catch(() => {});
}

const KEYS = {
  " ": () => setPaused(!paused),
  ArrowRight: next,
  a: playFilm,
  f: toggleFullScreen,
  Escape: () => document.getElementById("to-wall").click(),
};

pauseButton.addEventListener("click", () => setPaused(!paused));
playButton.addEventListener("click", playFilm);
document.getElementById("fullscreen").addEventListener("click", toggleFullScreen);
document.addEventListener("keydown", (event) => {
  const act = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (!act || !isOurs(event) || (event.target.closest("button, a") && event.key === " ")) return;
  event.preventDefault();
  act();
});

// --- The buttons, hidden until someone moves the pointer ----------------------------------------

let wasIdle = false; // when a finger touched the screen

function wake() {
  document.body.classList.remove("idle");
  clearTimeout(idleTimer);
  idleTimer = setTimeout(() => document.body.classList.add("idle"), IDLE);
}

document.addEventListener(
  "pointerdown",
  () => (wasIdle = document.body.classList.contains("idle")),
  true,
);
// A touch that brings the buttons back does not press one of them.
document.addEventListener(
  "click",
  (event) => {
    if (!wasIdle || event.detail === 0) return;
    event.preventDefault();
    event.stopPropagation();
  },
  true,
);
for (const name of ["pointermove", "pointerdown", "keydown"]) document.addEventListener(name, wake);

// --- The first picture is there already ---------------------------------------------------------

async function start() {
  const image = front.querySelector("img");
  if (image && (await canBeShown(image))) return plan(interval);
  front.classList.remove("shown");
  return next();
}

pauseButton.hidden = false;
playButton.hidden = !animation;
document.getElementById("fullscreen").hidden = !document.fullscreenEnabled;
document.body.classList.add("idle");
start();
