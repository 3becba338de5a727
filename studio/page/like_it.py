"""Four runs like one that a person likes, in one press."""

import secrets

import streamlit as st

from studio.making import variations
from studio.making.prepare import prepare
from studio.page.actions import PRESSES, RESULT, attempt, look_out_for
from studio.queue import run_queue
from studio.queue.options import StudioOptions
from studio.runs.batches import BATCH, new_batch
from studio.runs.run_index import Entry

COUNT = 4


def show_four_like_it(entry: Entry, options: StudioOptions) -> None:
    """The button; what it starts shows as a grid."""
    st.button(
        "Four like it",
        key=f"like-{entry.name}",
        help="Makes four runs that continue from its end, each with a new seed and with steps that"
        " are large enough to change it: pictures that are similar, but not the same.",
        on_click=_start,
        args=(secrets.token_hex(), entry, options),
    )


def _start(token: str, entry: Entry, options: StudioOptions) -> None:
    """token: of the button as it was drawn; see `Presses`."""
    with PRESSES.heeding(token) as is_heeded, attempt(RESULT):
        if is_heeded:
            requests = variations.like(entry.folder, COUNT, options.assets_dir)
            plans = [prepare(request) for request in requests]
            belongs = {BATCH: new_batch()}
            made = [run_queue.enqueue(plan, options.queue_url, belongs) for plan in plans]
            look_out_for(folder.name for folder in made)
