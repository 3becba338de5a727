"""Several runs at once on the page: the grid of equals, the queue, and one undo for all."""

from datetime import datetime
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from pages import (
    errors,
    everything,
    labelled,
    make_finished,
    make_run,
    press,
    queued,
    run,
    switch_stages,
    unescaped,
    write_prompt,
)
from PIL import Image

from studio.base.files import atomic_write, to_json
from studio.page import finish
from studio.page.batch_grid import MOST
from studio.queue import run_queue
from studio.runs import run_index, trash
from studio.runs.details import now
from studio.runs.storage import PICTURE, PROGRESS

TILE = 'class="tile-caption">'
pytest_plugins = "page_fixtures"


def ask_for(page, count, prompt="a red heart", forever=False):
    labelled(page.number_input, "How many").set_value(count)
    labelled(page.toggle, "Forever").set_value(forever)
    return run(write_prompt(page, prompt))


def begin(folder, step=3):
    folder.update(status="running", heartbeat=now(), start_time=now())
    progress = {"step": step, "planned_num_steps": 10, "seconds_left": 120.0}
    atomic_write(folder.path / PROGRESS, to_json(progress))


def end(folder, status="done"):
    Image.new("RGB", (32, 32), "red").save(folder.path / PICTURE, "PNG")
    folder.update(status=status, num_steps=10)


def tiles(page):
    """The captions of the tiles, without their seeds' digits."""
    texts = [element.proto.body for element in page.get("html")]
    return [text.partition(TILE)[2].partition("<")[0] for text in texts if TILE in text]


def buttons(page):
    return [unescaped(button.label) for button in page.button]


def test_siblings_show_as_equals_with_seed_and_state(page, output_dir):
    ask_for(page, 3)
    siblings = [entry.folder for entry in queued(output_dir)]
    seeds = [folder.read()["seed"] for folder in siblings]
    assert len({folder.read()["batch"] for folder in siblings}) == 1 and len(set(seeds)) == 3
    begin(siblings[0])
    page.run()
    waits = ["step 3 of 10", "waits: 1 before it", "waits: 2 before it"]
    assert tiles(page) == [f"seed {s} · {w}" for s, w in zip(seeds, waits, strict=True)]
    assert len(page.get("progress")) == 0, "no large view beside the grid"
    end(siblings[0])
    begin(siblings[1])
    page.run()
    assert tiles(page)[0] == f"seed {seeds[0]}"
    assert "Run folder" not in everything(page), "nobody has chosen yet"


def test_a_finished_grid_stays_until_another_run_is_chosen_or_begun(page, output_dir):
    other = make_finished(output_dir, "20250101T000000-oooooooo", text_input="another")
    ask_for(page, 2)
    for entry in queued(output_dir):
        end(entry.folder)
    page.run()
    assert len(tiles(page.run())) == 2 and "Remove all" in buttons(page)
    first = next(b for b in page.button if b.label.startswith("Show seed"))
    first.click()
    assert "Run folder" in everything(page.run()) and len(tiles(page)) == 2
    assert {"Continue", "Four like it"} <= set(buttons(page))
    press(page, "another")
    assert f"Run folder: `{other.name}`" in everything(page) and tiles(page) == []


def test_another_run_ends_the_view_of_a_finished_grid(page, output_dir):
    ask_for(page, 2)
    for entry in queued(output_dir):
        end(entry.folder)
    assert len(tiles(page.run())) == 2
    ask_for(page, 1, "alone")
    assert tiles(page) == []


def test_a_single_run_shows_as_before(page, output_dir):
    ask_for(page, 1)
    (entry,) = queued(output_dir)
    assert "batch" not in entry.details
    begin(entry.folder)
    page.run()
    assert tiles(page) == [] and len(page.get("progress")) == 1


def test_a_chain_shows_its_stages_and_those_to_come(page, output_dir):
    page.session_state["stage_rows"] = [{"text_input": t} for t in ("spring", "summer", "autumn")]
    run(switch_stages(page))
    assert [text.partition(" · seed")[0] for text in tiles(page)] == [
        "stage 1 of 3",
        "stage 2 of 3 · summer · waits",
        "stage 3 of 3 · autumn · waits",
    ]


def test_of_many_siblings_some_show_until_all_are_wanted(page, output_dir):
    ask_for(page, MOST + 6)
    assert len(tiles(page)) == MOST
    press(page, f"Show all {MOST + 6}")
    assert len(tiles(page)) == MOST + 6


def test_stop_all_stops_what_runs_and_removes_what_waits_with_one_undo(page, output_dir):
    ask_for(page, 3)
    first, *others = [entry.folder for entry in queued(output_dir)]
    begin(first)
    press(page.run(), "Stop all")
    assert first.stop_requested() and queued(output_dir) == []
    assert {gone.name for gone in trash.trashed(output_dir)} == {f.name for f in others}
    press(page, "Undo")
    assert [entry.name for entry in queued(output_dir)] == [f.name for f in others]


