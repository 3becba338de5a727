"""Changing a run in a real browser, while it goes and the page redraws itself."""

import re

from page_server import button, press_run
from playwright.sync_api import expect
from waiting import wait_for

pytest_plugins = "page_server_fixtures"
BETWEEN_KEYS = 120  # ms: typing takes longer than the page to redraw itself


def test_what_is_typed_stays_and_counts_from_the_next_step_on(server, open_tab):
    tab = open_tab()
    press_run(tab, "a red heart", -1)
    tab.get_by_text("Change this run", exact=True).click()
    inside = tab.locator("[class*=st-key-steer-steering-]")
    box, step_size = (inside.get_by_label(n, exact=True) for n in ("Text prompt", "Step size"))
    step_size.fill("0.2")
    box.fill("")
    box.press_sequentially("a blue fish", delay=BETWEEN_KEYS)
    assert box.input_value() == "a blue fish"
    assert box.evaluate("box => box === document.activeElement")
    button(tab, "Apply to this run").click()
    tab.get_by_text("Changed from the next step on.").wait_for()  # it goes by itself
    inside.get_by_text(re.compile(r"From step \d+ on: Text prompt: a blue fish")).wait_for()
    (entry,) = server.runs()
    (change,) = entry.details["changes"]
    assert change["settings"] == {"text_input": "a blue fish", "step_size": 0.2}

    # The curve is drawn anew twice a second, so one look may meet it between two drawings.
    expect(tab.locator("figure.losses"), "the page keeps its style").to_have_css(
        "margin-left", "0px"
    )
    button(tab, "Stop").click()
    wait_for(lambda: server.runs()[0].status == "stopped", "the end")
