"""Several runs at once in a real browser, with a real worker on tiny weights."""

from axe_playwright_python.sync_playwright import Axe
from page_server import FITS, button, field, press_run
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
    tops = [other.locator(".tile").nth(n).bounding_box()["y"] for n in range(3)]
    assert tops[0] == tops[1] < tops[2], "two side by side"
    box = other.locator(".tile").nth(1).bounding_box()
    other.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    chosen = server.runs()[1]
    shown = other.get_by_text(f"Run folder: {chosen.name}")
    shown.wait_for()
    wait_for(lambda: other.locator(".tile-chosen").count() == 1, "the mark of the chosen one")
    result = other.locator('[class*="st-key-result-"]')
    wait_for(lambda: 0 <= result.bounding_box()["y"] < 400, "the result to come into view")
    assert button(tab, "Four like it").count() == 0, "another tab has chosen"
    for scheme in ("light", "dark"):
        other.emulate_media(color_scheme=scheme)
        other.wait_for_function("document.getAnimations().every(a => a.playState != 'running')")
        found = Axe().run(other).response["violations"]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert not serious, [f"{v['id']}: {v['nodes'][0]['html']}" for v in serious]
