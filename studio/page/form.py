"""The sidebar: one widget for each setting, made from what `settings.py` says of it.

Widgets keep their values in Streamlit's session state under the settings' names; pictures that came
with the settings of an earlier run are kept there as paths, under `kept_` and the setting's name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import streamlit as st
from pydantic.fields import FieldInfo

from studio.base.errors import BadInput
from studio.engines import registry
from studio.media.pictures import SUFFIXES
from studio.models.catalogue import OPENAI_CLIP_MODELS, find_clip_checkpoints, find_weights
from studio.page.memory import Memory
from studio.page.picker import CONTINUE, RESIZE, continue_switch
from studio.runs.run_index import Entry
from studio.settings.declare import choices, members, meta, number_range, value_type
from studio.settings.run_settings import RunSettings
from studio.settings.values import make

LARGEST_BROWSER_NUMBER = 2**53
IN_MAIN_AREA = ("text_input",)
SWITCHES = {  # of the uploads, which have none among the settings
    "init_image": ("Use starting image", "Start from a picture of yours instead of random tokens."),
    "image_prompt": (
        "Add image prompt(s)",
        "Let the result resemble pictures of yours, beside or instead of the text.",
    ),
}


class Form:
    """The widgets of one kind of run. Makes no decision that `settings.py` could make."""

    def __init__(self, kind: type[RunSettings], assets_dir: Path, memory: Memory) -> None:
        self.kind = kind
        self.assets_dir = assets_dir
        self.weights = find_weights(assets_dir)
        self._memory = memory

    def fill(self) -> None:
        """Put the starting values into widgets that have none yet. Raises BadInput."""
        for name, value in self._remembered().items():
            st.session_state.setdefault(name, value)

    def take(self, values: Mapping[str, Any]) -> None:
        """Put these settings into the widgets, and the usual ones beside. Raises BadInput.

        Only before the widgets are drawn, so from a callback or at the start of a session.
        """
        weights = values.get("vqgan_ckpt")
        for name, value in (self._usual(weights) | self._own(values)).items():
            st.session_state[name] = value
        st.session_state["weights_before"] = weights
        for name in SWITCHES:
            pictures = values.get(name) or []
            pictures = pictures if isinstance(pictures, list) else [pictures]
            st.session_state[f"use_{name}"] = bool(pictures)
            st.session_state[f"kept_{name}"] = pictures

    def changed(self) -> dict[str, Any]:
        """What the fields hold that is not usual with the chosen weights; without the pictures."""
        state = st.session_state
        usual = self._usual(state.get("vqgan_ckpt"))
        start = self._usual()["vqgan_ckpt"] if "vqgan_ckpt" in usual else None
        usual |= {"vqgan_ckpt": start} if start else {}
        return {n: state[n] for n, value in usual.items() if state.get(n, value) != value}

    def show(self, others: Sequence[Entry], choose: Callable[[str], None]) -> None:
        """Draw the sidebar.

        others: the runs that can be continued. choose: what happens to the one that is picked.
        """
        ungrouped = [name for name in self._in_order() if not self._group(name)]
        for row in self._rows(name for name in ungrouped if name not in (*IN_MAIN_AREA, RESIZE)):
            with st.container():  # what comes and goes inside moves nothing below
                self._row(row)
                if st.session_state.get(row[0]) is True:
                    self._members(row[0])
            if row == ["image_prompt"]:
                with st.container():
                    if continue_switch(others, choose):
                        self._row([RESIZE])

    def _members(self, name: str) -> None:
        with st.container(key=f"members-{name}"):
            for row in self._rows(members(self.kind, name)):
                self._row(row)

    def show_prompt(self) -> None:
        """Draw what belongs into the main area."""
        field = self.kind.model_fields["text_input"]
        st.text_area(
            self._label("text_input"),
            key="text_input",
            height=80,
            help=field.description,
            placeholder="a red heart",
        )

    def settings(self) -> tuple[RunSettings, list[str]]:
        """What the fields say, whatever the prompt and the uploads, and warnings about it.

        Raises BadInput for what Run! would refuse.
        """
        return make(self.kind, self._typed(), partial=True).fitted(self.assets_dir)

    def given(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """What the person set, and the pictures that it names. Raises BadInput.

        A run that is continued without a prompt keeps its prompts, else it has the new ones alone.
        """
        values, uploads = self._typed(), {}
        if st.session_state.get(CONTINUE):
            if values["text_input"].strip():
                values["image_prompt"] = []
            else:
                del values["text_input"]
        for name in SWITCHES:
            values |= self._uploaded(name, uploads)
        return values, uploads

    def _typed(self) -> dict[str, Any]:
        """The fields' values, but for those whose switch is off."""
        names = [name for name in self.kind.model_fields if name not in SWITCHES]
        shown = [n for n in names if not self._group(n) or st.session_state.get(self._group(n))]
        return {name: st.session_state[name] for name in shown}

    def _in_order(self) -> list[str]:
        """Choices first, since they set the rest; otherwise as declared."""
        return sorted(self.kind.model_fields, key=lambda name: self.options(name) is None)

    def _rows(self, names: Iterable[str]) -> list[list[str]]:
        """One setting a row, but pixels side by side: they are an x and a y."""

        def row_of(name: str) -> str:
            return "px" if meta(self.kind.model_fields[name])["unit"] == "px" else name

        return [list(row) for _, row in groupby(names, row_of)]

    def _row(self, names: Sequence[str]) -> None:
        cells = st.columns(len(names)) if len(names) > 1 else [st.container()]
        for cell, name in zip(cells, names, strict=True):
            with cell:
                self._upload(name) if name in SWITCHES else self._widget(name)

    def _label(self, name: str) -> str:
        return meta(self.kind.model_fields[name])["label"]

    def _group(self, name: str) -> str | None:
        return meta(self.kind.model_fields[name])["group"]

    def options(self, name: str) -> Sequence[str] | None:
        """What a person chooses from; None for what is typed."""
        if name == "vqgan_ckpt":
            return list(self.weights)
        if name == "clip_model":
            return [*find_clip_checkpoints(self.assets_dir), *OPENAI_CLIP_MODELS]
        return choices(self.kind.model_fields[name]) or None

    def _usual(self, weights: str | None = None) -> dict[str, Any]:
        """As the command line's: declared, recommended by the weights, set in defaults.yaml."""
        ours = registry.defaults(registry.DEFAULT)
        chosen = ours | ({"vqgan_ckpt": weights} if weights else {})
        return self._own(self._declared() | self._recommended(chosen) | chosen)

    def _remembered(self) -> dict[str, Any]:
        """What was typed last, as far as it still fits."""
        last = self._memory.last()
        if last.get("vqgan_ckpt") not in self.weights:
            last.pop("vqgan_ckpt", None)
        usual = self._usual(last.get("vqgan_ckpt"))
        fits = {n: v for n, v in last.items() if n in usual and type(v) is type(usual[n])}
        return usual | fits

    def _own(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values as their widgets hold them; uploads can hold none."""
        fields = self.kind.model_fields
        names = [name for name in values if name in fields and name not in SWITCHES]
        return {name: _as_typed(fields[name], values[name]) for name in names}

    def _recommended(self, values: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self.kind.recommended(values, self.assets_dir)
        except BadInput:
            return {}  # the page says what is wrong with these weights before Run!

    def _declared(self) -> dict[str, Any]:
        return {
            name: field.get_default(call_default_factory=True)
            for name, field in self.kind.model_fields.items()
        }

    def _take_on_recommended(self) -> None:
        """Another choice of weights: what they recommend, and nothing that others did."""
        state = st.session_state
        before, state["weights_before"] = state["weights_before"], state["vqgan_ckpt"]
        recommended = self._recommended({"vqgan_ckpt": state["vqgan_ckpt"]})
        left = self._recommended({"vqgan_ckpt": before})
        usual = (
            self._declared()
            | registry.defaults(registry.DEFAULT)
            | {"vqgan_ckpt": state["vqgan_ckpt"]}
        )
        for name in left | recommended:
            value = recommended.get(name, usual[name])
            state[name] = _as_typed(self.kind.model_fields[name], value)

    def _widget(self, name: str) -> None:
        field = self.kind.model_fields[name]
        about = {"label": self._label(name), "help": field.description, "key": name}
        kept = about | {"persist_state": "page"}
        options = self.options(name)
        if choices(field):
            st.selectbox(**kept, options=options)
        elif options is not None:
            self._choice(name, options, about)
        elif value_type(field) is bool:
            st.checkbox(**kept)
        elif _fits_browser(field):
            _number_box(field, kept)
        else:
            st.text_input(**kept)

    def _choice(self, name: str, options: Sequence[str], about: dict[str, Any]) -> None:
        current = st.session_state.get(name)
        there = [*options, *([current] if current and current not in options else [])]
        if name == "vqgan_ckpt":
            st.session_state.setdefault("weights_before", current)
            st.selectbox(**about, options=there, on_change=self._take_on_recommended)
        else:
            st.selectbox(**about, options=there, accept_new_options=True)

    def _upload(self, name: str) -> None:
        label, help_text = SWITCHES[name]
        field = self.kind.model_fields[name]
        if st.checkbox(label, help=help_text, key=f"use_{name}"):
            st.file_uploader(
                self._label(name),
                type=list(SUFFIXES),
                accept_multiple_files=_is_list(field),
                help=field.description,
                key=name,
            )
            _show_kept(name)

    def _uploaded(self, name: str, uploads: dict[str, bytes]) -> dict[str, Any]:
        if not st.session_state.get(f"use_{name}"):
            return {}
        files = st.session_state.get(name) or []
        files = files if isinstance(files, list) else [files]
        kept = st.session_state.get(f"kept_{name}")
        if not files and kept:
            return {name: kept if _is_list(self.kind.model_fields[name]) else kept[0]}
        if not files:
            wanted = self._label(name)
            limit = st.get_option("server.maxUploadSize")
            raise BadInput(
                f"'{SWITCHES[name][0]}' is on: give '{wanted}' a file of at most {limit} MB, or"
                " switch it off."
            )
        names = []
        for file in files:
            names.append(_unused(file.name, uploads))
            uploads[names[-1]] = file.getvalue()
        return {name: names if _is_list(self.kind.model_fields[name]) else names[0]}


def _show_kept(name: str) -> None:
    """Pictures that came with an earlier run's settings count until others are uploaded."""
    kept = [path for path in st.session_state.get(f"kept_{name}") or [] if Path(path).is_file()]
    if kept and not st.session_state.get(name):
        st.image(kept, width=64, alt=["Picture of an earlier run"] * len(kept))
        st.caption("From the run whose settings these are, unless you upload another.")


def _number_box(field: FieldInfo, about: Mapping[str, Any]) -> None:
    """A typed number without the browser's limits: `settings.py` refuses, and says why."""
    if value_type(field) is int:
        st.number_input(**about, step=1)
    else:
        st.number_input(**about, step=_step(field.default), format="%0.4g")


def _step(default: float) -> float:
    """A pleasant step for the buttons beside a number: a tenth of its usual size."""
    return next((s for s in (0.0001, 0.001, 0.01) if 0 < default <= 10 * s), 0.1)


def _as_typed(field: FieldInfo, value: Any) -> Any:
    """The value as the setting's widget holds it."""
    if _fits_browser(field):
        return value_type(field)(value)
    return str(value) if value_type(field) is int else value


def _fits_browser(field: FieldInfo) -> bool:
    """Whether it is a number, and none too large for a browser's numbers, as seeds are."""
    if value_type(field) not in (int, float):
        return False
    return (number_range(field)[1] or 0) <= LARGEST_BROWSER_NUMBER


def _is_list(field: FieldInfo) -> bool:
    return value_type(field) is list


def _unused(name: str, taken: Mapping[str, bytes]) -> str:
    """Two uploads may have the same name."""
    number = 2
    unused = name
    while unused in taken:
        unused, number = f"{number}-{name}", number + 1
    return unused
