// What every page of the gallery does beyond what plain HTML does.

const SAID = 10000; // milliseconds

document.documentElement.classList.add("scripted"); // shows what only scripts make work

const toast = document.getElementById("toast");
let toastTimer;

/** Say something for a while. */
export function say(text) {
  toast.textContent = text;
  toast.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (toast.hidden = true), SAID);
}

/** Send a change. Returns the answer, or null after saying why not. */
export async function change(address, fields = {}) {
  const { content: token } = document.getElementById("csrf-token");
  try {
    const response = await fetch(address, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams({ ...fields, token }),
    });
    const answer = await response.json();
    if (response.ok) return answer;
    say(answer.error);
  } catch {
    say("The gallery does not answer. Is it still running?");
  }
  return null;
}

const FIELDS = "input, textarea, select, video";
const WRITABLE = "input:not([type='range'], [type='checkbox']), textarea, select";
const MAY_REPEAT = /^(Arrow.*|[+-])$/;

/** Whether a key is meant for the page: not for a field or the browser, and not held down. */
export function isOurs(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return false;
  if (event.repeat && !MAY_REPEAT.test(event.key)) return false;
  return !event.target.closest(event.key === "Escape" ? WRITABLE : FIELDS);
}

async function toggleFavourite(form) {
  const button = form.querySelector("button");
  const answer = await change(form.action, { on: form.elements.on.value });
  if (!answer) return;
  button.setAttribute("aria-pressed", answer.favourite);
  form.elements.on.value = answer.favourite ? 0 : 1;
}

document.addEventListener("submit", (event) => {
  if (event.target.matches("form.favourite")) {
    event.preventDefault();
    toggleFavourite(event.target);
  }
});
