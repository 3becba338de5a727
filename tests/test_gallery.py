"""The gallery as a program: its options, its port, its start, and what it imports."""

import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from gallery_runs import end, make_run, start
from waiting import PATIENCE

import gallery
from studio.base.ports import in_use

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def output(tmp_path):
    make_run(tmp_path / "output", 1, text_input="a red heart")
    return tmp_path / "output"


def test_it_serves_until_ctrl_c_from_the_next_free_port(output):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process, address = start(output, "-n", "7", "--port", port)
        try:
            with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
                assert "a red heart" in answer.read().decode()
                assert "Werkzeug" not in answer.headers.get("Server", "")
            with pytest.raises(urllib.error.HTTPError) as refused:
                request = urllib.request.Request(address, headers={"Host": "evil.example"})
                urllib.request.urlopen(request, timeout=PATIENCE)
            assert refused.value.code == 400
        finally:
            said = end(process)
    assert process.returncode == 0
    assert f"Port {port} is in use" in said and address.rpartition(":")[2] in said
    assert "Everyone" not in said and "Traceback" not in said


def test_listening_beyond_this_machine_is_announced(output):
    process, address = start(output, "--host", "0.0.0.0", "--port", "5400", "--read-only")
    said = end(process)
    assert address.startswith("http://0.0.0.0:")
    assert "Everyone on this machine's network can see these runs" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere"], "There is no folder"),
        (["-n", "0"], "-n must be from 1 to 200"),
        (["-n", "x"], "invalid int value"),
        (["--interval", "nan"], "--interval must be"),
        (["--interval", "0"], "--interval must be"),
        (["--port", "70000"], "--port must be"),
        (["--port", "x"], "invalid int value"),
        (["--host", "198.51.100.7"], "not an address of this machine"),
        (["--app-url", "javascript:alert(1)"], "--app-url must be"),
        (["--app-url", "http://"], "--app-url must be"),
        (["--what"], "--help lists the options"),
    ],
)
def test_unusable_options_are_explained_in_one_line(options, message, tmp_path, capsys):
    if options[0].startswith("-"):
        options = [str(tmp_path), *options]
    assert gallery.main(options) == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and message in said and said.count("\n") == 1


def test_a_port_is_checked_on_the_host_that_is_asked_for():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert in_use(port, "127.0.0.1")
    assert not in_use(port, "127.0.0.1")


def test_it_starts_without_what_is_slow_to_import():
    """Never torch; and neither Pillow nor pydantic until someone looks at a picture or a run."""
    code = "import gallery, sys; print(*(n for n in sys.argv[1:] if n in sys.modules))"
    slow = ["torch", "numpy", "PIL", "pydantic", "streamlit"]
    done = subprocess.run(
        [sys.executable, "-c", code, *slow], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
