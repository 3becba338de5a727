// What our components share. It stands before the script of each.

/** An address below the page's own, whatever path the page is served at. */
const below = (address) => location.pathname.replace(/\/+$/, "") + address;

