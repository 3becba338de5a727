// A shortcut that is held down counts once: its repetitions reach nobody.
export default function () {
  const drop = (event) => {
    if (event.repeat && event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      event.stopImmediatePropagation();
    }
  };
  window.addEventListener("keydown", drop, true);
  return () => window.removeEventListener("keydown", drop, true);
}
