"""Settings that change while a run goes: from the next step on, and exact however it is made again.

A kill leaves the files as they are. So a copy of the run's folder, taken at any moment, is what a
kill at that moment leaves behind; it is resumed like the folder of a run whose process died.
"""

import shutil
from pathlib import Path

import pytest
import tiny_models
from test_exact import ASSETS, bits, check_same, end_of

from studio import commands
from studio.base.errors import BadInput
from studio.base.stopping import Stop
from studio.making.changes import Change, in_words, noted
from studio.making.execute import execute
from studio.making.prepare import Request, prepare
from studio.making.steering import TOO_LATE, ask
from studio.making.submit import reopen, submit
from studio.runs import change_requests
from studio.runs.details import DETAILS
from studio.runs.storage import RunFolder

TINY = {"vqgan_ckpt": "tiny_f8", "clip_model": "tiny_clip", "Xdim": 32, "ydim": 32, "cutn": 2}
TINY |= {"text_input": "a red heart", "seed": 5, "step_size": 0.1, "num_steps": 5}
SCROLL = {"translation_x": 3, "transform_interval": 2}
FISH = {"text_input": "a blue fish:2 | a dog:-0.5", "step_size": 0.3}
CHANGED = [{"step": 3, "settings": FISH}]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    tiny_models.write_tiny_assets(folder)
    return folder


class Studio:
    """Makes runs in a folder of its own."""

    def __init__(self, output: Path, assets: Path) -> None:
        self.output, self.assets = output, assets

    def begin(self, **given):
        earlier = {n: given.pop(n) for n in ("continue_run", "settings_file") if n in given}
        request = Request(given, self.output, self.assets, **earlier)
        return submit(prepare(request), "running")

    def execute(self, folder, **how):
        return execute(folder, assets_dir=self.assets, **how)

    def steered(self, changes=((2, FISH),), also=lambda step: None, **given):
        """A run for which somebody asks for changes, each after a step."""
        folder = self.begin(**given)

        def on_step(step):
            for after, settings in changes:
                if step.index == after:
                    ask(folder, settings)
            also(step)

        assert self.execute(folder, on_step=on_step) == "done"
        return folder

    def again(self, folder, **given):
        """A new run by the details of an earlier one."""
        made = self.begin(settings_file=folder.path / DETAILS, **given)
        self.execute(made)
        return made

    def resumed(self, folder):
        """What becomes of a folder whose process was killed."""
        folder.update(status="interrupted")
        reopen(folder, "running")
        assert self.execute(folder) == "done"
        return folder


@pytest.fixture
def studio(tmp_path, tiny):
    return Studio(tmp_path / "output", tiny)


def picture(folder):
    return (folder.path / "output.PNG").read_bytes()


# --- exactness -----------------------------------------------------------------------------------


def test_made_again_by_its_details(studio):
    folder = studio.steered(**TINY | SCROLL)
    assert folder.read()["changes"] == CHANGED
    assert folder.read()["text_input"] == "a red heart"
    again = studio.again(folder)
    check_same(again, folder)
    assert picture(again) == picture(folder)
    plain = studio.begin(**TINY | SCROLL)
    studio.execute(plain)
    assert bits(end_of(plain).state) != bits(end_of(folder).state)


def test_of_its_picture_with_more_or_fewer_steps(studio):
    long = studio.steered(**TINY | {"num_steps": 6})
    for steps in (2, 6):
        made = studio.begin(settings_file=long.path / "output.PNG", num_steps=steps)
        studio.execute(made)
        assert made.read()["changes"] == CHANGED
    check_same(made, long)


def snapshot(folder, to):
    shutil.copytree(folder.path, to / folder.name)
    return RunFolder(to / folder.name)


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [("asked", 0), ("asked", 1000), ("in the details", 0), ("made", 1000), ("in a checkpoint", 0)],
)
def test_killed_and_resumed(studio, tmp_path, monkeypatch, moment, seconds):
    """A run that is killed about the change.

    seconds: between checkpoints, so that the last one is of the step before, or the first step's.
    """
    killed = []

    def kill(*_):
        killed.append(snapshot(folder, tmp_path / "killed"))

    monkeypatch.setattr("studio.making.recording.CHECKPOINT_SHARE", 1000)
    if moment == "asked":
        monkeypatch.setattr("studio.making.steering.noted", lambda *a: kill() or noted(*a))
    if moment == "in the details":
        forget = change_requests.forget
        monkeypatch.setattr(change_requests, "forget", lambda path: kill() or forget(path))

    def on_step(step):
        if step.index == 2:
            ask(folder, FISH)
        if (moment, step.index) in (("made", 3), ("in a checkpoint", 4)):
            kill()

    folder = studio.begin(**TINY | {"checkpoint_seconds": seconds})
    assert studio.execute(folder, on_step=on_step) == "done"
    monkeypatch.undo()
    assert len(killed) == 1
    resumed = studio.resumed(killed[0])
    assert change_requests.pending(resumed.path) == []
    if moment == "asked" and seconds:  # then an earlier step is the next one
        assert resumed.read()["changes"] == [{"step": 2, "settings": FISH}]
        folder = studio.again(resumed)
    assert resumed.read()["changes"] == folder.read()["changes"]
    check_same(resumed, folder)


