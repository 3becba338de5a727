"""Looking at the page and touching it in Streamlit's own AppTest. See page_fixtures.py."""

import json
from pathlib import Path

import streamlit as st
from PIL import Image
from streamlit.proto.WidgetStates_pb2 import WidgetStates
from streamlit.testing.v1 import AppTest

from studio.page.text import NOTHING
from studio.queue import run_queue
from studio.runs import run_index
from studio.runs.storage import PICTURE, RunFolder

ROOT = Path(__file__).resolve().parents[1]
TELL = "Tell the page"
KINDS = ("checkbox", "file_uploader", "number_input", "selectbox", "text_area", "text_input")


def sidebar(page):
    """The form's widgets by their labels, also those that are folded away or out of sight."""
    return {w.label: w for kind in KINDS for w in page.sidebar.get(kind)}


def labelled(widgets, label):
    return next(widget for widget in widgets if widget.label == label)


def press(page, label):
    labelled(page.button, label).click()
    return page.run()


def run(page):
    return press(page, "Run!")


def write_prompt(page, text="a red heart"):
    page.text_area[0].set_value(text)
    return page


def set_at_once(page, *changes):
    """Set (widget, value) one after another, each sent before the page's answer to the last."""
    seen = {state.id: state for state in page._tree.get_widget_states().widgets}
    for widget, value in changes:
        seen[widget.id] = widget.set_value(value)._widget_state
        page._run(WidgetStates(widgets=seen.values()))  # a browser sends all that it sees
    return page


def queued(output_dir):
    return run_queue.waiting(run_index.entries(output_dir))


def unescaped(text):
    return text.replace("\\", "").replace(NOTHING, "")


def errors(page):
    return " ".join(unescaped(error.value) for error in page.error)


def everything(page):
    """All the text of the page, with its Markdown undone."""
    kinds = ("title", "subheader", "markdown", "caption", "html", "error", "warning")
    texts = [getattr(e, "value", None) or e.proto.body for k in kinds for e in page.get(k)]
    return unescaped(" ".join(texts))


def fake_listener(name):
    """In place of `components.listener`: pressing TELL tells what lies under the script's key."""

    def mount(key, on_act_change=None, on_file_change=None, data=None):
        st.button(TELL, on_click=on_act_change or on_file_change)

    return mount


def component_data(page, name):
    """What each of the page's components of that name was given."""
    found = [e.proto for e in page.get("bidi_component")]
    return [json.loads(proto.json) for proto in found if proto.component_name == name]


def make_run(output_dir, name, **details):
    folder = RunFolder(output_dir / name)
    folder.path.mkdir(parents=True)
    folder.write({"text_input": name, "Xdim": 32, "ydim": 32} | details)
    return folder


def make_finished(output_dir, name="20260101T000000-aaaaaaaa", **details):
    folder = make_run(output_dir, name, **{"status": "done", "num_steps": 3} | details)
    Image.new("RGB", (32, 32), "red").save(folder.path / PICTURE, "PNG")
    return folder


def again(page):
    """The page as somebody opens it later."""
    return AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()


def switch_stages(page):
    toggle = labelled(page.toggle, "Several stages")
    toggle.set_value(not toggle.value)
    return page.run()
