"""Upscaling in the gallery: asked for, watched, stopped, and the larger pictures beside a run."""

import html
import json
import re

import pytest
from gallery_runs import make_run, open_gallery, post, post_json
from PIL import Image

from studio.queue import run_queue
from studio.runs import upscalings
from studio.runs.claims import claimed
from studio.runs.storage import RunFolder, now
from studio.runs.upscalings import Asked, asked_in


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


def make_job(folder, scale=4, **details):
    job = upscalings.folder_of(RunFolder(folder), scale)
    job.path.mkdir(parents=True)
    job.write(upscalings.details_of(Asked(folder.name, scale, "auto"), "a tree") | details)
    return job


def make_larger(folder, *scales, of="output.PNG", **about):
    told = []
    for scale in scales:
        file = f"{of.partition('.')[0]}-x{scale}.PNG"
        Image.new("RGB", (32 * scale, 24 * scale)).save(folder / file)
        told.append({"file": file, "scale": scale, "model": "x4plus", "of": of} | about)
    run = RunFolder(folder)
    run.update(upscaled=[*run.read().get("upscaled", []), *told])


def page_of(client, folder, query=""):
    answer = client.get(f"/runs/{folder.name}{query}")
    assert answer.status_code == 200
    return answer.text


def shown(text):
    return re.findall(r'id="picture" src="[^"]*/([^/"?]+)\?', text)


def words(text):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def test_upscale_puts_it_into_the_queue(output):
    folder = make_run(output)
    client = open_gallery(output)
    text = page_of(client, folder)
    assert re.findall(r"<option>([^<]+)</option>", text)[:2] == ["auto", "animevideov3"]
    answer = post(client, f"/runs/{folder.name}/upscale", scale=3, model="x4plus", back="/?q=a")
    assert (answer.status_code, answer.location) == (302, "/?q=a")
    (job,) = run_queue.line(output)
    assert asked_in(job.details) == Asked(folder.name, 3, "x4plus")
    text = page_of(client, folder)
    assert "Upscaling ×3 waits in the queue." in words(text) and "data-live" in text
    assert "upscaling" not in client.get("/").text.lower(), "it is no run"
    assert post(client, f"/runs/{folder.name}/upscale/stop", scale=3).status_code == 302
    assert run_queue.line(output) == [] and "data-live" not in page_of(client, folder)


def test_a_model_of_ones_own_is_offered(output, tmp_path):
    folder = make_run(output)
    (tmp_path / "assets" / "upscalers").mkdir(parents=True)
    (tmp_path / "assets" / "upscalers" / "mine.pth").touch()
    client = open_gallery(output, assets_dir=tmp_path / "assets")
    assert "<option>mine</option>" in page_of(client, folder)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"scale": 5}, "The scale 5 is none"),
        ({"scale": "x"}, "Say the scale"),
        ({}, "Say the scale"),
        ({"scale": "9" * 5000}, "Say the scale"),
        ({"scale": "²"}, "Say the scale"),
        ({"scale": 4, "model": "/etc/passwd"}, "There are: auto"),
    ],
)
def test_a_wrong_wish_is_refused(output, fields, reason):
    folder = make_run(output)
    answer = post_json(open_gallery(output), f"/runs/{folder.name}/upscale", **fields)
    assert answer.status_code == 409 and reason in answer.json["error"]
    assert run_queue.line(output) == []


def test_one_that_is_computed_shows_how_far_it_is_and_stops(output):
    folder = make_run(output)
    job = make_job(folder, status="running", heartbeat=now(), host="here")
    (job.path / "progress.json").write_text('{"share": 0.42}')
    client = open_gallery(output)
    with claimed(job.path):
        text = page_of(client, folder)
        assert "Upscaling ×4: 42 %" in words(text)
        assert '<progress max="100" value="42">' in text and "data-live" in text
        post(client, f"/runs/{folder.name}/upscale/stop", scale=4)
    assert job.stop_requested()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("stopped", "Upscaling ×4 was stopped."),
        ("failed", "Upscaling ×4 failed. The <disk> is full."),
        ("running", "Upscaling ×4 failed. It was interrupted."),
    ],
)
def test_one_that_ended_says_how_and_is_begun_again_or_forgotten(output, status, said):
    folder = make_run(output)
    error = "The <disk> is full." if status == "failed" else None
    job = make_job(folder, status=status, error=error, heartbeat="2020-01-01", host="here")
    client = open_gallery(output)
    assert said in words(page_of(client, folder))
    post(client, f"/runs/{folder.name}/upscale", scale=4, model="auto")
    assert job.read()["status"] == "queued" and said not in words(page_of(client, folder))
    job.update(status=status, heartbeat="2020-01-01")
    post(client, f"/runs/{folder.name}/upscale/forget")
    assert not job.path.exists()