def test_one_of_several_is_stopped_or_removed_alone(page, output_dir):
    ask_for(page, 3)
    first, second, third = [entry.folder for entry in queued(output_dir)]
    begin(first)
    page.run()
    next(b for b in page.button if b.key == f"tile-stop-{first.name}").click()
    page.run()
    next(b for b in page.button if b.key == f"tile-remove-{second.name}").click()
    page.run()
    assert first.stop_requested() and [e.name for e in queued(output_dir)] == [third.name]


def test_a_run_that_another_tab_removed_does_no_harm(page, output_dir):
    ask_for(page, 3)
    first, *_ = queued(output_dir)
    trash.move_to_trash(output_dir, first.name)
    next(b for b in page.button if b.key == f"tile-remove-{first.name}").click()
    assert not page.run().exception and len(tiles(page)) == 2
    press(page, "Clear all")
    assert not page.exception and "Removed 2 runs." in everything(page)


def test_forever_is_stopped_by_its_button_and_not_for_chains(page, output_dir):
    ask_for(page, 1, forever=True)
    (entry,) = queued(output_dir)
    assert "goes on until you stop it" in everything(page)
    press(page, "Stop forever")
    assert entry.folder.is_last and len(queued(output_dir)) == 1
    assert "Stop forever" not in buttons(page)
    page.session_state["stage_rows"] = [{"text_input": "spring"}]
    assert "Switch off 'Forever'" in errors(run(switch_stages(page)))


def test_four_like_it_continue_the_winner_with_new_seeds(page, output_dir):
    winner = make_finished(output_dir, text_input="a tree", seed=5, vqgan_ckpt="tiny_f8")
    press(page.run(), "a tree")
    press(page, "Four like it")
    four = [entry.details for entry in queued(output_dir)]
    assert [d["parent"] for d in four] == [winner.name] * 4
    assert len({d["seed"] for d in four} | {5}) == 5 and len({d["batch"] for d in four}) == 1
    assert len(tiles(page)) == 4


# --- the queue ---


def test_clear_all_has_one_undo_that_restores_the_order(page, output_dir):
    for prompt in ("first", "second", "third"):
        ask_for(page, 1, prompt)
    run_queue.move(output_dir, queued(output_dir)[2].name, 0)
    page.run()
    press(page, "Clear all")
    assert queued(output_dir) == [] and "Removed 3 runs." in everything(page)
    ask_for(page, 1, "later")
    press(page, "Undo")
    prompts = [entry.details["text_input"] for entry in queued(output_dir)]
    assert prompts == ["later", "third", "first", "second"]


def test_clear_all_leaves_what_a_worker_has_just_taken(page, output_dir):
    for prompt in ("first", "second"):
        ask_for(page, 1, prompt)
    taken, waits = [entry.folder for entry in queued(output_dir)]
    begin(taken)
    labelled(page.button, "Clear all").click()
    page.run()
    assert not taken.stop_requested() and taken.path.is_dir() and not waits.path.exists()


def test_the_running_one_is_on_top_and_siblings_are_told_apart(page, output_dir):
    ask_for(page, 2)
    first, second = [entry.folder for entry in queued(output_dir)]
    begin(first)
    said = everything(page.run())
    seeds = [folder.read()["seed"] for folder in (first, second)]
    rows = [f"· seed {seeds[0]}] :gray[— step 3 of 10", f"· seed {seeds[1]}] :gray[— waits: 1"]
    assert 0 < said.index(rows[0]) < said.index(rows[1])


def test_many_siblings_fold_into_one_row(page, output_dir):
    ask_for(page, 7)
    ask_for(page, 1, "alone")
    assert "6 more of these" in everything(page)
    assert "alone :gray[— waits: 7 before it" in everything(page)
    press(page, "Remove 6")
    assert [e.details["text_input"] for e in queued(output_dir)] == ["a red heart", "alone"]
    press(page, "Undo")
    press(page, "Show")
    assert len(queued(output_dir)) == 8 and "more of these" not in everything(page)


# --- when all is done ---


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (720, "all done at about 23:42 (in 12 min)"),
        (7200, "all done tomorrow at about 01:30 (in 2.0 h)"),
        (3 * 86400, "all done on 4 Jan at about 23:30 (in 72.0 h)"),
    ],
)
def test_the_time_when_all_is_done(tmp_path, monkeypatch, seconds, words):
    half_past = datetime(2026, 1, 1, 23, 30, tzinfo=ZoneInfo("Asia/Tokyo"))
    monkeypatch.setattr(finish, "_now", lambda: half_past)
    make_run(tmp_path, "20260101T000000-aaaaaaaa", planned_num_steps=10)
    waiting = run_index.entries(tmp_path)
    assert finish.finish_in_words(waiting, [], {waiting[0].name: seconds}, None) == words
    assert finish.finish_in_words(waiting, [], {}, None) == "", "one of them is not known"


def test_the_clock_is_the_browsers(monkeypatch):
    context = SimpleNamespace(timezone="Asia/Tokyo")
    monkeypatch.setattr(finish.st, "context", context)
    assert finish._now().utcoffset().total_seconds() == 9 * 3600
    context.timezone = "../nowhere"
    assert finish._now().tzinfo is not None
