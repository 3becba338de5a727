"""The table of stages: what each run of a chain sets otherwise than the one before it."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from studio.page.form import Form
from studio.page.form_values import is_upload
from studio.settings.declare import label_of, value_type

STAGES, COLUMNS, ROWS = "use_stages", "stage_columns", "stage_rows"
EDITOR, SHOWN = "stages", "stages_shown"  # the edits, and the rows and columns that were edited
FIRST_COLUMNS = ("text_input", "num_steps")
SHORT_NAMES = {"text_input": "prompt", "num_steps": "steps"}
EMPTY_ROWS = 3
TABLE = "The table of stages"  # as messages call it

Row = dict[str, str]


def show_stages(form: Form) -> None:
    """The switch for stages, and their table while it is on."""
    wanted = st.toggle(
        "Several stages",
        key=STAGES,
        help="A chain of runs. Each continues the one before it with another prompt or other"
        " settings. An empty cell keeps the value of the row above; in the first row, the form's"
        " value.",
    )
    rows = st.session_state[ROWS] = _rows()
    if not wanted:
        st.session_state.pop(SHOWN, None)
        return
    more = st.multiselect(
        "Also change",
        changeable(form),
        format_func=lambda name: label_of(form.kind, name),
        key=COLUMNS,
        persist_state="page",
    )
    columns = {name: _column(name, form) for name in (*_first_columns(form), *more)}
    first = _first_rows(rows, columns)
    st.data_editor(
        {name: [row.get(name, "") for row in first] for name in columns},
        key=EDITOR,
        num_rows="dynamic",
        hide_index=True,
        column_config=columns,
        placeholder="",
        alt="Stages",
    )


def _first_columns(form: Form) -> list[str]:
    """Prompt and steps, if the engine has them."""
    return [name for name in FIRST_COLUMNS if name in form.kind.model_fields]


def changeable(form: Form) -> list[str]:
    """What a stage may set besides prompt and steps: no pictures."""
    fields = form.kind.model_fields
    names = [name for name in fields if name not in FIRST_COLUMNS]
    return [n for n in names if value_type(fields[n]) is not list and not is_upload(fields[n])]


def _column(name: str, form: Form) -> Any:
    """Every cell is text: what was typed stays as it is, and the settings say what is wrong."""
    field, label = form.kind.model_fields[name], label_of(form.kind, name)
    options = ("on", "off") if value_type(field) is bool else form.options(name)
    if options:
        return st.column_config.SelectboxColumn(label, options=list(map(str, options)))
    return st.column_config.TextColumn(label, width="medium" if name == "text_input" else None)


def _first_rows(rows: Sequence[Row], columns: Mapping[str, Any]) -> list[Row]:
    """The rows that the editor begins with; unchanged while it is the same editor."""
    state = st.session_state
    if EDITOR not in state or state.get(SHOWN, (None, None))[1] != columns:
        filled = rows if any(rows) else [{}] * EMPTY_ROWS
        state[SHOWN] = ([dict(row) for row in filled], columns)
        state.pop(EDITOR, None)
    return state[SHOWN][0]


def _rows() -> list[Row]:
    """The rows as they are now, even where Run! is pressed before the page was drawn again."""
    state = st.session_state
    if SHOWN in state and EDITOR in state:
        return edited(state[SHOWN][0], state[EDITOR])
    return state.get(ROWS, [])


def edited(first: Sequence[Row], edits: Mapping[str, Any]) -> list[Row]:
    """The rows of a table after its editor's edits; empty cells are left out."""
    changed = [row | edits["edited_rows"].get(i, {}) for i, row in enumerate(first)]
    kept = [row for i, row in enumerate(changed) if i not in edits["deleted_rows"]]
    rows = [*kept, *edits["added_rows"]]
    return [{n: str(v) for n, v in row.items() if v is not None and str(v).strip()} for row in rows]


def filled_in(form: Form) -> list[Row]:
    """The rows that are not empty, by the names that `chains` knows, without hidden columns."""
    shown = (*_first_columns(form), *st.session_state.get(COLUMNS, ()))
    rows = [{SHORT_NAMES.get(n, n): row[n] for n in shown if n in row} for row in _rows()]
    return [row for row in rows if row]
