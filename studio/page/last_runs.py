"""The runs that ended, as thumbnails: finding them, opening one, and what else each offers."""

import html
from collections.abc import Callable, Iterator, Sequence

import streamlit as st

from studio.page.actions import attempt, remove, show_problem, toast_problem
from studio.page.components import listener
from studio.page.dropped import start_from
from studio.page.form import Form
from studio.page.incoming import continue_run, use_settings
from studio.page.memory import Memory
from studio.page.picker import can_continue
from studio.page.pictures import show_choice
from studio.page.text import STATUS_ICONS, date_of, prompt_of
from studio.page.uploads import START_IMAGE
from studio.queue.options import StudioOptions
from studio.runs import marks, storage
from studio.runs.marks import Marks
from studio.runs.run_index import Entry

PAGE = 8
LAST_RUNS = "last runs"  # the place of problems
SEARCH, ONLY_FAVOURITES = "find_last_runs", "only_favourites"
ACTS = "run-acts"
BUTTON = """<button type="button" data-run="{run}" data-act="{act}" data-on="{on}"
 aria-label="{label}: {prompt}" title="{help}"{pressed}><span aria-hidden="true">{icon}</span>
</button>"""
Button = tuple[str, str, str, str]  # act, label, help, icon


def show_last_runs(
    finished: Sequence[Entry],
    choose: Callable[[str], None],
    form: Form | None,
    options: StudioOptions,
    memory: Memory,
) -> None:
    """Thumbnails, the newest first; a click on one calls `choose` with the folder's name.

    form: of the engine that is chosen; None if it has none.
    """
    if not finished:
        return
    known = marks.read(options.output_dir)
    found = _show_search(finished, known)
    count = st.session_state.get("history_shown", PAGE)
    takes_start = form is not None and START_IMAGE in form.uploads
    with st.container(horizontal=True, key="last-runs"):
        for entry in found[:count]:
            with st.container(width=164, gap="xxsmall", key=f"card-{entry.name}"):
                show_choice(entry, "show", 40, choose)
                st.html(_about(entry, known, takes_start))
    if len(found) > count:
        st.button("Show more", on_click=_show_more, key="show-more", type="tertiary")
    _listen(options, memory)


def _show_search(finished: Sequence[Entry], known: Marks) -> Sequence[Entry]:
    """The heading with its fields; returns the runs that they leave."""
    state = st.session_state
    with st.container(horizontal=True, vertical_alignment="bottom", key="find-last-runs"):
        st.subheader("Last runs", width="stretch")
        with st.container(width="content"):  # so that what follows keeps its place
            if known.favourites or state.get(ONLY_FAVOURITES):
                st.toggle("Favourites", key=ONLY_FAVOURITES, help="Show favourites only.")
        words = st.text_input(
            "Search by words of the prompt",
            key=SEARCH,
            placeholder="words of a prompt",
            label_visibility="collapsed",
            icon=":material/search:",
            width=240,
        )
    found = list(_found(finished, words, known if state.get(ONLY_FAVOURITES) else None))
    with st.container():
        if len(found) < len(finished):
            st.caption(f"{len(found)} of {len(finished)} runs")
        show_problem(LAST_RUNS)
    return found


def _found(finished: Sequence[Entry], words: str, of: Marks | None) -> Iterator[Entry]:
    """The runs with all words in their prompts. of: leave only the favourites among these."""
    wanted = words.casefold().split()
    for entry in finished:
        if of is not None and entry.name not in of.favourites:
            continue
        prompt = str(entry.details.get("text_input") or "").casefold() if wanted else ""
        if all(word in prompt for word in wanted):
            yield entry


def _about(entry: Entry, known: Marks, takes_start: bool) -> str:
    """What lies over and below a thumbnail, as HTML: buttons, a star, the date, tags."""
    is_favourite = entry.name in known.favourites
    buttons = "".join(
        BUTTON.format(
            run=html.escape(entry.name),
            act=act,
            on=0 if act == "favourite" and is_favourite else 1,
            label=label,
            prompt=html.escape(prompt_of(entry.details, 60)),
            help=help_text,
            pressed=f' aria-pressed="{str(is_favourite).lower()}"' if act == "favourite" else "",
            icon=icon,
        )
        for act, label, help_text, icon in _buttons(entry, takes_start, is_favourite)
    )
    star = '<span class="run-star" role="img" aria-label="Favourite">★</span>'
    tags = "".join(f"<li>{html.escape(tag)}</li>" for tag in known.tags.get(entry.name, ()))
    status = "" if entry.status == "done" else f"{entry.status} · "
    date = f"{STATUS_ICONS.get(entry.status, '')} {status}{date_of(entry.name)}"
    return (
        f'<div class="run-acts">{star if is_favourite else ""}<div>{buttons}</div></div>'
        f'<p class="run-date">{html.escape(date)}</p>'
        + (f'<ul class="run-tags" aria-label="Tags">{tags}</ul>' if tags else "")
    )


def _buttons(entry: Entry, takes_start: bool, is_favourite: bool) -> Iterator[Button]:
    """The buttons that a run offers."""
    if can_continue(entry):
        yield "continue", "Continue", "Continue it in a new run", "arrow_forward"
    yield "use", "Use settings", "Use its settings", "tune"
    if takes_start and entry.folder.picture_path():
        yield "start", "Starting image", "Use its picture as starting image", "wallpaper"
    yield "favourite", "Favourite", "Favourite", "★" if is_favourite else "☆"
    yield "remove", "Remove", "Move it to the trash", "delete"


def _listen(options: StudioOptions, memory: Memory) -> None:
    """Do what the buttons on the thumbnails ask for."""

    def take() -> None:
        asked = st.session_state[ACTS].get("act") or {}
        _do(str(asked.get("act")), str(asked.get("run")), asked.get("on") == "1", options, memory)
        toast_problem()  # the thumbnail may be far from where the problem is shown

    listener("acts")(key=ACTS, on_act_change=take)


def _do(act: str, name: str, on: bool, options: StudioOptions, memory: Memory) -> None:
    if act == "continue":
        continue_run(name, options, memory, LAST_RUNS)
    elif act == "use":
        use_settings(name, options, memory, LAST_RUNS)
    else:
        with attempt(LAST_RUNS):
            _do_with(storage.find_run(options.output_dir, name), act, on, options)


def _do_with(folder: storage.RunFolder, act: str, on: bool, options: StudioOptions) -> None:
    if act == "start":
        start_from(str(folder.picture_path()))
    elif act == "favourite":
        marks.set_favourite(options.output_dir, folder.name, on)
    elif act == "remove":
        remove(Entry(folder, folder.read()), options)


def _show_more() -> None:
    st.session_state["history_shown"] = st.session_state.get("history_shown", PAGE) + 3 * PAGE
