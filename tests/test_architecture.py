"""Who may import whom: an allowlist of rooms, held against every Python file that git knows.

The rooms are those of `studio/`, from the ground up; `docs/architecture.md` says what each is for.
"""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

GROUND = ("base", "media", "settings", "models")
ENGINE = (*GROUND, "engines")  # what an engine may use beside its own folder
WORK = (*ENGINE, "runs", "engine registry", "making", "queue")
# Patterns of files, the first that fits counts; their room; the other rooms that they may use.
ROOMS = (
    ("studio/base/*.py", "base", ()),
    ("studio/media/*.py", "media", ("base",)),
    ("studio/settings/*.py", "settings", ("base", "media")),
    ("studio/models/*.py", "models", ("base", "media", "settings")),
    ("studio/runs/*.py", "runs", GROUND),
    ("studio/engines/registry.py", "engine registry", (*ENGINE, "an engine")),
    ("studio/engines/clip/*.py", "engines", GROUND),
    ("studio/engines/fast/*.py", "engines", GROUND),
    ("studio/engines/*/*.py", "an engine", ENGINE),
    ("studio/engines/*/*/*.py", "an engine", ENGINE),
    ("studio/engines/*.py", "engines", GROUND),
    ("logic.py", "vqgan_clip", ENGINE),
    ("vqgan_utils.py", "vqgan_clip", ENGINE),
    ("studio/making/*.py", "making", (*ENGINE, "runs", "engine registry")),
    ("studio/queue/*.py", "queue", (*ENGINE, "runs", "engine registry", "making")),
    ("worker.py", "queue", ("base",)),
    ("studio/cli/*.py", "cli", WORK),
    ("generate.py", "cli", ("base",)),
    ("studio/page/*.py", "page", WORK),
    ("app.py", "page", WORK),
    ("studio/gallery/*.py", "gallery", WORK),
    ("gallery.py", "gallery", ("base",)),
    ("gallery_utils.py", "gallery", ("base", "runs")),
    ("studio/*.py", "door", ("base", "cli", "page", "gallery", "queue")),
    ("training/*.py", "training", (*ENGINE, "engine registry", "an engine")),
    ("benchmarks/*.py", "benchmarks", (*WORK, "an engine", "gallery", "cli", "training")),
    ("tests/*.py", "tests", None),  # None: all
)
# Libraries that belong to some rooms alone, and files that may use them.
LIBRARIES = {
    "torch": ("studio/models/*.py", "studio/media/interpolation*.py"),
    "streamlit": ("studio/page/*.py", "app.py"),
    "flask": ("studio/gallery/*.py", "gallery.py"),
}
LIBRARIES["torch"] += ("logic.py", "vqgan_utils.py", "studio/engines/*.py")
LIBRARIES["torch"] += ("studio/engines/*/*.py", "studio/engines/*/*/*.py")
DEVELOPMENT = ("training/*.py", "benchmarks/*.py", "tests/*.py")
# Of the modules that people's machines run, those that bring torch as they are imported.
COMPUTING = (
    *("logic.py", "vqgan_utils.py", "studio/models/weight_files.py"),
    *(
        f"studio/models/{name}.py"
        for name in ("enlarging", "fast_upscalers", "ncnn_weights", "side_by_side")
    ),
    *("studio/models/upscaler_networks.py", "studio/models/without_memory.py"),
    *(f"studio/engines/{name}.py" for name in ("arrays", "device", "gradients", "random_stream")),
    *(f"studio/engines/{name}.py" for name in ("sharing", "warm")),
    *(f"studio/engines/clip/{name}.py" for name in ("compare", "cutouts", "perceptor", "targets")),
    "studio/engines/fast/[!_]*.py",
    *("studio/engines/vqgan_clip/augmentations.py", "studio/engines/vqgan_clip/cutout_methods.py"),
    *("studio/engines/vqgan_clip/latent.py", "studio/engines/vqgan_clip/losses.py"),
    *("studio/engines/vqgan_clip/memory.py", "studio/engines/vqgan_clip/models.py"),
    *("studio/engines/vqgan_clip/ground.py", "studio/engines/vqgan_clip/noise.py"),
    *("studio/engines/vqgan_clip/sketch.py", "studio/engines/vqgan_clip/start.py"),
    *("studio/engines/vqgan_clip/optimisers.py", "studio/engines/vqgan_clip/noise_targets.py"),
    "studio/engines/vqgan_clip/tiles.py",
    *(f"studio/engines/diffusion/{name}.py" for name in ("embeddings", "fast", "safety")),
    *(f"studio/engines/diffusion/{name}.py" for name in ("canvas", "conditioning", "denoiser")),
    *(f"studio/engines/diffusion/{name}.py" for name in ("clip_guidance", "hires")),
    *(f"studio/engines/diffusion/{name}.py" for name in ("drawing", "memory", "models", "run")),
    "studio/engines/diffusion/merging.py",
    *(f"studio/engines/diffusion/{name}.py" for name in ("schedule", "single_file", "tensors")),
)
NAMED = re.compile(r"[a-z_][\w.]*:[A-Za-z_]\w*")  # "module:attribute", imported when it is used
TRY = """
import importlib, socket, sys

def refuse(*_):
    raise OSError("an import wants the network")

socket.socket.connect = socket.getaddrinfo = refuse
root, *modules = sys.argv[1:]
sys.argv[1:] = []
sys.path.insert(0, root)
for module in modules:
    importlib.import_module(module)
    print(module, "torch" in sys.modules)
"""

