// A page kept up to date in place: only what differs is touched, and nothing under the fingers.

import { say } from "./gallery.js";

const POLL = 1500; // milliseconds between looks at what changed
const IN_STEP = ["csrf-token", "main"]; // ids of what is taken over from the page loaded again
const LEFT_ALONE = ["open", "inert", "hidden"]; // attributes that are people's and scripts', not the server's

const main = document.getElementById("main");
let turn = 0; // an answer that a later one has overtaken counts for nothing
let isPostponed = false; // something was under the fingers, and is still to be changed
let isGone = false;

/** Whether somebody writes in a form, or has written something that is not sent yet. */
function isWritten(form) {
  const fields = [...form.querySelectorAll("textarea, input:not([type='hidden'])")];
  return fields.some((one) => one === document.activeElement || one.value !== one.defaultValue);
}

function isUnderTheFingers(node) {
  if (node.nodeName === "FORM") return isWritten(node);
  if (node.nodeName === "VIDEO") return !node.paused;
  if (node.nodeType !== Node.TEXT_NODE) return false;
  const selection = getSelection();
  return !selection.isCollapsed && selection.containsNode(node, true);
}

/** Give a node the content and the attributes of its like on the page loaded again. */
function update(now, next) {
  if (now.isEqualNode(next) || now.nodeName === "OUTPUT") return; // a script writes into outputs
  if (isUnderTheFingers(now)) {
    isPostponed = true;
  } else if (now.nodeType === Node.TEXT_NODE) {
    now.data = next.data;
  } else {
    updateAttributes(now, next);
    updateChildren(now, next);
  }
}

function updateAttributes(now, next) {
  for (const name of new Set([...now.getAttributeNames(), ...next.getAttributeNames()])) {
    const value = next.getAttribute(name);
    if (LEFT_ALONE.includes(name) || value === now.getAttribute(name)) continue;
    if (value === null) now.removeAttribute(name);
    else now.setAttribute(name, value);
  }
}

/** By what a child is known again. */
function likeness(node) {
  if (node.nodeType !== Node.ELEMENT_NODE) return node.nodeName;
  const own = node.dataset.run || node.dataset.key || node.id || node.getAttribute("aria-labelledby");
  return `${node.nodeName} ${own || node.className}`;
}

function updateChildren(now, next) {
  const known = new Map();
  for (const child of now.childNodes) {
    const like = likeness(child);
    if (known.has(like)) known.get(like).push(child);
    else known.set(like, [child]);
  }
  const wanted = [...next.childNodes].map((child) => {
    const old = known.get(likeness(child))?.shift();
    if (old) update(old, child);
    return old ?? child;
  });
  for (const left of [...known.values()].flat()) left.remove();
  let at = now.firstChild;
  for (const child of wanted) {
    if (child === at) at = at.nextSibling;
    else now.insertBefore(child, at);
  }
}

/** Load the page again and take over what is different. */
export async function refresh() {
  const own = ++turn;
  const response = await fetch(location.href, { headers: { Accept: "text/html" } });
  const text = await response.text();
  if (own !== turn) return;
  if (response.status === 404) sayGone();
  if (!response.ok) return;
  const page = new DOMParser().parseFromString(text, "text/html");
  const focused = document.activeElement.closest(".tile");
  isPostponed = false;
  for (const id of IN_STEP) {
    const [now, next] = [document.getElementById(id), page.getElementById(id)];
    if (now && next) update(now, next);
  }
  if (focused && document.activeElement === document.body) focusRun(focused.dataset.run);
}

function sayGone() {
  isGone = true;
  say("This run is not here any more. It was removed or renamed.");
}

/** Put the focus on a run's link; on the content as a whole where the page has none. */
export function focusRun(name) {
  const link = name && main.querySelector(`[data-run="${CSS.escape(name)}"] a`);
  (link || main).focus();
  link?.scrollIntoView({ block: "nearest" });
}

/** Whether a look at the server would show another page. */
async function isStale() {
  if (isPostponed || main.querySelector("[data-status='running']")) return true;
  const response = await fetch("/api/activity");
  return response.ok && (await response.json()).revision !== main.dataset.revision;
}

async function look() {
  if (document.hidden || isGone) return;
  try {
    if (await isStale()) await refresh();
  } catch {
    // The gallery was ended, or the machine slept: the next look will tell.
  }
}

/** Look again and again, and whenever somebody comes back to the page. */
export function follow() {
  const again = async () => {
    await look();
    setTimeout(again, POLL);
  };
  setTimeout(again, POLL);
  document.addEventListener("visibilitychange", look);
  addEventListener("pageshow", (event) => event.persisted && look());
}
