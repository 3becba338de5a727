"""What Run! makes from the form: one run, several with seeds of their own, or a chain of stages."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from studio.base.errors import BadInput
from studio.making import chains, forever
from studio.making.prepare import Request, prepare
from studio.page.form import Form
from studio.page.memory import Memory
from studio.page.picker import AGAIN, CONTINUE, begins_at, to_continue
from studio.page.stages import COLUMNS, ROWS, STAGES, TABLE, Row, changeable, filled_in
from studio.queue import run_queue
from studio.queue.delivery import notify
from studio.queue.options import StudioOptions
from studio.runs import run_index
from studio.runs.batches import BATCH, new_batch
from studio.runs.storage import RunFolder
from studio.settings.common import MAX_SEED
from studio.settings.run_settings import RunSettings

HOW_MANY, MOST = "how_many", 100
FOREVER = "forever"


def recall(form: Form, memory: Memory) -> None:
    """Put in what was asked for last besides the settings, as far as it still fits."""
    last = memory.asked()
    columns, rows, count = (last.get(name) for name in (COLUMNS, ROWS, HOW_MANY))
    fits: dict[str, Any] = {STAGES: last.get(STAGES) is True}
    fits[COLUMNS] = [n for n in changeable(form) if isinstance(columns, list) and n in columns]
    fits[ROWS] = [row for row in rows if _is_row(row)] if isinstance(rows, list) else []
    fits[HOW_MANY] = count if type(count) is int and 1 <= count <= MOST else 1
    state = st.session_state
    for name, value in fits.items():
        state.setdefault(name, value)
    known = [name for name in state[COLUMNS] if name in changeable(form)]
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
        " all'; no page needs to be open. 'Stop' on a run ends that run only, and the next one"
        " begins. No run follows one that fails or that you take out of the queue.",
    )


def planned_runs(form: Form) -> tuple[list[RunSettings], int, list[str]]:
    """The settings of the runs that Run! makes, how many times it makes them, and warnings.

    Raises BadInput for what Run! would refuse, whatever the prompt and the uploads.
    """
    state = st.session_state
    chosen, warnings = form.settings()
    count, rows = state.get(HOW_MANY, 1), filled_in(form) if state.get(STAGES) else []
    if not rows:
        return [chosen], count, warnings
    return chains.settings_of(chosen, chains.parse(rows, form.kind, TABLE)), count, warnings


def asked_for(form: Form, options: StudioOptions) -> tuple[list[Request], list[Row] | None]:
    """What Run! asks for now: a request for each run, and the rows if stages are wanted.

    Raises BadInput.
    """
    values = form.given()
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
        )
        for given in _with_seeds(values, state.get(HOW_MANY, 1))
    ]
    if state.get(STAGES) and state.get(FOREVER):
        raise BadInput("A chain of stages has an end. Switch off 'Forever' or 'Several stages'.")
    return requests, filled_in(form) if state.get(STAGES) else None


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
        series = forever.FIRST if st.session_state.get(FOREVER) else {}
        belongs = {**series, BATCH: batch}
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
