"""The sidebar's form: what matters stands open, the rest is folded under headings or searched."""

from collections.abc import Callable, Iterable, Sequence

import streamlit as st

from studio.page.form import CHOSEN_BEFORE, Form
from studio.page.headings import heading, show_search, unseen
from studio.page.parts import Part, found_in, parts_of, rows
from studio.page.picker import CONTINUE, SIZE, continue_switch
from studio.page.seeds import SET_SEED, last_seed, show_seed_buttons
from studio.page.shapes import show_shapes
from studio.page.text import plain
from studio.page.uploads import show_upload
from studio.runs.run_index import Entry
from studio.settings.declare import HEADINGS, label_of


def show_form(form: Form, others: Sequence[Entry], choose: Callable[[str], None]) -> None:
    """Draw all but the prompt.

    others: the runs that can be continued. choose: called with the name of the one picked.
    """
    FormView(form, others, choose).show()


class FormView:
    """Draws a form once. The arguments are those of `show_form`."""

    def __init__(self, form: Form, others: Sequence[Entry], choose: Callable[[str], None]) -> None:
        self._form = form
        self._others = others
        self._choose = choose
        self._parts = parts_of(form.kind, form.options, form.uploads)

    def show(self) -> None:
        """The search, and then what it finds, or everything."""
        st.session_state[CHOSEN_BEFORE] = self._form.chosen()
        if words := show_search():
            self._show_found(words)
        else:
            self._show_all()

    def _show_all(self) -> None:
        self._show_parts(part for part in self._parts if part.heading is None)
        changed = self._form.changed_by_heading()
        for name in HEADINGS:
            if parts := [part for part in self._parts if part.heading == name]:
                with heading(name, changed[name], self._form.reset):
                    self._show_parts(parts)

    def _show_found(self, words: Sequence[str]) -> None:
        """What has all the words, open; the rest out of sight."""
        found = {p: found_in(p, words, self._form.kind, self._form.options) for p in self._parts}
        for part, names in found.items():
            if names:
                self._show_parts([part])
                self._say_where(part, names)
        if not any(found.values()):
            st.caption("No setting has these words.")
        with unseen():
            self._show_parts(part for part, names in found.items() if not names)

    def _say_where(self, part: Part, names: Sequence[str]) -> None:
        """If the names are behind the part's switch, and that is off: what it will show."""
        if part.row[0] not in names and not st.session_state.get(part.row[0]):
            labels = ", ".join(label_of(self._form.kind, name) for name in names)
            st.caption(plain(f"Switch it on for: {labels}"))

    def _show_parts(self, parts: Iterable[Part]) -> None:
        for part in parts:
            with st.container():  # so nothing below moves when something inside appears
                self._show_row(part.row)
                if part.members and st.session_state.get(part.row[0]) is True:
                    with st.container(key=f"members-{part.row[0]}"):
                        for row in rows(self._form.kind, part.members):
                            self._show_row(row)

    def _show_row(self, names: Sequence[str]) -> None:
        if {*SIZE} <= {*names}:
            show_shapes(self._form.fits)
        with st.container(horizontal=True, wrap=False):  # side by side on a phone as well
            for name in names:
                with st.container():
                    self._show_setting(name)

    def _show_setting(self, name: str) -> None:
        if name == CONTINUE:
            continue_switch(self._others, self._choose)
        elif name in self._form.uploads:
            show_upload(name, self._form.kind.model_fields[name], self._form.output_dir)
        elif name == SET_SEED:
            with st.container(
                horizontal=True, wrap=False, vertical_alignment="center", gap="xsmall"
            ):
                self._form.show_widget(name)
                show_seed_buttons(last_seed(self._others, self._form.engine))
        else:
            self._form.show_widget(name)
