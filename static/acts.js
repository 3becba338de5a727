// Passes presses of the buttons on thumbnails to Python.
const SELECTOR = "button[data-run]";

function nameOf({ run, act }) {
  return `${SELECTOR}[data-run="${CSS.escape(run)}"][data-act="${CSS.escape(act)}"]`;
}

export default function ({ setTriggerValue }) {
  let pressed = null; // by the keyboard, whose focus would be lost as the page is drawn again

  const press = (event) => {
    const button = event.target.closest?.(SELECTOR);
    if (!button) return;
    pressed = event.detail === 0 ? nameOf(button.dataset) : null;
    setTriggerValue("act", { ...button.dataset });
  };

  const observer = new MutationObserver(() => {
    if (!pressed || document.activeElement !== document.body) return;
    document.querySelector(pressed)?.focus();
    pressed = null;
  });

  document.addEventListener("click", press);
  observer.observe(document.body, { childList: true, subtree: true });
  return () => {
    document.removeEventListener("click", press);
    observer.disconnect();
  };
}
