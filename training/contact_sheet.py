"""A picture of pictures: `python -m training.contact_sheet [--large] [--output FILE]`.

Makes a picture of each prompt below, with the default settings and one seed, and lays the pictures
out with captions. Pictures that were made before with the same weights are reused. `--large` lays
pictures of several sizes side by side, made of prompts of training/prompts.yaml.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from training.evaluate import Prompt, generated_pictures, read_prompts, spread

DOCS = Path(__file__).parent.parent / "docs"
SHEET, LARGE_SHEET = DOCS / "contact-sheet.png", DOCS / "large-pictures.jpg"
PROMPTS = (
    "a red heart", "a red apple", "a green tree", "a cat", "a fish", "the sun",
    "a house", "a sunflower", "a yellow star", "a mushroom", "a penguin", "a rocket",
    "a slice of pizza", "a butterfly", "a blue whale", "a hot air balloon", "a castle", "a snowman",
    "a red apple on a blue background", "a yellow lemon on a pink background",
    "a black cat on a yellow background", "a red car on a green background",
    "a purple octopus", "a crescent moon at night",
    "a red apple and a blue bird", "a sailboat and the sun", "a cat and a dog",
    "a cactus in the desert", "a fish in the sea", "a tree in the snow",
)  # fmt: skip
COLUMNS, SIDE, GAP, CAPTION = 6, 128, 8, 30
LARGE_COLUMNS, LARGE_SIDE = 10, 200


def lay_out(
    pictures: Sequence[Tensor], captions: Sequence[str], columns: int = COLUMNS, side: int = SIDE
) -> Image.Image:
    """Pictures [3, H, W] in [0, 1] in rows, each `side` pixels wide, with its caption below."""
    rows = -(-len(captions) // columns)
    width, height = side + GAP, side + CAPTION + GAP
    sheet = Image.new("RGB", (columns * width + GAP, rows * height + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = GAP + i % columns * width, GAP + i // columns * height
        sheet.paste(to_pil_image(picture).resize((side, side)), (x, y))
        text = "\n".join(textwrap.wrap(caption, side * 24 // SIDE))
        draw.multiline_text((x + side / 2, y + side + 3), text, "#333", font, "ma", 1, "center")
    return sheet


def usual_sheet() -> Image.Image:
    """One picture of each of PROMPTS."""
    prompts = [Prompt(text, "sheet", ()) for text in PROMPTS]
    return lay_out(list(generated_pictures(prompts)), PROMPTS)


def large_sheet() -> Image.Image:
    """20 prompts at 128x128 and 512x512, side by side, and 5 of them at 1024x1024."""
    small, large, largest = (
        _made(count, side) for count, side in ((20, 128), (20, 512), (5, 1024))
    )
    cells = [cell for pair in zip(small, large, strict=True) for cell in pair] + largest
    captions, pictures = zip(*cells, strict=True)
    return lay_out(pictures, captions, LARGE_COLUMNS, LARGE_SIDE)


def _made(count: int, side: int) -> list[tuple[str, Tensor]]:
    """Captions and pictures of prompts of training/prompts.yaml."""
    prompts = spread(read_prompts(), count)
    pictures = generated_pictures(prompts, others={"Xdim": side, "ydim": side})
    captions = [f"{prompt.text}, {side}x{side}" for prompt in prompts]
    return list(zip(captions, pictures, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--large", action="store_true", help="several sizes of the same prompts")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    sheet = large_sheet() if options.large else usual_sheet()
    output = options.output or (LARGE_SHEET if options.large else SHEET)
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(output, optimize=True)
    print(output)


if __name__ == "__main__":
    main()
