"""Models that stay loaded from run to run, of all engines, while nothing else needs their memory.

A worker makes one run after another, often with the same models, and loading takes seconds. But
two engines' models may be more than the memory holds. Whichever engine loads or computes next, the
models that its run does not use make room.
"""

import gc
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from weakref import ref

import torch

from studio.base.notes import MADE_ROOM
from studio.engines.device import free_memory, is_lack_of_memory, release_freed_memory

T = TypeVar("T")
Name = tuple[str, str]  # an engine and one of its slots


class FileStamp(NamedTuple):
    """A file by path, time and size. A file that replaces it has another stamp."""

    path: Path
    modified_ns: int
    size: int  # bytes


def file_stamp(path: Path) -> FileStamp:
    """The stamp of a file as it is now. Raises OSError if there is no such file."""
    status = path.stat()
    return FileStamp(path.resolve(), status.st_mtime_ns, status.st_size)


@dataclass
class _Warm:
    """A loaded model. run: the last one that asked for it, while that run lives."""

    key: Hashable
    device: torch.device
    model: Any
    run: Callable[[], object] = lambda: None
    used: float = 0.0  # when it was asked for, by the monotonic clock


class WarmModels:
    """The models that a process has loaded, each under its engine and a slot of that engine.

    Models are loaded one after the other, even if several threads ask. A model that was let go
    lives on while a run holds it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a model's `load` may ask for another model
        self._models: dict[Name, _Warm] = {}

    def get(
        self,
        engine: str,
        slot: str,
        key: Hashable,
        load: Callable[[], T],
        *,
        run: object,
        device: torch.device,
        needs: float = 0.0,
    ) -> T:
        """The model of an engine's slot, loaded again if `key` or `device` has changed.

        key: all that the model depends on: stamps of its files, its precision.
        run: the run that will use it, and the models that it got before; these are never let go
        to make room. needs: bytes that the model takes on the device, as far as known.

        The slot's old model goes before the new one loads. If the device has less free memory
        than `needs`, so do models that the run does not use. If memory is still short, all of those
        go, and `load` is tried once more.
        """
        name = engine, slot
        with self._lock:
            if not self._has(name, key, device):
                self._let_go([name])
                self.make_room(needs, engine=engine, run=run, device=device)
                self._models[name] = _Warm(key, device, self.with_room(load, run=run))
            found = self._models[name]
            found.run, found.used = ref(run), time.monotonic()
            return found.model

    def make_room(self, needs: float, *, engine: str, run: object, device: torch.device) -> None:
        """Let go of models on the device that the run does not use, until `needs` bytes are free.

        Models of other engines go first, as the run may soon ask for those of its own engine. The
        least recently used go before the others.
        """
        with self._lock:
            if free_memory(device) >= needs:
                return
            release_freed_memory()  # what this process has freed, and kept, counts as taken
            unused = [name for name in self._unused_by(run) if self._models[name].device == device]
            unused.sort(key=lambda name: (name[0] == engine, self._models[name].used))
            while unused and free_memory(device) < needs:
                gone = unused.pop(0)
                self._let_go([gone])
                _note([gone], run)

    def with_room(self, work: Callable[[], T], *, run: object) -> T:
        """What `work` returns; if memory is short, it is done again with more room.

        All models that the run does not use are let go in between. Raises the error of `work`
        if there are no such models, and whatever the second try raises.
        """
        try:
            return work()
        except (MemoryError, RuntimeError) as error:
            if not is_lack_of_memory(error):
                raise
            with self._lock:
                unused = self._unused_by(run)
            if not unused:
                raise
        # Outside of the handler, so that the error's traceback holds no tensors any more.
        self._let_go(unused)
        _note(unused, run)
        return work()

    def _unused_by(self, run: object) -> list[Name]:
        return [name for name, warm in self._models.items() if warm.run() is not run]

    def _has(self, name: Name, key: Hashable, device: torch.device) -> bool:
        there = self._models.get(name)
        return there is not None and (there.key, there.device) == (key, device)

    def _let_go(self, names: Iterable[Name]) -> None:
        with self._lock:
            before = len(self._models)
            for name in names:
                self._models.pop(name, None)
            if len(self._models) == before:
                return
        gc.collect()  # models of libraries may have reference cycles
        release_freed_memory()


def _note(gone: Iterable[Name], run: object) -> None:
    """Let the run tell whose models made room for it."""
    notes = getattr(run, "notes", None)
    if notes is not None:
        notes[MADE_ROOM] = sorted({*notes.get(MADE_ROOM, ()), *(engine for engine, _ in gone)})


warm = WarmModels()
