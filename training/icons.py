"""Fetching and rendering the icon sets: training/cache/icons-{train,judge}.{npy,json}."""

from __future__ import annotations

import io
import json
import re
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from training.files import publish
from training.lexicon import COLOUR_WORDS, Entry, Lexicon, humanise

CACHE = Path(__file__).parent / "cache"
SIZE = 96  # side of a stored icon, pixels
NPM_PACKAGES = {
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/noto-v1": "1.2.5",
    "@iconify-json/fxemoji": "1.2.2",
    "@iconify-json/fluent-emoji": "1.2.7",
    "@iconify-json/fluent-emoji-flat": "1.2.6",
    "@iconify-json/flat-color-icons": "1.2.3",
    "@iconify-json/twemoji": "1.2.5",
    "@iconify-json/emojione": "1.2.3",
    "@iconify-json/openmoji": "1.2.29",
    "emojibase-data": "17.0.0",
    "emojilib": "4.0.3",
}
SETS = {
    "train": (
        "noto", "noto-v1", "fxemoji", "fluent-emoji", "fluent-emoji-flat", "flat-color-icons",
        "openclipart",
    ),
    "judge": ("twemoji", "emojione", "openmoji"),
}  # fmt: skip
CLIPART_FOLDERS = (
    "animals", "buildings", "containers", "decorations", "education", "electronics", "food",
    "geography/astronomy", "office", "people", "plants", "recreation", "science",
    "signs_and_symbols/weather", "tools", "transportation", "unsorted",
)  # fmt: skip
CLIPART_LEFT_OUT = re.compile(
    r"/(cards|stickmen|pantyhose|smilies|aiga-symbols|roadsigns|duplicates|religion|weapons)/"
)
SKIN = re.compile(r"-(medium-light|medium-dark|light|medium|dark)(-skin-tone)?(?=-|$)")
CLOCK = re.compile(r"(oclock|thirty)$")
LETTER = re.compile(r"^(letter-|regional-indicator|keycap|digit-|japanese-|squared-|input-)")


