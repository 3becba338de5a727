"""What changed while a run went, in the gallery."""

import pytest
from gallery_runs import make_run, open_gallery, runs_on

from studio.gallery.details import Setting, differences, readable

CHANGES = [{"step": 4, "settings": {"text_input": "a blue fish", "step_size": 0.2}}]
WORDS = "Text prompt: a blue fish · Step size: 0.2"


def test_it_is_among_the_settings_and_the_differences():
    details = {"text_input": "a red heart", "changes": CHANGES}
    assert Setting("From step 4 on", WORDS) in readable(details)[0]
    (difference,) = differences(details, details | {"changes": []})
    assert (difference.label, difference.first) == ("Changes", f"From step 4 on: {WORDS}")


def test_a_search_finds_the_new_prompt(tmp_path):
    make_run(tmp_path, 1)
    changed = make_run(tmp_path, 2, changes=CHANGES)
    client = open_gallery(tmp_path)
    assert runs_on(client.get("/?q=fish")) == [changed.name]
    assert WORDS in client.get(f"/runs/{changed.name}").text


@pytest.mark.parametrize("changes", ["x", 7, [1], [{"step": "<b>"}], [{"settings": 3}], {"a": 1}])
def test_what_a_stranger_wrote_there_is_shown_as_it_is(tmp_path, changes):
    run = make_run(tmp_path, 1, changes=changes)
    page = open_gallery(tmp_path).get(f"/runs/{run.name}")
    assert page.status_code == 200 and "<b>" not in page.text
