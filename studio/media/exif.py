"""Text in the EXIF of JPEGs and WebPs, which have no text chunks: JSON in the maker's note.

The user comment has the text under PARAMETERS, as other programs look for it there. Where there is
no such text, the JSON is in the user comment.

Never imports torch.
"""

import json
from collections.abc import Mapping
from typing import Any

from PIL import Image

from studio.base.errors import BadInput

EXIF_IFD, USER_COMMENT, MAKER_NOTE = 0x8769, 0x9286, 0x927C
PARAMETERS = "parameters"  # the key of the settings in the form of web UIs
OURS = b"studio\0"  # how our maker's note begins
UTF_16 = b"UNICODE\0"  # how such a comment begins
ORDERS = ("utf-16-le", "utf-16-be")
MAX_EXIF = 60_000  # bytes; a JPEG holds 65,533


def with_text(exif: bytes, text: Mapping[str, Any]) -> bytes:
    """EXIF with the text in it. Raises BadInput for text that is too long."""
    found = Image.Exif()
    found.load(exif)
    whole, inside = json.dumps(dict(text), ensure_ascii=False), found.get_ifd(EXIF_IFD)
    if told := text.get(PARAMETERS):
        inside[MAKER_NOTE] = OURS + whole.encode()
        # Other programs expect big-endian text, whatever the order of the rest.
        inside[USER_COMMENT] = UTF_16 + str(told).encode(ORDERS[1])
    else:
        inside[USER_COMMENT] = UTF_16 + whole.encode(ORDERS[0])
    data = found.tobytes()
    if len(data) > MAX_EXIF:
        raise BadInput("The picture's settings are too long for this format. Give a .png.")
    return data


def text_in_exif(exif: Image.Exif) -> dict[str, str]:
    """The text that `with_text` put there; nothing for other EXIF, however strange it is."""
    inside = exif.get_ifd(EXIF_IFD)
    note, comment = inside.get(MAKER_NOTE), inside.get(USER_COMMENT)
    if isinstance(note, bytes) and note.startswith(OURS):
        data, orders = note.removeprefix(OURS), ("utf-8",)
    elif isinstance(comment, bytes) and comment.startswith(UTF_16):
        data, orders = comment.removeprefix(UTF_16), ORDERS
    else:
        return {}
    for order in orders:
        try:
            found = json.loads(data.decode(order))
            return {str(key): value for key, value in found.items() if isinstance(value, str)}
        except (ValueError, RecursionError, AttributeError):
            continue
    return {}
