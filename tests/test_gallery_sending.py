"""Large answers: ranges of files, zips, and clients that stop reading."""

import http.client
import io
import random
import re
import socket
import time
import zipfile

import pytest
from gallery_runs import end, make_run, open_gallery, start

PORT = 5650
FILM = 80_000_000  # bytes
STALLED = 100
PATIENCE = 1.0  # seconds within which a page must answer, however many other clients there are


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


# --- Ranges ------------------------------------------------------------------------------------

WHOLE = bytes(range(250)) * 4
RANGES = {
    "bytes=0-0": (0, 1),
    "bytes=10-19": (10, 20),
    "bytes=990-": (990, 1000),
    "bytes=-10": (990, 1000),
    "bytes=-99999": (0, 1000),
    "bytes=990-99999": (990, 1000),
    "bytes=" + "0" * 500 + "5-6": (5, 7),
    "Bytes = 1-2": (1, 3),
    "bytes=1000-": 416,
    "bytes=99999999999999999999999-": 416,
    "bytes=0-1,5-6": 200,
    "lines=0-5": 200,
    "bytes": 200,
    "bytes=": 200,
    "bytes=x-y": 200,
    "bytes=5-1": 200,
    "bytes=1-2-3": 200,
    "bytes=٣-٤": 200,
    "bytes=" + "9" * 5000 + "-": 200,
    "": 200,
}


@pytest.mark.parametrize("asked", RANGES)
def test_ranges_of_a_file(output, asked):
    folder = make_run(output, 1)
    (folder / "anim.mp4").write_bytes(WHOLE)
    headers = {"Range": asked.encode().decode("latin-1")}
    client = open_gallery(output)
    answer = client.get(f"/files/{folder.name}/anim.mp4", headers=headers)
    expected = RANGES[asked]
    if isinstance(expected, tuple):
        first, after = expected
        assert answer.status_code == 206 and answer.data == WHOLE[first:after]
        assert answer.headers["Content-Range"] == f"bytes {first}-{after - 1}/1000"
    else:
        assert answer.status_code == expected
        assert answer.headers.get("Content-Range") == ("bytes */1000" if expected == 416 else None)
        assert expected == 416 or answer.data == WHOLE
    assert expected == 416 or answer.headers["Accept-Ranges"] == "bytes"


def test_a_range_of_a_replaced_file_gets_the_whole_file(output):
    folder = make_run(output, 1)
    (folder / "anim.mp4").write_bytes(WHOLE)
    address, client = f"/files/{folder.name}/anim.mp4", open_gallery(output)
    mark = client.get(address).headers["ETag"]
    headers = {"Range": "bytes=0-9", "If-Range": mark}
    assert client.get(address, headers=headers).data == WHOLE[:10]
    for other in ('"other"', "Wed, 21 Oct 2015 07:28:00 GMT", "x"):
        assert client.get(address, headers=headers | {"If-Range": other}).data == WHOLE
    head = client.head(address, headers={"Range": "bytes=0-9"})
    assert head.status_code == 200 and head.content_length == 1000 and head.data == b""


def test_an_empty_file_has_no_ranges(output):
    folder = make_run(output, 1)
    (folder / "anim.mp4").touch()
    address, client = f"/files/{folder.name}/anim.mp4", open_gallery(output)
    assert client.get(address).data == b""
    refused = client.get(address, headers={"Range": "bytes=0-"})
    assert refused.status_code == 416 and refused.headers["Content-Range"] == "bytes */0"


# --- Zips --------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 1500, 3000])
@pytest.mark.parametrize("count", [0, 1, 40])
def test_the_length_of_a_zip_is_known_before(output, monkeypatch, count, limit):
    """limit: the number of bytes from which the format needs larger fields; None: 2 GB."""
    if limit:
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 20)
    folder = make_run(output, 1, name="ein Bild: 心")
    for number in range(count):
        (folder / f"{number}.png").write_bytes(random.Random(number).randbytes(number * 100))
    answer = open_gallery(output).get(f"/runs/{folder.name}/all.zip")
    assert answer.content_length == len(answer.data)
    if not limit:
        archive = zipfile.ZipFile(io.BytesIO(answer.data))
        assert archive.testzip() is None and len(archive.namelist()) == count + 2


