// Two pictures over each other, with a slider between them.

import { isOurs } from "./gallery.js";

const both = document.getElementById("compare");
const slider = document.getElementById("slider");
const images = both.querySelectorAll("img");

function show() {
  both.style.setProperty("--cut", `${slider.value}%`);
}

function drag(event) {
  if (event.buttons !== 1) return;
  const box = images[0].getBoundingClientRect();
  slider.value = (100 * (event.clientX - box.left)) / box.width;
  show();
}

if (images.length === 2) {
  both.classList.add("over");
  document.getElementById("slider-part").hidden = false;
  slider.addEventListener("input", show);
  both.addEventListener("pointerdown", drag);
  both.addEventListener("pointermove", drag);
  both.addEventListener("dragstart", (event) => event.preventDefault());
  show();
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && isOurs(event)) history.back();
});
