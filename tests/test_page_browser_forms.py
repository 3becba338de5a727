"""What comes into the form of the page in a real browser: earlier runs, files, tables of stages."""

import io

from page_server import button, drop, field, press_run, prompt_of, switch
from PIL import Image
from playwright.sync_api import expect
from waiting import wait_for

pytest_plugins = "page_server_fixtures"


def test_continue_from_the_picture_with_another_prompt_and_an_upload(server, open_tab):
    tab = open_tab()
    press_run(tab, "a red heart", 2)
    wait_for(lambda: tab.title() == "✓ Done: a red heart", "the first run's end")
    parent = server.runs()[0]
    switch(tab, "Continue previous run")
    tab.get_by_text(f"({parent.name})").wait_for()
    switch(tab, "Add image prompt(s)")
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(buffer, "PNG")
    file = {"name": "red.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    tab.locator("input[type=file]").set_input_files(file)
    tab.get_by_text("20x20").wait_for()
    press_run(tab, "a blue heart", 3)
    wait_for(lambda: tab.title() == "✓ Done: a blue heart", "the run's end")
    details = server.runs()[0].details
    assert (details["prev_run_id"], details["num_steps"]) == (parent.folder.run_id, 3)
    assert details["image_prompts"] and details["continue_prev_run"]


def test_bad_input_is_refused_and_nothing_is_queued(server, open_tab):
    before = len(server.runs())
    tab = open_tab()
    press_run(tab, "a red heart", 0)
    tab.get_by_role("alert").get_by_text("'Num steps' must be 1 or more").wait_for()
    assert len(server.runs()) == before


def test_continue_on_a_phone_shows_what_happened(server, open_tab):
    tab = open_tab()
    press_run(tab, "a heart to continue", 2)
    wait_for(lambda: tab.title() == "✓ Done: a heart to continue", "the run's end")
    tab.context.close()
    tab = open_tab(viewport={"width": 390, "height": 844})
    prompt_of(tab).fill("something else")
    prompt_of(tab).press("Tab")
    tab.locator(".st-key-last-runs").get_by_test_id("stButton").first.locator("button").click()
    button(tab, "Continue").click()
    strip = tab.locator(".st-key-origin")
    strip.get_by_text("Continues “a heart to continue”").wait_for()
    in_view = "e => { const r = e.getBoundingClientRect(); return r.top >= 0 && r.bottom < 844 }"
    wait_for(lambda: strip.evaluate(in_view), "what is continued to come into view")
    strip.locator("img").wait_for()
    expect(prompt_of(tab)).to_have_value("a heart to continue")
    button(tab, "Do not continue").click()
    strip.get_by_text("Continues").wait_for(state="detached")


def test_a_picture_that_is_dropped_on_the_page_brings_its_settings(server, open_tab):
    tab = open_tab()
    press_run(tab, "a dropped heart", 3)
    wait_for(lambda: tab.title() == "✓ Done: a dropped heart", "the run's end")
    folder = server.runs()[0].folder
    switch(tab, "Continue previous run")
    tab.get_by_text("Continues “a dropped heart”").wait_for()
    prompt_of(tab).fill("something else")
    field(tab, "Num steps").fill("9")
    field(tab, "Num steps").press("Enter")
    drop(tab, "output.PNG", (folder.path / "output.PNG").read_bytes())
    button(tab, "Use its settings").click()
    expect(prompt_of(tab)).to_have_value("a dropped heart")
    expect(field(tab, "Num steps")).to_have_value("3")
    expect(field(tab, "Seed")).to_have_value(str(folder.read()["seed"]))
    expect(tab.get_by_text("Continues “")).to_have_count(0)  # it is made again
    button(tab, "Run!").click()
    wait_for(lambda: server.runs()[0].name != folder.name, "another run")
    again = server.runs()[0].folder
    wait_for(lambda: again.read()["status"] == "done", "the same once more")
    pictures = [Image.open(one.path / "output.PNG").tobytes() for one in (folder, again)]
    assert pictures[0] == pictures[1]
    drop(tab, "odd.png", b"no picture")
    tab.get_by_test_id("stAlert").get_by_text("odd.png").wait_for()


SEASONS = [f"a garden in {season}" for season in ("spring", "summer", "autumn", "winter")]


def type_into(table, row, text, x=60):
    shown = table.locator("canvas tbody tr")
    wait_for(lambda: shown.count() >= min(row + 1, 3), "the table's rows")
    table.dblclick(position={"x": x, "y": 52 + 35 * row})
    editor = table.page.locator("textarea.gdg-input")
    editor.fill(text)
    editor.press("Enter")
    editor.wait_for(state="detached")


def cells(tab):
    """What the table says to those who cannot see its canvas."""
    rows = tab.get_by_test_id("stDataFrame").locator("canvas tbody tr").all()
    return [row.locator("td").all_text_contents() for row in rows]


def is_above(one, other):
    box = one.bounding_box()
    return box["y"] + box["height"] <= other.bounding_box()["y"]


def also_change(tab, label):
    field(tab, "Also change").fill(label)
    tab.get_by_role("option", name=label, exact=True).click()
    tab.keyboard.press("Escape")


def hide(tab):
    """Switch the table off, and see it go: two quick clicks may reach the page as none."""
    switch(tab, "Several stages")
    tab.get_by_test_id("stDataFrame").first.wait_for(state="detached")


def hide_and_show(tab):
    hide(tab)
    switch(tab, "Several stages")


def test_the_table_of_stages_survives_all_that_is_done_to_it(server, open_tab):
    tab = open_tab()
    switch(tab, "Several stages")
    table = tab.get_by_test_id("stDataFrame")
    for row, prompt in enumerate(SEASONS):  # the table begins with three rows
        type_into(table, row, prompt)
    type_into(table, 3, "many", x=800)
    written = [[prompt, ""] for prompt in SEASONS[:3]] + [[SEASONS[3], "many"]]
    wait_for(lambda: cells(tab) == written, "the typed cells")
    also_change(tab, "Step size")
    wait_for(lambda: cells(tab) == [[*row, ""] for row in written], "another column")
    hide_and_show(tab)
    wait_for(lambda: cells(tab) == [[*row, ""] for row in written], "the table once more")
    tab.reload()
    wait_for(lambda: cells(tab) == [[*row, ""] for row in written], "the table after a reload")
    table.hover()
    parts = tab.get_by_test_id("stMultiSelect"), table.get_by_test_id("stElementToolbar")
    wait_for(lambda: is_above(*parts), "the toolbar to cover nothing")
    table.click(position={"x": 20, "y": 18})
    tab.keyboard.press("Delete")
    wait_for(lambda: cells(tab) == [], "no rows")
    hide_and_show(tab)
    wait_for(lambda: cells(tab) == [["", "", ""]] * 3, "empty rows to begin with")
    assert tab.get_by_role("alert").count() == 0
    hide(tab)


def test_a_table_of_stages_becomes_a_chain_with_one_film(server, open_tab):
    tab = open_tab()
    switch(tab, "Several stages")
    table = tab.get_by_test_id("stDataFrame")
    table.wait_for()
    for row, prompt in enumerate(("a garden in spring", "a garden in winter")):
        type_into(table, row, prompt)
    press_run(tab, "", 80)  # long enough to be seen while they go
    wait_for(lambda: tab.title() == "✓ Done: a garden in winter", "the chain's end")
    last, first = (entry.details for entry in server.runs()[:2])
    assert [first["text_input"], last["text_input"]] == ["a garden in spring", "a garden in winter"]
    assert (last["parent"], last["stage"], last["num_steps"]) == (first["run_folder"], 2, 80)
    wait_for((server.runs()[0].folder.path / "chain.mp4").is_file, "the film of the chain")
    tab = open_tab()
    button(tab, "a garden in winter").click()
    tab.get_by_role("button", name="Film of all stages").wait_for()
    hide(tab)