def test_stopped_and_resumed(studio):
    folder, stop = studio.begin(**TINY), Stop()

    def on_step(step):
        if step.index == 2:
            ask(folder, FISH)
        if step.index == 3:
            stop.request()

    assert studio.execute(folder, stop=stop, on_step=on_step) == "stopped"
    reopen(folder, "running")
    assert studio.execute(folder) == "done"
    check_same(folder, studio.steered(**TINY))


def test_as_a_person_gets_it(tmp_path):
    """The bundled weights in the machine's precision: made again, and resumed."""
    studio = Studio(tmp_path / "output", ASSETS)
    given = {"text_input": "a red heart", "seed": 5, "Xdim": 64, "ydim": 64, "num_steps": 4}
    halves = []
    begun = studio.begin(**given, checkpoint_seconds=0)

    def on_step(step):
        if step.index == 2:
            ask(begun, {"text_input": "a blue fish", "step_size": 0.2})
        if step.index == 3:
            halves.append(snapshot(begun, tmp_path / "killed"))

    assert studio.execute(begun, on_step=on_step) == "done"
    check_same(studio.resumed(halves[0]), begun)
    check_same(studio.again(begun), begun)


def test_endless_runs_change_too(studio):
    folder, stop = studio.begin(**TINY | {"num_steps": -1}), Stop()

    def on_step(step):
        if step.index == 2:
            ask(folder, FISH)
        if step.index == 5:
            stop.request()

    studio.execute(folder, stop=stop, on_step=on_step)
    assert folder.read()["changes"] == CHANGED
    check_same(studio.again(folder), folder, without=["frames"])


def test_continued_with_what_was_last_in_force(studio):
    """n steps with a change and then m more are n + m steps."""
    first = studio.steered(**TINY)
    more = studio.begin(continue_run=first.name, num_steps=2)
    studio.execute(more)
    details = more.read()
    assert {name: details[name] for name in FISH} == FISH
    assert "changes" not in details
    check_same(more, studio.steered(**TINY | {"num_steps": 7}), without=["frames"])


# --- what a person says last counts ---------------------------------------------------------------

A, B, C = ({"text_input": text} for text in "abc")
SMALL = {"step_size": 0.01}


@pytest.mark.parametrize(
    ("before", "step", "said", "after"),
    [
        ([], 3, A, [(3, A)]),
        ([(3, A)], 5, B, [(3, A), (5, B)]),
        ([(3, A)], 3, SMALL, [(3, A | SMALL)]),
        ([(3, A)], 3, B, [(3, B)]),
        ([(3, A), (8, B | SMALL)], 5, C, [(3, A), (5, C), (8, SMALL)]),
        ([(8, B)], 5, C, [(5, C)]),
    ],
)
def test_a_change_replaces_those_of_the_same_setting_that_lie_ahead(before, step, said, after):
    made = noted([Change(*change) for change in before], step, said)
    assert [(change.step, change.settings) for change in made] == after


def test_quick_requests_are_all_made_in_their_order(studio):
    folder = studio.steered([(2, A), (2, SMALL), (2, B)], **TINY)
    assert folder.read()["changes"] == [{"step": 3, "settings": B | SMALL}]


def test_what_changes_nothing_is_not_noted(studio):
    folder = studio.steered([(2, {"text_input": TINY["text_input"]})], **TINY)
    assert folder.read().get("changes", []) == []


def test_other_values_leave_the_changes_out(studio):
    folder = studio.steered(**TINY)
    made = studio.begin(settings_file=folder.path / DETAILS, text_input="a cat")
    details = made.read()
    assert "changes" not in details and details["text_input"] == "a cat"
    assert details["warnings"][-1:] == [
        "The changes at step 3 are left out, since 'Text prompt' is different now."
    ]
    same = studio.begin(settings_file=folder.path / DETAILS, text_input=TINY["text_input"])
    assert same.read()["changes"] == CHANGED


