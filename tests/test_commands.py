"""`python -m studio COMMAND`: the help pages, the exit statuses, and what a command is given."""

import subprocess
import sys
from pathlib import Path

import pytest

from studio import commands
from studio.page import launch

ROOT = Path(__file__).resolve().parents[1]
# An option of each command's own.
OPTIONS = {
    "generate": "--num-steps",
    "change": "--step-size",
    "upscale": "--scale",
    "app": "--assets-dir",
    "gallery": "--kiosk",
    "worker": "--queue-url",
}


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(("argv", "status"), [(["--help"], 0), (["-h"], 0), ([], 2)])
def test_the_help_page_lists_all_commands(argv, status, capsys):
    assert commands.main(argv) == status
    page = capsys.readouterr().out
    assert page.startswith("usage: python -m studio COMMAND")
    assert all(f"\n  {name} " in page for name in OPTIONS)
    assert set(commands.COMMANDS) == set(OPTIONS)


def test_an_unknown_command_is_refused_with_those_there_are(capsys):
    assert commands.main(["genrate", "a red heart"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "no command 'genrate'" in said.err
    assert all(name in said.err for name in OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_each_command_helps_under_its_own_name(name):
    done = python("-m", "studio", name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m studio {name} ")
    assert OPTIONS[name] in done.stdout


@pytest.mark.parametrize("script", ["generate.py", "gallery.py", "worker.py"])
def test_each_script_helps_under_the_name_of_its_file(script):
    done = python(script, "--help")
    assert done.returncode == 0, done.stderr
    assert script in done.stdout.splitlines()[0] and "-m studio" not in done.stdout


@pytest.mark.parametrize(
    "argv",
    [
        ["generate", "--no-such-option"],
        ["gallery", "--port", "0"],
        ["change", "no-such-run", "a cat"],
        ["worker", "--assets-dir", "/nowhere"],
    ],
)
def test_what_a_command_refuses_ends_with_2(argv):
    done = python("-m", "studio", *argv)
    assert done.returncode == 2 and done.stdout == ""
    assert "Traceback" not in done.stderr and argv[1].lstrip("-") in done.stderr


@pytest.mark.parametrize("status", [0, 1, 2, 130, 143])
def test_exit_statuses_pass_through(status, monkeypatch):
    given = []

    def main(options: list[str], prog: str) -> int:
        given.append((options, prog))
        return status

    monkeypatch.setattr("generate.main", main)
    assert commands.main(["generate", "a red heart", "--seed", "1"]) == status
    assert given == [(["a red heart", "--seed", "1"], "python -m studio generate")]


def test_the_page_is_streamlit_with_the_options(monkeypatch):
    started = []
    monkeypatch.setattr("os.execv", lambda program, words: started.append(words))
    monkeypatch.setattr(launch, "free_port", lambda port: port + 1)
    launch.main(["--output-dir", "pictures"])
    ((python_itself, *words),) = started
    assert python_itself == sys.executable
    assert words[:3] == ["-m", "streamlit", "run"] and words[3] == str(ROOT / "app.py")
    assert words[4:] == ["--server.port=8502", "--", "--output-dir", "pictures"]
