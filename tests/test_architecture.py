"""Who imports whom. The engine alone knows torch; nothing runs in a circle."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = {path.stem: path for path in sorted(ROOT.glob("*.py"))}
ENGINE = {
    *("checkpoints", "cutouts", "device", "frozen", "frozen_layers", "logic", "onednn"),
    *("operators", "sharing", "sketch", "vqgan_utils"),
}
OUTSIDE_ENGINE = {
    *("app", "generate", "keeper", "recording", "runner", "storage", "trash", "video", "worker"),
}
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


def imports(path):
    """The project's modules that a file imports, inside functions too, but not for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(map(id, (inner for part in node.body for inner in ast.walk(part))))
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found & MODULES.keys()


def test_imports_run_one_way():
    graph = {name: imports(path) for name, path in MODULES.items()}
    assert set(graphlib.TopologicalSorter(graph).static_order()) == MODULES.keys()


@pytest.mark.parametrize("module", sorted(ENGINE & MODULES.keys()))
def test_the_engine_knows_neither_disk_nor_screen(module):
    assert not imports(MODULES[module]) & OUTSIDE_ENGINE


def test_the_names_above_are_modules():
    assert MODULES.keys() >= ENGINE | OUTSIDE_ENGINE


def test_all_import_anywhere_and_only_the_engine_brings_torch(tmp_path):
    """Without GPU, weights, arguments or network, from an empty folder that is home as well."""
    others = [name for name in MODULES if name not in ENGINE]
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(ROOT), *others, *sorted(ENGINE)],
        cwd=tmp_path,
        env={"CUDA_VISIBLE_DEVICES": "", "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    brought = dict(line.split() for line in done.stdout.splitlines())
    assert [name for name in others if brought[name] == "True"] == []
    assert brought[sorted(ENGINE)[0]] == "True"
    assert list(tmp_path.iterdir()) == []
