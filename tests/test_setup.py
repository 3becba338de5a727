"""What a fresh clone relies on: pins, the Makefile, Streamlit's configuration, free ports."""

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from studio.base import ports, version

ROOT = Path(__file__).resolve().parents[1]
PIN = re.compile(r"([A-Za-z0-9_.-]+)==([A-Za-z0-9.]+)")


def lines(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_requirement_is_pinned():
    assert all(PIN.fullmatch(line) for line in lines("requirements.txt"))
    assert all(PIN.fullmatch(line) for line in lines("requirements-dev.txt")[1:])
    assert lines("requirements-dev.txt")[0] == "-r requirements.txt"


def test_conda_has_the_same_pins():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert dependencies[-1] == {"pip": lines("requirements.txt")}


def test_what_the_code_imports_is_required():
    required = {normal(PIN.fullmatch(line)[1]) for line in lines("requirements.txt")}
    brought_by = packages_distributions()
    paths = [*ROOT.glob("*.py"), *(ROOT / "studio").rglob("*.py")]
    own = {"studio", *(path.stem for path in ROOT.glob("*.py"))}
    for path in paths:
        for name in imported(path) - own - set(sys.stdlib_module_names):
            distributions = {normal(d) for d in brought_by.get(name, [])}
            assert distributions & required, f"{path.name} imports {name}, which is not required"


def imported(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    names += [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    return {name.split(".")[0] for name in names}


def test_streamlit_stays_local_and_quiet():
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
    assert config["server"]["address"] == "localhost"
    assert config["server"]["maxUploadSize"] == 10
    assert config["server"]["showEmailPrompt"] is False
    assert config["browser"]["gatherUsageStats"] is False


def test_streamlit_knows_every_option(tmp_path):
    """Streamlit ignores an option that it has renamed, with a warning."""
    shutil.copytree(ROOT / ".streamlit", tmp_path / ".streamlit")
    done = subprocess.run(
        [sys.executable, "-m", "streamlit", "config", "show"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "not a valid config option" not in done.stdout + done.stderr


def test_a_port_in_use_is_named_with_the_next_free_one(capsys):
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        found = ports.free_port(port)
    said = capsys.readouterr().err
    assert found > port
    assert str(port) in said
    assert str(found) in said


def test_a_free_port_is_taken_without_a_word(capsys):
    with socket.create_server(("localhost", 0)) as probe:
        port = probe.getsockname()[1]
    assert ports.free_port(port) == port
    assert capsys.readouterr().err == ""


def test_the_changelog_tells_of_this_version():
    assert f"## [{version.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture
def clone(tmp_path):
    """The files of the set-up in a folder with a space in its name."""
    folder = tmp_path / "my clone"
    folder.mkdir()
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


def make(folder, *arguments):
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True)


def fake_python(folder, body):
    """A program that the Makefile takes for Python."""
    path = folder / "fake python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return f"PYTHON={path}"


# "-m venv --clear .venv" copies this program there; "calls" lists every call.
GOOD = """
echo "$@" >> calls
case "$*" in
    "-m venv --clear .venv") rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    *"pip install"*) [ ! -e broken ] ;;
esac
"""


def test_make_alone_lists_the_targets(clone):
    listed = make(clone).stdout
    for target in ("setup", "app", "test", "lint", "weights", "judge", "evaluate", "benchmark"):
        assert f"make {target} " in listed


def test_every_program_that_make_runs_exists():
    for word in re.findall(r"\$\(VENV\) (?:-m )?(\S+)", (ROOT / "Makefile").read_text()):
        path = ROOT / (word if word.endswith(".py") else word.replace(".", "/") + ".py")
        is_package = (path.with_suffix("") / "__main__.py").is_file()
        assert path.is_file() or is_package or word in ("pip", "pyright", "pytest", "ruff"), word


def test_ci_checks_style_and_types_before_it_runs_the_tests():
    commands = (ROOT / ".ci" / "run").read_text().splitlines()
    assert commands.index("make lint") < commands.index("CI=true make test")


def test_setup_is_done_once_and_again_when_the_pins_change(clone):
    python = fake_python(clone, GOOD)
    installs = []
    for change in (None, None, "requirements.txt", "requirements-dev.txt"):
        if change:
            later = (clone / ".venv" / ".ready").stat().st_mtime + 5
            os.utime(clone / change, (later, later))
        assert make(clone, "setup", python).returncode == 0
        installs.append((clone / "calls").read_text().count("pip install -r requirements-dev.txt"))
    assert installs == [1, 1, 2, 3]


def test_an_interrupted_setup_is_done_again(clone):
    python = fake_python(clone, GOOD)
    (clone / "broken").touch()
    assert make(clone, "setup", python).returncode != 0
    assert not (clone / ".venv" / ".ready").exists()
    (clone / "broken").unlink()
    assert make(clone, "setup", python).returncode == 0
    assert (clone / "calls").read_text().count("-m venv --clear .venv") == 2


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("PYTHON=", "No Python 3.11 to 3.14 was found"),
        ("PYTHON=/nowhere/python3", "/nowhere/python3 is not a Python 3.11 to 3.14"),
    ],
)
def test_without_a_usable_python_setup_says_so(clone, argument, says):
    done = make(clone, "setup", argument)
    assert done.returncode != 0
    assert says in done.stderr
    assert not (clone / ".venv").exists()


def test_a_python_that_cannot_make_a_venv_names_the_package(clone):
    python = fake_python(clone, 'case "$*" in *ensurepip*) exit 1 ;; esac')
    done = make(clone, "setup", python)
    assert done.returncode != 0
    assert "python3-venv" in done.stderr


SKIPPED = """
import pytest

@pytest.mark.gpu
@pytest.mark.skip
def test_that_needs_a_gpu(): ...

@pytest.mark.vnni
@pytest.mark.skip
def test_that_needs_vnni(): ...

@pytest.mark.xfail
def test_that_is_known_to_fail(): assert False
"""
SKIPPED_FOR_ANOTHER_REASON = {
    "by mark": "import pytest\n@pytest.mark.skip\ndef test(): ...",
    "inside": "import pytest\ndef test(): pytest.skip()",
    "as a file": "import pytest\npytest.importorskip('no_such_module')",
}


@pytest.mark.parametrize("reason", [None, *SKIPPED_FOR_ANOTHER_REASON])
@pytest.mark.parametrize("ci", ["", "true"])
def test_under_ci_a_test_may_be_skipped_only_for_lack_of_hardware(tmp_path, reason, ci):
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "test_gpu.py").write_text(SKIPPED)
    if reason:
        (tmp_path / "test_other.py").write_text(SKIPPED_FOR_ANOTHER_REASON[reason])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "."],
        cwd=tmp_path,
        env=os.environ | {"CI": ci},
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == (not (reason and ci)), done.stdout
    assert ("which CI counts as failed" in done.stdout) == bool(reason and ci)
