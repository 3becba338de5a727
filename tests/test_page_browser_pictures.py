"""Pasting a picture, and the thumbnails of the last runs, in a real browser."""

import base64
import io

from page_server import button
from pages import make_finished
from PIL import Image
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
    tab.get_by_test_id("stBidiComponentIsolated").nth(1).wait_for(state="attached")
    assert prompt.evaluate(PASTE, [png((40, 30)), "a cell of a table"]), "text is pasted as text"
    assert not prompt.evaluate(PASTE, [png((50, 30)), ""])
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
    opacity = "element => getComputedStyle(element).opacity"
    card.wait_for()
    assert buttons.evaluate(opacity) == "0"
    card.hover()
    wait_for(lambda: buttons.evaluate(opacity) == "1", "the buttons under the pointer")
    card.locator("img").click(position={"x": 50, "y": 50}, force=True)
    tab.locator("[class*='st-key-result-']").wait_for()
    tab.mouse.move(0, 0)
    wait_for(
        lambda: tab.evaluate("document.activeElement.innerText").strip() == "a red heart", "focus"
    )
    wait_for(lambda: buttons.evaluate(opacity) == "1", "the buttons at the focus")
    for _ in range(4):
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    card.locator(".run-star").wait_for()
    assert button(card, "Favourite: a red heart").get_attribute("aria-pressed") == "true"
    named = "document.activeElement.getAttribute('aria-label')"
    wait_for(lambda: tab.evaluate(named) == "Favourite: a red heart", "the focus to come back")
    button(card, "Starting image: a red heart").click()
    tab.get_by_test_id("stSidebar").get_by_text("32x32").wait_for()
