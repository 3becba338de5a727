// Moves runs to the trash, and brings back all that were removed one after the other.

import { change } from "./gallery.js";
import { focusRun, refresh } from "./gallery-refresh.js";

const SHOWN = 30000; // milliseconds; how long undo is offered after the last removal

const offer = document.createElement("p");
const words = document.createElement("span");
const button = document.createElement("button");
offer.className = "toast";
offer.hidden = true;
button.textContent = "Undo";
offer.append(words, button);
document.getElementById("toast").before(offer);

let removing = Promise.resolve(); // one run after the other, in the order of the key presses
let series = []; // what can be undone: runs, and the addresses that bring them back
let timer;
let origin; // what had the focus before Tab led to the button
let isNew = false; // whether Tab has not led to the button yet

/** Move a run to the trash. Returns how to undo that, or null after saying why it stays. */
export async function remove(address) {
  removing = removing.then(() => change(address));
  const answer = await removing;
  return answer && { run: answer.removed, undo: answer.undo };
}

/** Offer to undo a removal, together with earlier ones that can still be undone. */
export function offerUndo(removal) {
  series.push(removal);
  const { length } = series;
  const what = length === 1 ? "The run was" : `${length} runs were`;
  words.textContent = `${what} moved to the trash.`;
  offer.hidden = false;
  isNew = true;
  wait();
}

function wait() {
  clearTimeout(timer);
  timer = setTimeout(() => (offer.matches(":hover, :focus-within") ? wait() : close()), SHOWN);
}

function close() {
  offer.hidden = true;
  series = [];
}

button.addEventListener("click", async () => {
  const removed = series;
  close();
  for (const { undo } of removed) await change(undo);
  await refresh();
  focusRun(removed[0].run);
});

// The button stands at the page's end; Tab leads to it at once, and from it back again.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Tab" || offer.hidden) return;
  if (document.activeElement === button) {
    if (!origin?.isConnected || origin === document.body) return;
    event.preventDefault();
    origin.focus();
  } else if (isNew && !event.shiftKey) {
    event.preventDefault();
    isNew = false;
    origin = document.activeElement;
    button.focus();
  }
});
