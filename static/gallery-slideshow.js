// One picture after the other, by itself. Two images take turns; nothing is kept of what was shown.

const RETRY = 5000; // milliseconds, while there is nothing to show or nobody to ask
const IDLE = 3000;

const screen = document.getElementById("screen");
const caption = document.getElementById("caption");
const pauseButton = document.getElementById("pause");
const playButton = document.getElementById("play");
const interval = Number(screen.dataset.interval) * 1000;

let { cursor, animation } = screen.dataset;
let timer;
let idleTimer;
let paused = false;
let turn = 0; // what was begun in an earlier turn must not show itself any more

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
  const own = ++turn;
  try {
    const response = await fetch(`${screen.dataset.next}?after=${encodeURIComponent(cursor)}`);
    if (!response.ok) throw new Error(response.status);
    const answer = await response.json();
    if (answer.slide) await load(answer.slide);
    if (own !== turn) return;
    if (answer.slide) show(answer);
    else showNothing();
    plan(answer.slide ? interval : RETRY);
  } catch {
    // A picture that went meanwhile, or a gallery that was ended.
    if (own === turn) plan(Math.max(interval, 1000));
  }
}

function showNothing() {
  front.classList.remove("shown");
  caption.textContent = "There is no picture yet. The first one will appear here by itself.";
  playButton.hidden = true;
}

async function load(slide) {
  const image = imageOf(back);
  image.alt = slide.prompt;
  image.src = slide.picture;
  await image.decode();
}

function show({ slide, cursor: following }) {
  cursor = following;
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
  clearTimeout(timer);
  const film = document.createElement("video");
  film.muted = true;
  film.playsInline = true;
  film.src = animation;
  for (const end of ["ended", "error"]) {
    film.addEventListener(end, () => {
      stopFilm();
      plan(interval);
    });
  }
  stopFilm();
  front.append(film);
  imageOf(front).hidden = true;
  film.play().catch(() => plan(interval));
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
  pauseButton.textContent = paused ? "Go on" : "Pause";
  clearTimeout(timer);
  if (!paused) plan(interval);
}

function toggleFullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.documentElement.requestFullscreen?.().catch(() => {});
}

function wake() {
  document.body.classList.remove("idle");
  clearTimeout(idleTimer);
  idleTimer = setTimeout(() => document.body.classList.add("idle"), IDLE);
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
  if (!act || event.target.closest("button, a") && event.key === " ") return;
  event.preventDefault();
  wake();
  act();
});
for (const name of ["pointermove", "pointerdown", "keydown"]) document.addEventListener(name, wake);

pauseButton.hidden = false;
playButton.hidden = !animation;
document.getElementById("fullscreen").hidden = !document.fullscreenEnabled;
wake();
plan(cursor ? interval : RETRY);
