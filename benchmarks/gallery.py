"""The gallery over many runs: start, pages, search, thumbnails, memory, beside a plain rescan.

    python benchmarks/gallery.py [--runs 10000] [--requests 100]

Makes the runs in a temporary folder, starts the gallery as people do, and sends it requests over
HTTP. The plain rescan does at each request what a gallery without an index does: it opens every
details.json and every picture. The milliseconds depend on the machine, and the load that is printed
shows whether it was busy. "CPU" is what the gallery itself computed for one request, whatever else
was running.
"""

import argparse
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
WORDS = (
    *("red", "blue", "green", "golden", "heart", "apple", "bird", "fish", "moon", "sun", "tree"),
    *("garden", "castle", "river", "storm", "spring", "autumn", "watercolour", "etching", "mist"),
)
SIZES = ((128, 128), (160, 120), (120, 160), (192, 108))
PICTURES = 24
START = datetime(2024, 1, 1)


def main() -> None:
    args = _parse()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        output = Path(folder, "output")
        print(f"Making {args.runs} runs in {output} ...", flush=True)
        names = make_runs(output, args.runs)
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
        for state in ("cold", "warm"):
            with Gallery(output) as gallery:
                print(
                    f"start with a {state} index, until the wall is there: {gallery.started:.2f} s"
                    f" ({gallery.cpu():.2f} s of CPU)"
                )
                if state == "warm":
                    measure(gallery, names, args.requests)
                    print(f"a new run is found after {time_to_find(gallery, output):.2f} s")
                print(f"memory: {gallery.memory()}", flush=True)
        began = time.process_time()
        seconds = time_of(lambda: rescan(output))
        spent = time.process_time() - began
        print(f"plain rescan at each request: {seconds:.2f} s ({spent:.2f} s of CPU)")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000, help="how many runs to make")
    parser.add_argument("--requests", type=int, default=100, help="how often to request each page")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    return parser.parse_args()


def make_runs(output: Path, count: int) -> list[str]:
    """Run folders with random settings; their pictures are links to a few. Returns the names."""
    chance, names = random.Random(0), []
    pictures = _make_pictures(output / ".pictures")
    began = START
    for number in range(count):
        began += timedelta(minutes=chance.randint(1, 60))
        folder = output / f"{began:%Y%m%dT%H%M%S}-{number:08d}"
        folder.mkdir()
        picture = pictures[number % PICTURES]
        os.link(picture, folder / "output.PNG")
        details = _details(chance, folder.name, SIZES[number % len(SIZES)], began)
        (folder / "details.json").write_text(json.dumps(details, indent=2))
        names.append(folder.name)
    return names


