"""The page in Streamlit's own AppTest, without a browser or worker: fixtures for several files.

A test module takes them with `pytest_plugins = "page_fixtures"`.
"""

import sys

import pytest
import streamlit as st
import yaml
from pages import ROOT
from streamlit.testing.v1 import AppTest
from tiny_models import write_tiny_assets

from studio.queue import keeper


class NoWorker:
    """In place of the keeper: these tests compute nothing."""

    def __init__(self, options):
        self.options = options

    def refusal(self):
        return None


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """Two VQGANs, of which the second recommends other things, and a CLIP."""
    folder = tmp_path_factory.mktemp("assets")
    write_tiny_assets(folder)
    config = yaml.safe_load((folder / "tiny_f8.yaml").read_text())
    config["recommended"] = {"num_steps": 7, "cutn": 9}
    (folder / "wide_f8.yaml").write_text(yaml.safe_dump(config))
    (folder / "wide_f8.ckpt").write_bytes((folder / "tiny_f8.ckpt").read_bytes())
    return folder


@pytest.fixture
def output_dir(tmp_path):
    return tmp_path / "output"


@pytest.fixture
def page(assets, output_dir, monkeypatch):
    """The page as it first shows."""
    monkeypatch.setattr(keeper, "WorkerKeeper", NoWorker)
    options = ["--output-dir", str(output_dir), "--assets-dir", str(assets)]
    monkeypatch.setattr(sys, "argv", ["app.py", *options])
    st.cache_resource.clear()
    yield AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    st.cache_resource.clear()
