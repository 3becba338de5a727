"""The gallery's pages without JavaScript: wall, search, one run, changes."""

import html
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest
from gallery_runs import (
    FIRST,
    look_again,
    make_run,
    open_gallery,
    post,
    post_json,
    runs_on,
    token_of,
)
from PIL import Image

from gallery import create_app
from studio.gallery.library import Options
from studio.gallery.query import SORTS
from studio.runs import details, storage

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


# --- The wall ----------------------------------------------------------------------------------


def test_the_newest_come_first_in_pages(output):
    names = [make_run(output, n).name for n in range(30)][::-1]
    client = open_gallery(output)
    first, second = client.get("/"), client.get("/?page=2")
    assert runs_on(first) == names[:24] and runs_on(second) == names[24:]
    assert "Page 1 of 2" in first.text and 'rel="next"' in first.text
    assert 'rel="next"' not in second.text
    assert runs_on(client.get("/?n=5&page=6")) == names[25:]


def test_a_tile_says_what_and_when_and_keeps_the_aspect(output):
    folder = make_run(output, 1, size=(160, 90), text_input="a red heart")
    page = open_gallery(output).get("/").text
    assert "a red heart" in page and "1 Jan 2026, 12:01" in page
    assert 'width="160" height="90"' in page and 'class="tile r180"' in page
    assert f"/thumbs/{folder.name}" in page


def test_an_empty_folder_says_what_to_do(output):
    output.mkdir()
    assert "There is no picture yet" in open_gallery(output).get("/").text


@pytest.mark.parametrize(
    "query",
    [
        *("page=abc", "page=0", "page=-1", "page=1e9", "page=%F0%9F%8D%8E", "page=" + "9" * 99),
        *("n=0", "n=x", "n=100000", "sort=x", "status=x", "size=1", "steps_min=x", "date_from=x"),
        *("date_to=2026-99-99", "favourite=x", "q=" + "x" * 600, "page=99"),
    ],
)  # fmt: skip
def test_senseless_parameters_are_reported_and_the_nearest_page_is_shown(output, query):
    name = make_run(output).name
    page = open_gallery(output).get(f"/?{query}")
    assert page.status_code == 200 and runs_on(page) == [name]
    assert 'role="alert"' in page.text


def test_new_and_missing_runs_show_at_the_next_look(output):
    first = make_run(output, 1)
    client = open_gallery(output)
    assert runs_on(client.get("/")) == [first.name]
    second = make_run(output, 2)
    assert runs_on(client.get("/")) == [second.name, first.name]
    first.rename(output / "another name")
    assert runs_on(client.get("/")) == ["another name", second.name][::-1]


def test_a_change_in_a_run_shows_within_two_seconds(output):
    folder = make_run(output, 1, text_input="before")
    client = open_gallery(output)
    storage.RunFolder(folder).update(text_input="after")
    deadline = time.monotonic() + 30
    while "after" not in (page := client.get("/").text) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "after" in page and "before" not in page


def test_a_running_run_shows_its_preview_and_its_step(output):
    folder = make_run(output, 1, picture=None, status="running", heartbeat=storage.now())
    Image.new("RGB", (32, 32)).save(folder / "preview.JPEG")
    progress = {"step": 7, "planned_num_steps": 50, "seconds_left": 3.5}
    (folder / "progress.json").write_text(json.dumps(progress))
    client = open_gallery(output)
    assert "step 7 of 50" in client.get("/").text
    (running,) = client.get("/api/activity").json["running"]
    assert (running["run_id"], running["step"], running["planned"]) == (folder.name, 7, 50)
    assert client.get(running["thumb"]).mimetype == "image/jpeg"


def test_a_run_that_fell_silent_becomes_interrupted_by_itself(output, monkeypatch):
    make_run(output, 1, status="running", heartbeat=storage.now())
    client = open_gallery(output)
    before = client.get("/api/activity").json
    assert before["running"]
    monkeypatch.setattr(details, "SILENT_SECONDS", -1.0)
    look_again(client)
    after = client.get("/api/activity").json
    assert after["running"] == [] and after["revision"] != before["revision"]
    assert "status-interrupted" in client.get("/").text


