"""Which files of a repository of the Hugging Face hub a model needs, and where they go. No torch.

A repository often holds the same weights several times: in full and half precision, as pickles,
and in one file beside the folders. One set is enough.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.base.errors import BadInput, shortened
from studio.base.files import parse_json
from studio.engines.contract import Download
from studio.engines.diffusion.folders import (
    CLASSES,
    INDEX,
    PICKLES,
    SHARD,
    SUFFIX,
    check_classes,
    chosen_files,
    no_pickle,
)
from studio.engines.diffusion.weights import KINDS, read_weights
from studio.models import hub
from studio.models.hub import HubFile, Repository

HALF = "fp16"  # the variant that is enough: half as large, and what large models compute in
NETWORKS = (*CLASSES, "safety_checker")
BESIDE = ("tokenizer", "tokenizer_2", "scheduler", "feature_extractor")
TEXTS = (".json", ".txt")
MAX_TEXT_BYTES = 20_000_000
NAMED_AT_MOST = 8


@dataclass(frozen=True)
class HubWeights(Download):
    """The weights in a repository. files: those that are needed. to: where they go."""

    repository: Repository
    files: Sequence[HubFile]
    to: Path

    @property
    def name(self) -> str:
        return self.repository.name

    @property
    def size(self) -> int | None:
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(filter(None, sizes))

    @property
    def licence(self) -> str:
        return self.repository.licence

    @property
    def number_of_files(self) -> int:
        return len(self.files)

    def fetch(self, on_bytes: Callable[[int], None] = lambda count: None) -> None:
        part = self.to.with_name(f".{self.to.name}.part")
        hub.fetch(self.repository, [file.path for file in self.files], part, on_bytes)
        inside = part if self.to.suffix != SUFFIX else part / self.files[0].path
        read_weights(inside)  # what arrived is one whole model
        with hub.disk_explained(self.name, self.to):
            for name in (hub.REVISION, hub.LOCK):
                (part / name).unlink(missing_ok=True)
            inside.rename(self.to)
            if inside != part:
                part.rmdir()


def look_up(name: str, assets_dir: Path) -> HubWeights:
    """Ask the hub for the weights of that name. Raises BadInput for what cannot be used."""
    repository = hub.look_up(name)
    to = assets_dir / name
    if INDEX in repository.files:
        index = parse_json(hub.read_text(repository, INDEX), f"{name}: {INDEX}")
        paths = list(_of_folder(repository, index))
        return HubWeights(repository, [repository.files[path] for path in paths], to)
    file = _single_file(repository)
    return HubWeights(repository, [repository.files[file]], to.with_name(f"{to.name}{SUFFIX}"))


def _of_folder(repository: Repository, index: dict[str, Any]) -> Iterator[str]:
    """The files of diffusers' format, one set of weights for each part. Raises BadInput."""
    parts = check_classes(repository.name, index, KINDS)
    for part in (part for part in NETWORKS if _is_named(index, part)):
        names = repository.inside(part)
        chosen = chosen_files(names, prefer=HALF)
        if not chosen and part in parts:
            raise BadInput(_lacks_weights(repository, part, names))
        if chosen:  # a safety checker that is a pickle stays where it is
            is_split = any(SHARD.search(name.removesuffix(SUFFIX)) for name in chosen)
            yield from (f"{part}/{name}" for name in (*chosen, *_texts(repository, part, is_split)))
    for part in (part for part in BESIDE if _is_named(index, part)):
        yield from (f"{part}/{name}" for name in _texts(repository, part, True))
    yield INDEX


def _is_named(index: dict[str, Any], part: str) -> bool:
    value = index.get(part)
    return isinstance(value, list) and bool(value) and value[-1] is not None


def _texts(repository: Repository, part: str, with_indices: bool) -> list[str]:
    return [
        name
        for name in sorted(repository.inside(part))
        if name.endswith(TEXTS) and (with_indices or not name.endswith(".index.json"))
        if (repository.files[f"{part}/{name}"].size or 0) <= MAX_TEXT_BYTES
    ]


def _lacks_weights(repository: Repository, part: str, names: Sequence[str]) -> str:
    if pickles := [name for name in names if Path(name).suffix in PICKLES]:
        return no_pickle(f"{repository.name}: {part}/{pickles[0]}")
    there = ", ".join(names[:NAMED_AT_MOST]) or "nothing"
    return (
        f"{repository.name}: {part} lacks its .safetensors file; it has: {shortened(there, 200)}."
    )


def _single_file(repository: Repository) -> str:
    """The one file of weights at the top. Raises BadInput where there is none, or several."""
    top = repository.inside("")
    found = [name for name in top if name.endswith(SUFFIX)]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(sorted(found)[:NAMED_AT_MOST])
        raise BadInput(
            f"{repository.name} holds several models: {listed}. Download the one that you want into"
            f" the folder of weights, such as with `hf download {repository.name} {found[0]}"
            " --local-dir assets`."
        )
    if pickles := [name for name in top if Path(name).suffix in PICKLES]:
        raise BadInput(no_pickle(f"{repository.name}: {pickles[0]}"))
    there = ", ".join(sorted(repository.files)[:NAMED_AT_MOST]) or "nothing"
    raise BadInput(
        f"{repository.name} holds no diffusion model: it lacks {INDEX} and a .safetensors file; it"
        f" has: {shortened(there, 200)}. There are: {KINDS}."
    )
