"""What the page says before Run!: the time and memory that it takes, or why it is refused."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import streamlit as st

from studio.base.errors import BadInput
from studio.engines import registry
from studio.engines.estimate import Estimate, estimate_in_words, together
from studio.making import chains
from studio.making.recipes import settings_in
from studio.page.form import Form
from studio.page.start import planned_runs
from studio.page.text import plain
from studio.queue.options import StudioOptions
from studio.queue.slots import read_states
from studio.runs import run_index
from studio.runs.details_keys import engine_of
from studio.runs.run_index import Entry
from studio.runs.storage import ACTIVE
from studio.settings.run_settings import RunSettings

PAST_RUNS = 100  # estimates are based on at most this many
UNKNOWN = "There is no estimate yet: it needs earlier runs of this engine."


def show_estimate(
    form: Form, options: StudioOptions, runs: Sequence[Entry], waiting: Mapping[str, float]
) -> None:
    """How long and how much memory, or why these settings would be refused.

    waiting: as `seconds_to_come` gives it.
    """
    try:
        planned, count, warnings = planned_runs(form)
    except BadInput as problem:
        st.caption(plain(problem.on_page))
        return
    told = _estimate(form.engine, planned, options, runs, count)
    words = UNKNOWN
    if told:
        before = _seconds_of_running(runs) + sum(waiting.values())
        words = estimate_in_words(told, device_of(options), len(planned) * count, before)
    st.caption(" ".join(map(plain, [words, *warnings])))


def seconds_to_come(options: StudioOptions, runs: Sequence[Entry]) -> dict[str, float]:
    """How long the queue needs for each run, by its name, if that is known.

    For a run that waits, with the stages after it; for one that is computed, for those stages.
    """
    seconds = {}
    for entry in (entry for entry in runs if entry.status in ACTIVE):
        with suppress(BadInput, TypeError):
            waits = entry.status == "queued"
            planned = _with_stages(entry)[0 if waits else 1 :]
            told = _estimate(engine_of(entry.details), planned, options, runs) if planned else None
            if told and told.seconds:
                done = entry.details["num_steps"] * told.seconds_per_step if waits else 0.0
                seconds[entry.name] = max(0.0, told.seconds - done)
    return seconds


def device_of(options: StudioOptions) -> str:
    """The device of the worker that reported last; "" until one has reported."""
    return next((state.device for state in read_states(options.output_dir) if state.device), "")


def _estimate(
    engine: str,
    planned: Sequence[RunSettings],
    options: StudioOptions,
    runs: Sequence[Entry],
    times: int = 1,
) -> Estimate | None:
    """The estimate of runs one after the other, all of that `times` times. Raises BadInput."""
    estimate, device = registry.get(engine).estimate, device_of(options)
    past = _past(engine, runs)
    each = [estimate(settings, options.assets_dir, device, past) for settings in planned]
    return None if None in each else together([told for told in each if told], times)


def _seconds_of_running(runs: Sequence[Entry]) -> float:
    running = run_index.running(list(runs))
    return sum(entry.folder.read_progress().get("seconds_left") or 0.0 for entry in running)


def _with_stages(entry: Entry) -> list[RunSettings]:
    """The settings of a run and of the stages that follow it. Raises BadInput."""
    first, chain = settings_in(entry.details), entry.details.get("chain") or {}
    return [first, *chains.settings_of(first, chain.get("next", []))]


def _past(engine: str, runs: Sequence[Entry]) -> list[Mapping[str, Any]]:
    """Details of the engine's runs that have ended, the newest first."""
    ended = (entry.details for entry in runs if entry.status not in ACTIVE)
    return [details for details in ended if engine_of(details) == engine][:PAST_RUNS]
