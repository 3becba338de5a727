"""Textual inversions (Gal et al. 2022) in `assets/embeddings/`: vectors that a name stands for.

They are told by their headers alone, or by a pickle read as data only. Never imports torch.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput, shortened
from studio.engines.diffusion.chunks import name_pattern
from studio.engines.diffusion.layers import ModelLayers
from studio.engines.diffusion.weights import Weights
from studio.models.pickle_shapes import NotData, Shape, read_shapes
from studio.models.safetensors_header import read_header

FOLDER = "embeddings"  # in `assets/`
SUFFIXES = (".safetensors", ".pt", ".bin")  # the first that there is counts
ENCODERS = ("clip_l", "clip_g")  # the names of an SDXL inversion's tensors, one for each encoder
OLDER = "string_to_param"  # where pickles of web UIs keep theirs
NAMED_AT_MOST = 20
_MEANT = re.compile(r"<([^<>:\s][^<>:]{0,80})>|\bembedding:([\w.-]+)")


@dataclass(frozen=True)
class Inversion:
    """A textual inversion.

    keys: of the tensors in the file, one for each text encoder. shapes: theirs, [vectors, width].
    """

    name: str
    path: Path
    keys: Sequence[str]
    shapes: Sequence[tuple[int, int]]

    @property
    def vectors(self) -> int:
        """How many tokens it takes."""
        return max(count for count, _ in self.shapes)


def find_inversions(assets_dir: Path) -> dict[str, Path]:
    """The files in `assets/embeddings/` by their names, which are those in prompts."""
    found: dict[str, Path] = {}
    for suffix in SUFFIXES:
        for path in sorted((assets_dir / FOLDER).glob(f"*{suffix}")):
            found.setdefault(path.stem, path)
    return found


def inversions_in(texts: Iterable[str], assets_dir: Path) -> list[Inversion]:
    """Those that prompts name. Raises BadInput for a file that is none."""
    there = find_inversions(assets_dir)
    return [read_inversion(there[name]) for name in _named(texts, there)]


def get_inversions(texts: Sequence[str], weights: Weights, assets_dir: Path) -> list[Inversion]:
    """Those that prompts name. Raises BadInput for one that does not fit the weights."""
    found = inversions_in(texts, assets_dir)
    layers = ModelLayers(weights)
    widths = layers.text_widths if found else []
    for inversion in found:
        theirs = [width for _, width in inversion.shapes]
        if theirs != widths:
            raise BadInput(
                f"The embedding '{shortened(inversion.name)}' is for another base than"
                f" {weights.name}: its vectors have {_listed(theirs)} numbers, and theirs"
                f" {_listed(widths)}. Take it out of the prompt."
            )
        if inversion.vectors > layers.text_room:
            raise BadInput(
                f"The embedding '{shortened(inversion.name)}' has {inversion.vectors} vectors, and"
                f" {weights.name} reads {layers.text_room} at once. Take it out of the prompt."
            )
    return found


def remarks(texts: Iterable[str], assets_dir: Path) -> list[str]:
    """Sentences for the person about what looks like an inversion, but names none."""
    there = find_inversions(assets_dir)
    known = {name.lower() for name in there}
    meant = (first or second for text in texts for first, second in _MEANT.findall(text))
    lost = [name for name in dict.fromkeys(meant) if name.lower() not in known]
    if not lost:
        return []
    return [
        f"There is no textual inversion {_listed(map(shortened, lost))} in {assets_dir / FOLDER},"
        f" so the words are read as text. There are: {_listed(there)}."
    ]


def _named(texts: Iterable[str], there: Mapping[str, Path]) -> list[str]:
    pattern = name_pattern(there)
    if pattern is None:
        return []
    by_name = {name.lower(): name for name in there}
    found = (match["name"] for text in texts for match in pattern.finditer(text))
    return list(dict.fromkeys(by_name[name.lower()] for name in found))


def read_inversion(path: Path) -> Inversion:
    """What a file holds. Raises BadInput if that is no textual inversion."""
    shapes = _of_safetensors(path) if path.suffix == SUFFIXES[0] else _of_pickle(path)
    tables = {k: s if len(s) == 2 else (1, *s) for k, s in shapes.items() if len(s) in (1, 2)}
    keys = ENCODERS if set(ENCODERS) <= tables.keys() else tuple(tables)
    if (len(keys) > 1 and keys != ENCODERS) or not keys:
        there = ", ".join(shortened(key, 30) for key in list(shapes)[:3]) or "no tensor"
        raise BadInput(
            f"{path} is no textual inversion: it holds {there}. Take its name out of the prompt, or"
            " put the right file there."
        )
    counts = {tables[key][0] for key in keys}
    if len(counts) != 1 or 0 in counts:
        raise BadInput(f"{path} is damaged: it has {_listed(counts)} vectors. Download it again.")
    return Inversion(path.stem, path, keys, [(tables[k][0], tables[k][1]) for k in keys])


def _of_safetensors(path: Path) -> Mapping[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in read_header(path).tensors.items()}


def _of_pickle(path: Path) -> Mapping[str, tuple[int, ...]]:
    try:
        root = read_shapes(path, is_strict=True)
    except NotData as error:
        raise BadInput(
            f"{path} is not only data: it names {shortened(error)}, which could run code. Get the"
            " textual inversion as .safetensors."
        ) from None
    except Exception:  # a damaged pickle raises whatever it likes
        raise BadInput(
            f"{path} cannot be read: it is damaged, or of an older format. Get the textual"
            " inversion as .safetensors."
        ) from None
    return {key: tuple(shape.sides) for key, shape in tensors_of(root).items() if _is(shape)}


def tensors_of(root: Any) -> dict[str, Any]:
    """The entries among which an inversion's tensors are, in what a pickle holds."""
    inner = root.get(OLDER) if isinstance(root, dict) else None
    found = inner if isinstance(inner, dict) else root if isinstance(root, dict) else {}
    return {str(key): value for key, value in found.items()}


def _is(value: Any) -> bool:
    return isinstance(value, Shape)


def _listed(names: Iterable[Any]) -> str:
    names = list(map(str, names))
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return (", ".join(names[:NAMED_AT_MOST]) or "none") + more
