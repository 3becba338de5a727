// A run's pictures: zoom by whole factors of their pixels, full screen, before and after.

const LEVELS = [1 / 8, 1 / 4, 1 / 2, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32];
const SHARE_OF_WINDOW = 0.75; // how high the stage may be
const MOVED = 4; // px, from which a press is a drag

export default function ({ parentElement, data }) {
  const find = (selector) => parentElement.querySelector(selector);
  const [viewer, stage, sheet] = [".viewer", ".stage", ".sheet"].map(find);
  const [after, before, cut] = [".after", ".before", ".cut"].map(find);
  // What a person has chosen stays while Python draws the page again.
  const state = (viewer.state ??= { zoom: 0, shown: 0, comparing: false });
  state.listening?.abort();
  const { signal } = (state.listening = new AbortController());
  const on = (target, kind, act, options) =>
    target.addEventListener(kind, act, { signal, ...options });
  const isFull = () => parentElement.fullscreenElement === viewer;
  const made = () => data.pictures[state.shown] ?? data.pictures[0];
  // The upscaled ones come first, the newest before the others.
  const sizes = () => [...(made().larger ?? []), { ...made(), called: "As made" }];
  const picture = () => sizes().find(({ called }) => called === state.size) ?? sizes()[0];

  // --- Zoom -------------------------------------------------------------------------------------

  /** Screen pixels for each pixel, so that all of the picture is seen: whole if it is enlarged. */
  function fitting() {
    const { width, height } = picture();
    const room = isFull() ? stage.clientHeight : innerHeight * SHARE_OF_WINDOW;
    const factor = Math.min(viewer.clientWidth / width, room / height) || 1;
    return factor < 1 ? factor : Math.floor(factor);
  }

  function draw() {
    const { width, height } = picture();
    const fit = fitting();
    const factor = state.zoom || fit;
    sheet.style.width = `${width * factor}px`;
    sheet.style.height = `${height * factor}px`;
    stage.style.height = isFull() ? "" : `${Math.ceil(height * fit)}px`;
    viewer.classList.toggle("crisp", factor > 1);
    viewer.classList.toggle("zoomed", factor > fit);
    find(".level").textContent = `${Math.round(factor * 100)} %`;
    for (const button of parentElement.querySelectorAll("[data-zoom]")) {
      const level = { fit: 0, 1: 1, 2: 2 }[button.dataset.zoom];
      if (level !== undefined) button.setAttribute("aria-pressed", level === state.zoom);
    }
  }

  /** Zoom so that what is under a point of the screen stays there; else, what is in the middle. */
  function zoomTo(zoom, point) {
    const box = stage.getBoundingClientRect();
    const x = point ? point.clientX - box.left : box.width / 2;
    const y = point ? point.clientY - box.top : box.height / 2;
    const [across, down] = [
      (stage.scrollLeft + x) / sheet.clientWidth,
      (stage.scrollTop + y) / sheet.clientHeight,
    ];
    state.zoom = zoom;
    draw();
    stage.scrollTo(across * sheet.clientWidth - x, down * sheet.clientHeight - y);
  }

  const now = () => state.zoom || fitting();
  const larger = () => LEVELS.find((level) => level > now()) ?? LEVELS.at(-1);
  const smaller = () => LEVELS.findLast((level) => level < now()) ?? LEVELS[0];
  const nearest = (factor) =>
    LEVELS.reduce((best, level) =>
      Math.abs(Math.log(level / factor)) < Math.abs(Math.log(best / factor)) ? level : best,
    );
  const ZOOMS = {
    in: () => zoomTo(larger()),
    out: () => zoomTo(smaller()),
    fit: () => zoomTo(0),
    1: () => zoomTo(1),
    2: () => zoomTo(2),
  };
  const KEYS = { "+": ZOOMS.in, "=": ZOOMS.in, "-": ZOOMS.out, 0: ZOOMS.fit };

  for (const button of parentElement.querySelectorAll("[data-zoom]"))
    on(button, "click", ZOOMS[button.dataset.zoom]);
  on(stage, "keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  on(
    stage,
    "wheel",
    (event) => {
      if (!event.ctrlKey && !isFull()) return; // the page scrolls; a pinch of a touchpad has Ctrl
      event.preventDefault();
      zoomTo(event.deltaY < 0 ? larger() : smaller(), event);
    },
    { passive: false },
  );

  // --- Pointers: drag, click, pinch -------------------------------------------------------------

  const pointers = new Map();
  let pinch, moved;

  const distance = () => {
    const [one, other] = [...pointers.values()];
    return Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
  };

  function cutAt(event) {
    const box = sheet.getBoundingClientRect();
    cut.value = (100 * (event.clientX - box.left)) / box.width;
    showCut();
  }

  on(sheet, "pointerdown", (event) => {
    if (event.button) return;
    pointers.set(event.pointerId, event);
    moved = 0;
    if (event.pointerType === "mouse") sheet.setPointerCapture(event.pointerId);
    if (pointers.size === 2) pinch = { factor: now(), distance: distance() };
  });
  on(sheet, "pointermove", (event) => {
    const last = pointers.get(event.pointerId);
    if (!last) return;
    const [x, y] = [event.clientX - last.clientX, event.clientY - last.clientY];
    moved += Math.abs(x) + Math.abs(y);
    pointers.set(event.pointerId, event);
    if (pointers.size === 2) zoomTo(nearest((pinch.factor * distance()) / pinch.distance), event);
    else if (state.comparing) cutAt(event);
    else if (event.pointerType === "mouse") stage.scrollBy(-x, -y);
  });
  const release = (event) => pointers.delete(event.pointerId);
  for (const kind of ["pointerup", "pointercancel"]) on(viewer, kind, release);
  on(sheet, "click", (event) => {
    if (moved > MOVED) return;
    if (state.comparing) cutAt(event);
    else if (now() > fitting()) zoomTo(0);
    else zoomTo(larger(), event);
  });
  on(sheet, "dragstart", (event) => event.preventDefault());

  // --- Full screen ------------------------------------------------------------------------------

  const full = find(".full");
  full.hidden = !document.fullscreenEnabled;
  on(full, "click", () => (isFull() ? document.exitFullscreen() : viewer.requestFullscreen()));
  on(document, "fullscreenchange", () => {
    full.textContent = isFull() ? "Leave full screen" : "Full screen";
    state.zoom = 0;
    draw();
  });

  // --- Before and after -------------------------------------------------------------------------

  const compare = find(".compare");

  /** What the picture is compared with: of an upscaled one, the picture as it was made. */
  function beside() {
    const isLarger = picture().address !== made().address;
    return isLarger ? { ...made(), called: "as it was made", crisp: true } : data.before;
  }

  function layBefore() {
    const other = beside();
    compare.hidden = !other;
    viewer.classList.toggle("crisp-before", Boolean(other?.crisp));
    if (!other) return;
    if (before.getAttribute("src") !== below(other.address)) before.src = below(other.address);
    find(".called").textContent = `Before: ${other.called}`;
  }

  function showCut() {
    viewer.style.setProperty("--cut", `${cut.value}%`);
  }

  function showComparing() {
    layBefore();
    state.comparing &&= !compare.hidden;
    before.hidden = find(".slider").hidden = !state.comparing;
    compare.setAttribute("aria-pressed", state.comparing);
    viewer.classList.toggle("comparing", state.comparing);
    showCut();
  }

  on(cut, "input", showCut);
  on(compare, "click", () => {
    state.comparing = !state.comparing;
    showComparing();
  });

  // --- Several sizes, several pictures ----------------------------------------------------------

  const [strip, choice] = [".strip", ".sizes"].map(find);

  function sizeButton({ called, width, height }) {
    const button = document.createElement("button");
    button.textContent = `${called} · ${width}×${height}`;
    button.setAttribute("aria-pressed", called === picture().called);
    on(button, "click", () => {
      state.size = called;
      state.zoom = 0;
      show(state.shown);
    });
    return button;
  }

  function show(number) {
    state.shown = number;
    if (after.getAttribute("src") !== below(picture().address)) after.src = below(picture().address);
    choice.hidden = sizes().length < 2;
    choice.replaceChildren(...(choice.hidden ? [] : sizes().map(sizeButton)));
    showComparing();
    after.alt = data.pictures.length > 1 ? `Picture ${number + 1}: ${data.alt}` : data.alt;
    [...strip.children].forEach((button, at) => button.setAttribute("aria-pressed", at === number));
    draw();
  }

  function thumbnail({ address }, number) {
    const [button, image] = ["button", "img"].map((tag) => document.createElement(tag));
    image.src = below(address);
    askAgain(image, signal);
    image.alt = `Show picture ${number + 1}`;
    button.append(image);
    on(button, "click", () => show(number));
    return button;
  }

  strip.hidden = data.pictures.length < 2;
  strip.replaceChildren(...(strip.hidden ? [] : data.pictures.map(thumbnail)));
  show(Math.min(state.shown, data.pictures.length - 1));
  for (const image of [before, after]) if (image.hasAttribute("src")) askAgain(image, signal);

  const observer = new ResizeObserver(draw);
  observer.observe(viewer);
  signal.addEventListener("abort", () => observer.disconnect());
  return () => state.listening.abort();
}
