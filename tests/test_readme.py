"""The README agrees with the code."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from studio.cli.settings_docs import readme_tables, with_tables
from studio.commands import COMMANDS as COMMANDS_OF_STUDIO
from studio.engines import registry
from studio.settings.declare import option_name

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = re.findall(r"```\n(.*?)```|`([^`\n]+)`", README, re.DOTALL)
COMMANDS = [line for block, inline in CODE for line in (block or inline).splitlines()]


def starting(*programs):
    return [line for line in COMMANDS if line.startswith(programs)]


def test_its_tables_of_settings_follow_the_declarations():
    assert with_tables(README, readme_tables()) == README, "run `make docs`"


@pytest.mark.parametrize("engine", registry.names())
def test_it_names_every_option_of_an_engine(engine):
    assert all(
        f"`{option_name(name)}`" in README for name in registry.get(engine).settings.model_fields
    )


def test_every_make_target_exists():
    words = [shlex.split(line.split("make ", 1)[1]) for line in COMMANDS if "make " in line]
    named = {word for line in words for word in line if re.fullmatch("[a-z]+", word)} - {"studio"}
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"app", "setup", "test"} <= named
    assert named <= targets


@pytest.mark.parametrize("line", starting("python ", "./", ".ci/", "streamlit run "))
def test_every_script_exists(line):
    words = shlex.split(line)
    script = {"python": 1, "streamlit": 2}.get(words[0], 0)
    if words[script] == "-m":
        assert words[2] == "studio" and words[3] in (*COMMANDS_OF_STUDIO, "COMMAND", "--help")
    else:
        assert (ROOT / words[script]).is_file()


def test_every_option_of_a_script_exists():
    scripts = [f"generate.py --engine {name}" for name in registry.names()]
    scripts += ["worker.py", "gallery.py", "-m studio upscale"]
    known = {word for script in scripts for word in re.findall(r"--[a-z-]+", help_of(script))}
    programs = ("python g", "streamlit run app.py", "make app", "make gallery", "--")
    lines = starting(*programs)
    named = {option for line in lines for option in re.findall(r"(?<!\S)\"?(--[a-z-]+)", line)}
    assert {"--num-steps", "--gpu", "--continue-run", "--kiosk"} <= named
    assert {option.replace("--no-", "--") for option in named} <= known


def help_of(script):
    done = subprocess.run(
        [sys.executable, *script.split(), "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_file_and_heading_it_links_to_exists():
    places = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
    assert places
    missing = [p for p in places if p not in anchors and not (ROOT / p).exists()]
    assert missing == []


def test_every_weights_name_it_gives_can_be_downloaded():
    listed = subprocess.run(
        [ROOT / "download-weights.sh"], capture_output=True, text=True, check=True
    ).stdout
    names = [word for line in starting("./download-weights.sh") for word in line.split()[1:]]
    assert names
    assert all(f"  {name} " in listed for name in names)
