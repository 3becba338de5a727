"""What a person can do with a frame of a run's video: continue it, or start from it."""

import streamlit as st

from studio.engines import registry
from studio.making.frames import marked_frame
from studio.page.actions import RESULT, attempt
from studio.page.dropped import start_from
from studio.page.engine_choice import ENGINE
from studio.page.incoming import continue_run
from studio.page.kept import keep_picture
from studio.page.memory import Memory
from studio.page.picker import PICKED, BeginsAt, begin_at
from studio.page.uploads import START_IMAGE
from studio.page.viewer import FrameUses
from studio.queue.options import StudioOptions
from studio.runs.storage import find_run


def frame_uses(options: StudioOptions, memory: Memory) -> FrameUses:
    """For the engine of the form, which may have no starting image."""

    def continue_(name: str, number: int) -> None:
        continue_frame(name, number, options, memory)

    def start(name: str, number: int) -> None:
        start_from_frame(name, number, options)

    engine = registry.find(st.session_state.get(ENGINE, ""))
    has_start = engine is not None and START_IMAGE in engine.settings.model_fields
    uses = {"Continue from this frame": continue_}
    return uses | ({"Use this frame as starting image": start} if has_start else {})


def continue_frame(name: str, number: int, options: StudioOptions, memory: Memory) -> None:
    """Take the settings of a run, and let Run! continue that frame of its video."""
    with attempt(RESULT):
        folder = find_run(options.output_dir, name)
        picture = keep_picture(options.output_dir, marked_frame(folder, number))
        continue_run(name, options, memory, RESULT)
        if st.session_state.get(PICKED) == name:  # else the page says why not
            begin_at(BeginsAt(name, number, picture))


def start_from_frame(name: str, number: int, options: StudioOptions) -> None:
    """Let the next run begin from a frame of a run's video, as from an uploaded picture."""
    with attempt(RESULT):
        folder = find_run(options.output_dir, name)
        picture = keep_picture(options.output_dir, marked_frame(folder, number))
        start_from(str(picture), f"Frame {number}")
