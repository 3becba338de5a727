// A shortcut that is held down counts once: its repetitions reach nobody. And buttons do not keep it
// to themselves: a chip that has the focus would take Ctrl+Enter for a press.
const isShortcut = (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey);

export default function () {
  const pass = (event) => {
    const button = event.target instanceof Element && event.target.closest("button");
    if (!isShortcut(event) || (!event.repeat && !button)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (event.repeat) return;
    const { key, code, ctrlKey, metaKey } = event;
    const again = { key, code, ctrlKey, metaKey, bubbles: true, cancelable: true };
    document.body.dispatchEvent(new KeyboardEvent("keydown", again));
  };
  window.addEventListener("keydown", pass, true);
  return () => window.removeEventListener("keydown", pass, true);
}
