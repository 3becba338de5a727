"""What the next run begins from, unless it starts fresh.

It may continue another run: by the switch "Continue previous run", by "Continue" on a run, or by a
link. Or, once the settings of an earlier run were taken, it begins where that run began.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import streamlit as st

from studio.making import chains
from studio.making.recipes import Recipe
from studio.page.components import bring_into_view
from studio.page.pictures import show_choice, show_small
from studio.page.planned_changes import show_planned_changes
from studio.page.text import date_of, plain, prompt_of
from studio.runs.run_index import Entry
from studio.runs.storage import ACTIVE
from studio.settings.run_settings import RunSettings

CONTINUE = "continue_previous_run"
CONTINUE_LABEL = "Continue previous run"
CONTINUE_HELP = (
    "Continue the last run with this prompt and these settings; without a prompt, with its own"
    " prompt. Or pick a run, whose settings then come into the form."
)
PICKED = "picked"  # the name of the run to continue; None for the last run
BEGINS_AT = "begins_at"  # a BeginsAt, which counts while its run is the picked one
AGAIN = "again"  # the Recipe whose settings were taken, if it continued another run or changed
RESIZE, SIZE = "continue_resize", ("Xdim", "ydim")  # of engines that have them
SEEK = "seek"  # whether to bring the form into view
MOST = 24
HAPPENS = {
    "scale": "Its picture is scaled from {} to {}.",
    "crop": "Its picture is cropped from {} to {}.",
    "keep": "The size stays {}.",
}


@dataclass(frozen=True)
class BeginsAt:
    """A frame of a run's video that the next run begins with, in place of the run's end.

    run: the folder's name. number: counted from 1. picture: the frame as a file.
    """

    run: str
    number: int
    picture: Path


def continue_switch(others: Sequence[Entry], choose: Callable[[str], None]) -> bool:
    """The checkbox, and while it is on, the runs to pick from. Returns whether it is on."""
    on = st.checkbox(CONTINUE_LABEL, help=CONTINUE_HELP, key=CONTINUE, on_change=_forget)
    if on and others:
        _show_picker(others, choose)
    return on


def to_continue(runs: Sequence[Entry]) -> Entry | None:
    """The run that the next one continues: the newest stage of the picked one, else the last.

    runs: all of them, the newest first.
    """
    if not st.session_state.get(CONTINUE):
        return None
    name = st.session_state.get(PICKED) or ""
    name = name if begins_at(name) else chains.newest_after(name, runs)
    picked = next((entry for entry in runs if entry.name == name), None)
    return picked or next(iter(continuable(runs)), None)


def continuable(runs: Sequence[Entry]) -> list[Entry]:
    """The runs that another run can continue: from their checkpoint, or from their picture."""
    return [entry for entry in runs if entry.status not in ACTIVE and can_continue(entry)]


def can_continue(entry: Entry) -> bool:
    """Whether a run left anything to continue."""
    return entry.folder.picture_path() is not None or entry.folder.can_resume


def begin_at(frame: BeginsAt) -> None:
    """Let the next run begin with a frame of the run that is picked."""
    st.session_state[BEGINS_AT] = frame


def begins_at(name: str) -> BeginsAt | None:
    """The frame of that run's video to begin with; None to continue its end."""
    frame = st.session_state.get(BEGINS_AT)
    return frame if frame and frame.run == name == st.session_state.get(PICKED) else None


def pick(name: str | None) -> None:
    """Let the next run continue this one."""
    _forget()
    st.session_state[PICKED] = name
    st.session_state[CONTINUE] = name is not None
    st.session_state[SEEK] = True


def leave() -> None:
    """Let the next run start fresh; the settings stay."""
    _forget()
    st.session_state[CONTINUE] = False


def begin_as(recipe: Recipe) -> None:
    """Let the next run begin from what the recipe began from: a run, or nothing."""
    pick(None)
    st.session_state[AGAIN] = recipe if recipe.is_continued or recipe.changes else None


