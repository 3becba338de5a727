"""Models that stay loaded from run to run until their memory is needed. The models are fakes."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch

from studio.engines import warm
from studio.engines.warm import WarmModels, file_stamp

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
LACK = torch.OutOfMemoryError("CUDA out of memory.")


class Run:
    """What a model is used by."""


class Model:
    """What fills the memory of its device as long as anybody holds it."""

    def __init__(self, memory: "Memory", size: float, device: torch.device) -> None:
        self.memory, self.taken = memory, (device.type, size)
        memory.free[device.type] -= size

    def __del__(self) -> None:
        kind, size = self.taken
        self.memory.kept[kind] += size


class Memory:
    """Of a CPU and a GPU: bytes that are free, and those that were freed and not given back."""

    def __init__(self) -> None:
        self.free, self.kept = {"cpu": 100.0, "cuda": 100.0}, {"cpu": 0.0, "cuda": 0.0}

    def give_back(self) -> None:
        """What `release_freed_memory` does."""
        for kind, size in self.kept.items():
            self.free[kind] += size
            self.kept[kind] = 0.0


class Loads:
    """A process that loads models, and what it loaded."""

    def __init__(self, memory: Memory) -> None:
        self.memory, self.models, self.log = memory, WarmModels(), []
        self.there: dict[tuple[str, str], ref[Model]] = {}

    def __call__(
        self,
        engine: str,
        slot: str = "model",
        key: Any = 1,
        *,
        run: object,
        size: float = 40.0,
        device: torch.device = CPU,
        load: Callable[[], Model] | None = None,
    ) -> Model:
        def loaded() -> Model:
            self.log.append((engine, slot, key))
            return load() if load else Model(self.memory, size, device)

        model = self.models.get(engine, slot, key, loaded, run=run, device=device, needs=size)
        self.there[engine, slot] = ref(model)
        return model

    @property
    def warm(self) -> list[str]:
        """The models that are still in memory."""
        return [" ".join(name) for name, model in self.there.items() if model() is not None]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    memory = Memory()
    monkeypatch.setattr(warm, "free_memory", lambda device: memory.free[device.type])
    monkeypatch.setattr(warm, "release_freed_memory", memory.give_back)
    return Loads(memory)


def test_a_model_stays_from_run_to_run(loads: Loads) -> None:
    assert loads("a", run=Run()) is loads("a", run=Run())
    assert len(loads.log) == 1


@pytest.mark.parametrize("changed", [{"key": 2}, {"device": GPU}])
def test_the_old_model_goes_before_another_one_loads(loads: Loads, changed: dict) -> None:
    loads("a", run=Run(), size=60)
    found = []

    def load() -> Model:
        found.append(list(loads.warm))
        return Model(loads.memory, 60, CPU)

    loads("a", run=Run(), size=60, load=load, **changed)
    assert found == [[]] and len(loads.log) == 2


def test_models_of_several_engines_and_slots_stay_where_there_is_room(loads: Loads) -> None:
    names = [("a", "x"), ("a", "y"), ("b", "x")]
    first = [loads(*name, run=Run(), size=30) for name in names]
    assert [loads(*name, run=Run(), size=30) for name in names] == first


def test_what_was_freed_and_kept_is_given_back_before_any_model_goes(loads: Loads) -> None:
    loads("a", run=Run())
    loads.memory.free["cpu"], loads.memory.kept["cpu"] = 10.0, 50.0
    loads("b", run=Run(), size=55)
    assert loads.warm == ["a model", "b model"]


def test_the_least_recently_used_makes_room(loads: Loads) -> None:
    for engine in "abc":
        loads(engine, run=Run(), size=30)
    loads("a", run=Run(), size=30)
    loads("d", run=Run(), size=30)
    assert loads.warm == ["a model", "c model", "d model"]


def test_models_of_the_own_engine_make_room_last(loads: Loads) -> None:
    """The run may ask for them next."""
    loads("a", "x", run=Run(), size=45)
    loads("b", run=Run(), size=45)
    loads("a", "y", run=Run(), size=45)
    assert loads.warm == ["a x", "a y"]
    loads("a", "z", run=Run(), size=45)
    assert loads.warm == ["a y", "a z"]


def test_models_of_the_present_run_stay(loads: Loads) -> None:
    run = Run()
    loads("a", "x", run=Run())
    loads("a", "x", run=run)
    loads("a", "y", run=run)
    loads("a", "z", run=run)
    assert loads.warm == ["a x", "a y", "a z"]


def test_models_on_another_device_have_no_room_to_make(loads: Loads) -> None:
    loads("a", run=Run(), size=90, device=GPU)
    loads("b", run=Run(), size=90)
    loads("c", run=Run(), size=90)
    assert loads.warm == ["a model", "c model"]


@pytest.mark.parametrize(
    "error", [MemoryError(), LACK, RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_load_that_lacks_memory_is_tried_again_without_others(
    loads: Loads, error: Exception
) -> None:
    run = Run()
    for engine in "ab":
        loads(engine, run=Run(), size=20)
    mine = loads("c", "other slot", run=run, size=20)

    def load() -> Model:
        if loads.warm != ["c other slot"]:
            raise error
        return Model(loads.memory, 20, CPU)

    assert loads("c", run=run, size=20, load=load) and mine is not None
    assert loads.warm == ["c other slot", "c model"]


@pytest.mark.parametrize("others", [0, 1])
def test_a_load_that_lacks_memory_still_fails(loads: Loads, others: int) -> None:
    tries = []

    def load() -> Model:
        tries.append(1)
        raise LACK

    for number in range(others):
        loads(f"other {number}", run=Run(), size=1)
    with pytest.raises(torch.OutOfMemoryError):
        loads("a", run=Run(), load=load, size=1)
    assert len(tries) == 1 + others
    assert loads("a", run=Run(), size=1)


@pytest.mark.parametrize("error", [RuntimeError("a defect"), KeyboardInterrupt(), ValueError()])
def test_other_errors_let_no_model_go(loads: Loads, error: BaseException) -> None:
    def fail() -> Model:
        raise error

    loads("a", run=Run(), size=1)
    with pytest.raises(type(error)):
        loads("b", run=Run(), size=1, load=fail)
    with pytest.raises(type(error)):
        loads.models.with_room(fail, run=Run())
    assert loads.warm == ["a model"]


def test_a_step_that_lacks_memory_is_made_again_without_others(loads: Loads) -> None:
    run, tries = Run(), []
    loads("a", run=Run())
    loads("b", run=run)

    def step() -> str:
        tries.append(list(loads.warm))
        if "a model" in loads.warm:
            raise LACK
        return "a picture"

    assert loads.models.with_room(step, run=run) == "a picture"
    assert tries == [["a model", "b model"], ["b model"]]


def test_a_model_may_ask_for_another_as_it_loads(loads: Loads) -> None:
    run = Run()
    whole = loads("a", "whole", run=run, load=lambda: loads("a", "part", run=run))
    assert loads("a", "part", run=run) is whole


def test_threads_that_want_the_same_model_load_it_once(loads: Loads) -> None:
    began, found = threading.Barrier(4), []

    def take() -> None:
        began.wait()
        found.append(loads("a", run=Run(), size=10))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads.log) == 1 and len({id(model) for model in found}) == 1


def test_a_file_that_was_replaced_has_another_stamp(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"some")
    first = file_stamp(path)
    assert first == file_stamp(tmp_path / "." / "weights") and first.size == 4
    os.utime(path, (1, 1))
    touched = file_stamp(path)
    path.write_bytes(b"others")
    os.utime(path, (1, 1))
    assert len({first, touched, file_stamp(path)}) == 3
