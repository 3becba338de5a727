"""What Run! makes from the form: one run, several with seeds of their own, or a chain of stages."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from studio.base.errors import BadInput
from studio.making import chains, forever
from studio.making.prepare import Request, prepare
from studio.page.form import Form
from studio.page.form_values import is_upload
from studio.page.memory import Memory
from studio.page.picker import AGAIN, CONTINUE, begins_at, to_continue
from studio.queue import run_queue
from studio.queue.delivery import notify
from studio.queue.options import StudioOptions
from studio.runs import run_index
from studio.runs.batches import BATCH, new_batch
from studio.runs.storage import RunFolder
from studio.settings.common import MAX_SEED
from studio.settings.declare import label_of, value_type
from studio.settings.run_settings import RunSettings

HOW_MANY, MOST = "how_many", 100
FOREVER = "forever"
STAGES, COLUMNS, ROWS = "use_stages", "stage_columns", "stage_rows"
EDITOR, SHOWN = "stages", "stages_shown"  # the edits, and the rows and columns that were edited
FIRST_COLUMNS = ("text_input", "num_steps")
SHORT_NAMES = {"text_input": "prompt", "num_steps": "steps"}
EMPTY_ROWS = 3
TABLE = "The table of stages"  # as messages call it

Row = dict[str, str]


def recall(form: Form, memory: Memory) -> None:
    """Put in what was asked for last besides the settings, as far as it still fits."""
    last = memory.asked()
    columns, rows, count = (last.get(name) for name in (COLUMNS, ROWS, HOW_MANY))
    fits: dict[str, Any] = {STAGES: last.get(STAGES) is True}
    fits[COLUMNS] = [n for n in _changeable(form) if isinstance(columns, list) and n in columns]
    fits[ROWS] = [row for row in rows if _is_row(row)] if isinstance(rows, list) else []
    fits[HOW_MANY] = count if type(count) is int and 1 <= count <= MOST else 1
    state = st.session_state
    for name, value in fits.items():
        state.setdefault(name, value)
    known = [name for name in state[COLUMNS] if name in _changeable(form)]
    if known != state[COLUMNS]:  # the engine is another one now
        state[COLUMNS] = known


def _is_row(row: object) -> bool:
    return isinstance(row, dict) and all(isinstance(value, str) for value in row.values())


def asked() -> dict[str, Any]:
    """What `recall` puts in the next time."""
    return {name: st.session_state[name] for name in (STAGES, COLUMNS, ROWS, HOW_MANY)}


def show_how_many() -> None:
    """How many runs one press of Run! makes."""
    st.number_input(
        "How many",
        min_value=1,
        max_value=MOST,
        step=1,
        key=HOW_MANY,
        help="How many runs of these settings to make. Each has a seed of its own: a random one, or"
        " counted up from the seed that is set.",
        width=130,
    )
    st.toggle(
        "Forever",
        key=FOREVER,
        help="Each run is followed by one with a new seed, until you press 'Stop forever' or 'Stop"
        " all'; no page needs to be open. 'Stop' at a run ends that run only, and the next one"
        " begins. A run that fails, or that you take out of the queue, is followed by none.",
    )


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
        _changeable(form),
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


def _changeable(form: Form) -> list[str]:
    """What a stage may set besides prompt and steps: no pictures."""
    fields = form.kind.model_fields
    names = [name for name in fields if name not in FIRST_COLUMNS]
    return [n for n in names if value_type(fields[n]) is not list and not is_upload(fields[n])]


def _column(name: str, form: Form) -> Any:
    """Every cell is text: what was typed stays as it is, and the settings say what is wrong."""
    field, label = form.kind.model_fields[name], label_of(form.kind, name)
    options = ("on", "off") if value_type(field) is bool else form.options(name)
    if options:
        return st.column_config.SelectboxColumn(label, options=list(options))
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


def _filled_in(form: Form) -> list[Row]:
    """The rows that are not empty, by the names that `chains` knows, without hidden columns."""
    shown = (*_first_columns(form), *st.session_state.get(COLUMNS, ()))
    rows = [{SHORT_NAMES.get(n, n): row[n] for n in shown if n in row} for row in _rows()]
    return [row for row in rows if row]


def planned_runs(form: Form) -> tuple[list[RunSettings], int, list[str]]:
    """The settings of the runs that Run! makes, how many times it makes them, and warnings.

    Raises BadInput for what Run! would refuse, whatever the prompt and the uploads.
    """
    state = st.session_state
    chosen, warnings = form.settings()
    count, rows = state.get(HOW_MANY, 1), _filled_in(form) if state.get(STAGES) else []
    if not rows:
        return [chosen], count, warnings
    return chains.settings_of(chosen, chains.parse(rows, form.kind, TABLE)), count, warnings


def asked_for(form: Form, options: StudioOptions) -> tuple[list[Request], list[Row] | None]:
    """What Run! asks for now: a request for each run, and the rows if stages are wanted.

    Raises BadInput.
    """
    values, uploads = form.given()
    state = st.session_state
    previous = to_continue(run_index.entries(options.output_dir))
    if state.get(CONTINUE) and previous is None:
        raise BadInput("There is no finished run to continue. Switch off 'Continue previous run'.")
    frame = begins_at(previous.name) if previous else None
    requests = [
        Request(
            given=given,
            output_dir=options.output_dir,
            assets_dir=options.assets_dir,
            engine=form.engine,
            continue_run=previous and previous.name,
            continue_frame=frame and frame.number,
            origin=state.get(AGAIN),
            new_seed=makes_several(),
            uploads=uploads,
        )
        for given in _with_seeds(values, state.get(HOW_MANY, 1))
    ]
    if state.get(STAGES) and state.get(FOREVER):
        raise BadInput("A chain of stages ends. Switch off 'Forever' or 'Several stages'.")
    return requests, _filled_in(form) if state.get(STAGES) else None


def makes_several() -> bool:
    """Whether Run! makes several runs of the same settings, which differ by their seeds."""
    return st.session_state.get(HOW_MANY, 1) > 1 or bool(st.session_state.get(FOREVER))


def start(
    requests: Sequence[Request],
    rows: Sequence[Row] | None,
    kind: type[RunSettings],
    queue_url: str | None,
) -> list[RunFolder]:
    """Put what is asked for into the queue. Raises BadInput before anything is made."""
    batch = new_batch() if makes_several() else None
    if rows is None:
        plans = [prepare(request) for request in requests]
        belongs = {BATCH: batch} | (forever.FIRST if st.session_state.get(FOREVER) else {})
        return [run_queue.enqueue(plan, queue_url, belongs) for plan in plans]
    parsed = chains.parse(rows, kind, TABLE)
    folders = [chains.begin(request, parsed, batch=batch) for request in requests]
    notify(folders[0].path.parent, queue_url, folders[0].name)
    return folders


def _with_seeds(values: Mapping[str, Any], count: int) -> list[Mapping[str, Any]]:
    """The same values several times; seeds that are set count up."""
    text = str(values["seed"]).strip() if values.get("set_seed") else ""
    is_number = text.isdecimal() and len(text) <= len(str(MAX_SEED))
    if count == 1 or not is_number or int(text) > MAX_SEED:
        return [values] * count  # the settings refuse what is not a seed
    return [{**values, "seed": (int(text) + n) % (MAX_SEED + 1)} for n in range(count)]
