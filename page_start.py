"""What Run! makes of the form: one run, several with seeds of their own, or a chain of stages."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import streamlit as st

import run_queue
import stages
from delivery import notify
from page_form import Form
from places import Places
from runner import Request, prepare
from settings import MAX_SEED, meta, value_type
from storage import RunFolder

HOW_MANY, MOST = "how_many", 100
STAGES, COLUMNS = "use_stages", "stage_columns"
EDITOR, FIRST_TABLE = "stages", "first_stage_table"  # what was typed, and what into
FIRST_COLUMNS = ("text_input", "num_steps")
SHORT_NAMES = {"text_input": "prompt", "num_steps": "steps"}
EMPTY_ROWS = 3


def show_how_many() -> None:
    """How many runs one press of Run! makes."""
    st.number_input(
        "How many",
        min_value=1,
        max_value=MOST,
        step=1,
        key=HOW_MANY,
        help="So many runs of the same settings, each with a seed of its own: a random one, or"
        " counted up from the seed that is set.",
        width=130,
    )


def show_stages(form: Form) -> None:
    """The table of stages, where they are wanted."""
    wanted = st.toggle(
        "Several stages",
        key=STAGES,
        on_change=_keep_table,
        help="A chain of runs, each going on from the one before with other words or settings."
        " Cells left empty stay as they were; the first row takes the form's.",
    )
    if not wanted:
        return
    fields = form.kind.model_fields
    names = [name for name in fields if value_type(fields[name]) is not list]
    more = st.multiselect(
        "Also change",
        [name for name in names if name not in (*FIRST_COLUMNS, "init_image")],
        format_func=lambda name: meta(fields[name])["label"],
        key=COLUMNS,
        on_change=_keep_table,
    )
    st.data_editor(
        st.session_state.setdefault(FIRST_TABLE, [dict.fromkeys(names)] * EMPTY_ROWS),
        key=EDITOR,
        num_rows="dynamic",
        hide_index=True,
        column_order=[*FIRST_COLUMNS, *more],
        column_config={name: _column(name, form) for name in names},
    )


def _table() -> list[dict[str, Any]]:
    """The rows as they are now, though Run! be pressed before the page was drawn again."""
    state = st.session_state
    typed = state.get(EDITOR) or {"edited_rows": {}, "deleted_rows": [], "added_rows": []}
    first = [
        row | typed["edited_rows"].get(i, {}) for i, row in enumerate(state.get(FIRST_TABLE, ()))
    ]
    kept = [row for i, row in enumerate(first) if i not in typed["deleted_rows"]]
    return [*kept, *map(dict, typed["added_rows"])]


def _keep_table() -> None:
    """Another editor is to come, which begins with what was typed so far."""
    if FIRST_TABLE in st.session_state:
        st.session_state[FIRST_TABLE] = _table()
        st.session_state.pop(EDITOR, None)


def _column(name: str, form: Form) -> Any:
    field = form.kind.model_fields[name]
    label, kind = meta(field)["label"], value_type(field)
    if options := form.options(name):
        return st.column_config.SelectboxColumn(label, options=list(options))
    if kind is bool:
        return st.column_config.CheckboxColumn(label)
    if kind is int and name != "seed":
        return st.column_config.NumberColumn(label, step=1)
    if kind is float:
        return st.column_config.NumberColumn(label)
    return st.column_config.TextColumn(label, width="large" if name == "text_input" else None)


def _rows() -> Iterator[dict[str, Any]]:
    """The rows that say something, by the names that `stages` knows."""
    names = (*FIRST_COLUMNS, *st.session_state.get(COLUMNS, ()))
    for row in _table():
        said = {SHORT_NAMES.get(n, n): row[n] for n in names if not _is_empty(row.get(n))}
        if said:
            yield said


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def start(form: Form, places: Places, model: str, continue_run: str | None) -> list[RunFolder]:
    """Put what the form says into the queue. Raises BadInput before anything is made."""
    values, uploads = form.given()
    requests = [
        Request(
            given=given,
            output_dir=places.output_dir,
            assets_dir=places.assets_dir,
            model=model,
            continue_run=continue_run,
            uploads=uploads,
        )
        for given in _with_seeds(values, st.session_state.get(HOW_MANY, 1))
    ]
    if st.session_state.get(STAGES):
        rows = stages.parse(list(_rows()), form.kind, "The table of stages")
        folders = [stages.begin(request, rows) for request in requests]
        notify(places.output_dir, places.queue_url, folders[0].name)
        return folders
    plans = [prepare(request) for request in requests]
    return [run_queue.enqueue(plan, places.queue_url) for plan in plans]


def _with_seeds(values: Mapping[str, Any], count: int) -> list[Mapping[str, Any]]:
    """The same values several times; seeds that are set count up."""
    text = str(values["seed"]).strip() if values.get("set_seed") else ""
    is_number = text.isdecimal() and len(text) <= len(str(MAX_SEED))
    if count == 1 or not is_number or int(text) > MAX_SEED:
        return [values] * count  # a seed that is none is for the settings to refuse
    return [{**values, "seed": (int(text) + n) % (MAX_SEED + 1)} for n in range(count)]
