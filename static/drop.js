// Passes a file that is dropped on the page to Python, unless it is dropped on an upload.
export default function ({ data, setTriggerValue }) {
  const isOurs = (event) =>
    event.dataTransfer?.types.includes("Files") &&
    !event.target.closest?.('[data-testid="stFileUploader"]');

  const allow = (event) => {
    if (isOurs(event)) event.preventDefault();
  };

  const take = (event) => {
    if (!isOurs(event)) return;
    event.preventDefault();
    const file = event.dataTransfer.files[0];
    if (!file) return;
    if (file.size > data.largest) return setTriggerValue("file", { name: file.name });
    const reader = new FileReader();
    reader.onload = () => setTriggerValue("file", { name: file.name, data: reader.result });
    reader.readAsDataURL(file);
  };

  document.addEventListener("dragover", allow);
  document.addEventListener("drop", take);
  return () => {
    document.removeEventListener("dragover", allow);
    document.removeEventListener("drop", take);
  };
}
