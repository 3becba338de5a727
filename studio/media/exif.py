"""Text in the EXIF of JPEGs and WebPs, which have no text chunks: JSON in the user comment.

Never imports torch.
"""

import json
from collections.abc import Mapping
from typing import Any

from PIL import Image

from studio.base.errors import BadInput

EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
UTF_16 = b"UNICODE\0"  # how such a comment begins
ORDERS = ("utf-16-le", "utf-16-be")
MAX_EXIF = 60_000  # bytes; a JPEG holds 65,533


def with_text(exif: bytes, text: Mapping[str, Any]) -> bytes:
    """EXIF with the text in it. Raises BadInput for text that is too long."""
    found = Image.Exif()
    found.load(exif)
    comment = json.dumps(dict(text), ensure_ascii=False)
    found.get_ifd(EXIF_IFD)[USER_COMMENT] = UTF_16 + comment.encode(ORDERS[0])
    data = found.tobytes()
    if len(data) > MAX_EXIF:
        raise BadInput("The picture's settings are too long for this format. Give a .png.")
    return data


def text_in_exif(exif: Image.Exif) -> dict[str, str]:
    """The text that `with_text` put there; nothing for other EXIF, however strange it is."""
    comment = exif.get_ifd(EXIF_IFD).get(USER_COMMENT)
    if not isinstance(comment, bytes) or not comment.startswith(UTF_16):
        return {}
    for order in ORDERS:
        try:
            found = json.loads(comment.removeprefix(UTF_16).decode(order))
            return {str(key): value for key, value in found.items() if isinstance(value, str)}
        except (ValueError, RecursionError, AttributeError):
            continue
    return {}
