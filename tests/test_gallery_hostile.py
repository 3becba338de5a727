"""Folders and requests that nobody should have made: they are reported, and never cause a 500."""

import html
import io
import json
import os
import random
import shutil
import socket
import struct
import threading
import zipfile
import zlib
from contextlib import suppress
from urllib.parse import quote

import pytest
from gallery_runs import look_again, make_run, open_gallery, post_json, runs_on
from PIL import Image

from gallery_utils import MAX_EXACT
from studio.runs import storage

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}\r\nSet-Cookie: a=b"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


def png(width, height, body=b""):
    """A PNG that claims a size and holds the given bytes instead of pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", body or zlib.compress(b"\0")) + chunk(b"IEND", b"")


def ask_everything(client, name):
    """The answers for every page and file of a run, by address. None may be a server error."""
    run = quote(name, safe="")
    addresses = ["/", "/?q=x", "/trash", "/slideshow", f"/runs/{run}", f"/thumbs/{run}"]
    addresses += [f"/runs/{run}/all.zip", f"/compare?a={run}&b={run}", f"/api/runs/{run}"]
    addresses += ["/api/runs", "/api/activity", "/api/slides/next", f"/?compare={run}"]
    for file in ("output.PNG", "anim.mp4", "details.json", "details.txt", "init-image.JPEG"):
        addresses.append(f"/files/{run}/{file}")
    answers = {address: client.get(address) for address in addresses}
    assert {a: r.status_code for a, r in answers.items() if r.status_code >= 500} == {}
    return answers


# --- Details -----------------------------------------------------------------------------------

DETAILS = {
    "none": (None, "no details.json"),
    "empty": (b"", "is empty"),
    "half": (b'{"text_input": "half', "is broken, or holds something other"),
    "list": (b"[1, 2]", "is broken, or holds something other"),
    "binary": (b"\xff\xfe\x00\x80", "is broken, or holds something other"),
    "deep": (b'{"a":' * 100_000, "is broken, or holds something other"),
    "large": (b'{"text_input": "' + b"x" * 50_000_000 + b'"}', "too large"),
    "digits": (b'{"seed": ' + b"9" * 5000 + b"}", "is broken, or holds something other"),
    "status": (b'{"status": "fine"}', "an unknown status"),
}


@pytest.mark.parametrize("case", DETAILS)
def test_broken_details_are_shown_as_broken_with_the_reason(output, case):
    data, reason = DETAILS[case]
    folder = make_run(output, 1)
    (folder / "details.json").unlink()
    if data is not None:
        (folder / "details.json").write_bytes(data)
    client = open_gallery(output)
    answers = ask_everything(client, folder.name)
    for address in ("/", f"/runs/{folder.name}"):
        assert reason in answers[address].text and "status-broken" in answers[address].text
    assert runs_on(client.get("/?status=broken")) == [folder.name]
    assert answers[f"/thumbs/{folder.name}"].status_code == 200, "its picture is still shown"


TYPES = {
    "text_input": [None, 5, ["a"], {"a": 1}, True, "\ud800", "\0", EVIL, "x" * 100_000],
    "status": [None, 5, [], {"done": 1}, "running", "queued", EVIL],
    "num_steps": [None, "many", -1, 10**30, 1.5, [], True, float("nan")],
    "seed": [10**400, -(2**70), "x", float("inf")],
    "Xdim": ["wide", -5, 0, 10**12, None],
    "start_time": [5, "yesterday", "9999-99-99", 1e300, None],
    "heartbeat": [5, "yesterday", "0001-01-01T00:00:00+23:59", None],
    "run_id": [None, 5, EVIL, ["a"]],
    "parent": [None, 5, "../..", EVIL, ["a"]],
    "prev_run_id": [5, "", EVIL, [None]],
    "ancestors": [5, "x", [5], None],
    "vqgan_ckpt": [None, 5, EVIL, ["a"]],
    "error": [5, EVIL, ["a"]],
    "warnings": [5, "x", [[[[[[[[[["deep"]]]]]]]]]]],
}


@pytest.mark.parametrize("key", TYPES)
def test_details_of_any_type(output, key):
    """Each value has a run of its own, all in one gallery."""
    names = [f"a folder without a time {n}" for n in range(len(TYPES[key]))]
    for name, value in zip(names, TYPES[key], strict=True):
        make_run(output, 1, name=name, **{key: value})
    client = open_gallery(output)
    answers = ask_everything(client, names[-1])
    for name in names:
        run = quote(name)
        for address in (f"/runs/{run}", f"/thumbs/{run}", f"/compare?a={run}&b={run}"):
            answers[address] = client.get(address)
            assert answers[address].status_code == 200, (address, name)
        told = client.get(f"/api/runs/{run}")
        assert json.loads(told.data, parse_constant=pytest.fail)
    pages = [answer for answer in answers.values() if answer.mimetype == "text/html"]
    assert any("{{7*7}}" in page.text for page in pages) == (EVIL in TYPES[key])
    for page in pages:
        assert "<script>alert" not in page.text and "<img src=x" not in page.text
    assert not any("Set-Cookie" in answer.headers for answer in answers.values())


def test_large_integers_travel_as_strings(output):
    seeds = {"seed": 2**64 - 1, "edge": MAX_EXACT, "over": MAX_EXACT + 1, "under": -(2**60)}
    folder = make_run(output, 1, nested={"list": [2**63]}, **seeds)
    details = open_gallery(output).get(f"/api/runs/{folder.name}").json["details"]
    assert details["seed"] == str(2**64 - 1) and details["under"] == str(-(2**60))
    assert details["edge"] == MAX_EXACT and details["over"] == str(MAX_EXACT + 1)
    assert details["nested"] == {"list": [str(2**63)]}


# --- Pictures and videos -----------------------------------------------------------------------

PICTURES = {
    "empty": b"",
    "text": b"no picture",
    "html": b"<html><script>alert(1)</script>",
    "header only": b"\x89PNG\r\n\x1a\n",
    "bomb": png(60_000, 60_000),
    "no pixels": png(64, 64),
    "zero": png(0, 0),
    "wrong sum": png(64, 64)[:-30] + b"\0" * 30,
}


@pytest.mark.parametrize("case", PICTURES)
def test_broken_pictures_are_reported(output, case):
    folder = make_run(output, 1, picture=None)
    (folder / "output.PNG").write_bytes(PICTURES[case])
    client = open_gallery(output)
    answers = ask_everything(client, folder.name)
    thumb = answers[f"/thumbs/{folder.name}"]
    assert thumb.status_code == 200 and thumb.mimetype == "image/svg+xml"
    assert "status-broken" in client.get("/").text
    served = answers[f"/files/{folder.name}/output.PNG"]
    assert served.mimetype == "image/png" and served.headers["X-Content-Type-Options"] == "nosniff"
    assert client.get("/api/slides/next").json["slide"] is None


def test_a_picture_that_is_cut_off_is_reported_before_it_is_decoded(output):
    folder = make_run(output, 1, size=(300, 300))
    for name in ("output.PNG", "preview.JPEG"):
        Image.effect_noise((300, 300), 90).convert("RGB").save(folder / name)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
    assert "output.PNG is cut off" in open_gallery(output).get("/").text


def test_an_empty_video(output):
    folder = make_run(output, 1)
    (folder / "anim.mp4").write_bytes(b"")
    answers = ask_everything(open_gallery(output), folder.name)
    served = answers[f"/files/{folder.name}/anim.mp4"]
    assert served.status_code == 200 and served.data == b""
    part = open_gallery(output).get(f"/files/{folder.name}/anim.mp4", headers={"Range": "bytes=0-"})
    assert part.status_code in (200, 416)


# --- Names and files ---------------------------------------------------------------------------

NAMES = [
    *(
        "with space",
        "ünïcödé",
        "心",
        "🌙",
        "a'b",
        'a"b',
        "<b>",
        "a&b=c",
        "a#b",
        "a?b",
        "a%2Fb",
        "%2e%2e",
    ),
    *(
        "..hidden?",
        "a\\b",
        "new\nline",
        "-n",
        "x" * 255,
        "20260101T000000-",
        "{{7*7}}",
        "a;b",
        "a:b",
    ),
]


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith(".")])
def test_folders_with_any_name(output, name):
    make_run(output, 1, name=name)
    client = open_gallery(output)
    run = quote(name, safe="")
    answers = ask_everything(client, name)
    assert len(runs_on(answers["/"])) == 1
    for address in (f"/runs/{run}", f"/thumbs/{run}", f"/files/{run}/output.PNG"):
        assert answers[address].status_code == 200, address
    zipped = answers[f"/runs/{run}/all.zip"]
    assert "\n" not in zipped.headers["Content-Disposition"]
    for inside in zipfile.ZipFile(io.BytesIO(zipped.data)).namelist():
        assert inside.count("/") == 1 and ".." not in inside and "\\" not in inside
    link = client.get(f"/api/runs/{run}").json["page"]
    assert client.get(link).status_code == 200


def test_a_name_that_is_not_text_is_shown_as_broken(output):
    make_run(output, 1)
    (output / os.fsdecode(b"broken\xff")).mkdir()
    client = open_gallery(output)
    page = client.get("/")
    assert len(runs_on(page)) == 2 and "Rename the folder" in page.text
    ask_everything(client, "broken\\udcff")


SECRET = "SECRET-OF-THE-HOUSE"
TRAVERSALS = [
    *("/files/{run}/../../secret.txt", "/files/../secret.txt", "/files/..%2fsecret.txt"),
    *("/files/%2e%2e/secret.txt", "/files/{run}/%2e%2e%2f%2e%2e%2fsecret.txt"),
    *("/files/{run}/..%5c..%5csecret.txt", "/files//etc/passwd", "/files/%2fetc/passwd"),
    *("/files/{run}/%2fetc%2fpasswd", "/files/{run}/..%c0%af..%c0%afsecret.txt"),
    *("/files/{run}/secret.txt", "/files/{run}/.", "/files/{run}/..", "/files/{run}/"),
    *("/files/{run}/output.PNG%00.txt", "/files/{run}%00/output.PNG", "/files/./output.PNG"),
    *("/files/.gallery/curation.sqlite", "/files/.trash/{run}", "/files/.gallery/cache"),
    *("/files/link/output.PNG", "/files/{run}/init-image.JPEG", "/files/{run}/anim.mp4"),
    *("/thumbs/link", "/thumbs/..", "/thumbs/%2e%2e", "/runs/..", "/runs/%2e%2e", "/runs/."),
    *("/runs/link", "/runs/link/all.zip", "/trash/../thumb", "/trash/%2e%2e/thumb"),
    *("/static/../gallery.py", "/static/%2e%2e/gallery.py", "/static/page.css", "/static/"),
    *("/files/{run}/progress.json", "/files/", "/files/{run}", "/thumbs/", "/runs/"),
    "/files/{run}/image-prompt-1.JPEG",
]


@pytest.mark.parametrize("address", TRAVERSALS)
def test_only_known_files_are_served(output, tmp_path, address):
    outside = make_run(tmp_path / "elsewhere", 1, text_input=SECRET)
    (tmp_path / "secret.txt").write_text(SECRET)
    folder = make_run(output, 1)
    (folder / "secret.txt").write_text(SECRET)
    (folder / "init-image.JPEG").symlink_to(tmp_path / "secret.txt")
    (folder / "image-prompt-1.JPEG").mkdir()
    os.mkfifo(folder / "anim.mp4")
    (output / "link").symlink_to(outside)
    client = open_gallery(output)
    answer = client.get(address.format(run=folder.name), follow_redirects=True)
    assert answer.status_code in (400, 404, 405)
    assert SECRET.encode() not in answer.data and b"root:" not in answer.data
    pages = client.get("/").text + client.get(f"/runs/{folder.name}").text
    assert (
        SECRET not in pages
        and "init-image" not in pages
        and runs_on(client.get("/")) == [folder.name]
    )


def test_a_folder_that_cannot_be_read_is_reported(output, monkeypatch):
    """Root may read everything, and tests may run as root."""
    folder = make_run(output, 1)
    real = os.open

    def refuse(path, *args, **options):
        if str(path).endswith(folder.name):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    client = open_gallery(output)
    assert "cannot be read: Permission denied" in client.get("/").text
    ask_everything(client, folder.name)


def test_files_and_hidden_folders_are_not_runs(output):
    folder = make_run(output, 1)
    (output / "file").write_text("x")
    make_run(output, 2, name=".hidden")
    assert runs_on(open_gallery(output).get("/")) == [folder.name]


def test_a_trash_that_is_a_link_is_reported_and_not_followed(output, tmp_path):
    outside = make_run(tmp_path / "elsewhere", 1, text_input=SECRET)
    name = make_run(output, 2).name
    (output / ".trash").symlink_to(outside.parent)
    client = open_gallery(output)
    page = client.get("/trash")
    assert page.status_code == 409 and "is a link" in page.text
    for address in (f"/trash/{outside.name}/thumb", f"/?removed={outside.name}"):
        answer = client.get(address)
        assert SECRET not in answer.text and f"{outside.name}/restore" not in answer.text
    for change in (f"/runs/{name}/trash", f"/trash/{outside.name}/restore"):
        assert "is a link" in post_json(client, change).json["error"]
    assert outside.is_dir() and (output / name).is_dir()


# --- Older layouts -----------------------------------------------------------------------------


@pytest.mark.parametrize("picture", ["output.PNG", "output.png", "OUTPUT.JPG", "output.jpeg"])
@pytest.mark.parametrize("details", ["details.json", "details.txt", "Details.JSON"])
def test_older_layouts(output, picture, details):
    folder = output / "20210920T232927-vTf6Aot6"
    folder.mkdir(parents=True)
    Image.new("RGB", (30, 20)).save(folder / picture)
    old = {"run_id": "vTf6Aot6", "text_input": "an old one", "num_steps": 5, "seed": 2**63}
    (folder / details).write_text(json.dumps(old | {"start_time": "20210920T232927"}))
    Image.new("RGB", (9, 9)).save(folder / "image-prompt-0.JPEG")
    client = open_gallery(output)
    wall, page = client.get("/").text, client.get(f"/runs/{folder.name}").text
    assert "an old one" in wall and "20 Sep 2021, 23:29" in wall and "status-" not in wall
    assert f"/files/{folder.name}/{picture}" in page and "image-prompt-0.JPEG" in page
    assert client.get(f"/files/{folder.name}/{details}").status_code == 200


def test_settings_that_only_the_picture_holds(output):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in {"text_prompts": "from another program", "iterations": "70"}.items():
        info.add_text(key, value)
    one, two = output / "one", output / "two"
    for folder in (one, two):
        folder.mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(one / "output.png", pnginfo=info)
    image = Image.new("RGB", (20, 20))
    exif = image.getexif()
    exif[0x9C9B] = "as a title".encode("utf-16-le")
    exif[0x9C9C] = "text_prompts: as a title, iterations: 80, seed: 5".encode("utf-16-le")
    image.save(two / "7.jpg", exif=exif)
    client = open_gallery(output)
    wall = client.get("/").text
    assert "from another program" in wall and "as a title" in wall and "status-" not in wall
    assert client.get("/api/runs/one").json["steps"] == 70
    assert client.get("/api/runs/two").json["details"]["seed"] == 5


# --- While it is being read --------------------------------------------------------------------


def break_details(folder):
    (folder / "details.json").write_text("{")


def lose_picture(folder):
    (folder / "output.PNG").unlink()


def rename(folder):
    folder.rename(folder.with_name(f"moved {folder.name}"))


def disturb(output, stop):
    """Make runs and spoil them as fast as possible, never more than some dozens."""
    chance, number = random.Random(1), 0
    while not stop.is_set():
        number += 1
        chance.choice([break_details, lose_picture, rename, shutil.rmtree])(
            make_run(output, number)
        )
        if number % 40 == 0:
            for path in output.glob("*2026*"):
                shutil.rmtree(path)


def test_folders_that_appear_change_and_disappear_meanwhile(output):
    output.mkdir()
    client = open_gallery(output)
    stop = threading.Event()
    thread = threading.Thread(target=disturb, args=(output, stop))
    thread.start()
    try:
        for _ in range(15):
            look_again(client)
            for name in runs_on(client.get("/"))[:2]:
                with suppress(OSError):  # which cuts off the zip of a run that has disappeared
                    ask_everything(client, html.unescape(name))
    finally:
        stop.set()
        thread.join()


def test_a_picture_that_becomes_smaller_while_it_is_sent(output):
    folder = make_run(output, 1)
    (folder / "anim.part.mp4").write_bytes(b"x" * 300_000)
    answer = open_gallery(output).get(f"/files/{folder.name}/anim.part.mp4", buffered=False)
    with (folder / "anim.part.mp4").open("ab") as file:
        file.write(b"y" * 300_000)
    assert answer.content_length == 300_000 and answer.data == b"x" * 300_000


# --- Requests ----------------------------------------------------------------------------------

NUMBERS = ("page", "n", "steps_min", "steps_max")
ZEROS = "0" * 14
ODD_NUMBERS = [
    *(
        f"{ZEROS}10000",
        f"{ZEROS}010000",
        f"{ZEROS}1999999999999999999999",
        ZEROS,
        "0" * 9000,
        "0" * 9000 + "7",
    ),
    *("9" * 400, "9" * 9000, "9223372036854775808", "1000000001", "-0", "-1", "+5", " 5", "5 "),
    *("5.0", "1e3", "0x10", "1_000", "٣", "\uff15", "²", "5\0", "NaN", "inf", "5;6", "5 6", "''"),
]
SIZES = [f"{ZEROS}640x{ZEROS}480", "9" * 400 + "x1", "٣x٣", "640x", "x", "-1x-1", "0x0", "1e3x1"]
DAYS = ["0000-00-00", "9999-12-31", "0" * 400, "2026-1-1", "\uff12026-01-01", "2026-01-01T00", "-1"]


def ask_oddly(client, name, value):
    for address in ("/", "/api/runs", "/slideshow"):
        answer = client.get(address, query_string={name: value})
        assert answer.status_code in (200, 400), (address, name, value[:40])
        assert answer.text.count('data-run="') <= 200 and len(answer.data) < 1_000_000


@pytest.mark.parametrize("name", [*NUMBERS, "size", "date_from", "date_to", "favourite", "after"])
def test_no_number_exceeds_its_limit(output, name):
    for number in range(210 if name == "n" else 1):
        make_run(output, number, picture=None)
    client = open_gallery(output)
    for value in (*ODD_NUMBERS, *SIZES, *DAYS):
        ask_oddly(client, name, value)


def test_zeros_before_a_number_do_not_count(output):
    names = [make_run(output, n, num_steps=5 * n).name for n in range(4)][::-1]
    client = open_gallery(output)
    assert runs_on(client.get(f"/?n={ZEROS}2&page={ZEROS}2")) == names[2:]
    assert runs_on(client.get(f"/?steps_min={ZEROS}5&steps_max={'0' * 9000}10")) == names[1:3]
    assert runs_on(client.get(f"/?size={ZEROS}32x{ZEROS}24")) == names
    assert runs_on(client.get("/?size=32×24")) == names


ODD_CURSORS = [
    *(
        "0" * 18 + "1_1_1_x",
        "1_" + "0" * 30 + "_0_x",
        "1_9223372036854775807_0_x",
        "1_0_1" + "_" * 9,
    ),
    *("1e308_8999999999999999999_8999999999999999999_x", "-1_0_0_x", "1e999_0_0_x", "1_1_1_x\0"),
    *("1_٣_0_x", "e_0_0_x", "1_0_0_" + "x" * 9000, "1_-1_0_x", "0x1_0_0_x"),
]


@pytest.mark.parametrize("cursor", ODD_CURSORS)
def test_no_cursor_trips_the_slideshow(output, cursor):
    make_run(output, 1)
    client = open_gallery(output)
    for address in ("/api/slides/next", "/slideshow"):
        assert client.get(address, query_string={"after": cursor}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil", "[", ""]
)
def test_unknown_hosts_are_refused(output, host):
    name = make_run(output, 1, text_input=SECRET).name
    client = open_gallery(output)
    for address in ("/", f"/runs/{name}", "/api/runs", f"/files/{name}/details.json"):
        answer = client.get(address, headers={"Host": host})
        assert answer.status_code == 400 and SECRET.encode() not in answer.data


@pytest.mark.parametrize(
    "host", ["localhost:5000", "127.0.0.1", "[::1]:5000", "192.168.1.7:80", "Mine"]
)
def test_own_names_and_numbers_are_hosts(output, host):
    make_run(output, 1)
    client = open_gallery(output, hosts=("mine",))
    assert client.get("/", headers={"Host": host}).status_code == 200
    own = socket.gethostname()
    assert client.get("/", headers={"Host": own}).status_code == 200


def test_every_answer_tells_browsers_what_is_allowed(output):
    name = make_run(output, 1).name
    client = open_gallery(output)
    for address, answer in ask_everything(client, name).items():
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy, address
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        if answer.mimetype == "text/html":
            assert " style=" not in answer.text and "<style" not in answer.text
            assert not any(f" on{event}=" in answer.text for event in ("click", "load", "error"))
            assert "<script>" not in answer.text
            assert "https://" not in answer.text, "nothing from elsewhere"


def test_errors_are_pages_for_people_and_json_for_programs(output):
    make_run(output, 1)
    client = open_gallery(output)
    page, data = client.get("/runs/nobody"), client.get("/api/runs/nobody")
    assert page.status_code == data.status_code == 404
    assert page.mimetype == "text/html" and "There is no run nobody" in page.text
    assert "There is no run nobody" in data.json["error"]
    refused = client.post("/api/runs")
    assert refused.status_code == 405 and "GET" in refused.headers["Allow"]


def test_a_bug_of_ours_gets_a_page_too(output, monkeypatch):
    make_run(output, 1)
    client = open_gallery(output)
    monkeypatch.setattr("studio.gallery.search.find", None)
    answer = client.get("/")
    assert answer.status_code == 500 and "please report it" in answer.text
    assert "Traceback" not in answer.text


def test_the_state_of_a_run_is_what_storage_says(output):
    make_run(output, 1, status="running", heartbeat=None)
    assert storage.status_of({"status": "running"}) == "interrupted"
    assert "status-interrupted" in open_gallery(output).get("/").text
