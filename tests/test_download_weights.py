"""download-weights.sh against a server on this machine that behaves well or badly."""

import http.server
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from studio.engines.diffusion.weights import PUBLISHED
from studio.models.catalogue import PUBLISHED_VQGANS

SCRIPT = Path(__file__).resolve().parents[1] / "download-weights.sh"
NAMES = (
    "vqgan_imagenet_f16_1024",
    "vqgan_imagenet_f16_16384",
    "vqgan_gumbel_f8",
    "vqgan_gumbel_f8_8192",
    "sflckr",
    "coco",
    "faceshq",
    "wikiart_16384",
)
DIFFUSION = (
    "v1-5-pruned-emaonly",
    "sd-v1-5-inpainting",
    "v2-1_768-ema-pruned",
    "sd_turbo",
    "sd_xl_base_1.0",
    "sd_xl_turbo_1.0_fp16",
    "vae/vae-ft-mse-840000-ema-pruned",
)
UNNAMED = "&id=1fHwGx_hnBtC8nsq7hesJvs-Klv-P0gzT"  # a yaml whose address does not end so
YAML = b"model:\n  target: taming.models.vqgan.VQModel\n"
CKPT = bytes(range(256)) * 400
PAGE = b"<!DOCTYPE html>\n<html><body>Sign in</body></html>"
HTML = {"Content-Type": "text/html; charset=utf-8"}
ANSWERS = {  # whatever part of the file was asked for
    "missing": (404, PAGE, HTML),
    "page": (200, PAGE, HTML),
    "page under a false type": (200, PAGE, {}),
    "yaml is a page": (200, PAGE, HTML),
    "empty": (200, b"", {}),
    "without ranges": (200, CKPT, {}),
}
BROKEN = {"truncated": {"upto": 5000}, "stalled": {"upto": 5000, "then_wait": 30}}
NAME = "vqgan_gumbel_f8"
TOOLBOX = (
    "awk", "bash", "cat", "cut", "dirname", "grep", "head", "mkdir", "mktemp", "mv", "rm", "sed",
    "tr", "wc",
)  # fmt: skip

pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") or shutil.which("wget")), reason="neither curl nor wget is installed"
)


