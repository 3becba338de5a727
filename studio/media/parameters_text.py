"""The text form in which web UIs of diffusion write a picture's settings. Never imports torch.

The prompt, a line that begins with `Negative prompt:`, and a line such as
`Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512`. PNGs have it in the text chunk
`parameters`, JPEGs and WebPs in EXIF's user comment.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from PIL import Image

from studio.media.exif import EXIF_IFD, ORDERS, USER_COMMENT, UTF_16, text_in_exif
from studio.media.exif import PARAMETERS as KEY

MAX_LENGTH = 100_000  # characters; a longer text is no prompt
ASCII = b"ASCII\0\0\0"
UNNAMED = bytes(8)  # a comment that does not tell its encoding
NEGATIVE = "Negative prompt:"
FIRST_KEY = "Steps"
USUAL_KEYS = {"Sampler", "CFG scale", "Seed", "Size", "Model"}  # two of them tell a settings line

_KEY = re.compile(r"\s*(\w[\w \-/+.()]{0,60}?)\s*:\s*")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_STEPS_LINE = re.compile(rf"\s*{FIRST_KEY}\s*:\s*\d+\s*(?:,|$)")
_QUOTE_FOR = re.compile(r'[,:"\r\n]|^[\[{\s]|\s$')
_END = re.compile(r"\s*(?:,|$)")
_JSON = json.JSONDecoder()


@dataclass(frozen=True)
class Parameters:
    """What such a text says. pairs: its keys and values in their order, quotes taken off."""

    prompt: str = ""
    negative: str = ""
    pairs: Mapping[str, str] = field(default_factory=dict)


def read_parameters(text: str) -> Parameters:
    """Read such a text; any text can be read. A key that comes again counts as it came first."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").strip().split("\n")
    first = _first_settings_line(lines)
    pairs: dict[str, str] = {}
    for line in lines[first:]:
        for key, value in _pairs(line):
            pairs.setdefault(key, value)
    words = [line.strip() for line in lines[:first]]
    split = next((n for n, line in enumerate(words) if line.startswith(NEGATIVE)), len(words))
    negative = "\n".join(words[split:]).removeprefix(NEGATIVE)
    return Parameters("\n".join(words[:split]).strip(), negative.strip(), pairs)


def write_parameters(parameters: Parameters) -> str:
    """The text that `read_parameters` reads as these, and other programs too."""
    pairs = (f"{key}: {_quoted(value)}" for key, value in parameters.pairs.items())
    negative = f"{NEGATIVE} {parameters.negative}" if parameters.negative else ""
    return "\n".join(filter(None, (parameters.prompt, negative, ", ".join(pairs))))


def parameters_in(image: Image.Image) -> str | None:
    """The text in a picture that another program wrote; None if there is none, or a huge one.

    image: opened by `opened_image`; its pixels are not needed. A broken one makes Pillow raise
    whatever it likes.
    """
    text = image.info.get(KEY)
    if not isinstance(text, str):
        exif = image.getexif()
        ours = text_in_exif(exif)  # in a JPEG of the studio, which keeps all its texts there
        comment = exif.get_ifd(EXIF_IFD).get(USER_COMMENT)
        text = ours.get(KEY, "") if ours else _decoded(comment)
    return text if text.strip() and len(text) <= MAX_LENGTH else None


def _first_settings_line(lines: list[str]) -> int:
    """Where the settings begin; programs may add lines of their own behind that one."""
    for index in range(len(lines) - 1, -1, -1):
        if _STEPS_LINE.match(lines[index]):
            return index
    keys = {key for key, _ in _pairs(lines[-1])}
    return len(lines) - (len(keys & USUAL_KEYS) >= 2)


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """The pairs of a line. What stands between commas and names no key belongs to what precedes."""
    key, values, place = "", list[str](), 0
    while place < len(line):
        if match := _KEY.match(line, place):
            if key:
                yield key, ",".join(values)
            key, values, place = match[1], [], match.end()
        value, place = _value(line, place)
        values += [value] if value.strip() or not values else []
    if key:
        yield key, ",".join(values)


def _value(line: str, place: int) -> tuple[str, int]:
    """A value that begins there, and where the next one may: quoted, as JSON, or up to a comma."""
    if match := _QUOTED.match(line, place):
        end = _behind_comma(line, match.end())
        if end:
            return _unquoted(match[0]), end
    if line[place : place + 1] in ("{", "["):
        try:
            end = _behind_comma(line, stop := _JSON.raw_decode(line, place)[1])
            if end:
                return line[place:stop], end
        except (ValueError, RecursionError):
            pass
    comma = line.find(",", place)
    stop = len(line) if comma < 0 else comma
    return line[place:stop].rstrip(), stop + 1


def _behind_comma(line: str, place: int) -> int:
    """Where to go on behind a whole value; 0 if there is more of it."""
    match = _END.match(line, place)
    return max(match.end(), place + 1) if match else 0


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if _QUOTE_FOR.search(value) else value


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text, strict=False))
    except ValueError:  # an escape that JSON does not know
        return text[1:-1]


def _decoded(comment: object) -> str:
    """The text of a user comment, which names its encoding in the first eight bytes."""
    if not isinstance(comment, bytes) or len(comment) > 4 * MAX_LENGTH:
        return comment if isinstance(comment, str) else ""
    if comment.startswith(UTF_16):
        data = comment.removeprefix(UTF_16)
        text = min((data.decode(order, "replace") for order in ORDERS), key=_strangeness)
    else:
        text = comment.removeprefix(ASCII).removeprefix(UNNAMED).decode("utf-8", "replace")
    return text.rstrip("\0\ufffd")


def _strangeness(text: str) -> int:
    """How many characters are not ASCII: bytes in the wrong order make most of them strange.

    Every such text has its keys, digits and spaces in ASCII.
    """
    return sum(not character.isascii() or character == "\0" for character in text)
