"""The form's values: one widget for each setting of an engine. `form_view` draws them."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from studio.base.errors import BadInput
from studio.page.form_values import FormValues, is_upload
from studio.page.memory import Memory
from studio.page.parts import PROMPT
from studio.page.picker import CONTINUE, SIZE
from studio.page.prompt_area import show_prompt_area
from studio.page.uploads import take_pictures, uploaded
from studio.page.widgets import show_widget
from studio.settings.common import AVOIDED
from studio.settings.declare import heading_of, meta
from studio.settings.run_settings import RunSettings
from studio.settings.values import make

IMAGE_PROMPTS = "image_prompt"  # of engines that have them
CHOSEN_BEFORE = "chosen_before"  # the last values of the settings in RECOMMEND


class Form:
    """The widgets of one engine's settings. Makes no decision that the settings could make.

    Raises BadInput for an engine that cannot be imported.
    """

    def __init__(self, engine: str, assets_dir: Path, memory: Memory) -> None:
        self.engine = engine
        self._assets_dir = assets_dir
        self._memory = memory
        self.output_dir = memory.output_dir
        self._values = FormValues(engine, assets_dir)
        self.kind: type[RunSettings] = self._values.kind
        self.options = self._values.options
        self._fields = self.kind.model_fields
        self.uploads = [name for name, field in self._fields.items() if is_upload(field)]

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

    def chosen(self) -> dict[str, Any]:
        """The choices that change what is recommended for other settings."""
        return self._values.recommending(st.session_state)

    def changed(self) -> dict[str, Any]:
        """The values that differ from the usual ones for the current choices, without pictures."""
        state, usual = st.session_state, self._usual_now()
        return {n: state[n] for n, value in usual.items() if state.get(n, value) != value}

    def changed_by_heading(self) -> Counter[str | None]:
        """How many of the values that count for a run differ from the usual ones."""
        shown = (name for name in self.changed() if self._is_shown(name))
        return Counter(heading_of(self.kind, name) for name in shown)

    def reset(self, heading: str) -> None:
        """Put the usual values back under a heading. Only from a callback, as `enter`."""
        usual = self._usual_now()
        names = [name for name in usual if heading_of(self.kind, name) == heading]
        st.session_state.update({name: usual[name] for name in names})
        if set(names) & set(self.kind.RECOMMEND):
            self._take_on_recommended()

    def take_on_choice(self) -> None:
        """Put in what the choices recommend, as what they name is here only now.

        Only before the widgets are drawn, as `enter`.
        """
        self._take_on_recommended()

    def fits(self, width: int, height: int) -> bool:
        """Whether the engine makes pictures of exactly that size."""
        size = dict(zip(SIZE, (width, height), strict=True))
        usual = self._values.usual(self.chosen())
        try:
            fitted = make(self.kind, usual | size, partial=True).fitted(self._assets_dir)[0]
        except BadInput:
            return False
        return fitted.model_dump(include=set(SIZE)) == size

    def settings(self) -> tuple[RunSettings, list[str]]:
        """The settings in the fields, without prompt and uploads, and warnings about them.

        Raises BadInput for what Run! would refuse.
        """
        typed = {name: value for name, value in self._typed().items() if name != PROMPT}
        return make(self.kind, typed, partial=True).fitted(self._assets_dir)

    def given(self) -> dict[str, Any]:
        """What the person set, pictures as paths. Raises BadInput.

        Without a new prompt, a continued run keeps its prompts. A new prompt replaces them all.
        """
        values = self._typed()
        if st.session_state.get(CONTINUE) and PROMPT in values:
            if not values[PROMPT].strip():
                del values[PROMPT]
                for name in AVOIDED:
                    if not values.get(name):
                        values.pop(name, None)
            elif IMAGE_PROMPTS in self._fields:
                values[IMAGE_PROMPTS] = []
        for name in self.uploads:
            values |= uploaded(name, self._fields[name])
        return values

    def _usual_now(self) -> dict[str, Any]:
        """The usual values for the current choices, and the usual choices."""
        start = self._values.usual()
        usual = self._values.usual(self.chosen())
        return usual | {name: start[name] for name in self.kind.RECOMMEND}

    def _take_on_recommended(self) -> None:
        """After another choice, put in what it recommends, and take out what the last one did."""
        state = st.session_state
        before, now = state[CHOSEN_BEFORE], self._values.recommending(state)
        state.update(self._values.after_choice(before, now))

    def _remembered(self) -> dict[str, Any]:
        return self._values.remembered(self._memory.last(self.engine))

    def _typed(self) -> dict[str, Any]:
        """The fields' values, except those whose switch is off."""
        names = [name for name in self._fields if name not in self.uploads]
        return {name: st.session_state[name] for name in names if self._is_shown(name)}

    def _is_shown(self, name: str) -> bool:
        switch = self._group(name)
        return switch is None or bool(st.session_state.get(switch))

    def _group(self, name: str) -> str | None:
        return meta(self._fields[name])["group"]

    def show_prompt(self) -> None:
        """Draw the prompt and what belongs to it, if the engine takes one."""
        show_prompt_area(self.engine, self._assets_dir)

    def show_widget(self, name: str) -> None:
        """Draw the widget of a setting that is no upload."""
        on_change = self._take_on_recommended if name in self.kind.RECOMMEND else None
        show_widget(name, self._fields[name], self._values.choices.get(name), on_change)