# --- what is refused ------------------------------------------------------------------------------


REFUSED = [
    (
        {"Xdim": 64},
        "Xdim cannot change while a run is being made. These can: PROMPT, --avoid, --step-size",
    ),
    ({"nonsense": 1}, "nonsense cannot change"),
    ({"step_size": -1}, "--step-size must be a number above 0 to 10; it was -1."),
    ({"text_input": " "}, "No prompt"),
    ({"text_input": "a:inf"}, "Use a number from"),
    ({"zoom_factor": 2}, "--zoom-factor has no effect in this run: --use-scrolling-zooming is"),
]


def test_asking_for_what_cannot_be_is_refused(studio):
    refused = []

    def ask_in_vain(step):
        for given, _ in REFUSED:
            with pytest.raises(BadInput) as error:
                ask(folder, given)
            refused.append(str(error.value))

    folder = studio.begin(**TINY | {"num_steps": 1})
    studio.execute(folder, on_step=ask_in_vain)
    for (_, said), message in zip(REFUSED, refused, strict=True):
        assert said in message
    assert change_requests.pending(folder.path) == []


def test_only_a_run_that_goes_can_be_changed(studio):
    folder = studio.begin(**TINY | {"num_steps": 1})
    studio.execute(folder)
    with pytest.raises(BadInput, match="Only a run that is being made can be changed"):
        ask(folder, FISH)


def test_the_command_changes_a_run_that_goes(studio, capsys):
    """Options and prompt in any order; values may be negative."""
    folder = studio.begin(**TINY | SCROLL | {"num_steps": 2})
    words = [folder.name, "--translation-x", "-3", "a cat", "--output-dir", str(studio.output)]

    def on_step(step):
        assert step.index > 1 or commands.main(["change", *words]) == 0

    studio.execute(folder, on_step=on_step)
    wanted = {"text_input": "a cat", "translation_x": -3}
    assert folder.read()["changes"] == [{"step": 2, "settings": wanted}]
    assert commands.main(["change", *words]) == 2
    assert commands.main(["change", folder.name, "--output-dir", str(studio.output)]) == 2
    said = capsys.readouterr()
    assert said.out == f"{folder.name} changes from its next step on.\n"
    assert "is done. Only a run that is being made" in said.err and "Say what to change" in said.err


BROKEN = {
    "empty": b"",
    "not JSON": b"{",
    "no settings": b"{}",
    "a list": b'{"settings": []}',
    "not a setting": b'{"settings": {"nonsense": 1}}',
    "fixed": b'{"settings": {"Xdim": 64}}',
    "out of range": b'{"settings": {"step_size": 1e9}}',
}


def test_a_broken_request_is_put_aside_and_told(studio):
    """The run goes on, and makes the changes that are right."""

    def spoil(step):
        if step.index == 1:
            for number, data in enumerate(BROKEN.values()):
                path = newest() / change_requests.REQUESTS / f"{number}.json"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
            (path.parent / "folder.json").mkdir()

    def newest():
        return next(studio.output.iterdir())

    folder = studio.steered(also=spoil, **TINY)
    details = folder.read()
    assert details["changes"] == CHANGED
    told = [words for words in details["warnings"] if words.startswith("A change was not made: ")]
    assert len(told) == len(BROKEN) + 1
    assert change_requests.pending(folder.path) == []


def test_a_request_after_the_last_step_is_told(studio):
    folder = studio.steered([(5, FISH)], **TINY)
    assert "changes" not in folder.read()
    assert folder.read()["warnings"][-1:] == [TOO_LATE]


HOSTILE = [
    "text",
    [1],
    [{"step": 0, "settings": FISH}],
    [{"step": True, "settings": FISH}],
    [{"step": 2}],
    [{"step": 2, "settings": {"Xdim": 64}}],
    [{"step": 2, "settings": {"step_size": "fast"}}],
]


@pytest.mark.parametrize("changes", HOSTILE)
def test_broken_changes_in_a_file_are_refused(studio, changes):
    folder = studio.begin(**TINY)
    folder.update(changes=changes, status="done")
    with pytest.raises(BadInput, match=r"The list 'changes' in|The change at step 2: "):
        studio.begin(settings_file=folder.path / DETAILS)
    assert all(isinstance(words, str) for line in in_words(folder.read()) for words in line)


def test_changes_in_words(studio):
    folder = studio.steered(**TINY)
    assert list(in_words(folder.read())) == [
        ("From step 3 on", f"Text prompt: {FISH['text_input']} · Step size: 0.3")
    ]
