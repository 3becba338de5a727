"""Pasting a picture, and the thumbnails of the last runs, in a real browser."""

import base64
import io

from page_server import button, wait_until_drawn
from pages import make_finished
from PIL import Image
from playwright.sync_api import expect
from waiting import wait_for

pytest_plugins = "page_server_fixtures"

# Returns whether the browser may do what it would do by itself.
PASTE = """(element, [data, text]) => {
  const picture = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const clipboardData = new DataTransfer();
  clipboardData.items.add(new File([picture], "image.png", { type: "image/png" }));
  if (text) clipboardData.setData("text/plain", text);
  const init = { bubbles: true, cancelable: true, clipboardData };
  return element.dispatchEvent(new ClipboardEvent("paste", init));
}"""


def png(size):
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_pasted_picture_asks_what_it_is_for(server, open_tab):
    tab = open_tab()
    prompt = tab.get_by_label("Text prompt", exact=True)
    wait_for(lambda: not prompt.evaluate(PASTE, [png((50, 30)), ""]), "the page to take pictures")
    assert prompt.evaluate(PASTE, [png((40, 30)), "a cell of a table"]), "text is pasted as text"
    card = tab.locator(".st-key-dropped-picture")
    card.get_by_text("50x30").wait_for()
    button(card, "Image prompt").click()
    card.wait_for(state="detached")
    side = tab.get_by_test_id("stSidebar")
    side.get_by_text("50x30").wait_for()
    button(side, "Remove picture 1").click()
    side.get_by_text("50x30").wait_for(state="detached")


def test_a_thumbnail_opens_and_its_buttons_appear(server, open_tab):
    make_finished(server.output_dir, text_input="a red heart", schema_version=1)
    tab = open_tab()
    card = tab.locator(".st-key-last-runs [class*='st-key-card-']")
    buttons = card.locator(".run-acts div")
    card.wait_for()
    expect(buttons).to_have_css("opacity", "0")
    card.hover()
    expect(buttons).to_have_css("opacity", "1")
    card.locator("img").click(position={"x": 50, "y": 50}, force=True)
    tab.locator("[class*='st-key-result-']").wait_for()
    tab.mouse.move(0, 0)
    wait_for(
        lambda: tab.evaluate("document.activeElement.innerText").strip() == "a red heart", "focus"
    )
    expect(buttons).to_have_css("opacity", "1")  # of the focus
    wait_until_drawn(tab)
    for _ in range(4):
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    card.locator(".run-star").wait_for()
    expect(button(card, "Favourite: a red heart")).to_have_attribute("aria-pressed", "true")
    named = "document.activeElement.getAttribute('aria-label')"
    wait_for(lambda: tab.evaluate(named) == "Favourite: a red heart", "the focus to come back")
    button(card, "Starting image: a red heart").click()
    tab.get_by_test_id("stSidebar").get_by_text("32x32").wait_for()
