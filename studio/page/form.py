"""The form: one widget for each setting of an engine, made from the setting's declaration."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import streamlit as st

from studio.page.form_values import FormValues, is_upload
from studio.page.memory import Memory
from studio.page.picker import CONTINUE, RESIZE, continue_switch
from studio.page.uploads import show_upload, take_pictures, uploaded
from studio.page.widgets import show_prompt_box, show_widget
from studio.runs.run_index import Entry
from studio.settings.declare import members, meta
from studio.settings.run_settings import RunSettings
from studio.settings.values import make

PROMPT, IMAGE_PROMPTS = "text_input", "image_prompt"  # of engines that have them
CHOSEN_BEFORE = "chosen_before"  # the last values of the settings in RECOMMEND


class Form:
    """The widgets of one engine's settings. Makes no decision that the settings could make.

    Raises BadInput for an engine that cannot be imported.
    """

    def __init__(self, engine: str, assets_dir: Path, memory: Memory) -> None:
        self.engine = engine
        self._assets_dir = assets_dir
        self._memory = memory
        self._values = FormValues(engine, assets_dir)
        self.kind: type[RunSettings] = self._values.kind
        self.options = self._values.options
        self._fields = self.kind.model_fields
        self.uploads = [name for name, field in self._fields.items() if is_upload(field)]

    # --- values ---

    def fill(self) -> None:
        """Put the starting values into widgets that have none yet. Raises BadInput."""
        for name, value in self._remembered().items():
            st.session_state.setdefault(name, value)

    def enter(self) -> None:
        """Put in what was typed last with this engine; the prompt in the form stays.

        Only before the widgets are drawn, so from a callback. Raises BadInput.
        """
        prompt = st.session_state.get(PROMPT)
        st.session_state.update(self._remembered() | ({PROMPT: prompt} if prompt else {}))

    def take(self, values: Mapping[str, Any]) -> None:
        """Put these settings into the widgets, and usual values into the rest. Raises BadInput.

        Only before the widgets are drawn, so from a callback or at the start of a session.
        """
        usual = self._values.usual(self._values.recommending(values))
        st.session_state.update(usual | self._values.as_typed(values))
        for name in self.uploads:
            take_pictures(name, values.get(name))

    def changed(self) -> dict[str, Any]:
        """The values that differ from the usual ones for the current choices, without pictures."""
        state, start = st.session_state, self._values.usual()
        usual = self._values.usual(self._values.recommending(state))
        usual |= {name: start[name] for name in self.kind.RECOMMEND}
        return {n: state[n] for n, value in usual.items() if state.get(n, value) != value}

    def settings(self) -> tuple[RunSettings, list[str]]:
        """The settings in the fields, without prompt and uploads, and warnings about them.

        Raises BadInput for what Run! would refuse.
        """
        typed = {name: value for name, value in self._typed().items() if name != PROMPT}
        return make(self.kind, typed, partial=True).fitted(self._assets_dir)

    def given(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """What the person set, and the pictures that it names. Raises BadInput.

        Without a new prompt, a continued run keeps its prompts. A new prompt replaces them all.
        """
        values, uploads = self._typed(), {}
        if st.session_state.get(CONTINUE) and PROMPT in values:
            if not values[PROMPT].strip():
                del values[PROMPT]
            elif IMAGE_PROMPTS in self._fields:
                values[IMAGE_PROMPTS] = []
        for name in self.uploads:
            values |= uploaded(name, self._fields[name], uploads)
        return values, uploads

    def _remembered(self) -> dict[str, Any]:
        return self._values.remembered(self._memory.last(self.engine))

    def _typed(self) -> dict[str, Any]:
        """The fields' values, except those whose switch is off."""
        names = [name for name in self._fields if name not in self.uploads]
        return {name: st.session_state[name] for name in names if self._is_shown(name)}

    def _is_shown(self, name: str) -> bool:
        switch = self._group(name)
        return switch is None or bool(st.session_state.get(switch))

    def _take_on_recommended(self) -> None:
        """After another choice, put in what it recommends, and take out what the last one did."""
        state = st.session_state
        before, now = state[CHOSEN_BEFORE], self._values.recommending(state)
        state.update(self._values.after_choice(before, now))

    # --- drawing ---

    def show(self, others: Sequence[Entry], choose: Callable[[str], None]) -> None:
        """Draw all but the prompt.

        others: the runs that can be continued. choose: called with the name of the one picked.
        """
        st.session_state[CHOSEN_BEFORE] = self._values.recommending(st.session_state)
        elsewhere = (PROMPT, RESIZE)
        ungrouped = [n for n in self._in_order() if not self._group(n) and n not in elsewhere]
        last_of_input = self.uploads[-1] if self.uploads else "set_seed"
        for row in self._rows(ungrouped):
            with st.container():  # so nothing below moves when something inside appears
                self._row(row)
                if st.session_state.get(row[0]) is True:
                    self._members(row[0])
            if last_of_input in row:
                self._show_continuing(others, choose)

    def show_prompt(self) -> None:
        """Draw the prompt, if the engine takes one."""
        if PROMPT in self._fields:
            show_prompt_box(PROMPT, self._fields[PROMPT])

    def _show_continuing(self, others: Sequence[Entry], choose: Callable[[str], None]) -> None:
        with st.container():
            if continue_switch(others, choose) and RESIZE in self._fields:
                self._row([RESIZE])

    def _members(self, switch: str) -> None:
        with st.container(key=f"members-{switch}"):
            for row in self._rows(members(self.kind, switch)):
                self._row(row)

    def _in_order(self) -> list[str]:
        """Choices first, since they set the rest; otherwise as declared."""
        return sorted(self._fields, key=lambda name: self.options(name) is None)

    def _rows(self, names: Iterable[str]) -> list[list[str]]:
        """One setting a row, but pixels side by side: they are an x and a y."""

        def row_of(name: str) -> str:
            return "px" if meta(self._fields[name])["unit"] == "px" else name

        return [list(row) for _, row in groupby(names, row_of)]

    def _row(self, names: Sequence[str]) -> None:
        cells = st.columns(len(names)) if len(names) > 1 else [st.container()]
        for cell, name in zip(cells, names, strict=True):
            with cell:
                self._show_setting(name)

    def _show_setting(self, name: str) -> None:
        field = self._fields[name]
        if name in self.uploads:
            show_upload(name, field)
            return
        on_change = self._take_on_recommended if name in self.kind.RECOMMEND else None
        show_widget(name, field, self._values.choices.get(name), on_change)

    def _group(self, name: str) -> str | None:
        return meta(self._fields[name])["group"]