def test_a_heartbeat_alone_does_not_make_pages_reload(output):
    folder = make_run(output, 1, status="running", heartbeat=storage.now())
    client = open_gallery(output)
    before = client.get("/api/activity").json["revision"]
    storage.RunFolder(folder).update(heartbeat=storage.now())
    look_again(client)
    assert client.get("/api/activity").json["revision"] == before


# --- Finding -----------------------------------------------------------------------------------

PROMPTS = [
    "a red heart",
    "a blue bird | watercolour",
    "Äpfel und Birnen",
    "心の庭 水彩画",
    "moon 🌙",
    "50% off: C++",
]


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("heart", [0]), ("HEART red", [0]), ("hea", [0]), ("eart", []), ("a", [1, 0, 2]),
        ("red bird", []), ('"blue bird"', [1]), ('"bird blue"', []), ("a -red", [1, 2]),
        ("-a", [5, 4, 3]), ("apfel", [2]), ("庭", [3]), ("水彩", [3]), ("🌙", [4]),
        ("moon 🌙", [4]),
        ("%", [5]), ("C++", [5]), ("emoji_clip", [5, 4, 3, 2, 1, 0]), ("cutn 17", [3]),
        ("run00002", [2]), ('"', [5, 4, 3, 2, 1, 0]), ("-", [5, 4, 3, 2, 1, 0]),
        ("NEAR(", []), ("prompt:heart", []), ("*", []), ("' OR 1=1 --", []), ("heart\0", [0]),
    ],
)  # fmt: skip
def test_search(output, q, found):
    names = []
    for number, prompt in enumerate(PROMPTS):
        more = {"cutn": 17} if number == 3 else {}
        names.append(make_run(output, number, text_input=prompt, **more).name)
    page = open_gallery(output).get("/?q=" + quote(q))
    assert page.status_code == 200
    assert sorted(runs_on(page)) == sorted(names[n] for n in found)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("weights=emoji_f8", [0, 1]), ("weights=other", [2]), ("clip=ViT-B%2F32", [2]),
        ("size=64x48", [1]), ("steps_min=100", [1, 2]), ("steps_min=100&steps_max=100", [1]),
        ("status=failed", [2]), ("status=done", [0, 1]), ("date_from=2026-01-02", [2]),
        ("date_to=2026-01-01", [0, 1]), ("weights=emoji_f8&steps_min=100", [1]),
        ("favourite=1", []),
        ("weights=" + quote("x' OR '1'='1"), []),
    ],
)  # fmt: skip
def test_filters(output, query, found):
    names = [
        make_run(output, 0).name,
        make_run(output, 1, size=(64, 48), num_steps=100).name,
        make_run(
            output, 24 * 60, num_steps=500, status="failed", vqgan_ckpt="other",
            clip_model="ViT-B/32",
        ).name,
    ]  # fmt: skip
    assert sorted(runs_on(open_gallery(output).get(f"/?{query}"))) == [names[n] for n in found]


def test_sorting(output):
    names = [
        make_run(output, n, text_input=prompt, num_steps=steps, size=size).name
        for n, (prompt, steps, size) in enumerate(
            [("b", 3, (9, 9)), ("C", 1, (5, 5)), ("a", 2, (7, 7))]
        )
    ]
    client = open_gallery(output)
    orders = {"newest": [2, 1, 0], "oldest": [0, 1, 2], "prompt": [2, 0, 1]}
    orders |= {"steps": [0, 2, 1], "size": [0, 2, 1]}
    for sort, order in orders.items():
        assert runs_on(client.get(f"/?sort={sort}")) == [names[n] for n in order], sort


# --- One run -----------------------------------------------------------------------------------


