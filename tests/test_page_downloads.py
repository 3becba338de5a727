"""The page's download of weights by a name of the Hugging Face hub, without a browser."""

import time
from collections.abc import Iterator
from pathlib import Path

import fake_hub
import pytest
import tiny_diffusion
from fake_hub import FakeHub
from pages import again, errors, everything, labelled, press, sidebar

from studio.engines import registry
from studio.page import downloads
from studio.page.memory import Memory

pytest_plugins = "page_fixtures"
NAME, ENGINE = "somebody/tiny-sd", "Diffusion"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    tiny_diffusion.write(tiny_diffusion.tiny_sd(), folder)
    return folder


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    tiny_diffusion.write(tiny_diffusion.tiny_sd(), folder / "there")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> Iterator[FakeHub]:
    monkeypatch.setitem(registry.ENGINES, ENGINE, "studio.engines.diffusion.engine:Diffusion")
    monkeypatch.setattr(downloads, "_TRANSFERS", {})
    hub = fake_hub.started()
    hub.publish(NAME, tiny)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    yield hub
    hub.shutdown()
    hub.server_close()


def chosen(output_dir, name):
    """The page of a person who typed that name, which AppTest cannot do, and came back."""
    Memory(output_dir).remember(ENGINE, {"weights": name}, {})
    return again(None)


def buttons(page):
    return [button.label for button in page.button]


def until_done(page):
    """Press nothing until the download has ended."""
    until = time.monotonic() + 60
    while any(t.is_running for t in downloads._TRANSFERS.values()) and time.monotonic() < until:
        time.sleep(0.05)
    return page.run()


def test_weights_come_when_a_person_has_seen_what_they_are(hub, page, output_dir, assets):
    page = chosen(output_dir, NAME)
    assert f"The weights {NAME} are not here." in everything(page)
    assert "Download" not in buttons(page) and hub.asked == []
    press(page, f"Look up {NAME}")
    assert "licence: openrail++" in everything(page) and f"{NAME}: " in everything(page)
    assert not (assets / NAME).exists()
    press(page, "Download")
    until_done(page)
    page.run()
    assert (assets / NAME / "model_index.json").is_file()
    assert NAME in sidebar(page)["Model weights"].options
    assert not [b for b in buttons(page) if "Look up" in b or "ownload" in b]
    assert sidebar(page)["Xdim"].value == 64  # what the weights recommend
    assert not page.exception


def test_weights_that_are_here_need_no_button(hub, page, output_dir):
    page = chosen(output_dir, "there")
    assert not [b for b in buttons(page) if "Look up" in b or "ownload" in b]


def test_what_cannot_be_had_is_said_where_it_was_asked_for(hub, page, output_dir):
    page = chosen(output_dir, "x/nothing")
    press(page, "Look up x/nothing")
    assert "There is no x/nothing on the Hugging Face hub" in errors(page)


def test_a_download_that_fails_says_why_and_goes_on(hub, page, output_dir, assets):
    name = "somebody/other"
    hub.repositories[name] = dict(hub.repositories[NAME])
    page = chosen(output_dir, name)
    press(page, f"Look up {name}")
    hub.lie = "unet/diffusion_pytorch_model.safetensors"
    press(page, "Download")
    until_done(page)
    page.run()
    assert "arrived damaged" in errors(page)
    hub.lie = ""
    press(page, "Go on with the download")
    until_done(page)
    page.run()
    assert (assets / name).is_dir() and not page.error


def test_the_button_says_what_run_would_refuse(hub, page, output_dir):
    page = chosen(output_dir, NAME.replace("tiny", "large"))
    said = everything(page)
    assert "press 'Look up somebody/large-sd' above the prompt." in said
    assert labelled(page.button, "Look up somebody/large-sd")
    assert not page.exception