def show_origin(runs: Sequence[Entry], kind: type[RunSettings]) -> None:
    """What Run! continues, with its thumbnail and a button against it; nothing for a new start.

    kind: the settings of the form's engine.
    """
    state = st.session_state
    previous, again = to_continue(runs), state.get(AGAIN)
    with st.container(key="origin"):
        if state.get(CONTINUE) and previous is None:
            st.caption("There is no finished run to continue yet.")
        elif previous:
            _show_previous(previous, kind)
        elif again and again.is_continued:
            _show_again(again)
        if again and again.changes:
            show_planned_changes(again, kind, _leave_changes)
        if state.pop(SEEK, False):  # in here, so that nothing below is drawn anew
            bring_into_view(".st-key-origin", block="center")


def _show_previous(previous: Entry, kind: type[RunSettings]) -> None:
    prompt, name = plain(prompt_of(previous.details, 60)), plain(previous.name)
    waits = f" It is {previous.status}: wait until it ends." if previous.status in ACTIVE else ""
    frame = begins_at(previous.name)
    end = f"frame {frame.number} of " if frame else ""
    words = f"Continues {end}“{prompt}” ({name}).{waits} {_what_happens(previous, kind)}"
    _show_strip(frame.picture if frame else previous.folder.picture_path(), words)


def _show_again(recipe: Recipe) -> None:
    place = f"frame {recipe.frame}" if recipe.frame else "the end"
    parent = f": at {place} of {plain(recipe.ancestors[-1])}" if recipe.ancestors else ""
    words = f"Begins where the run with these settings began{parent}."
    start = recipe.start if isinstance(recipe.start, Path) else None
    _show_strip(start, f"{words} {plain(recipe.lacks)}")


def _show_strip(picture: Path | None, words: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        with st.container(horizontal=True, vertical_alignment="center", wrap=False):
            with st.container(width=64):
                show_small(picture, "What Run! begins from")
            st.markdown(words.strip(), width="stretch")
        help_text = "The next run starts fresh; the settings stay."
        st.button("Do not continue", key="leave", on_click=leave, help=help_text)


def _what_happens(previous: Entry, kind: type[RunSettings]) -> str:
    """What happens to a picture of another size, if both runs have a size to choose."""
    state = st.session_state
    has_choice = {*SIZE, RESIZE} <= kind.model_fields.keys()
    if not has_choice or not all(previous.details.get(side) for side in SIZE):
        return ""
    before, now = ("x".join(str(of[side]) for side in SIZE) for of in (previous.details, state))
    return "" if before == now else HAPPENS[state[RESIZE]].format(before, now)


def _forget() -> None:
    st.session_state[PICKED] = st.session_state[AGAIN] = st.session_state[BEGINS_AT] = None


def _leave_changes() -> None:
    """Take the settings of the run, but not what changed while it went."""
    recipe = replace(st.session_state[AGAIN], changes=())
    st.session_state[AGAIN] = recipe if recipe.is_continued else None


def _show_picker(others: Sequence[Entry], choose: Callable[[str], None]) -> None:
    popover = st.popover("Pick another run", on_change="rerun", key="picker", width="stretch")
    if not popover.open:
        return
    with popover, st.container(key="picking"):
        words = st.text_input("Find by prompt", key="find_run")
        found = [e for e in others if words.casefold() in prompt_of(e.details, 1000).casefold()]
        with st.container(horizontal=True, key="pickable-runs"):
            for entry in found[:MOST]:
                _show_choice(entry, choose)
        if len(found) > MOST:
            st.caption(f"{len(found) - MOST} more runs: type a word of the prompt to find them.")


def _show_choice(entry: Entry, choose: Callable[[str], None]) -> None:
    with st.container(width=116, gap="xxsmall", key=f"card-pick-{entry.name}"):
        show_choice(entry, "pick", 24, choose, plain(prompt_of(entry.details, 300)))
        st.caption(date_of(entry.name))
