// Two pictures over each other, with a slider between them. They may come later than this script.

function show(both) {
  both.style.setProperty("--cut", `${both.querySelector(".slider input").value}%`);
}

/** Put both where the first one is, in its shape, so that the slider goes from edge to edge. */
export function layOver(both) {
  const images = [...both.querySelectorAll("img")];
  if (images.length !== 2) return;
  const [{ width, height }] = images.map((image) => image.attributes);
  both.style.setProperty("--ratio", width.value / height.value);
  both.classList.add("over");
  show(both);
  for (const image of images) image.decode().catch(() => both.classList.remove("over"));
}

function drag(event) {
  const both = event.target.closest(".compare.over");
  if (!both || event.buttons !== 1 || !event.target.matches("img")) return;
  event.target.setPointerCapture(event.pointerId);
  const box = both.querySelector("img").getBoundingClientRect();
  both.querySelector(".slider input").value = (100 * (event.clientX - box.left)) / box.width;
  show(both);
}

document.addEventListener("input", ({ target }) => {
  if (target.matches(".slider input")) show(target.closest(".compare"));
});
document.addEventListener("pointerdown", drag);
document.addEventListener("pointermove", drag);
document.addEventListener("dragstart", (event) => {
  if (event.target.closest?.(".compare.over")) event.preventDefault();
});