Tree = Mapping[str, str]  # the text of each file by its path


def known_files() -> dict[str, str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = [path for path in listed.stdout.splitlines() if (ROOT / path).is_file()]
    return {path: (ROOT / path).read_text(encoding="utf-8") for path in paths}


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def fits(path: str, pattern: str) -> bool:
    """A star stands for any part of a name, but for no slash."""
    return len(path.split("/")) == len(pattern.split("/")) and fnmatch(path, pattern)


def matching(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fits(path, pattern) for pattern in patterns)


def room_of(path: str) -> tuple[str, tuple[str, ...] | None] | None:
    """The room and those that it may use; an engine is a room by its folder's name."""
    for pattern, room, allowed in ROOMS:
        if fits(path, pattern):
            return (path.split("/")[2], allowed) if room == "an engine" else (room, allowed)
    return None


def is_engine(room: str) -> bool:
    return room == "vqgan_clip" or room not in {room for _, room, _ in ROOMS}


@cache
def imported(text: str, package: str, types: bool = True) -> tuple[str, ...]:
    """The modules that a file imports, wherever in it. types: also those for types alone."""
    return tuple(_imported(ast.parse(text), package, types))


def _imported(tree: ast.Module, package: str, types: bool) -> Iterator[str]:
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not types:
            skipped.update(inner for part in node.body for inner in ast.walk(part))
        elif node in skipped:
            continue
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and NAMED.fullmatch(str(node.value)):
            yield node.value.partition(":")[0]


def own_imports(path: str, tree: Tree, *, types: bool = True) -> set[str]:
    """The files of the tree that a file of it imports."""
    files = {module_of(known): known for known in tree}
    package = module_of(path).rpartition(".")[0]
    found = set()
    for name in imported(tree[path], package, types):
        while name not in files and "." in name:
            name = name.rpartition(".")[0]
        if name in files:
            found.add(files[name])
    return found - {path}


def broken_rules(tree: Tree) -> list[str]:
    """What is wrong with who imports whom, in words."""
    return [*_homeless(tree), *_strangers(tree), *_misplaced_libraries(tree), *_circles(tree)]


def _homeless(tree: Tree) -> Iterator[str]:
    yield from (f"{path} is in no room" for path in tree if room_of(path) is None)


def _strangers(tree: Tree) -> Iterator[str]:
    for path in tree:
        for other in own_imports(path, tree):
            here, there = room_of(path), room_of(other)
            if here is None or there is None or here[1] is None or here[0] == there[0]:
                continue
            allowed = there[0] in here[1] or ("an engine" in here[1] and is_engine(there[0]))
            if not allowed:
                yield f"{path} ({here[0]}) imports {other} ({there[0]})"


def _misplaced_libraries(tree: Tree) -> Iterator[str]:
    for path, text in tree.items():
        names = {name.split(".")[0] for name in imported(text, "")}
        for library, homes in LIBRARIES.items():
            if library in names and not matching(path, (*homes, *DEVELOPMENT)):
                yield f"{path} imports {library}"


def _circles(tree: Tree) -> Iterator[str]:
    graph = {path: own_imports(path, tree, types=False) for path in tree}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        yield f"a circle: {' -> '.join(error.args[1])}"


def test_every_import_keeps_the_rules() -> None:
    assert broken_rules(known_files()) == []


BROKEN = {
    "a file in no room": ({"helpers.py": ""}, "helpers.py is in no room"),
    "a room of nobody": ({"studio/misc/a.py": ""}, "studio/misc/a.py is in no room"),
    "the ground uses a room above": (
        {"studio/base/a.py": "from studio.runs import b", "studio/runs/b.py": ""},
        "studio/base/a.py (base) imports studio/runs/b.py (runs)",
    ),
    "an engine uses runs, lazily": (
        {
            "studio/engines/grey/run.py": "def f():\n    import studio.runs.b",
            "studio/runs/b.py": "",
        },
        "studio/engines/grey/run.py (grey) imports studio/runs/b.py (runs)",
    ),
    "an engine uses another": (
        {
            "studio/engines/grey/run.py": "from studio.engines.blue.run import f",
            "studio/engines/blue/run.py": "",
        },
        "studio/engines/grey/run.py (grey) imports studio/engines/blue/run.py (blue)",
    ),
    "VQGAN-CLIP uses another": (
        {"logic.py": "from ..blue import run", "studio/engines/vqgan_clip/a.py": "x: 'blue'"}
        | {"logic.py": "import studio.engines.blue.run", "studio/engines/blue/run.py": ""},
        "logic.py (vqgan_clip) imports studio/engines/blue/run.py (blue)",
    ),
    "an engine uses another that is one file": (
        {
            "studio/engines/grey/run.py": "from studio.engines.blue import Blue",
            "studio/engines/blue/__init__.py": "",
        },
        "studio/engines/grey/run.py (grey) imports studio/engines/blue/__init__.py (blue)",
    ),
    "making knows an engine by name": (
        {"studio/making/a.py": "from logic import VQGANCLIPRun", "logic.py": ""},
        "studio/making/a.py (making) imports logic.py (vqgan_clip)",
    ),
    "the page knows an engine, for types": (
        {
            "studio/page/a.py": "if TYPE_CHECKING:\n    from studio.engines.grey import run",
            "studio/engines/grey/run.py": "",
        },
        "studio/page/a.py (page) imports studio/engines/grey/run.py (grey)",
    ),
    "a face knows another": (
        {"studio/page/a.py": "from studio.gallery.b import c", "studio/gallery/b.py": ""},
        "studio/page/a.py (page) imports studio/gallery/b.py (gallery)",
    ),
    "a face knows another by a name": (
        {"studio/cli/a.py": "MAIN = 'gallery:main'", "gallery.py": ""},
        "studio/cli/a.py (cli) imports gallery.py (gallery)",
    ),
    "a relative import": (
        {"studio/runs/a.py": "from ..queue import b", "studio/queue/b.py": ""},
        "studio/runs/a.py (runs) imports studio/queue/b.py (queue)",
    ),
    "torch beside the engines": ({"studio/making/a.py": "import torch.nn"},) * 1
    + ("studio/making/a.py imports torch",),
    "flask on the page": (
        {"studio/page/a.py": "def f():\n    from flask import g"},
        "studio/page/a.py imports flask",
    ),
    "streamlit in the gallery": (
        {"gallery_utils.py": "import streamlit as st"},
        "gallery_utils.py imports streamlit",
    ),
    "a circle, half of it lazy": (
        {
            "studio/runs/a.py": "from studio.runs.b import c",
            "studio/runs/b.py": "def f():\n    from studio.runs import a",
        },
        "a circle: ",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_reported(name: str) -> None:
    files, told = BROKEN[name]
    wrong = broken_rules(files)
    assert len(wrong) >= 1 and all(told in line for line in wrong), wrong


def test_all_import_anywhere_and_only_what_computes_brings_torch(tmp_path: Path) -> None:
    """Without GPU, weights, arguments or network, from an empty folder that is home as well."""
    paths = [path for path in known_files() if not matching(path, DEVELOPMENT)]
    paths.remove("studio/__main__.py")
    computing = [path for path in paths if matching(path, COMPUTING)]
    others = [path for path in paths if path not in computing]
    modules = [*map(module_of, others), *map(module_of, computing)]
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(ROOT), *modules],
        cwd=tmp_path,
        env={"CUDA_VISIBLE_DEVICES": "", "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    brought = dict(line.split() for line in done.stdout.splitlines())
    assert [path for path in others if brought[module_of(path)] == "True"] == []
    assert [path for path in computing if brought[module_of(path)] == "False"] == []
    assert list(tmp_path.iterdir()) == []