def test_strangers_cannot_ask_and_a_kiosk_shows_no_button(output):
    folder = make_run(output)
    make_job(folder, status="failed", error="in /home/me")
    make_job(folder, 2)
    for options, waits in (({"read_only": True}, True), ({"kiosk": True}, False)):
        client = open_gallery(output, **options)
        text = page_of(client, folder)
        assert "Upscale now" not in text and "failed" not in text and "/home" not in text
        assert ("Upscaling ×2 waits" in words(text)) == waits and "Cancel" not in text
        assert post(client, f"/runs/{folder.name}/upscale", scale=4).status_code == 403
        assert post(client, f"/runs/{folder.name}/upscale/stop", scale=2).status_code == 403


@pytest.mark.parametrize("options", [{}, {"read_only": True}, {"kiosk": True}])
def test_the_larger_picture_is_shown_first_beside_its_origin(output, options):
    folder = make_run(output)
    make_larger(folder, 2, 4)
    client = open_gallery(output, **options)
    text = page_of(client, folder)
    assert shown(text) == ["output-x4.PNG"]
    assert "×4 x4plus · 128×96 ×2 x4plus · 64×48 As made · 32×24" in words(text)
    assert "Before: as it was made" in text and "After: ×4 x4plus" in words(text)
    assert shown(page_of(client, folder, "?shown=x2")) == ["output-x2.PNG"]
    as_made = page_of(client, folder, "?shown=made")
    assert shown(as_made) == ["output.PNG"] and "Before and after" not in as_made
    assert shown(page_of(client, folder, "?shown=x9")) == ["output-x4.PNG"]
    large = client.get(f"/files/{folder.name}/output-x4.PNG?download=1")
    assert large.status_code == 200 and large.mimetype == "image/png"


def test_each_of_several_pictures_is_shown_in_the_same_version(output):
    folder = make_run(output)
    Image.new("RGB", (32, 24)).save(folder / "output-2.PNG")
    make_larger(folder, 2)
    make_larger(folder, 2, of="output-2.PNG")
    client = open_gallery(output)
    assert "/output-2-x2.PNG?" in page_of(client, folder)
    assert "/output-2-x2.PNG?" not in page_of(client, folder, "?shown=made").split("Files")[0]


@pytest.mark.parametrize(
    "told",
    [
        *(None, 3, "x", [3], [{}], [{"file": "output-x4.PNG"}]),
        [{"file": "../x", "scale": 4, "of": "output.PNG"}],
        [{"file": "output-x4.PNG", "scale": 10**9, "of": "output.PNG"}],
        [{"file": ["output-x4.PNG"], "scale": 4, "of": "output.PNG"}],
        [{"file": "gone-x4.PNG", "scale": 4, "of": "output.PNG"}],
    ],
)
def test_hostile_details_show_the_picture_as_made(output, told):
    folder = make_run(output)
    Image.new("RGB", (128, 96)).save(folder / "output-x4.PNG")
    RunFolder(folder).update(upscaled=told)
    assert shown(page_of(open_gallery(output), folder)) == ["output.PNG"]


def test_hostile_folders_of_upscalings_are_skipped(output, tmp_path):
    folder = make_run(output)
    outside = tmp_path / "outside"
    job = make_job(folder)
    job.path.rename(outside)
    job.path.symlink_to(outside)
    (output / ".upscaling" / "file").touch()
    (output / ".upscaling" / "odd").mkdir()
    (output / ".upscaling" / "odd" / "details.json").write_text(
        json.dumps({"status": ["x"], "upscaling": {"run": folder.name, "scale": 2, "model": "m"}})
    )
    text = words(page_of(open_gallery(output), folder))
    assert "×4 waits" not in text and "Upscaling ×2 failed." in text


def test_a_run_that_cannot_be_upscaled_offers_no_button(output):
    waits = make_run(output, 1, status="queued")
    bare = make_run(output, 2, picture=None)
    older = make_run(output, 3)
    (older / "details.json").unlink()
    client = open_gallery(output)
    for folder in (waits, bare, older):
        assert "Upscale now" not in page_of(client, folder)
        assert post_json(client, f"/runs/{folder.name}/upscale", scale=2).status_code == 409
