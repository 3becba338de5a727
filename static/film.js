// A run's video, and a scrubber that stops exactly on each of its frames, counted from 1.

const SMALL = 512; // px: a smaller video shows its pixels as squares
const TALLEST = 32; // rem, as in film.css

export default function ({ parentElement, data, setTriggerValue }) {
  const find = (selector) => parentElement.querySelector(selector);
  const [film, scrub, told] = ["video", "input", "output"].map(find);
  film.listening?.abort();
  const { signal } = (film.listening = new AbortController());
  const on = (target, kind, act) => target.addEventListener(kind, act, { signal });
  const number = () => Number(scrub.value);

  function tell() {
    const words = `frame ${number()} of ${data.frames}`;
    told.textContent = words;
    scrub.setAttribute("aria-valuetext", words);
  }

  /** The middle of a frame's time: at its edge, a browser may show the frame before. */
  const timeOf = (frame) => (frame - 0.5) / data.frames_per_second;

  function stopAt(frame) {
    film.pause();
    scrub.value = frame;
    film.currentTime = timeOf(number());
    tell();
  }

  function showPlace() {
    scrub.value = Math.floor(film.currentTime * data.frames_per_second) + 1;
    tell();
  }

  function follow() {
    if (film.paused) return;
    showPlace();
    requestAnimationFrame(follow);
  }

  const address = below(data.address);
  if (film.getAttribute("src") !== address) film.src = address;
  askAgain(film, signal);
  scrub.max = data.frames;
  on(film, "loadedmetadata", () => {
    const { videoWidth: width, videoHeight: height } = film;
    film.classList.toggle("crisp", Math.max(width, height) < SMALL);
    film.style.width = `min(100%, ${(TALLEST * width) / height}rem)`; // no bars beside it
  });
  on(film, "play", follow);
  on(film, "seeked", showPlace);
  on(film, "pause", () => stopAt(number())); // on the frame that the scrubber names
  on(scrub, "input", () => stopAt(number()));
  for (const button of parentElement.querySelectorAll("[data-step]"))
    on(button, "click", () => stopAt(number() + Number(button.dataset.step)));

  const buttons = data.uses.map((use) => {
    const button = document.createElement("button");
    button.textContent = use;
    on(button, "click", () => setTriggerValue("frame", { use, number: number() }));
    return button;
  });
  find(".uses").replaceChildren(...buttons);
  tell();
  return () => film.listening.abort();
}
