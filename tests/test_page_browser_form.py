"""The form on a phone, in a real browser."""

from page_server import button, field, press_run
from waiting import wait_for

pytest_plugins = "page_server_fixtures"
FITS = "e => e.scrollWidth <= e.clientWidth"


def box(locator):
    """Left, top, right, bottom."""
    there = locator.bounding_box()
    left, top = there["x"], there["y"]
    return left, top, left + there["width"], top + there["height"]


def is_within(inner, outer):
    starts, ends = zip(inner[:2], outer[:2], strict=True), zip(inner[2:], outer[2:], strict=True)
    return all(a >= b - 1 for a, b in starts) and all(a <= b + 1 for a, b in ends)


def test_the_form_fits_a_phone_and_what_is_folded_away_counts(server, open_tab):
    tab = open_tab(viewport={"width": 390, "height": 844})
    tab.get_by_test_id("stExpandSidebarButton").click()
    guidance = tab.locator(".st-key-heading-Guidance")
    heading = guidance.locator("summary")
    heading.click()
    field(tab, "Cutouts").fill("3")
    field(tab, "Cutouts").press("Enter")
    reset = button(guidance, "1 changed · reset")
    reset.wait_for()
    assert field(tab, "Cutouts").is_visible(), "it stays open"
    assert server.runs() == [], "Enter in a number runs nothing"
    heading.click()
    field(tab, "Cutouts").wait_for(state="hidden")
    wait_for(lambda: is_within(box(reset), box(heading)), "the count to be on the heading")
    shapes = tab.locator(".st-key-shapes")
    for part in (shapes, shapes.get_by_test_id("stButtonGroup")):
        wait_for(lambda one=part: one.evaluate(FITS), "the shapes to fit")
    swap = button(shapes, "Swap width and height")
    wait_for(lambda: is_within(box(swap), box(shapes)), "the button to be inside")
    sizes = field(tab, "Xdim"), field(tab, "ydim")
    wait_for(lambda: box(sizes[0])[1] == box(sizes[1])[1], "width and height side by side")
    button(tab, "New seed").click()
    wait_for(lambda: field(tab, "Seed").input_value().isdecimal(), "a seed")
    seed = int(field(tab, "Seed").input_value())
    tab.set_viewport_size({"width": 1400, "height": 1000})
    press_run(tab, "a red heart", 2)
    wait_for(server.runs, "the run")
    details = server.runs()[0].details
    assert (details["cutn"], details["seed"]) == (3, seed)
