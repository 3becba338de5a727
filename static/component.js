// What our components share. It stands before the script of each.

/** An address below the page's own, whatever path the page is served at. */
const below = (address) => location.pathname.replace(/\/+$/, "") + address;


const TRIES = 10;

/** Show a file of the server. While the page is drawn again it may be away for a moment. */
function show(element, address, signal) {
  let tries = TRIES;
  const again = () => tries-- > 0 && setTimeout(() => !signal.aborted && (element.src = address), 500);
  element.addEventListener("error", again, { signal });
  if (element.getAttribute("src") !== address) element.src = address;
  else if (element.error) again();
}
