"""What the gallery knows of the folders, while they appear, change, disappear and come back."""

import errno
import json
import os
import time
from types import SimpleNamespace

import pytest
from gallery_runs import look_again, make_run, open_gallery, post, post_json, runs_on
from PIL import Image

from studio.queue import run_queue
from studio.runs import run_index, storage

BUDGET = 0.1  # seconds that a look at 2,000 waiting runs may take


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


def library(client):
    return client.application.extensions["gallery"]


def settle(output):
    """As if the folder last changed long ago, so that it is listed only when it changes."""
    os.utime(output, ns=(0, 10**18))


# --- The folder of all runs --------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["/", "/api/activity", "/slideshow", "/runs/{name}", "/thumbs/{name}"]
)
def test_a_folder_that_was_away_for_a_moment_is_shown_again(output, address):
    names = [make_run(output, n).name for n in range(3)][::-1]
    settle(output)
    client = open_gallery(output)
    output.rename(output.with_name("away"))
    for _ in range(3):
        look_again(client)
        client.get(address.format(name=names[0]))
    assert runs_on(client.get("/")) == names, "the gallery keeps what it knew"
    output.with_name("away").rename(output)
    look_again(client)
    page = client.get("/")
    assert runs_on(page) == names and 'role="alert"' not in page.text
    assert client.get("/api/slides/next").json["slide"]["run_id"] == names[0]


def test_runs_that_went_while_the_folder_was_away_are_gone_when_it_comes_back(output):
    first, second = make_run(output, 1), make_run(output, 2)
    settle(output)
    client = open_gallery(output)
    away = output.with_name("away")
    output.rename(away)
    client.get("/")
    (away / second.name).rename(away.with_name(second.name))
    settle(away)
    away.rename(output)
    assert runs_on(client.get("/")) == [first.name]


def test_another_folder_in_its_place_is_listed_even_with_the_same_time(output):
    make_run(output, 1)
    other = make_run(output.with_name("other"), 2)
    settle(output)
    client = open_gallery(output)
    assert len(runs_on(client.get("/"))) == 1
    output.rename(output.with_name("first"))
    output.with_name("other").rename(output)
    settle(output)
    assert runs_on(client.get("/")) == [other.name]


def test_a_run_that_was_moved_away_and_back_in_one_tick_is_found_again(output):
    folder = make_run(output, 1)
    client = open_gallery(output)
    settle(output)
    client.get("/")
    folder.rename(output.with_name("aside"))
    settle(output)
    look_again(client)
    assert runs_on(client.get("/")) == []
    output.with_name("aside").rename(folder)
    settle(output)
    assert runs_on(client.get("/")) == [folder.name]


def test_a_folder_that_cannot_be_read_says_why(output, monkeypatch):
    """Root may read everything, and tests may run as root."""
    make_run(output, 1)
    real = os.open

    def refuse(path, *args, **options):
        if str(path) == f"{output}/.":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    client = open_gallery(output)
    page = client.get("/").text
    assert f"The folder {output} cannot be read: Permission denied." in page
    assert "There is no picture yet" not in page
    before = client.get("/api/activity").json["revision"]
    monkeypatch.undo()
    assert client.get("/api/activity").json["revision"] != before, "the page loads again by itself"
    assert len(runs_on(client.get("/"))) == 1


