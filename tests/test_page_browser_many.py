"""Several runs at once in a real browser, with a real worker on tiny weights."""

from axe import SERIOUS, first_of_each, violations
from page_server import FITS, button, field, press_run, wait_until_drawn
from waiting import wait_for

pytest_plugins = "page_server_fixtures"


def test_siblings_are_a_live_grid_to_choose_from_in_every_tab(server, open_tab):
    tab, other = open_tab(), open_tab()
    field(tab, "How many").fill("3")
    press_run(tab, "three hearts", 30)
    for one in (tab, other):
        wait_for(lambda t=one: t.locator(".tile").count() == 3, "the grid")
    other.locator(".tile img").first.wait_for()
    wait_for(lambda: tab.title() == "✓ 3 made: three hearts", "all to be made")
    wait_for(lambda: other.locator(".tile img").count() == 3, "their pictures")
    other.set_viewport_size({"width": 390, "height": 844})
    wait_for(lambda: other.get_by_test_id("stMain").evaluate(FITS), "the grid to fit")
    tiles = [other.locator(".tile").nth(n) for n in range(3)]

    def tops():
        return [tile.bounding_box()["y"] for tile in tiles]

    wait_for(lambda: (at := tops())[0] == at[1] < at[2], "two side by side")
    wait_until_drawn(other)
    tiles[1].click(force=True)  # its button lies above it
    chosen = server.runs()[1]
    shown = other.get_by_text(f"Run folder: {chosen.name}")
    shown.wait_for()
    wait_for(lambda: other.locator(".tile-chosen").count() == 1, "the mark of the chosen one")
    result = other.locator('[class*="st-key-result-"]')
    wait_for(lambda: 0 <= result.bounding_box()["y"] < 400, "the result to come into view")
    assert button(tab, "Four like it").count() == 0, "another tab has chosen"
    for scheme in ("light", "dark"):
        wait_until_drawn(other)
        found = violations(other, scheme, again=scheme == "dark")
        assert first_of_each(v for v in found if v["impact"] in SERIOUS) == []
