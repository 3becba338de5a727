// Passes a file that is dropped or pasted anywhere on the page to Python, unless it is dropped on
// an upload.
export default function ({ data, setTriggerValue }) {
  const isOurs = (event, files) =>
    files?.types.includes("Files") && !event.target.closest?.('[data-testid="stFileUploader"]');

  const send = (file) => {
    if (!file) return;
    if (file.size > data.largest) return setTriggerValue("file", { name: file.name });
    const reader = new FileReader();
    reader.onload = () => setTriggerValue("file", { name: file.name, data: reader.result });
    reader.readAsDataURL(file);
  };

  const allow = (event) => {
    if (isOurs(event, event.dataTransfer)) event.preventDefault();
  };

  const drop = (event) => {
    if (!isOurs(event, event.dataTransfer)) return;
    event.preventDefault();
    send(event.dataTransfer.files[0]);
  };

  // Where there is text as well, as from a table, the text is what is meant.
  const paste = (event) => {
    const clipboard = event.clipboardData;
    if (!isOurs(event, clipboard) || clipboard.types.includes("text/plain")) return;
    event.preventDefault();
    send(clipboard.files[0]);
  };

  const listeners = { dragover: allow, drop, paste };
  for (const [kind, listener] of Object.entries(listeners))
    document.addEventListener(kind, listener);
  return () => {
    for (const [kind, listener] of Object.entries(listeners))
      document.removeEventListener(kind, listener);
  };
}
