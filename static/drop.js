// Hands a file that is dropped on the page to Python, unless it falls on an upload of its own.
const LARGEST = 20e6;

export default function ({ setTriggerValue }) {
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
    if (!file || file.size > LARGEST) return;
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
