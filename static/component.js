// What our components share. It stands before the script of each.

/** An address below the page's own, whatever path the page is served at. */
const below = (address) => location.pathname.replace(/\/+$/, "") + address;

const TRIES = 10;

/** Ask again for a file that is away for a moment, as while the page is drawn again. */
function askAgain(element, signal) {
  let tries = TRIES;
  const reload = () => !signal.aborted && (element.src = element.getAttribute("src"));
  const again = () => tries-- > 0 && setTimeout(reload, 500);
  element.addEventListener("error", again, { signal });
  if (element.error || (element.complete && element.naturalWidth === 0)) again();
}