def fetch() -> None:
    """Download the npm packages (at pinned versions) and Debian's openclipart-png where missing."""
    npm = CACHE / "npm"
    missing = [
        f"{name}@{version}"
        for name, version in NPM_PACKAGES.items()
        if not (npm / "node_modules" / name / "package.json").exists()
    ]
    if missing:
        npm.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--prefix", str(npm), "--no-save", *missing], check=True)
    clipart = CACHE / "openclipart-png"
    if not clipart.exists():
        subprocess.run(["apt-get", "download", "openclipart-png"], cwd=CACHE, check=True)
        package = next(CACHE.glob("openclipart-png_*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(package), str(clipart)], check=True)


def build(split: str) -> None:
    """Render the sets of one split, unless they are rendered already.

    Writes icons-SPLIT.npy, uint8 [N, 96, 96, 4] (RGBA, not premultiplied; the drawing fills the
    frame), and icons-SPLIT.json, one record an icon: set, id, name, aliases, words, colour (the
    dominant colour's name or null), tint (that colour's hue, saturation, value in [0, 1] or null),
    kind.
    """
    picture_file, record_file = CACHE / f"icons-{split}.npy", CACHE / f"icons-{split}.json"
    if picture_file.exists() and record_file.exists():
        return
    fetch()
    pictures, records = [], []
    lexicon = Lexicon(CACHE / "npm" / "node_modules")
    for icon_set in SETS[split]:
        for record, picture in _icons(icon_set, lexicon):
            colour, tint = dominant_colour(picture)
            records.append({**record, "colour": colour, "tint": tint})
            pictures.append(picture)
        print(f"{icon_set}: {sum(r['set'] == icon_set for r in records)} icons", flush=True)
    publish(picture_file, lambda file: np.save(file, np.stack(pictures)))
    publish(record_file, lambda file: file.write(json.dumps(records).encode()))


def _icons(icon_set: str, lexicon: Lexicon) -> Iterator[tuple[dict, np.ndarray]]:
    sources = _clipart(lexicon) if icon_set == "openclipart" else _iconify(icon_set, lexicon)
    for slug, kind, entry, load in sources:
        picture = _fit(load())
        if picture is None:
            continue
        record = {
            "set": icon_set,
            "id": slug,
            "name": entry.name,
            "aliases": entry.aliases,
            "words": entry.words,
            "kind": kind,
        }
        yield record, picture


def _iconify(icon_set: str, lexicon: Lexicon):
    """(id, kind, entry, loader) of every icon worth keeping in an Iconify package."""
    folder = CACHE / "npm" / "node_modules" / "@iconify-json" / icon_set
    data = json.loads((folder / "icons.json").read_text("utf-8"))
    chars = folder / "chars.json"
    codes = json.loads(chars.read_text("utf-8")) if chars.exists() else {}
    hexcodes = {slug: code.replace("-fe0f", "") for code, slug in codes.items()}
    width, height = data.get("width", 16), data.get("height", 16)
    for slug, icon in data["icons"].items():
        kind = _kind(slug, data["icons"], icon_set)
        if not _kept(slug, kind):
            continue
        entry = lexicon.by_hex.get(hexcodes.get(slug, "")) or _named(slug, icon_set, lexicon)
        if entry is None:
            continue
        box = (
            f"{icon.get('left', 0)} {icon.get('top', 0)} "
            f"{icon.get('width', width)} {icon.get('height', height)}"
        )
        yield slug, kind, entry, lambda body=icon["body"], box=box: _render(body, box)


def _kind(slug: str, slugs: dict, icon_set: str) -> str:
    if slug.startswith("flag-") and slug not in ("flag-in-hole",):
        return "flag"
    if SKIN.search(slug) and SKIN.sub("", slug) in slugs:
        return "skin tone"
    if CLOCK.search(slug) or re.match(r"clock\d", slug):
        return "clock"
    if LETTER.match(slug) or len(slug) < 2:
        return "letter"
    if slug.startswith(("family-", "kiss-", "couple-with-heart-")):
        return "family"
    return "interface" if icon_set == "flat-color-icons" else "emoji"


# One in this many of a kind is kept; all of them would crowd out the rest.
KEPT_ONE_IN = {"skin tone": 14, "clock": 12, "letter": 8, "family": 6, "flag": 4}


def _kept(slug: str, kind: str) -> bool:
    # All sets keep the same flags and clocks, so that each concept still has several pictures.
    return zlib.crc32(slug.encode()) % KEPT_ONE_IN.get(kind, 1) == 0


def _named(slug: str, icon_set: str, lexicon: Lexicon) -> Entry | None:
    base = SKIN.sub("", slug)
    entry = lexicon.lookup(slug) or lexicon.lookup(base) or lexicon.lookup(f"{base}-face")
    if entry is not None:
        return entry
    if icon_set == "fxemoji":
        name = lexicon.segment(slug)
        return Entry(name) if name else None
    return Entry(humanise(base))


def _clipart(lexicon: Lexicon):
    """(id, kind, entry, loader) of the clip art whose file name says what it shows."""
    root = CACHE / "openclipart-png" / "usr" / "share" / "openclipart" / "png"
    for folder in CLIPART_FOLDERS:
        for path in sorted((root / folder).rglob("*.png")):
            if CLIPART_LEFT_OUT.search(path.as_posix()):
                continue
            entry = _clipart_entry(path, lexicon)
            if entry is not None:
                slug = path.relative_to(root).with_suffix("").as_posix()
                yield slug, "clip art", entry, lambda path=path: _open(path)


def _clipart_entry(path: Path, lexicon: Lexicon) -> Entry | None:
    """File names end in their author's name, so only leading words that emoji use count."""
    words: list[str] = []
    for word in re.findall(r"[a-z]+", path.stem.lower()):
        if len(word) < 3 or word not in lexicon.vocabulary:
            break
        words.append(word)
    words = sorted(words[:3], key=lambda word: word not in COLOUR_WORDS)
    if not [word for word in words if word not in COLOUR_WORDS]:
        return None
    name = " ".join(words)
    known = lexicon.lookup(name)
    folder = path.parent.name.rstrip("s").replace("_", " ")
    words = [folder] if folder in lexicon.vocabulary else []
    return known or Entry(name, [], words)


def _render(body: str, box: str) -> Image.Image:
    # In training/requirements.txt alone: composing does not need it.
    import resvg_py  # pyright: ignore[reportMissingImports]

    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}">{body.replace("currentColor", "#333")}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=2 * SIZE, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.draft("RGBA", (4 * SIZE, 4 * SIZE))
        return image.convert("RGBA")


def _fit(image: Image.Image) -> np.ndarray | None:
    """The drawing, cropped and padded to a square of 96 px; None if it is nearly empty.

    Also None for a picture that fills its whole square in one opaque colour.
    """
    box = image.getchannel("A").point([255 * (alpha > 16) for alpha in range(256)]).getbbox()
    if box is None or max(box[2] - box[0], box[3] - box[1]) < 12:
        return None
    image = image.crop(box)
    side = max(image.size)
    square = Image.new("RGBA", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    # Resizing premultiplied ("RGBa") keeps invisible pixels' colours out of the edges.
    fitted = square.convert("RGBa").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    picture = np.asarray(fitted.convert("RGBA"))
    opaque = picture[..., 3] > 128
    if opaque.mean() < 0.03 or (opaque.mean() > 0.97 and picture[..., :3].std() < 12):
        return None
    return picture


def hsv(rgb: np.ndarray) -> np.ndarray:
    """Hue, saturation, value in [0, 1] of colours in [0, 1], [..., 3]."""
    value, low = rgb.max(-1), rgb.min(-1)
    span = value - low
    safe = np.maximum(span, 1e-6)
    r, g, b = np.moveaxis((value[..., None] - rgb) / safe[..., None], -1, 0)
    red_leads, green_leads = value == rgb[..., 0], value == rgb[..., 1]
    hue = np.select([red_leads, green_leads], [b - g, 2 + r - b], 4 + g - r)
    return np.stack([hue / 6 % 1, span / np.maximum(value, 1e-6), value], -1)


def name_colours(rgb: np.ndarray) -> np.ndarray:
    """The everyday colour name of each colour in [0, 1], [..., 3]; "" for what has no clear one."""
    h, s, v = np.moveaxis(hsv(rgb), -1, 0)
    h = h * 360
    rules = [
        (v < 0.25, "black"),
        ((s < 0.1) & (v > 0.85), "white"),
        (s < 0.16, "gray"),
        (((h < 14) | (h > 345)) & (s < 0.55) & (v > 0.75), "pink"),
        ((h < 14) | (h > 345), "red"),
        ((h < 45) & (v < 0.66), "brown"),
        ((h < 45) & (s < 0.45), ""),
        (h < 39, "orange"),
        ((h < 68) & (v > 0.6), "yellow"),
        (h < 68, ""),
        (h < 164, "green"),
        (h < 190, "turquoise"),
        (h < 252, "blue"),
        ((h < 292) | (v < 0.55), "purple"),
    ]
    return np.select([rule for rule, _ in rules], [name for _, name in rules], "pink")


def dominant_colour(picture: np.ndarray) -> tuple[str | None, list[float] | None]:
    """(name, [hue, saturation, value]) of the colour of more than half of an icon, or (None, None).

    Black counts only where there is much of it: mostly it is the outline.
    """
    colours = picture[::2, ::2, :3][picture[::2, ::2, 3] > 200] / 255.0
    if len(colours) < 20:
        return None, None
    names = name_colours(colours)
    if (names == "black").mean() < 0.4:
        colours, names = colours[names != "black"], names[names != "black"]
    found, counts = np.unique(names, return_counts=True)
    top = found[counts.argmax()]
    if not top or counts.max() < 0.55 * len(names):
        return None, None
    mean = hsv(np.median(colours[names == top], axis=0))
    return str(top), [round(float(x), 4) for x in mean]
