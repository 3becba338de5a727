// Two runs' pictures over each other, with a slider between them.

import { isOurs } from "./gallery.js";
import { layOver } from "./gallery-slider.js";

layOver(document.getElementById("compare"));

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !isOurs(event)) return;
  if (history.length > 1) history.back();
  else document.getElementById("to-wall").click();
});
