"""What can be done with a run that ended, and the trash."""

from collections.abc import Callable, Sequence

import streamlit as st

from studio.base.errors import BadInput
from studio.page.actions import (
    REMOVAL,
    REMOVED,
    RESULT,
    TRASH,
    make_film,
    put_back,
    remove,
    resume,
    show_problem,
)
from studio.page.gallery_link import show_gallery_link
from studio.page.like_it import show_four_like_it
from studio.page.picker import can_continue
from studio.page.pictures import show_thumbnail
from studio.page.remake import can_remake, show_remake
from studio.page.text import plain, prompt_of
from studio.page.upscaling import show_upscale, show_upscalings
from studio.queue.options import StudioOptions
from studio.runs import trash
from studio.runs.run_index import Entry
from studio.runs.storage import CHAIN_VIDEO, RunFolder

TRASH_SHOWN = 24
Choose = Callable[[str], None]


def show_actions(entry: Entry, use: Choose, continue_: Choose, options: StudioOptions) -> None:
    """The buttons beside a result.

    use: puts the run's settings and pictures into the form. continue_: lets Run! continue it.
    """
    show_problem(RESULT)
    show_upscalings(entry, options)
    with st.container(horizontal=True, key=f"actions-{entry.name}"):
        if entry.status != "done" and entry.folder.can_resume:
            st.button(
                "Resume",
                key=f"resume-{entry.name}",
                type="primary",
                help="The same run goes on, in its folder, where it stopped.",
                on_click=resume,
                args=(entry, options),
            )
        if can_continue(entry):
            st.button(
                "Continue",
                key=f"continue-{entry.name}",
                help="Puts its settings into the form; Run! then continues it in a new run.",
                on_click=continue_,
                args=(entry.name,),
            )
            show_four_like_it(entry, options)
        show_upscale(entry, options)
        if can_remake(entry):
            show_remake(entry, options)
        if entry.details.get("ancestors"):
            _show_chain_film(entry)
        st.button("Use these settings", key=f"use-{entry.name}", on_click=use, args=(entry.name,))
        show_gallery_link(entry, options)
        st.button(
            "Remove",
            key=f"trash-{entry.name}",
            help="Moves it to the trash; you can put it back.",
            on_click=remove,
            args=(entry, options),
        )


def _show_chain_film(entry: Entry) -> None:
    """One film of this run and of those that it continues."""
    path = entry.folder.path / CHAIN_VIDEO
    if path.is_file():
        st.download_button(
            "Film of all stages",
            data=path.read_bytes(),
            file_name=f"{entry.name}-{path.name}",
            icon=":material/download:",
            on_click="ignore",
            key=f"film-{entry.name}",
        )
        return
    help_text = "Joins the videos of this run and of those that it continues."
    st.button(
        "Make one film of all stages",
        key=f"make-film-{entry.name}",
        help=help_text,
        on_click=make_film,
        args=(entry,),
    )


def show_removed(options: StudioOptions) -> None:
    """The runs that this tab has just removed, with their undo."""
    show_problem(REMOVAL)
    names = list(st.session_state.get(REMOVED) or ())
    if not names:
        return
    what = plain(names[0]) if len(names) == 1 else f"{len(names)} runs"
    with st.container(horizontal=True, vertical_alignment="center", key="removed"):
        st.markdown(f"Removed {what}.", width="stretch")
        st.button("Undo", on_click=put_back, args=(names, options, REMOVAL), key="undo")


def show_trash(options: StudioOptions) -> None:
    """The removed runs, in every tab, until the trash folder is emptied."""
    gone = trash.trashed(options.output_dir)
    if not gone:
        return
    popover = st.popover(f"Trash ({len(gone)})", on_change="rerun", key="trash", type="tertiary")
    if not popover.open:
        return
    with popover:
        show_problem(TRASH)
        _show_trashed(gone, options)


def _show_trashed(gone: Sequence[RunFolder], options: StudioOptions) -> None:
    with st.container(horizontal=True, key="trashed-runs"):
        for folder in gone[:TRASH_SHOWN]:
            with st.container(width=120, gap="xxsmall"):
                show_thumbnail(_entry(folder))
                st.caption(plain(prompt_of(_entry(folder).details, 40)))
                st.button(
                    "Put back",
                    key=f"back-{folder.name}",
                    on_click=put_back,
                    args=((folder.name,), options, TRASH),
                )


def _entry(folder: RunFolder) -> Entry:
    try:
        return Entry(folder, folder.read())
    except BadInput:
        return Entry(folder, {})