# --- Files that are being written --------------------------------------------------------------


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("file", ["output.PNG", "details.json"])
def test_a_file_that_was_seen_half_written_is_read_again_when_it_is_whole(output, file, restart):
    folder = make_run(output, 1, size=(64, 64), text_input="a red heart")
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: len(data) // 2])
    client = open_gallery(output)
    assert "status-broken" in client.get("/").text
    client.get(f"/thumbs/{folder.name}")
    with (folder / file).open("ab") as rest:
        rest.write(data[len(data) // 2 :])
    client = open_gallery(output) if restart else client
    look_again(client)
    page = client.get("/").text
    assert "status-broken" not in page and "a red heart" in page
    assert client.get(f"/thumbs/{folder.name}").mimetype == "image/jpeg"


def test_a_file_that_grows_within_a_tick_of_the_clock_is_read_again(output):
    folder = make_run(output, 1, size=(64, 64))
    picture = folder / "output.PNG"
    data = picture.read_bytes()
    picture.write_bytes(data[:-20])
    os.utime(picture, ns=(1, 1))
    client = open_gallery(output)
    assert "is cut off" in client.get("/").text
    picture.write_bytes(data)
    os.utime(picture, ns=(1, 1))
    look_again(client)
    assert "is cut off" not in client.get("/").text


def test_a_picture_that_becomes_whole_while_it_is_checked_is_read_again(output, monkeypatch):
    import gallery_utils

    folder = make_run(output, 1, size=(64, 64))
    picture = folder / "output.PNG"
    data = picture.read_bytes()
    picture.write_bytes(data[:-20])
    real = gallery_utils._measure

    def measure(file, name):
        found = real(file, name)
        picture.write_bytes(data)
        return found

    monkeypatch.setattr(gallery_utils, "_measure", measure)
    client = open_gallery(output)
    look_again(client)
    assert "status-broken" not in client.get("/").text


def test_a_problem_of_an_older_picture_is_not_blamed_on_the_new_one(output):
    folder = make_run(output, 1)
    client = open_gallery(output)
    index = library(client).index
    index.note_problem(folder.name, 12345, "It was broken.")
    assert "status-broken" not in client.get("/").text


# --- Waiting runs ------------------------------------------------------------------------------


def test_two_thousand_waiting_runs_do_not_slow_a_look(output):
    for number in range(2000):
        make_run(output, number, picture=None, status="queued", planned_num_steps=50)
    client = open_gallery(output)
    times = []
    for _ in range(3):
        look_again(client)
        began = time.perf_counter()
        client.get("/api/activity")
        times.append(time.perf_counter() - began)
    assert min(times) < BUDGET


def wait_in(output, number, **details):
    queued_at = f"2026-01-01T12:{number:02d}:00+00:00"
    facts = {"status": "queued", "queued_at": queued_at, "num_steps": 0, "planned_num_steps": 400}
    return make_run(output, number, picture=None, **facts | details)


def line(output):
    return [entry.name for entry in run_queue.waiting(run_index.entries(output))]


def test_a_waiting_run_offers_what_can_be_done_with_it(output):
    name = wait_in(output, 1).name
    page = open_gallery(output).get(f"/runs/{name}").text
    assert ">Cancel<" in page and ">Move up<" in page and "Continue in the app" not in page
    assert "400 steps to go" in page and "<span>0 steps" not in page
    looking = open_gallery(output, read_only=True).get(f"/runs/{name}").text
    assert ">Cancel<" not in looking and "Continue in the app" not in looking


def test_move_up_and_cancel(output):
    first, second, third = (wait_in(output, n).name for n in range(3))
    client = open_gallery(output)
    answer = post(client, f"/runs/{third}/up", back=f"/runs/{third}")
    assert answer.status_code == 302 and answer.location == f"/runs/{third}"
    assert line(output) == [first, third, second]
    for _ in range(2):
        post(client, f"/runs/{third}/up")
    assert line(output) == [third, first, second]
    assert post_json(client, f"/runs/{first}/cancel").json["run_id"] == first
    assert line(output) == [third, second]
    assert storage.RunFolder(output / first).live_status() == "stopped"
    look_again(client)
    assert ">Cancel<" not in client.get(f"/runs/{first}").text
    for change in ("cancel", "up"):
        answer = post_json(client, f"/runs/{first}/{change}")
        assert answer.status_code == 409 and first in answer.json["error"]


@pytest.mark.parametrize("options", [{"read_only": True}, {"kiosk": True}, {}])
def test_only_our_pages_change_the_queue(output, options):
    first, second = (wait_in(output, n).name for n in range(2))
    client = open_gallery(output, **options)
    data = {"token": "" if not options else client.application.jinja_env.globals["csrf_token"]}
    for change in ("cancel", "up"):
        assert client.post(f"/runs/{second}/{change}", data=data).status_code == 403
    assert line(output) == [first, second]


# --- The slideshow's order ---------------------------------------------------------------------


class Show:
    """A slideshow that asks as its script does."""

    def __init__(self, client):
        self._client, self._cursor = client, ""

    def next(self):
        query = {"after": self._cursor}
        answer = self._client.get("/api/slides/next", query_string=query).json
        self._cursor = answer["cursor"]
        return answer["slide"]["run_id"]


def test_after_newcomers_the_slideshow_resumes_where_it_was(output):
    names = [make_run(output, n).name for n in range(4)][::-1]
    show = Show(open_gallery(output))
    assert [show.next(), show.next()] == names[:2]
    new = [make_run(output, n).name for n in (10, 11)]
    assert [show.next() for _ in range(4)] == [*new, *names[2:]]


def test_endless_newcomers_do_not_keep_the_others_away(output):
    names = [make_run(output, n).name for n in range(4)][::-1]
    show = Show(open_gallery(output))
    seen = []
    for number in range(14):
        seen.append(show.next())
        make_run(output, 10 + number)
    assert [name for name in seen if name in names] == names


def test_a_run_with_a_future_date_does_not_stop_newcomers(output):
    future = make_run(output, 1, name="20990101T000000-tomorrow")
    later = time.time() + 70 * 365 * 86_400
    os.utime(future / "output.PNG", (later, later))
    old = make_run(output, 2).name
    show = Show(open_gallery(output))
    assert show.next() == future.name
    new = make_run(output, 1).name
    assert [show.next(), show.next()] == [new, old]


def test_a_run_is_shown_when_its_picture_is_whole(output):
    names = [make_run(output, n).name for n in range(2)][::-1]
    client = open_gallery(output)
    show = Show(client)
    assert show.next() == names[0]
    going = make_run(output, -5, status="running", heartbeat=storage.now())
    look_again(client)
    assert show.next() == names[1]
    storage.RunFolder(going).update(status="done")
    look_again(client)
    assert show.next() == going.name


def test_the_slideshow_shows_only_runs_that_ended_well(output):
    names = [make_run(output, n, status=s).name for n, s in enumerate(("done", "stopped"))]
    for number, status in enumerate(("failed", "interrupted", "running", "queued"), 5):
        make_run(output, number, status=status, heartbeat=storage.now())
    show = Show(open_gallery(output))
    assert {show.next() for _ in range(5)} == set(names)


# --- A folder that cannot be written -----------------------------------------------------------


@pytest.fixture
def disk(monkeypatch):
    """A disk that can be made read-only. Root may write everywhere, and tests may run as root."""
    state = SimpleNamespace(read_only=False)
    real = os.access

    def access(path, mode, **options):
        return not (state.read_only and mode & os.W_OK) and real(path, mode, **options)

    monkeypatch.setattr(os, "access", access)
    return state


@pytest.mark.parametrize("from_the_start", [True, False])
def test_marks_of_a_read_only_folder_are_kept_and_saved_later(output, disk, from_the_start, capsys):
    one, two = (make_run(output, n).name for n in (1, 2))
    client = open_gallery(output)
    post(client, f"/runs/{one}/tags", tags="sea")
    disk.read_only = True
    client = open_gallery(output) if from_the_start else client
    assert "tags and notes last until the gallery ends" in client.get("/").text
    assert "last until the gallery ends" in client.get(f"/runs/{one}").text
    assert runs_on(client.get("/?tag=sea")) == [one], "earlier marks are there"
    post(client, f"/runs/{two}/favourite", on="1")
    post(client, f"/runs/{one}/tags/remove", tag="sea")
    assert runs_on(client.get("/?favourite=1")) == [two] and runs_on(client.get("/?tag=sea")) == []
    assert runs_on(open_gallery(output).get("/?favourite=1")) == [], "it is not on the disk"
    disk.read_only = False
    assert "last until the gallery ends" not in client.get("/").text
    fresh = open_gallery(output)
    assert runs_on(fresh.get("/?favourite=1")) == [two] and runs_on(fresh.get("/?tag=sea")) == []
    assert "cannot be written" in capsys.readouterr().err


def test_favourites_are_saved_once_their_place_is_free(output):
    name = make_run(output, 1).name
    (output / ".gallery").write_text("in the way")
    client = open_gallery(output)
    post(client, f"/runs/{name}/note", note="mine", before="")
    (output / ".gallery").unlink()
    assert runs_on(client.get("/")) == [name]
    assert open_gallery(output).get(f"/api/runs/{name}").json["note"] == "mine"


def test_strangers_are_not_told_of_favourites(output, disk):
    make_run(output, 1)
    disk.read_only = True
    assert "cannot be written" not in open_gallery(output, read_only=True).get("/").text


def test_an_older_index_is_rebuilt(output):
    """Such as one without the sizes of pictures."""
    import sqlite3

    name = make_run(output, 1).name
    open_gallery(output)
    with sqlite3.connect(output / ".gallery" / "cache" / "index.sqlite") as connection:
        connection.execute("PRAGMA user_version = 1")
        connection.execute("ALTER TABLE runs DROP COLUMN picture_size")
    assert runs_on(open_gallery(output).get("/")) == [name]


def test_a_picture_that_is_replaced_shows(output):
    folder = make_run(output, 1, size=(20, 20))
    client = open_gallery(output)
    assert json.loads(client.get("/api/runs").data)["runs"][0]["width"] == 20
    Image.new("RGB", (40, 40)).save(folder / "output.PNG")
    look_again(client)
    assert client.get("/api/runs").json["runs"][0]["width"] == 40
