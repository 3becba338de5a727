"""The page in a real browser, with a real worker on tiny weights: fixtures for several files.

A test module takes them with `pytest_plugins = "page_server_fixtures"`. Its tests share one server.
"""

import signal

import pytest
from page_server import Server, field, prompt_of


@pytest.fixture(scope="module")
def server(tmp_path_factory, chromium):
    server = Server(tmp_path_factory.mktemp("page"))
    yield server
    if server.process.poll() is None:
        server.end(signal.SIGTERM)


@pytest.fixture
def open_tab(server, tabs):
    """Opens tabs of the page."""

    def open_one(**options):
        tab = tabs.open(**options)
        tab.goto(server.url)
        prompt_of(tab).wait_for()
        field(tab, "Xdim").wait_for()
        return tab

    return open_one
