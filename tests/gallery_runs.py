"""Run folders to look at, and a gallery that shows them."""

import json
import re
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

from PIL import Image
from waiting import PATIENCE

from gallery import create_app
from studio.gallery.library import Options

ROOT = Path(__file__).resolve().parents[1]
FIRST = datetime(2026, 1, 1, 12)


def make_run(output, number=0, *, size=(32, 24), picture="output.PNG", name=None, **details):
    """A finished run, the later the larger its number; returns its folder."""
    began = FIRST + timedelta(minutes=number)
    name = name or f"{began:%Y%m%dT%H%M%S}-run{number:05d}"
    folder = Path(output) / name
    folder.mkdir(parents=True)
    if picture:
        Image.new("RGB", size, (number * 40 % 256, 80, 120)).save(folder / picture)
    known = {
        "status": "done",
        "run_id": name[-8:],
        "text_input": f"picture {number}",
        "num_steps": 10,
        "Xdim": size[0],
        "ydim": size[1],
        "seed": 1,
        "vqgan_ckpt": "emoji_f8",
        "clip_model": "emoji_clip",
        "start_time": began.isoformat(),
    }
    (folder / "details.json").write_text(json.dumps(known | details))
    return folder


def make_bare_run(output, number=0, **details):
    """A finished run of another engine, without picture, film, prompt and losses."""
    folder = make_run(output, number, picture=None)
    known = {"model": "Waves", "status": "done", "num_steps": 3, "losses": {}, "loss_history": []}
    (folder / "details.json").write_text(json.dumps(known | details))
    return folder


def open_gallery(output, **options):
    """A test client of the gallery."""
    return create_app(output, Options(**options)).test_client()


def look_again(client):
    """Have the next request look at every run, however soon after the last look it comes."""
    client.application.extensions["gallery"].index._look = 0.0


def runs_on(page):
    """The names of the runs on a wall, in order."""
    return re.findall(r'data-run="([^"]+)"', page.text)


def token_of(client):
    """The token that our pages send along with a change."""
    return client.application.jinja_env.globals["csrf_token"]


def post(client, address, **fields):
    """Make a change as our pages do."""
    return client.post(address, data={"token": token_of(client)} | fields)


def post_json(client, address, **fields):
    """Make a change as our scripts do."""
    accept = {"Accept": "application/json"}
    return client.post(address, data={"token": token_of(client)} | fields, headers=accept)


def start(*options):
    """Start the gallery as a process. Returns the process and its address, once it is announced."""
    command = [sys.executable, str(ROOT / "gallery.py"), *map(str, options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    found = re.search(r"http://\S+", line)
    assert found, process.communicate(timeout=PATIENCE)[1]
    return process, found[0]


def end(process):
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=PATIENCE)[1]
