// A page kept up to date in place: only what differs is touched, and nothing under the fingers.

import { say } from "./gallery.js";

const POLL = 1500; // milliseconds between looks at what changed
const IN_STEP = ["csrf-token", "main"]; // ids of what is taken over from the page loaded again
const LEFT_ALONE = ["open", "inert", "hidden"]; // attributes that are people's and scripts', not the server's

const main = document.getElementById("main");
let latest; // the refreshing begun last: what an earlier one would show counts for nothing
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

async function ask(address) {
  try {
    const response = await fetch(address, { headers: { Accept: "text/html" } });
    return { status: response.status, text: await response.text() };
  } catch {
    return { status: 0 }; // the gallery was ended, or the machine slept: the next look will tell
  }
}

/** Load the page again and take over what is different. Ends when that is shown. */
export function refresh() {
  const own = ask(location.href).then((answer) => (own === latest ? take(answer) : latest));
  latest = own;
  return own;
}

function take({ status, text }) {
  if (status === 404) sayGone();
  if (status !== 200) return;
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
  const { status, text } = await ask("/api/activity");
  return status === 200 && JSON.parse(text).revision !== main.dataset.revision;
}

async function look() {
  if (!document.hidden && !isGone && (await isStale())) await refresh();
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