def address(page, mark):
    """The address that a link of a page leads to."""
    found = re.search(rf'{mark} href="([^"]+)"', page.text)
    return found and html.unescape(found[1])


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("query", ["", "q=b&", "favourite=1&"])
def test_stepping_goes_through_the_list_that_the_page_was_opened_from(output, sort, query):
    kinds = [("b", 3, (9, 9)), ("", None, (5, 5)), ("B a", 3, (7, 7)), ("c b", 1, (9, 9))]
    for number in range(8):
        prompt, steps, size = kinds[number % 4]
        make_run(output, number, text_input=prompt, num_steps=steps, size=size)
    client = open_gallery(output)
    for number in (1, 2, 5, 7):
        post(client, f"/runs/run{number:05d}/favourite", on="1")
    listed = f"/?{query}sort={sort}&n=3"
    found = [name for page in (1, 2, 3) for name in runs_on(client.get(f"{listed}&page={page}"))]
    found = list(dict.fromkeys(found))
    assert len(found) in (4, 6, 8)
    step, seen = address(client.get(listed), 'class="open"'), []
    while step:
        page = client.get(step)
        seen += runs_on(page)
        back = client.get(address(page, 'id="to-wall"'))
        assert seen[-1] in runs_on(back) and found[3 * ((len(seen) - 1) // 3)] in runs_on(back)
        before, step = address(page, 'id="before"'), address(page, 'id="after"')
        assert bool(before) == (len(seen) > 1) and (not before or seen[-2] in before)
    assert seen == found


def test_a_run_that_no_longer_matches_keeps_a_place_in_its_list(output):
    names = [make_run(output, n, num_steps=10 * n).name for n in range(3)]
    client = open_gallery(output)
    page = client.get(f"/runs/{names[1]}?steps_max=0")
    assert names[0] in address(page, 'id="after"') and not address(page, 'id="before"')
    answer = client.get(f"/runs/{names[1][-8:]}?steps_max=0&sort=x")
    assert answer.location == f"/runs/{names[1]}?steps_max=0"


def test_a_long_prompt_is_shown_in_full_only_on_request(output):
    long = "a heart, " * 2000
    one = make_run(output, 1, text_input=long).name
    two = make_run(output, 2, text_input="a bird", parent=one).name
    client = open_gallery(output)
    for address in (f"/runs/{one}", f"/runs/{two}", f"/compare?a={one}&b={two}"):
        page = client.get(address).text
        shown = re.sub(r"<summary>.*?</summary>|<details.*?</details>", "", page, flags=re.DOTALL)
        assert "a heart" in shown and shown.count("a heart") < 200, address
        assert "<h1" in page and page.count(long.strip()) >= 1


def test_a_picture_known_to_be_broken_is_not_requested(output):
    folder = make_run(output, 1)
    data = bytearray((folder / "output.PNG").read_bytes())
    data[40:60] = bytes(20)
    (folder / "output.PNG").write_bytes(data)
    client = open_gallery(output)
    asked = f"/thumbs/{folder.name}"
    assert asked in client.get("/").text, "only decoding shows that it is broken"
    assert client.get(asked).mimetype == "image/svg+xml"
    for page in ("/", f"/runs/{folder.name}"):
        assert asked not in client.get(page).text and "cannot be shown" in client.get(page).text
    assert 'id="picture"' not in client.get(f"/runs/{folder.name}").text


def test_the_page_of_a_run_shows_everything(output):
    folder = make_run(
        output, 1, text_input="a red heart", seed=2**64 - 1, use_mse_regularization=False,
        mse_weight=0.25,
    )  # fmt: skip
    for name in ("anim.mp4", "init-image.JPEG", "image-prompt-1.JPEG", "image-prompt-2.JPEG"):
        (folder / name).write_bytes(b"1")
    page = open_gallery(output, app_url="http://studio:1/x").get(f"/runs/{folder.name}").text
    for file in (
        "output.PNG",
        "anim.mp4",
        "init-image.JPEG",
        "image-prompt-2.JPEG",
        "details.json",
    ):
        assert f"/files/{folder.name}/{file}" in page
    assert f"http://studio:1/x/?continue={folder.name}" in page
    assert f"http://studio:1/x/?use={folder.name}" in page
    assert "<dt>Model weights</dt><dd>emoji_f8" in page
    assert f"<dd>{2**64 - 1}</dd>" in page and f"&#34;{2**64 - 1}&#34;" in page
    assert re.search(r"MSE weight</dt><dd>0.25\s+<span class=\"quiet\">\(not used\)", page)


def test_the_last_eight_characters_name_a_run_too(output):
    folder = make_run(output, 1)
    answer = open_gallery(output).get("/runs/run00001")
    assert answer.status_code == 302 and answer.location == f"/runs/{folder.name}"


@pytest.mark.parametrize("layout", ["parent", "prev_run_id"])
def test_lineage_with_what_changed(output, layout):
    names = []
    for number, prompt in enumerate(["in spring", "in summer", "in autumn"]):
        more = {layout: names[-1] if layout == "parent" else names[-1][-8:]} if names else {}
        names.append(make_run(output, number, text_input=prompt, **more).name)
    sibling = {layout: names[0] if layout == "parent" else names[0][-8:]}
    names.append(make_run(output, 9, text_input="in the rain", **sibling).name)
    client = open_gallery(output)
    facts = client.get(f"/api/runs/{names[1]}").json
    assert facts["ancestors"] == [names[0]] and facts["children"] == [names[2]]
    assert facts["siblings"] == [names[3]]
    page = client.get(f"/runs/{names[1]}").text
    assert all(f'href="/runs/{name}"' in page for name in names)
    row = r"Text prompt</th><td>in spring</td><td>in summer</td>"
    assert re.search(row, page)


def test_a_parent_that_is_gone_and_a_circle_of_parents(output):
    lost = make_run(output, 1, prev_run_id="gone1234").name
    one, two = (f"20260101T0000{n:02d}-aaaaaaa{n}" for n in (1, 2))
    make_run(output, name=one, parent=two)
    make_run(output, name=two, parent=one)
    client = open_gallery(output)
    assert "gone1234, which is not here" in client.get(f"/runs/{lost}").text
    assert client.get(f"/api/runs/{one}").json["ancestors"] == [two]


def test_compare(output):
    one = make_run(output, 1, cutn=8, text_input="same").name
    two = make_run(output, 2, cutn=16, text_input="same").name
    client = open_gallery(output)
    page = client.get(f"/compare?a={one}&b={two}").text
    table = page[page.index("<tbody>") : page.index("</tbody>")]
    assert table.count("<tr>") == 1 and "<td>8</td><td>16</td>" in table
    assert f"/compare?a={one}&amp;b={two}" in client.get(f"/?compare={one}").text
    assert client.get(f"/compare?a={one}&b=nobody").status_code == 404


def test_the_zip_holds_every_file(output):
    folder = make_run(output, 1)
    (folder / "anim.mp4").write_bytes(os.urandom(700_000))
    (folder / "stranger.txt").write_text("not ours")
    answer = open_gallery(output).get(f"/runs/{folder.name}/all.zip")
    with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        assert archive.testzip() is None
        names = {f"{folder.name}/{n}" for n in ("anim.mp4", "details.json", "output.PNG")}
        assert set(archive.namelist()) == names
        read = archive.read(f"{folder.name}/anim.mp4")
    assert read == (folder / "anim.mp4").read_bytes()


def test_a_video_is_sent_in_parts(output):
    folder = make_run(output, 1)
    (folder / "anim.mp4").write_bytes(bytes(range(256)) * 1000)
    address = f"/files/{folder.name}/anim.mp4"
    client = open_gallery(output)
    whole = client.get(address)
    assert whole.mimetype == "video/mp4" and whole.data == (folder / "anim.mp4").read_bytes()
    part = client.get(address, headers={"Range": "bytes=1000-1999"})
    assert part.status_code == 206 and part.data == whole.data[1000:2000]
    assert client.get(address, headers={"Range": "bytes=9999999-"}).status_code == 416
    same = client.get(address, headers={"If-None-Match": whole.headers["ETag"]})
    assert same.status_code == 304 and same.data == b""


def test_thumbnails_are_small_made_once_and_outside_the_runs(output):
    folder = make_run(output, 1, size=(2000, 1000))
    before = sorted(p.name for p in folder.iterdir())
    client = open_gallery(output)
    data = client.get(f"/thumbs/{folder.name}").data
    assert Image.open(io.BytesIO(data)).size == (512, 256)
    (kept,) = (output / ".gallery" / "cache" / "thumbnails").rglob("*.jpg")
    made = kept.stat().st_ctime_ns
    assert client.get(f"/thumbs/{folder.name}").data == data
    assert kept.stat().st_ctime_ns == made
    assert sorted(p.name for p in folder.iterdir()) == before
    Image.new("RGB", (40, 40), "red").save(folder / "output.PNG")
    assert Image.open(io.BytesIO(client.get(f"/thumbs/{folder.name}").data)).size == (480, 480)
    folder.rename(output / "elsewhere")
    assert runs_on(client.get("/")) == ["elsewhere"] and not kept.exists()


# --- Changing ----------------------------------------------------------------------------------


def test_marks_survive_the_deletion_of_the_cache(output):
    name = make_run(output, 1).name
    client = open_gallery(output)
    assert post(client, f"/runs/{name}/favourite", on="1").status_code == 302
    post(client, f"/runs/{name}/tags", tags="sea,  two words , SEA,")
    post(client, f"/runs/{name}/note", note="Lovely\r\nthing", before="")
    for _ in range(2):
        page = client.get(f"/runs/{name}").text
        assert 'aria-pressed="true"' in page and "Lovely\nthing" in page
        assert runs_on(client.get("/?favourite=1")) == runs_on(client.get("/?tag=sea")) == [name]
        assert client.get(f"/api/runs/{name}").json["tags"] == ["sea", "two words"]
        for path in sorted((output / ".gallery" / "cache").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (output / ".gallery" / "cache").rmdir()
    post(client, f"/runs/{name}/favourite", on="0")
    post(client, f"/runs/{name}/tags/remove", tag="two words")
    assert runs_on(client.get("/?favourite=1")) == []
    assert open_gallery(output).get(f"/api/runs/{name}").json["tags"] == ["sea"]


def test_two_windows_do_not_overwrite_each_others_notes(output):
    name = make_run(output, 1).name
    one, two = open_gallery(output), open_gallery(output)
    post(one, f"/runs/{name}/note", note="mine", before="")
    answer = post_json(two, f"/runs/{name}/note", note="yours", before="")
    assert answer.status_code == 409 and "another window" in answer.json["error"]
    assert two.get(f"/api/runs/{name}").json["note"] == "mine"
    post(one, f"/runs/{name}/tags", tags="one")
    post(two, f"/runs/{name}/tags", tags="two")
    assert one.get(f"/api/runs/{name}").json["tags"] == ["one", "two"]


def test_a_change_in_one_gallery_shows_in_another(output):
    name = make_run(output, 1).name
    one, two = open_gallery(output), open_gallery(output)
    before = two.get("/api/activity").json["revision"]
    post(one, f"/runs/{name}/favourite", on="1")
    assert two.get("/api/activity").json["revision"] != before
    assert two.get(f"/api/runs/{name}").json["favourite"] is True


def test_remove_and_undo(output):
    name = make_run(output, 1, text_input="come back").name
    client = open_gallery(output)
    post(client, f"/runs/{name}/favourite", on="1")
    answer = post(client, f"/runs/{name}/trash")
    wall = client.get(answer.location)
    assert runs_on(wall) == [] and "moved to the trash" in wall.text and "Undo" in wall.text
    assert (output / ".trash" / name).is_dir()
    assert client.get(f"/runs/{name}").status_code == 404
    assert client.get(f"/files/{name}/output.PNG").status_code == 404
    trash = client.get("/trash").text
    assert "come back" in trash
    assert client.get(f"/trash/{name}/thumb").mimetype == "image/jpeg"
    post(client, f"/trash/{name}/restore")
    assert runs_on(client.get("/?favourite=1")) == [name]
    assert "is empty" in client.get("/trash").text


@pytest.mark.parametrize("status", ["running", "queued"])
def test_a_waiting_or_running_run_cannot_be_removed(output, status):
    name = make_run(output, 1, status=status, heartbeat=storage.now()).name
    client = open_gallery(output)
    assert post_json(client, f"/runs/{name}/trash").status_code == 409
    assert (output / name).is_dir()


CHANGES = ("favourite", "tags", "tags/remove", "note", "trash")


def everything(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("mode", ["kiosk", "read_only"])
@pytest.mark.parametrize("change", CHANGES)
def test_kiosk_and_read_only_change_nothing(output, mode, change):
    name = make_run(output, 1).name
    client = open_gallery(output, **{mode: True})
    page = client.get("/").text
    assert token_of(client) not in page and "<form method" not in page
    assert post(client, f"/runs/{name}/{change}", on="1", tags="x", tag="x").status_code == 403
    assert post(client, f"/trash/{name}/restore").status_code == 403
    assert (output / name).is_dir() and not (output / ".trash").exists()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "wrong",
    [{"token": ""}, {"token": "guessed"}, {"token": "\ud83d"}, {"origin": "http://evil.example"},
     {"origin": "null"}, {"origin": "https://localhost"}, {"host": "evil.example"}],
)  # fmt: skip
def test_a_change_must_come_from_one_of_our_pages(output, change, wrong):
    name = make_run(output, 1).name
    client = open_gallery(output)
    headers = {"Origin": wrong.get("origin", "http://localhost")}
    headers["Host"] = wrong.get("host", "localhost")
    data = {"token": wrong.get("token", token_of(client)).encode("utf-8", "surrogatepass")}
    answer = client.post(f"/runs/{name}/{change}", data=data | {"on": "1"}, headers=headers)
    assert answer.status_code in (400, 403)
    assert (output / name).is_dir()
    assert client.get(f"/api/runs/{name}").json["favourite"] is False
    assert client.get(f"/runs/{name}/{change}").status_code in (404, 405)


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/\\evil.example", "x"])
def test_a_change_only_leads_back_to_us(output, back):
    name = make_run(output, 1).name
    answer = post(open_gallery(output), f"/runs/{name}/favourite", on="1", back=back)
    assert answer.location == "/"


def killed_while_marking(output, name, seconds):
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from gallery_runs import open_gallery, post\n"
        "client, name, n = open_gallery(sys.argv[3]), sys.argv[4], 0\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    n += 1\n"
        "    post(client, f'/runs/{name}/tags', tags=f'tag {n % 20}')\n"
        "    print(n % 20, flush=True)\n"
    )
    arguments = [str(ROOT), str(ROOT / "tests"), str(output), name]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    time.sleep(seconds)
    process.kill()
    return process.communicate()[0].decode().split()


def test_marks_survive_a_kill(output):
    name = make_run(output, 1).name
    said = killed_while_marking(output, name, 0.7)
    assert said
    tags = open_gallery(output).get(f"/api/runs/{name}").json["tags"]
    assert {f"tag {n}" for n in said} <= set(tags)
    with sqlite3.connect(output / ".gallery" / "curation.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# --- Kiosk -------------------------------------------------------------------------------------


def test_a_kiosk_shows_only_pictures_and_prompts(output):
    folder = make_run(output, 1, text_input="a red heart", vqgan_ckpt="secret_weights")
    make_run(output, 2, picture=None, text_input="no picture of it")
    make_run(output, 3, status="running", heartbeat=storage.now(), text_input="half done")
    client = open_gallery(output, kiosk=True)
    for address in ("/", "/slideshow", f"/runs/{folder.name}", "/api/runs"):
        page = client.get(address).text
        assert "a red heart" in page, address
        assert not any(w in page for w in ("secret_weights", "no picture of it", "half done")), (
            address
        )
    for address in ("/trash", f"/runs/{folder.name}/all.zip", f"/files/{folder.name}/details.json"):
        assert client.get(address).status_code == 404
    assert client.get("/runs/" + make_run(output, 4, status="queued").name).status_code == 404
    assert "details" not in client.get(f"/api/runs/{folder.name}").json
    assert client.get(f"/files/{folder.name}/output.PNG").status_code == 200


def test_the_slideshow_goes_round_and_shows_new_runs_first(output):
    names = [make_run(output, n).name for n in range(3)]
    client = open_gallery(output, kiosk=True)
    cursor, seen = "", []

    def step():
        nonlocal cursor
        answer = client.get("/api/slides/next", query_string={"after": cursor}).json
        cursor = answer["cursor"]
        seen.append(answer["slide"]["run_id"])

    for _ in range(5):
        step()
    assert seen == [names[2], names[1], names[0], names[2], names[1]]
    new = make_run(output, 1, name="20251231T000000-finished").name
    step()
    assert seen[-1] == new, "it began before the others and was finished after them"
    step()
    assert seen[-1] == names[0], "it resumes where it was"


@pytest.mark.parametrize(
    "cursor", ["x", "__", "1_1_", "nan_1_x", "1e999_1_x", "1_" + "9" * 30 + "_x"]
)
def test_an_invalid_cursor_starts_at_the_newest(output, cursor):
    name = make_run(output, 1).name
    answer = open_gallery(output).get("/api/slides/next", query_string={"after": cursor})
    assert answer.json["slide"]["run_id"] == name


def test_without_pictures_the_slideshow_waits(output):
    output.mkdir()
    client = open_gallery(output, kiosk=True)
    assert client.get("/api/slides/next").json == {"slide": None, "cursor": ""}
    assert "There is no picture yet" in client.get("/slideshow").text


# --- The index as a cache ----------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_broken_index_is_rebuilt(output, damage):
    name = make_run(output, 1).name
    open_gallery(output)
    (output / ".gallery" / "cache" / "index.sqlite").write_bytes(damage)
    assert runs_on(open_gallery(output).get("/")) == [name]


def test_broken_favourites_are_put_aside_and_reported(output, capsys):
    name = make_run(output, 1).name
    open_gallery(output)
    (output / ".gallery" / "curation.sqlite").write_bytes(b"no database" * 100)
    client = open_gallery(output)
    assert runs_on(client.get("/")) == [name]
    assert (output / ".gallery" / "curation.sqlite.broken").exists()
    assert "curation.sqlite.broken" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_still_shown(output, capsys):
    name = make_run(output, 1).name
    (output / ".gallery").write_text("in the way")
    client = open_gallery(output)
    assert runs_on(client.get("/")) == [name]
    assert client.get(f"/thumbs/{name}").status_code == 200
    assert "cannot be written" in capsys.readouterr().err


def test_a_warm_start_reads_no_run_again(output, monkeypatch):
    names = [make_run(output, n).name for n in range(3)]
    open_gallery(output)
    monkeypatch.setattr("gallery_utils.Shelf.read", None)
    assert runs_on(open_gallery(output).get("/")) == names[::-1]


def test_the_output_folder_may_disappear_while_it_is_shown(output):
    make_run(output, 1)
    client = open_gallery(output)
    output.rename(output.with_name("elsewhere"))
    page = client.get("/")
    assert page.status_code == 200 and "is not there any more" in page.text


def test_dates_come_from_the_name(output):
    make_run(output, 1, name="20260101T120100-a", start_time="2030-01-01")
    client = open_gallery(output)
    assert FIRST.strftime("1 Jan %Y") in client.get("/").text


def test_an_application_needs_a_folder(tmp_path):
    with pytest.raises(Exception, match="There is no folder"):
        create_app(tmp_path / "nowhere", Options())


def test_two_galleries_may_start_with_the_same_empty_index(output):
    names = [make_run(output, n).name for n in range(40)]
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from gallery_runs import open_gallery, runs_on\n"
        "print(len(runs_on(open_gallery(sys.argv[3]).get('/?n=200'))))\n"
    )
    command = [sys.executable, "-c", code, str(ROOT), str(ROOT / "tests"), str(output)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    assert [one.communicate()[0].split() for one in both] == [[b"40"], [b"40"]]
    assert runs_on(open_gallery(output).get("/?n=200")) == names[::-1]