class Server(http.server.ThreadingHTTPServer):
    """Serves a yaml and a ckpt at any address of the published form, as `mood` says."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.mood = "good"
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        mood = self.server.mood
        self.server.asked.append((self.path, self.headers.get("Range")))
        is_yaml = self.path.split("&")[0].endswith(".yaml") or self.path.endswith(UNNAMED)
        if is_yaml and mood != "yaml is a page":
            self.answer(200, YAML)
        elif mood == "moved" and "moved" not in self.path:
            self.answer(302, b"", Location="/moved/last.ckpt")
        elif mood in ANSWERS:
            status, body, headers = ANSWERS[mood]
            self.answer(status, body, **headers)
        else:
            self.ranged(CKPT, **BROKEN.get(mood, {}))

    def ranged(self, body, upto=None, then_wait=0):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        if start >= len(body):
            self.answer(416, b"", **{"Content-Range": f"bytes */{len(body)}"})
        elif asked:
            extent = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.answer(206, body[start:], upto, **{"Content-Range": extent})
        else:
            self.answer(200, body, upto)
        self.wfile.flush()
        time.sleep(then_wait)

    def answer(self, status, body, upto=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in ({"Content-Type": "application/octet-stream"} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:upto])


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path):
    """A copy of the files that the script knows, in a folder with a space in its name."""
    folder = tmp_path / "my studio"
    folder.mkdir()
    shutil.copy(SCRIPT, folder)
    return folder


@pytest.fixture(params=["curl", "wget"])
def tool(request, tmp_path):
    """A PATH with one of the two downloaders, and otherwise only what the script needs."""
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    path = tmp_path / "bin"
    path.mkdir()
    for program in [*TOOLBOX, request.param]:
        (path / program).symlink_to(shutil.which(program))
    return str(path)


def start(folder, server, *names, path=None):
    env = os.environ | {"WEIGHTS_URL": server.url, "PATH": path or os.environ["PATH"]}
    return subprocess.Popen(
        [shutil.which("bash"), str(folder / SCRIPT.name), *names],
        env=env,
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fetch(folder, server, *names, path=None):
    """Run to the end. Returns the status and all output."""
    process = start(folder, server, *names, path=path)
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


def files(folder):
    return {path.name: path.read_bytes() for path in (folder / "assets").glob("*")}


def complete(name):
    return {f"{name}.yaml": YAML, f"{name}.ckpt": CKPT}


def test_the_list_names_all_with_sizes_and_what_has_no_address(folder, server):
    status, said = fetch(folder, server)
    lines = {line.split()[0]: line for line in said.splitlines() if line.startswith("  ")}
    assert status == 0
    assert tuple(lines) == NAMES + DIFFUSION
    assert all(" MB  licence: " in lines[name] for name in DIFFUSION)
    assert all("MB" in line or "size unknown" in line for line in lines.values())
    assert not (folder / "assets").exists()


@pytest.mark.parametrize("name", NAMES)
def test_both_files_come_from_the_published_paths(folder, server, name):
    status, said = fetch(folder, server, name)
    assert status == 0, said
    assert files(folder) == complete(name)
    yaml, ckpt = (unquoted(path) for path, _ in server.asked)
    assert yaml.endswith((".yaml", UNNAMED))
    assert ckpt.endswith(".ckpt")


def unquoted(path):
    query = parse_qs(urlsplit(path).query)
    return (query.get("p") or query.get("path") or [path])[0]


def test_the_studio_knows_them_by_the_same_names():
    assert NAMES == PUBLISHED_VQGANS
    assert tuple(name for name in DIFFUSION if not name.startswith("vae/")) == PUBLISHED


@pytest.mark.parametrize("name", DIFFUSION)
def test_diffusion_weights_are_one_file(folder, server, name):
    status, said = fetch(folder, server, name)
    assert status == 0, said
    assert "licence: " in said and f"{name} is ready" in said
    assert (folder / "assets" / f"{name}.safetensors").read_bytes() == CKPT
    ((path, _),) = server.asked
    assert path.endswith(f"/resolve/main/{Path(name).name}.safetensors")
    assert "already" in fetch(folder, server, name)[1] and len(server.asked) == 1


def test_a_broken_download_of_one_file_resumes(folder, server):
    server.mood = "truncated"
    status, said = fetch(folder, server, "sd_turbo")
    assert status == 1 and "resumes from there" in said
    assert list(files(folder)) == ["sd_turbo.safetensors.part"]
    server.mood = "good"
    assert fetch(folder, server, "sd_turbo")[0] == 0
    assert files(folder) == {"sd_turbo.safetensors": CKPT}
    assert server.asked[-1][1] == "bytes=5000-"


@pytest.mark.parametrize("name", ["nonsense", "vqgan.*", "../coco", "coco sflckr"])
def test_an_unknown_name_lists_those_there_are(folder, server, name):
    status, said = fetch(folder, server, "coco", name)
    assert status == 2
    assert all(known in said for known in NAMES + DIFFUSION)
    assert server.asked == []


def test_several_names_and_one_that_is_there_already(folder, server):
    (folder / "assets").mkdir()
    for name, content in complete("coco").items():
        (folder / "assets" / name).write_bytes(content)
    status, said = fetch(folder, server, "coco", "sflckr")
    assert status == 0
    assert "already" in said
    assert files(folder) == complete("coco") | complete("sflckr")
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("mood", "says"),
    [
        ("missing", "404"),
        ("page", "web page"),
        ("page under a false type", "web page"),
        ("yaml is a page", "web page"),
        ("empty", "not fetched"),
    ],
)
def test_anything_but_a_checkpoint_is_refused(folder, server, tool, mood, says):
    server.mood = mood
    status, said = fetch(folder, server, NAME, path=tool)
    assert status == 1
    assert says in said
    assert set(files(folder)) <= {f"{NAME}.yaml.part"}


def test_a_broken_transfer_resumes_where_it_broke(folder, server, tool):
    server.mood = "truncated"
    status, said = fetch(folder, server, NAME, path=tool)
    assert status == 1
    assert f"5000 of {len(CKPT)} bytes" in said
    assert files(folder)[f"{NAME}.ckpt.part"] == CKPT[:5000]
    assert f"{NAME}.ckpt" not in files(folder)

    server.mood = "good"
    status, said = fetch(folder, server, NAME, path=tool)
    assert status == 0, said
    assert files(folder) == complete(NAME)
    assert server.asked[-1][1] == "bytes=5000-"


@pytest.mark.parametrize("mood", ["good", "without ranges", "moved"])
@pytest.mark.parametrize(
    "part",
    [CKPT[:7000], CKPT, CKPT + b"more"],
    ids=["half", "whole", "longer than the file"],
)
def test_any_part_left_over_ends_as_the_whole_file(folder, server, tool, mood, part):
    (folder / "assets").mkdir()
    (folder / "assets" / f"{NAME}.ckpt.part").write_bytes(part)
    server.mood = mood
    status, said = fetch(folder, server, NAME, path=tool)
    assert status == 0, said
    assert files(folder) == complete(NAME)


@pytest.mark.parametrize("mood", ["missing", "page"])
def test_a_failing_server_leaves_the_part_as_it_was(folder, server, tool, mood):
    (folder / "assets").mkdir()
    part = folder / "assets" / f"{NAME}.ckpt.part"
    part.write_bytes(CKPT[:7000])
    server.mood = mood
    assert fetch(folder, server, NAME, path=tool)[0] == 1
    assert part.read_bytes() == CKPT[:7000]


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_transfer_keeps_its_part_alone(folder, server, tool, signum, status):
    server.mood = "stalled"
    process = start(folder, server, NAME, path=tool)
    part = folder / "assets" / f"{NAME}.ckpt.part"
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signum)
    _, said = process.communicate(timeout=10)
    assert process.returncode == status
    assert "resumes from here" in said
    assert CKPT.startswith(part.read_bytes())
    assert not (folder / "assets" / f"{NAME}.ckpt").exists()


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_a_size_far_from_the_published_one_is_refused(folder, server, tmp_path):
    """Without WEIGHTS_URL: a stand-in for curl leads the published addresses to the server."""
    path = tmp_path / "bin"
    path.mkdir()
    (path / "curl").write_text(
        f'#!/bin/bash\nargs=("${{@/https:\\/\\/heibox.uni-heidelberg.de/{server.url}}}")\n'
        f'exec {shutil.which("curl")} "${{args[@]}}"\n'
    )
    (path / "curl").chmod(0o755)
    env = {**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
    env.pop("WEIGHTS_URL", None)
    command = [shutil.which("bash"), str(folder / SCRIPT.name), NAME]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"wrong size, {len(CKPT)} bytes, but about 376 MB" in done.stderr
    assert set(files(folder)) <= {f"{NAME}.yaml.part"}
