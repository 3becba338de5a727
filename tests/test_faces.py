"""The page and the gallery of an output folder find each other."""

import json
import subprocess
import sys

import pytest
from pages import errors, make_finished, press
from waiting import wait_for

from gallery import create_app
from studio.base import faces
from studio.base.faces import Listening, address_of, announce
from studio.gallery.library import APP_URL, Options
from studio.page import gallery_link

NAME = "20260101T000000-aaaaaaaa"
LABEL = gallery_link.LABEL
pytest_plugins = "page_fixtures"


@pytest.mark.parametrize(
    ("listens", "reached_as", "address"),
    [
        (("127.0.0.1", ""), "localhost", "http://localhost:5000"),
        (("localhost", ""), "127.0.0.1", "http://127.0.0.1:5000"),
        (("localhost", "/studio/"), "localhost", "http://localhost:5000/studio"),
        (("127.0.0.1", ""), "studio.lan", None),
        (("0.0.0.0", ""), "192.168.0.7", "http://192.168.0.7:5000"),
        (("", "a/b"), "studio.lan", "http://studio.lan:5000/a/b"),
        (("::", ""), "fe80::1", "http://[fe80::1]:5000"),
        (("192.168.0.7", ""), "localhost", "http://192.168.0.7:5000"),
    ],
)
def test_the_host_is_the_one_that_the_person_used(listens, reached_as, address):
    host, path = listens
    assert Listening(5000, host, path).address_for(reached_as) == address


def test_a_face_is_found_while_it_lives(tmp_path):
    assert address_of(tmp_path, "gallery", "localhost") is None
    first = announce(tmp_path, "gallery", Listening(5000, "127.0.0.1"))
    second = announce(tmp_path, "gallery", Listening(5001, "0.0.0.0"))
    assert first and second
    assert announce(tmp_path, "gallery", Listening(5000)) is None, "the port is another's"
    assert address_of(tmp_path, "gallery", "localhost") == "http://localhost:5000"
    assert address_of(tmp_path, "gallery", "studio.lan") == "http://studio.lan:5001"
    first.close()
    assert address_of(tmp_path, "gallery", "localhost") == "http://localhost:5001"
    second.close()
    assert address_of(tmp_path, "gallery", "localhost") is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"host": "x"}', '{"port": 1, "pid": 2}'])
def test_strange_files_count_as_nothing(tmp_path, text):
    file = announce(tmp_path, "page", Listening(8501))
    assert file
    next((tmp_path / ".page").iterdir()).write_text(text)
    assert address_of(tmp_path, "page", "localhost") is None
    file.close()


def test_nobody_is_told_where_nothing_can_be_written(tmp_path):
    (tmp_path / ".page").write_text("a file in the way")
    assert announce(tmp_path, "page", Listening(8501)) is None


def links(output_dir, host="localhost:5000", **options):
    client = create_app(output_dir, Options(hosts=("studio.lan",), **options)).test_client()
    return client.get(f"/runs/{NAME}", headers={"Host": host}).text


def test_the_gallery_finds_the_page(tmp_path):
    make_finished(tmp_path, NAME)
    assert f'href="{APP_URL}/?use={NAME}"' in links(tmp_path)
    file = announce(tmp_path, "page", Listening(8503, "", "studio"))
    assert file
    for word in ("use", "continue"):
        assert f'href="http://studio.lan:8503/studio/?{word}={NAME}"' in links(
            tmp_path, "studio.lan:5000"
        )
    assert f'href="http://a.b/?use={NAME}"' in links(tmp_path, app_url="http://a.b")
    file.close()


def run_buttons(page):
    return [button.label for button in page.button]


def link(page):
    found = [e.proto for e in page.get("link_button")]
    return next((proto.url for proto in found if proto.label == LABEL), None)


def test_the_page_starts_the_gallery_once_and_then_links_to_it(page, output_dir):
    make_finished(output_dir, NAME, text_input="a tree")
    press(page.run(), "a tree")
    assert link(page) is None and LABEL in run_buttons(page)
    press(page, LABEL)
    assert not errors(page)
    address = address_of(output_dir, "gallery", "localhost")
    assert address and link(page) == f"{address}/runs/{NAME}"
    opened = [e.proto.body for e in page.get("html") if "window.open" in e.proto.body]
    assert opened == [f'<script>window.open("{link(page)}", "_blank", "noopener")</script>']
    assert not [e for e in page.run().get("html") if "window.open" in e.proto.body], "once"
    (process,) = gallery_link._processes()
    assert process.stdin
    process.stdin.close()
    assert process.wait(30) == 0
    assert link(page.run()) is None


def test_a_gallery_that_cannot_start_says_why(page, output_dir, monkeypatch):
    make_finished(output_dir, NAME, text_input="a tree")
    press(page.run(), "a tree")
    monkeypatch.setattr(gallery_link, "ROOT", output_dir / "nowhere")
    press(page, LABEL)
    assert "The gallery could not be started" in errors(page) and "gallery.log" in errors(page)


def test_a_kiosk_is_not_for_the_page(tmp_path):
    """What else a gallery tells the page is tested above."""
    command = [sys.executable, "gallery.py", str(tmp_path), "--kiosk", "--until-stdin-closes"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=gallery_link.ROOT, **pipes) as process:
        assert process.stdout and process.stdin
        assert "is at http://" in process.stdout.readline()
        assert address_of(tmp_path, "gallery", "localhost") is None
        process.stdin.close()
        wait_for(lambda: process.poll() == 0, "its end")


def test_the_page_tells_where_it_listens(page, output_dir):
    told = [json.loads(p.read_text()) for p in (output_dir / ".page").glob("listens-*.json")]
    assert told == [{"port": 8501, "host": "localhost", "path": ""}]
    assert faces.address_of(output_dir, "page", "localhost") == "http://localhost:8501"