def _make_pictures(folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    paths = [folder / f"{number}.png" for number in range(PICTURES)]
    for number, path in enumerate(paths):
        size = SIZES[number % len(SIZES)]
        Image.effect_noise(size, 60).convert("RGB").save(path)
    return paths


def _details(chance: random.Random, name: str, size: tuple[int, int], began: datetime) -> dict:
    return {
        "model": "VQGAN-CLIP",
        "status": "done",
        "run_id": name[-8:],
        "run_folder": name,
        "text_input": " ".join(chance.sample(WORDS, 5)),
        "num_steps": chance.choice((50, 150, 300, 500)),
        "planned_num_steps": 500,
        "Xdim": size[0],
        "ydim": size[1],
        "seed": chance.randrange(2**64),
        "vqgan_ckpt": chance.choice(("emoji_f8", "vqgan_imagenet_f16_1024")),
        "clip_model": chance.choice(("emoji_clip", "ViT-B/32")),
        "step_size": 0.05,
        "cutn": chance.choice((32, 64)),
        "start_time": began.isoformat(),
        "prev_run_id": None,
    }


class Gallery:
    """`python gallery.py` with a folder, and a connection to it. started: seconds until it answers.

    Raises RuntimeError if it exits instead.
    """

    def __init__(self, output: Path) -> None:
        began = time.monotonic()
        command = [sys.executable, str(ROOT / "gallery.py"), str(output), "--port", "5800"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout  # a pipe
        line = self._process.stdout.readline()
        found = re.search(r"http://([\d.]+):(\d+)", line)
        if not found:
            raise RuntimeError(f"The gallery did not start: {line}")
        self._connection = http.client.HTTPConnection(found[1], int(found[2]), timeout=120)
        self.get("/")
        self.started = time.monotonic() - began

    def __enter__(self) -> "Gallery":
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.wait()

    def get(self, address: str) -> bytes:
        """The answer's body. Raises RuntimeError for any status but 200."""
        self._connection.request("GET", address)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{address}: {answer.status}")
        return body

    def cpu(self) -> float:
        """Seconds of CPU that the process has used; nan if the system does not tell."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return float("nan")
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> str:
        """The process's memory in MiB, now and at most, if the system tells."""
        try:
            text = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return "unknown here"
        held, most = (int(re.findall(rf"{key}:\s+(\d+)", text)[0]) for key in ("VmRSS", "VmHWM"))
        return f"{held / 1024:.0f} MiB, at most {most / 1024:.0f} MiB"


def measure(gallery: Gallery, names: list[str], requests: int) -> None:
    """Print p50 and p95 of each kind of page; every request asks for something else."""
    chance = random.Random(1)
    first = [f"/thumbs/{name}" for name in names[:24]]
    pages = max(1, len(names) // 24)
    asked: dict[str, Callable[[], str]] = {
        "wall, any page": lambda: f"/?page={chance.randint(1, pages)}",
        "search, one word": lambda: f"/?q={chance.choice(WORDS)}",
        "search, three words": lambda: f"/?q={quote(' '.join(chance.sample(WORDS, 3)))}",
        "search, no word": lambda: f"/?q={quote('心')}",
        "filter and sort": lambda: (
            f"/?weights=emoji_f8&steps_min={chance.randint(0, 400)}&sort=size"
        ),
        "run page": lambda: f"/runs/{chance.choice(names)}",
        "thumbnail, made before": lambda: chance.choice(first),
        "API, a search": lambda: f"/api/runs?q={chance.choice(WORDS)}",
        "API, activity": lambda: "/api/activity",
    }
    print(f"{'milliseconds':24}{'p50':>8}{'p95':>8}{'CPU':>8}")
    _measure_one(gallery, "thumbnails, first time", first)
    for kind, address in asked.items():
        gallery.get(address())
        _measure_one(gallery, kind, [address() for _ in range(requests)])


def _measure_one(gallery: Gallery, kind: str, addresses: Sequence[str]) -> None:
    before = gallery.cpu()
    times = sorted(1000 * time_of(lambda a=address: gallery.get(a)) for address in addresses)
    cpu = 1000 * (gallery.cpu() - before) / len(addresses)
    p95 = times[min(len(times) - 1, int(0.95 * len(times)))]
    print(f"{kind:24}{statistics.median(times):8.1f}{p95:8.1f}{cpu:8.1f}", flush=True)


def time_of(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def time_to_find(gallery: Gallery, output: Path) -> float:
    """Seconds from a new run's last file to the wall that shows it."""
    (name,) = make_runs(output / ".new", 1)
    renamed = f"20990101T000000-{name[-8:]}"
    (output / ".new" / name).rename(output / renamed)
    began = time.perf_counter()
    while renamed.encode() not in gallery.get("/"):
        time.sleep(0.02)
    return time.perf_counter() - began


def rescan(output: Path) -> int:
    """What a gallery without an index does at each request; returns how many runs it found."""
    found = []
    for folder in sorted(output.iterdir(), reverse=True):
        if (folder / "details.json").exists() and (folder / "output.PNG").exists():
            details = json.loads((folder / "details.json").read_text())
            found.append((details, Image.open(folder / "output.PNG").convert("RGB").size))
    return len(found)


if __name__ == "__main__":
    main()
