"""Fixtures that several tests share, and the rule for skipped tests."""

import gc
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HARDWARE = ("gpu", "vnni")  # marks of tests that need hardware
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium():
    """A real browser, as playwright's Browser."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip("no browser is installed; on Debian: sudo apt install chromium libatomic1")
    from playwright.sync_api import sync_playwright

    try:
        playwright = sync_playwright().start()
    except Exception as error:  # playwright's node needs a library that a bare Debian lacks
        pytest.skip(f"playwright: {error}; on Debian: sudo apt install libatomic1")
    browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
    yield browser
    browser.close()
    playwright.stop()


@pytest.fixture(scope="session")
def _all_tabs(chromium):
    from tabs import Tabs  # playwright, which few tests need

    return Tabs(chromium)


@pytest.fixture
def tabs(_all_tabs):
    """Opens tabs of the browser, which end with the test."""
    yield _all_tabs
    _all_tabs.end_test()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the browser tests, before pytest leaves out tests by their marks.

    They come first: they wait more than they compute, so the others fill the gaps.
    """
    for item in items:
        if "chromium" in item.fixturenames:
            item.add_marker("browser")
    items.sort(key=lambda item: item.get_closest_marker("browser") is None)


def pytest_collection_finish():
    """Leave the libraries out of garbage collections: each would take a second to look at them."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item):
    if item.get_closest_marker("vnni"):
        import torch

        from studio.engines.device import compute_precision

        if not compute_precision(torch.device("cpu")).eight_bits:
            pytest.skip("the CPU has no fast products of eight bits")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    return _fail_a_skip((yield), item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector):
    return _fail_a_skip((yield), collector)


def _fail_a_skip(report, node):
    """Under CI a test may be skipped only for lack of hardware: else it has not passed."""
    excused = hasattr(report, "wasxfail") or any(map(node.get_closest_marker, HARDWARE))
    if os.environ.get("CI") and report.skipped and not excused:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI counts as failed: {report.longrepr[2]}"
    return report
