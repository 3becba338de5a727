"""A picture of pictures: `python -m training.contact_sheet [--output docs/contact-sheet.png]`.

Makes a picture of each prompt below, with the default settings and one seed, and lays the pictures
out with captions. Pictures that were made before with the same weights are reused.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from training.evaluate import Prompt, generated_pictures

SHEET = Path(__file__).parent.parent / "docs" / "contact-sheet.png"
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


def lay_out(pictures: Tensor, captions: Sequence[str], columns: int = COLUMNS) -> Image.Image:
    """Pictures [n, 3, H, W] in [0, 1] in rows, each with its caption below."""
    rows = -(-len(captions) // columns)
    width, height = SIDE + GAP, SIDE + CAPTION + GAP
    sheet = Image.new("RGB", (columns * width + GAP, rows * height + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = GAP + i % columns * width, GAP + i // columns * height
        sheet.paste(to_pil_image(picture).resize((SIDE, SIDE)), (x, y))
        text = "\n".join(textwrap.wrap(caption, 24))
        draw.multiline_text((x + SIDE / 2, y + SIDE + 3), text, "#333", font, "ma", 1, "center")
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=SHEET)
    options = parser.parse_args()
    prompts = [Prompt(text, "sheet", ()) for text in PROMPTS]
    pictures = generated_pictures(prompts)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    lay_out(pictures, PROMPTS).save(options.output, optimize=True)
    print(options.output)


if __name__ == "__main__":
    main()
