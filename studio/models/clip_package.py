"""The modules of the `clip` package that a run needs: its network and its tokeniser.

`import clip` also imports torchvision, and with it torch's compiler, which no run needs: more than
a second before each first picture. So the modules are imported beside the package. No torch here,
unless the network is asked for.
"""

import importlib
import sys
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

BESIDE = "clip_parts"  # a package of the same modules, without the `__init__` that imports so much


def clip_part(name: str) -> Any:
    """A module of the `clip` package, such as "model". Raises ModuleNotFoundError."""
    if BESIDE not in sys.modules:
        clip = find_spec("clip")
        if clip is None:
            raise ModuleNotFoundError("No module named 'clip'", name="clip")
        package = ModuleType(BESIDE)
        package.__path__ = list(clip.submodule_search_locations or ())
        sys.modules[BESIDE] = package
    return importlib.import_module(f"{BESIDE}.{name}")


@cache
def clip_tokenizer() -> Any:
    """CLIP's tokeniser, with `encode` and `decode`. It takes a third of a second to begin with."""
    return clip_part("simple_tokenizer").SimpleTokenizer()


def tokens_of(text: str, context_length: int) -> list[int]:
    """The tokens of a text between those that mark start and end; what is too long is left out.

    As `clip.tokenize` with `truncate`, without its zeros at the end.
    """
    tokenizer = clip_tokenizer()
    start, end = (tokenizer.encoder[f"<|{word}oftext|>"] for word in ("start", "end"))
    return [start, *tokenizer.encode(text)[: context_length - 2], end]