@pytest.mark.parametrize("change", ["shorter", "replaced", "gone"])
def test_a_zip_of_files_that_change_meanwhile_is_cut_off_rather_than_wrong(output, change):
    folder = make_run(output, 1)
    film = folder / "anim.mp4"
    film.write_bytes(bytes(300_000))
    answer = open_gallery(output).get(f"/runs/{folder.name}/all.zip", buffered=False)
    if change == "shorter":
        film.write_bytes(b"x")
    else:
        film.rename(folder / "old")
        if change == "replaced":
            film.write_bytes(bytes(300_000))
    with pytest.raises(OSError, match=r"became shorter|was replaced|No such file"):
        _ = answer.data


def test_a_file_that_becomes_shorter_ends_the_connection(output):
    folder = make_run(output, 1)
    (folder / "anim.mp4").write_bytes(bytes(300_000))
    answer = open_gallery(output).get(f"/files/{folder.name}/anim.mp4", buffered=False)
    (folder / "anim.mp4").write_bytes(b"x")
    with pytest.raises(OSError, match="became shorter"):
        _ = answer.data


# --- Clients that stop reading -----------------------------------------------------------------

ASKED = "GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """A gallery with a large film, its port, and the name of the run that has it."""
    output = tmp_path_factory.mktemp("crowded") / "output"
    folder = make_run(output, 1)
    with (folder / "anim.mp4").open("wb") as film:
        film.truncate(FILM)
    process, address = start(output, "--port", PORT)
    yield int(address.rpartition(":")[2]), folder.name
    said = end(process)
    assert "Traceback" not in said and "exception" not in said.lower()


def seconds_for_a_page(port):
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert answer.status == 200 and b"data-run" in answer.read()
    connection.close()
    return time.monotonic() - began


STALLS = {
    "a zip": ASKED.format("/runs/{run}/all.zip"),
    "a film": ASKED.format("/files/{run}/anim.mp4"),
    "several films at once": ASKED.format("/files/{run}/anim.mp4") * 3,
    "pages at once": ASKED.format("/") * 30,
    "nothing": "",
    "half a request": "GET / HTTP/1.1\r\nHost: local",
    "half a form": "POST /runs/x/note HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nno",
}


@pytest.mark.parametrize("case", STALLS)
def test_stalled_clients_keep_nobody_waiting(crowded, case):
    port, run = crowded
    count = STALLED if case != "pages at once" else 10
    clients = []
    try:
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(STALLS[case].replace("{run}", run).encode())
            clients.append(client)
        seconds_for_a_page(port)  # while they are being taken in
        assert max(seconds_for_a_page(port) for _ in range(3)) < PATIENCE
    finally:
        for client in clients:
            client.close()


def test_a_film_that_is_read_slowly_arrives_whole(crowded):
    port, run = crowded
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(ASKED.format(f"/files/{run}/anim.mp4").encode())
        head = client.recv(1000)
        assert re.search(rb"content-length: 80000000\r\n", head, re.IGNORECASE)
        received = len(head.partition(b"\r\n\r\n")[2])
        assert seconds_for_a_page(port) < PATIENCE
        while received < FILM:
            received += len(client.recv(1_000_000))


# --- Broken pictures ---------------------------------------------------------------------------


def test_a_broken_picture_gets_a_drawing_and_no_error(output):
    folder = make_run(output, 1, picture=None)
    (folder / "output.PNG").write_bytes(b"no picture")
    client = open_gallery(output)
    answer = client.get(f"/thumbs/{folder.name}")
    assert answer.status_code == 200 and answer.mimetype == "image/svg+xml"
    assert client.get("/thumbs/nobody").status_code == 404
