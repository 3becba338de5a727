// Says that the studio has ended, as Streamlit's own dialog tells people to start Streamlit.
// Only the texts change, since React keeps the nodes.
const TITLE = "The studio has ended";
const MESSAGE =
  "Start it again in its terminal with: make app. No run is lost, and this page then works again by itself.";

function textsIn(element) {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) texts.push(walker.currentNode);
  return texts;
}

function reword() {
  for (const dialog of document.querySelectorAll('[data-testid="stDialog"] [role="dialog"]')) {
    const [title, message, ...rest] = textsIn(dialog);
    if (title?.nodeValue !== "Connection error" || !message) continue;
    title.nodeValue = TITLE;
    message.nodeValue = MESSAGE;
    for (const text of rest) text.nodeValue = "";
    for (const block of dialog.querySelectorAll('[data-testid="stErrorCodeBlock"]'))
      block.style.display = "none";
  }
}

export default function () {
  const observer = new MutationObserver(reword);
  observer.observe(document.body, { childList: true, subtree: true });
  return () => observer.disconnect();
}
