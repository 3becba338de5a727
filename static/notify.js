// Tells a person who looks at another tab that a run has ended, if the person has allowed it.

const KEPT = "studio-notify"; // in the browser's storage: whether the person wants to be told
const ASK = "Tell me when it is done";
const TELLS = "You will be told when it is done";
const DENIED = "The browser does not allow notifications from this page";

export default function ({ parentElement, data }) {
  const button = parentElement.querySelector("button");
  const place = parentElement.host.closest(".st-key-notify");
  const wants = () => localStorage.getItem(KEPT) === "yes";
  const isTold = () => wants() && Notification.permission === "granted";

  function show() {
    button.hidden = !data.active || !("Notification" in window);
    place.hidden = button.hidden; // else an empty line would stay
    if (button.hidden) return;
    const isDenied = Notification.permission === "denied";
    button.disabled = isDenied;
    button.textContent = isDenied ? DENIED : isTold() ? TELLS : ASK;
    button.setAttribute("aria-pressed", isTold());
  }

  async function press() {
    if (isTold()) localStorage.removeItem(KEPT);
    else if ((await Notification.requestPermission()) === "granted")
      localStorage.setItem(KEPT, "yes");
    show();
  }

  /** Once for each run that has ended. Python tells of the last one again and again. */
  function tell() {
    if (!data.ended || data.ended === button.told) return;
    button.told = data.ended;
    if (!document.hidden || !("Notification" in window) || !isTold()) return;
    const notification = new Notification(data.title, { body: data.body, tag: "studio-run" });
    notification.onclick = () => window.focus();
  }

  button.onclick = press;
  show();
  tell();
}
