// Keeps a page up to date in place. Only what differs is touched, and nothing that is in use.

import { say } from "./gallery.js";

const POLL = 1500; // milliseconds between looks at what changed
const IN_STEP = ["csrf-token", "main"]; // ids of the elements that are taken over from the page when it is loaded again
const LEFT_ALONE = ["open", "inert", "hidden", "style"]; // attributes that people and scripts set, not the server

const main = document.getElementById("main");
let latest; // the refresh that was started last; what earlier ones bring is dropped
let isPostponed = false; // something was in use, and still has to be changed
let isGone = false;

/** Whether someone is writing in a form, or has written something that is not sent yet. */
function isWritten(form) {
  const fields = [...form.querySelectorAll("textarea, input:not([type='hidden'])")];
  return fields.some((one) => one === document.activeElement || one.value !== one.defaultValue);
}

function isInUse(node) {
  if (node.nodeName === "FORM") return isWritten(node);
  if (node.nodeName === "VIDEO") return !node.paused;
  if (node.nodeType !== Node.TEXT_NODE) return false;
  const selection = getSelection();
  return !selection.isCollapsed && selection.containsNode(node, true);
}

/** Give a node the content and the attributes of its counterpart on the page loaded again. */
function update(now, next) {
  if (now.isEqualNode(next) || now.nodeName === "OUTPUT") return; // a script writes into outputs
  if (isInUse(now)) {
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

/** What identifies a child on both pages. */
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
    return { status: 0 }; // the gallery was stopped, or the machine slept: the next look will show
  }
}

/** Load the page again and take over what differs. Resolves when that is shown. */
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

/** Put the focus on a run's link, or on the whole content if the page has no such link. */
export function focusRun(name) {
  const link = name && main.querySelector(`[data-run="${CSS.escape(name)}"] a`);
  (link || main).focus();
  link?.scrollIntoView({ block: "nearest" });
}

/** Whether the server would show another page now. */
async function isStale() {
  if (isPostponed || main.querySelector("[data-status='running'], [data-live]")) return true;
  const { status, text } = await ask("/api/activity");
  return status === 200 && JSON.parse(text).revision !== main.dataset.revision;
}

async function look() {
  if (!document.hidden && !isGone && (await isStale())) await refresh();
}

/** Look again and again, and whenever someone comes back to the page. */
export function follow() {
  const again = async () => {
    await look();
    setTimeout(again, POLL);
  };
  setTimeout(again, POLL);
  document.addEventListener("visibilitychange", look);
  addEventListener("pageshow", (event) => event.persisted && look());
}
