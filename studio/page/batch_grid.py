"""The runs of a batch as a grid of equals: live while they are made, then to choose from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from studio.making import chains, forever
from studio.page.actions import CHOSEN
from studio.page.batch_actions import remove_all, stop_all, stop_forever
from studio.page.text import plain, prompt_of
from studio.page.tiles import Grid, show_planned, show_tile
from studio.queue import run_queue
from studio.queue.options import StudioOptions
from studio.runs import run_index
from studio.runs.batches import batch_of, members
from studio.runs.run_index import Entry
from studio.runs.storage import ACTIVE

GRID = "grid"  # the batch that this tab shows, also once all of it has ended
UNFOLDED = "grid_unfolded"  # the batch of which this tab shows all runs
MOST = 24  # tiles, unless a person wants all
AHEAD = 4  # of which wait, at least, while runs are made
ACTS = {  # what a person can do with all runs of a batch: the words on its button, and its help
    stop_forever: (
        "Stop forever",
        "No further run follows. Runs that have begun or that wait are still made to their end.",
    ),
    stop_all: (
        "Stop all",
        "Runs that are being made stop after this step and keep what they have. Runs that wait are"
        " removed; you can undo that.",
    ),
    remove_all: ("Remove all", "Moves all of them to the trash; you can put them back."),
}


def batches_to_show(runs: Sequence[Entry], chosen: str | None) -> list[str]:
    """The batches whose runs are being made; else the next one in line; else the last one shown.

    The last one stays until another run is begun, or `chosen`, the run whose result is shown, is
    none of it. runs: newest first.
    """
    last = st.session_state.get(GRID)
    going = run_index.running(list(runs))
    line = run_queue.waiting(runs)
    found = _batches(going) or ([] if going else _batches(line[:1]))
    if not found and not going and not line and last:
        names = {entry.name for entry in members(runs, last)}
        found = [last] if names and (chosen is None or chosen in names) else []
    st.session_state[GRID] = found[-1] if found else None
    return found


def is_over(batch: str, runs: Sequence[Entry]) -> bool:
    """Whether all runs of a batch have ended, and none is to follow."""
    of_batch = members(runs, batch)
    to_come = (*forever.unfollowed(of_batch), *chains.unfollowed(of_batch))
    return not to_come and not any(entry.status in ACTIVE for entry in of_batch)


def is_sibling(details: Mapping[str, Any]) -> bool:
    """Whether a run is one of several equals, of which a person chooses; not a stage of a chain."""
    return batch_of(details) is not None and not details.get("chain")


def show_grid(
    batch: str, runs: Sequence[Entry], choose: Callable[[str], None], options: StudioOptions
) -> None:
    """All runs of a batch. choose: called with the name of the one whose result is wanted."""
    of_batch = members(runs, batch)
    active = [entry for entry in of_batch if entry.status in ACTIVE]
    grid = Grid(
        _shape(of_batch[0].details), _turns(runs), st.session_state.get(CHOSEN), choose, options
    )
    shown = of_batch if st.session_state.get(UNFOLDED) == batch else _shown(of_batch)
    with st.container(border=True, key=f"batch-{batch}"):
        _show_head(batch, of_batch, active, options)
        with st.container(key=f"tiles-{batch}"):
            for entry in shown:
                show_tile(entry, grid)
            for stage in _stages_to_come(of_batch):
                show_planned(*stage, grid.shape)
        if len(shown) < len(of_batch):
            _show_unfold(batch, len(of_batch))


def _batches(entries: Sequence[Entry]) -> list[str]:
    """Their batches, each once, in their order."""
    return list(dict.fromkeys(filter(None, (batch_of(entry.details) for entry in entries))))


def _turns(runs: Sequence[Entry]) -> dict[str, int]:
    """How many runs are before each that waits."""
    going = len(run_index.running(list(runs)))
    return {entry.name: place + going for place, entry in enumerate(run_queue.waiting(runs))}


def _shape(details: Mapping[str, Any]) -> str:
    sides = [details.get(name) for name in ("Xdim", "ydim")]
    return "1" if not all(isinstance(s, int) and s > 0 for s in sides) else f"{sides[0]}/{sides[1]}"


def _shown(of_batch: Sequence[Entry]) -> Sequence[Entry]:
    """Those of many that matter now: the last that have begun, and some that wait."""
    begun = sum(entry.status != "queued" for entry in of_batch)
    end = min(len(of_batch), max(MOST, begun + AHEAD))
    return of_batch[max(0, end - MOST) : end]


def _stages_to_come(of_batch: Sequence[Entry]) -> list[tuple[int, int, str]]:
    """Number, count and prompt of the stages that are made later."""
    going = (e.details.get("chain") for e in of_batch if e.status in (*ACTIVE, "done"))
    open_ended = [c for c in going if isinstance(c, dict) and not c.get("followed_by")]
    return [
        (number, chain["count"], str(stage.get("text_input", "")))
        for chain in open_ended
        for number, stage in enumerate(chain["next"][:MOST], start=chain["number"] + 1)
    ]


def _show_head(
    batch: str, of_batch: Sequence[Entry], active: Sequence[Entry], options: StudioOptions
) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key=f"batch-head-{batch}"):
        made = len(of_batch) - len(active)
        words = f"{made} of {len(of_batch)} made" if active else f"{made} made"
        prompt = plain(prompt_of(of_batch[0].details))
        st.markdown(f"**{prompt}** :small[:gray[· {words}]]", width="stretch")
        acts = [stop_all] if active else [remove_all]
        if any(forever.goes_on(entry) for entry in active):
            acts.insert(0, stop_forever)
        for act in acts:
            label, help_text = ACTS[act]
            key = f"{label.lower().replace(' ', '-')}-{batch}"
            st.button(label, key=key, help=help_text, on_click=act, args=(batch, options))


def _show_unfold(batch: str, count: int) -> None:
    def unfold() -> None:
        st.session_state[UNFOLDED] = batch

    st.button(f"Show all {count}", key=f"unfold-{batch}", type="tertiary", on_click=unfold)
