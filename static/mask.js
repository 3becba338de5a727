// Painting what is drawn anew over a picture. The page gets the mask, white on black, after a while
// without a stroke.

const COLOUR = "#f0f";
const PAUSE = 400; // ms

export default function ({ parentElement, data, setTriggerValue }) {
  const find = (selector) => parentElement.querySelector(selector);
  const [picture, canvas, brush] = ["img", "canvas", "input"].map(find);
  canvas.listening?.abort();
  const { signal } = (canvas.listening = new AbortController());
  const on = (target, kind, act) => target.addEventListener(kind, act, { signal });
  const tools = [...parentElement.querySelectorAll("[data-tool]")];
  const erases = () => find("[data-tool=erase]").getAttribute("aria-pressed") === "true";
  canvas.own ??= crypto.randomUUID?.() ?? String(Math.random());

  /** The picture, and a mask that this canvas has not painted itself. */
  function load() {
    const isOther = canvas.of !== data.name;
    if (!isOther && canvas.mask === data.mask_name) return;
    const isOwn = !isOther && data.painter === canvas.own;
    [canvas.of, canvas.mask] = [data.name, data.mask_name];
    if (picture.getAttribute("src") !== data.picture) picture.src = data.picture;
    if (isOwn) return;
    [canvas.width, canvas.height] = [data.width, data.height];
    if (data.mask) takeMask(data.mask);
  }

  /** Paint where a mask is white. */
  function takeMask(address) {
    const mask = new Image();
    mask.onload = () => {
      const pen = canvas.getContext("2d");
      pen.drawImage(mask, 0, 0, canvas.width, canvas.height);
      const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
      for (let at = 0; at < pixels.data.length; at += 4) pixels.data[at + 3] = pixels.data[at];
      pen.putImageData(pixels, 0, 0);
      tint(pen);
    };
    mask.src = address;
  }

  function tint(pen, colour = COLOUR, how = "source-in") {
    pen.globalCompositeOperation = how;
    pen.fillStyle = colour;
    pen.fillRect(0, 0, pen.canvas.width, pen.canvas.height);
    pen.globalCompositeOperation = "source-over";
  }

  /** The mask as a PNG in base64; "" if nothing is painted. */
  function asPng() {
    const copy = document.createElement("canvas");
    [copy.width, copy.height] = [canvas.width, canvas.height];
    const pen = copy.getContext("2d");
    pen.drawImage(canvas, 0, 0);
    const painted = pen.getImageData(0, 0, copy.width, copy.height).data;
    if (!painted.some((value, at) => at % 4 === 3 && value > 127)) return "";
    tint(pen, "#fff");
    tint(pen, "#000", "destination-over");
    return copy.toDataURL("image/png").split(",")[1];
  }

  function tellSoon() {
    clearTimeout(canvas.waiting);
    const tell = () => setTriggerValue("mask", { png: asPng(), painter: canvas.own });
    canvas.waiting = setTimeout(tell, PAUSE);
  }

  function placeOf(event) {
    const box = canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) * canvas.width) / box.width,
      ((event.clientY - box.top) * canvas.height) / box.height,
    ];
  }

  function stroke(from, to) {
    const pen = canvas.getContext("2d");
    pen.globalCompositeOperation = erases() ? "destination-out" : "source-over";
    pen.strokeStyle = COLOUR;
    pen.lineCap = "round";
    pen.lineWidth = (Number(brush.value) / 100) * Math.min(canvas.width, canvas.height);
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(...to);
    pen.stroke();
    pen.fillStyle = COLOUR; // a tap is a line without length, which is not drawn
    pen.beginPath();
    pen.arc(...to, pen.lineWidth / 2, 0, 2 * Math.PI);
    pen.fill();
    pen.globalCompositeOperation = "source-over";
  }

  on(canvas, "pointerdown", (event) => {
    if (event.button !== 0) return;
    clearTimeout(canvas.waiting);
    canvas.setPointerCapture(event.pointerId);
    canvas.last = placeOf(event);
    stroke(canvas.last, canvas.last);
  });
  on(canvas, "pointermove", (event) => {
    if (!canvas.last) return;
    const place = placeOf(event);
    stroke(canvas.last, place);
    canvas.last = place;
  });
  for (const kind of ["pointerup", "pointercancel"])
    on(canvas, kind, () => {
      if (canvas.last) tellSoon();
      canvas.last = null;
    });
  for (const tool of tools)
    on(tool, "click", () => {
      for (const one of tools) one.setAttribute("aria-pressed", String(one === tool));
    });
  on(find(".clear"), "click", () => {
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    tellSoon();
  });
  load();
  return () => canvas.listening.abort();
}
