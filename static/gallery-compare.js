// Two pictures over each other, with a slider between them.

import { isOurs } from "./gallery.js";

const both = document.getElementById("compare");
const slider = document.getElementById("slider");
const images = [...both.querySelectorAll("img")];

function show() {
  both.style.setProperty("--cut", `${slider.value}%`);
}

function drag(event) {
  if (event.buttons !== 1 || !event.target.matches("img")) return;
  event.target.setPointerCapture(event.pointerId);
  const box = images[0].getBoundingClientRect();
  slider.value = (100 * (event.clientX - box.left)) / box.width;
  show();
}

/** Put both where the first one is, in its shape, so that the slider goes from edge to edge. */
function layOver() {
  const [{ width, height }] = images.map((image) => image.attributes);
  both.style.setProperty("--ratio", width.value / height.value);
  both.classList.add("over");
  show();
}

function layApart() {
  both.classList.remove("over");
}

if (images.length === 2) {
  layOver();
  for (const image of images) image.decode().catch(layApart);
  slider.addEventListener("input", show);
  both.addEventListener("pointerdown", drag);
  both.addEventListener("pointermove", drag);
  both.addEventListener("dragstart", (event) => event.preventDefault());
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !isOurs(event)) return;
  if (history.length > 1) history.back();
  else document.getElementById("to-wall").click();
});
