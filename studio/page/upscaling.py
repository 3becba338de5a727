"""Upscaling a result on the page: the button with scale and model, and how far each one is."""

import secrets
from collections.abc import Sequence

import streamlit as st

from studio.base.errors import shortened
from studio.making.upscaling import Upscaling
from studio.models import upscalers
from studio.page.actions import PRESSES, QUEUE, RESULT, attempt, stop_button
from studio.page.pictures import thumbnail
from studio.page.text import plain, prompt_of, turn_in_words
from studio.queue import run_queue
from studio.queue.options import StudioOptions
from studio.runs import run_index, upscalings
from studio.runs.run_index import Entry
from studio.runs.storage import ACTIVE, RunFolder

FAST = 0.5  # seconds between looks while one waits or is computed
SCALE = 4  # what is offered first
STARTED = "upscalings_started"  # how many this tab has started: each closes the choice
SMALL = 44  # px
MAX_MESSAGE = 600


def show_upscale(entry: Entry, options: StudioOptions) -> None:
    """The button; it opens the choice of scale and model."""
    if not entry.folder.picture_paths():
        return
    name, started = entry.name, st.session_state.get(STARTED, 0)
    help_text = "Makes a larger picture beside this one, which stays as it is."
    with st.popover("Upscale", help=help_text, key=f"upscale-{name}-{started}"):
        st.radio(
            "Scale",
            upscalers.SCALES,
            index=upscalers.SCALES.index(SCALE),
            format_func=times,
            horizontal=True,
            key=f"scale-{name}",
        )
        st.selectbox(
            "Model",
            upscalers.names(options.assets_dir),
            key=f"upscaler-{name}",
            help=f"auto takes {upscalers.FLAT_ART} for flat art and {upscalers.PHOTOGRAPHS} for"
            f" photographs. Others lie in assets/{upscalers.FOLDER}/.",
        )
        st.button(
            "Upscale now",
            key=f"upscale-now-{name}",
            type="primary",
            on_click=_start_chosen,
            args=(secrets.token_hex(), entry, options),
        )


def times(scale: int) -> str:
    """Such as "×4"."""
    return f"×{scale}"


def called(entry: Entry) -> str:
    """What the queue calls an upscaling."""
    asked = upscalings.asked_in(entry.details)
    return f"Upscale {times(asked.scale)}: {prompt_of(entry.details, 60)}" if asked else ""


def origin(entry: Entry) -> RunFolder:
    """The run whose pictures are upscaled."""
    asked = upscalings.asked_in(entry.details)
    return RunFolder(entry.folder.output_dir / (asked.run if asked else ""))


def show_upscalings(entry: Entry, options: StudioOptions) -> None:
    """The upscalings of a run that wait, are computed, or ended without a picture."""
    jobs = upscalings.of_run(options.output_dir, entry.name)
    if jobs:
        is_active = any(job.status in ACTIVE for job in jobs)
        st.fragment(_show_of_run, run_every=FAST if is_active else None)(entry, options)


def show_elsewhere(jobs: Sequence[Entry], shown: str | None) -> None:
    """The upscalings that are computed, except those of the run whose result is shown."""
    for job in run_index.running(list(jobs)):
        if origin(job).name != shown:
            with st.container(border=True, key=f"upscaling-{job.name}"):
                with st.container(horizontal=True, vertical_alignment="center"):
                    if data := thumbnail(origin(job).picture_path()):
                        st.image(data, width=SMALL, alt=prompt_of(job.details))
                    st.markdown(f"**{plain(prompt_of(job.details))}**", width="stretch")
                _show_running(job)


def _show_of_run(entry: Entry, options: StudioOptions) -> None:
    everything = run_queue.entries(options.output_dir)
    line = [*run_index.running(everything), *run_queue.waiting(everything)]
    paused = run_queue.paused(options.output_dir) is not None
    for job in upscalings.of_run(options.output_dir, entry.name):
        with st.container(border=True, key=f"upscaling-{job.name}"):
            if job.status == "running":
                _show_running(job)
            elif job.status == "queued":
                before = next((at for at, one in enumerate(line) if one.name == job.name), 0)
                _show_waiting(job, turn_in_words(before, paused))
            else:
                _show_ended(job, entry, options)


def _show_running(job: Entry) -> None:
    share = upscalings.share_done(job.folder)
    words = f"{share:.0%}".replace("%", " %") if share else "loading the model …"
    st.progress(share, text=f"Upscaling {_scale(job)}: {words}")
    words = "Ends the upscaling; the picture stays as it is."
    stop_button(job, f"stop-{job.name}", _withdraw, words, width="stretch")


def _show_waiting(job: Entry, turn: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"Upscaling {_scale(job)} :gray[— {turn}]", width="stretch")
        st.button("Cancel", key=f"cancel-{job.name}", on_click=_withdraw, args=(job,))


def _show_ended(job: Entry, entry: Entry, options: StudioOptions) -> None:
    """One that was stopped, failed or broke off."""
    if job.status == "stopped":
        st.markdown(f"■ Upscaling {_scale(job)} was stopped.")
    else:
        why = shortened(job.details.get("error") or "It was interrupted.", MAX_MESSAGE)
        st.error(plain(f"Upscaling {_scale(job)} failed. {why}"))
    asked = upscalings.asked_in(job.details)
    with st.container(horizontal=True):
        if asked:
            wanted = Upscaling(asked.scale, asked.model)
            args = (secrets.token_hex(), entry, wanted, options)
            st.button("Upscale again", key=f"again-{job.name}", on_click=_start, args=args)
        st.button("Dismiss", key=f"dismiss-{job.name}", type="tertiary", on_click=job.folder.remove)


def _scale(job: Entry) -> str:
    asked = upscalings.asked_in(job.details)
    return times(asked.scale) if asked else ""


def _start_chosen(token: str, entry: Entry, options: StudioOptions) -> None:
    scale, model = (st.session_state[f"{what}-{entry.name}"] for what in ("scale", "upscaler"))
    _start(token, entry, Upscaling(scale, model), options)


def _start(token: str, entry: Entry, wanted: Upscaling, options: StudioOptions) -> None:
    """token: of the button as it was drawn; see `Presses`."""
    with PRESSES.heeding(token) as is_heeded, attempt(RESULT):
        if is_heeded:
            st.session_state[STARTED] = st.session_state.get(STARTED, 0) + 1
            run_queue.enqueue_upscaling(entry.folder, wanted, options.assets_dir, options.queue_url)


def _withdraw(job: Entry) -> None:
    with attempt(QUEUE):
        run_queue.withdraw_upscaling(job.folder)
