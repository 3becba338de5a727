"""How runs look on the page: the one that goes, a finished one, and their thumbnails."""

import base64
import html
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import streamlit as st
from PIL import Image, ImageOps

from studio.base.errors import BadInput, shortened
from studio.engines import registry
from studio.engines.estimate import duration
from studio.media.pictures import encode_jpeg, load_picture
from studio.runs.run_index import Entry
from studio.runs.storage import CHAIN_VIDEO, DETAILS, PREVIEW, began_at
from studio.settings.declare import meta

PICTURE_SIDE = 512
THUMBNAIL_SIDE = 320
MAX_MESSAGE = 600  # characters of what a run has to say
MAX_VALUE = 300  # characters of a setting
CURVE_COLOUR = "#6a9cbc"  # seen on light and dark alike
SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&])")
# Addresses, logos and arrows are looked for once escapes are gone: between the two halves goes a
# piece of Markdown that shows nothing.
LATE_MARKUP = re.compile(
    r"(?<=:)(?=//)|(?<=www)(?=\.)|(?=@\w)|(?<=:)(?=streamlit:)|(?<=[-<>~=])(?=[->=])", re.IGNORECASE
)
NOTHING = ":gray[]"
STATUS_ICONS = {"done": "✓", "stopped": "■", "failed": "⚠", "interrupted": "⚠"}


def plain(text: object) -> str:
    """Text that Streamlit shows as it is, whatever Markdown it would be."""
    parts = LATE_MARKUP.split(" ".join(str(text).split()))
    return NOTHING.join(SPECIAL.sub(r"\\\1", part) for part in parts)


def prompt_of(details: Mapping[str, Any], length: int = 120) -> str:
    """What a run was asked for, on one line, cut to `length` characters."""
    text = " ".join(str(details.get("text_input") or "").split()) or "Image prompt"
    return text if len(text) <= length else f"{text[: length - 1]}…"


def status_word(entry: Entry) -> str:
    """done, stopped, failed or interrupted, as a headline."""
    return f"{STATUS_ICONS.get(entry.status, '')} {entry.status.capitalize()}".strip()


# --- The run that goes -------------------------------------------------------------------------


def show_live(entry: Entry, stop: Callable[[Entry], None]) -> None:
    """The picture as it forms, how far it is, and Stop, which calls `stop`."""
    progress = entry.folder.read_progress()
    with st.container(border=True, key=f"live-{entry.name}"):
        picture, facts = st.columns([3, 2], gap="medium")
        with picture:
            _show_preview(entry)
        with facts:
            st.markdown(f"**{plain(prompt_of(entry.details))}**")
            _show_progress(progress, entry.details)
            _stop_button(entry, stop)
            _show_losses(progress.get("history"), progress.get("losses"))


def _show_preview(entry: Entry) -> None:
    width, height, look = _shown_size(entry.details.get("Xdim"), entry.details.get("ydim"))
    style = f"width:{width}px;aspect-ratio:{width}/{height}"
    try:
        address = _as_address((entry.folder.path / PREVIEW).read_bytes(), "jpeg")
    except OSError:
        st.html(f'<div class="run-picture run-waiting" style="{style}"></div>')
        return
    alt = html.escape(prompt_of(entry.details), quote=True)
    st.html(f'<img class="run-picture {look}" style="{style}" alt="{alt}" src="{address}">')


def _show_progress(progress: Mapping[str, Any], details: Mapping[str, Any]) -> None:
    step = progress.get("step", 0)
    planned = progress.get("planned_num_steps", details.get("planned_num_steps", -1))
    if not step:
        st.progress(0.0, text="Loading the models …")
        return
    endless = planned <= 0
    words = f"step {step}, until you stop it" if endless else f"step {step} of {planned}"
    st.progress(0.0 if endless else min(1.0, step / planned), text=words)
    speed, left = progress.get("steps_per_second"), progress.get("seconds_left")
    facts = [f"{speed:.3g} steps/s"] if speed else []
    facts += [f"{duration(left)} left"] if left is not None else []
    st.caption(" · ".join(facts))


def _stop_button(entry: Entry, stop: Callable[[Entry], None]) -> None:
    if entry.folder.stop_requested():
        st.button("Stopping …", disabled=True, key=f"stop-{entry.name}", width="stretch")
        return
    st.button(
        "Stop",
        key=f"stop-{entry.name}",
        on_click=stop,
        args=(entry,),
        help="Ends the run after this step and keeps what is there.",
        width="stretch",
    )


def _show_losses(points: Any, losses: Any) -> None:
    """The course of the total loss, and what the losses are now; nothing where there is none."""
    history = [point for point in points or [] if point[1] is not None]
    if len(history) < 2:
        return
    known = {name: value for name, value in (losses or {}).items() if value is not None}
    words = " · ".join(f"{name} {value:.4g}" for name, value in known.items())
    alt = f"Total loss, from {history[0][1]:.4g} to {history[-1][1]:.4g}"
    st.html(
        f'<figure class="losses"><img alt="{alt}" src="{_as_address(_curve(history), "svg+xml")}">'
        f"<figcaption>Loss: {html.escape(words)}</figcaption></figure>"
    )


def _curve(history: Sequence[Sequence[float]]) -> bytes:
    """The total loss over the steps as SVG, far cheaper to redraw often than a chart."""
    steps, losses = zip(*history, strict=True)
    low, across, up = min(losses), steps[-1] - steps[0], max(losses) - min(losses)
    points = " ".join(
        f"{300 * (step - steps[0]) / across:.1f},{76 - 72 * (loss - low) / (up or 1):.1f}"
        for step, loss in history
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 80" preserveAspectRatio="none">'
        f'<polyline points="{points}" fill="none" stroke="{CURVE_COLOUR}" stroke-width="2"'
        ' stroke-linejoin="round" vector-effect="non-scaling-stroke"/></svg>'
    ).encode()


def _as_address(data: bytes, kind: str) -> str:
    """An image as a data address: the server would keep every picture that it serves."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


# --- A finished one ----------------------------------------------------------------------------


def show_result(entry: Entry, show_actions: Callable[[Entry], None]) -> None:
    """Picture, video, downloads, what can be done with it, and the settings used."""
    details, path = entry.details, entry.folder.path
    with st.container(border=True, key=f"result-{entry.name}"):
        picture, facts = st.columns([3, 2], gap="medium")
        with picture:
            _show_picture(entry)
        with facts:
            st.markdown(f"**{plain(prompt_of(details))}**")
            st.caption(_outcome(entry))
            if details.get("error"):
                st.error(plain(shortened(details["error"], MAX_MESSAGE)))
            for warning in details.get("warnings") or []:
                st.warning(plain(shortened(warning, MAX_MESSAGE)))
            _show_films(entry)
            _show_losses(details.get("loss_history"), details.get("losses"))
            _downloads(entry)
            show_actions(entry)
            st.caption(f"Run folder: `{path.name}`")
        st.html(_settings_list(details))


def _show_films(entry: Entry) -> None:
    """Its own, and of a chain the one of all stages."""
    if video := entry.folder.video_path():
        st.video(str(video))
    chain = entry.folder.path / CHAIN_VIDEO
    if chain.is_file():
        st.caption("All stages:")
        st.video(str(chain))


def _outcome(entry: Entry) -> str:
    details = entry.details
    words = [status_word(entry)]
    if steps := _steps(entry):
        words.append(steps)
    if stage := _stage(details):
        words.append(stage)
    if speed := details.get("steps_per_second"):
        words.append(f"{speed:.3g} steps/s")
    if device := details.get("device"):
        words.append(plain(device))
    return " · ".join(words)


def _steps(entry: Entry) -> str:
    """Such as "65 of 400 steps" for a run that ended before its time."""
    steps, planned = entry.details.get("num_steps"), entry.details.get("planned_num_steps")
    if not steps:
        return ""
    if entry.status != "done" and isinstance(planned, int) and planned > 0:
        return f"{steps} of {planned} steps"
    return f"{steps} step{'s' if steps != 1 else ''}"


def _stage(details: Mapping[str, Any]) -> str:
    """Such as "stage 1 of 3" for a run of a chain."""
    chain = details.get("chain")
    return f"stage {chain['number']} of {chain['count']}" if isinstance(chain, dict) else ""


def _show_picture(entry: Entry) -> None:
    path = entry.folder.picture_path()
    if path is None:
        st.caption("It has no picture.")
        return
    try:
        size = load_picture(path, path.name).size
    except BadInput as error:
        st.caption(plain(error.on_page))
        return
    width, _, look = _shown_size(*size)
    with st.container(key=f"{look}-{entry.name}"):
        kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"  # else Streamlit makes a JPEG
        alt = prompt_of(entry.details)
        st.image(path.read_bytes(), width=width, output_format=kind, alt=alt)


def _downloads(entry: Entry) -> None:
    paths = (entry.folder.picture_path(), entry.folder.video_path(), entry.folder.path / DETAILS)
    with st.container(horizontal=True):
        for label, path in zip(("Picture", "Video", "Details"), paths, strict=True):
            if path:
                st.download_button(
                    label,
                    data=path.read_bytes(),
                    file_name=f"{entry.name}-{path.name}",
                    icon=":material/download:",
                    on_click="ignore",
                    key=f"get-{label}-{entry.name}",
                )


def _settings_list(details: Mapping[str, Any]) -> str:
    """The settings that mattered, by their labels."""
    fields = _fields(details)
    items = []
    for name, field in fields.items():
        switch = meta(field)["group"]
        matters = switch is None or details.get(switch) or name == "seed"  # which is used anyhow
        if name not in details or not matters:
            continue
        value = _in_words(details[name])
        if value:
            label = html.escape(meta(field)["label"])
            value = html.escape(shortened(value, MAX_VALUE))
            items.append(f"<div><dt>{label}</dt><dd>{value}</dd></div>")
    return f'<dl class="settings">{"".join(items)}</dl>'


def _fields(details: Mapping[str, Any]) -> Mapping[str, Any]:
    engine = registry.find(registry.engine_of(details)) or registry.get(registry.DEFAULT)
    return engine.settings.model_fields


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _shown_size(width: Any, height: Any) -> tuple[int, int, str]:
    """How large to show a picture, and how: small ones by a whole factor, each pixel a square."""
    if not isinstance(width, int) or not isinstance(height, int) or min(width, height) < 1:
        return PICTURE_SIDE, PICTURE_SIDE, "smooth"
    factor = max(1, PICTURE_SIDE // max(width, height))
    return width * factor, height * factor, "crisp" if factor > 1 else "smooth"


# --- Thumbnails --------------------------------------------------------------------------------


def show_thumbnail(entry: Entry) -> None:
    """As wide as the container."""
    show_small(entry.folder.picture_path(), prompt_of(entry.details))


def show_small(path: Path | None, alt: str) -> None:
    """The picture at that path as a thumbnail, as wide as the container."""
    try:
        data = path and thumbnail(path, path.stat().st_mtime_ns)
    except OSError:  # gone meanwhile
        data = None
    if data:
        st.image(data, width="stretch", alt=alt)
    else:
        st.html('<div class="no-picture">no picture</div>')


def show_choice(
    entry: Entry, key: str, length: int, choose: Callable[[str], None], help_text: str | None = None
) -> None:
    """The thumbnail, and below it `length` characters of the prompt, which choose the run."""
    show_thumbnail(entry)
    st.button(
        plain(prompt_of(entry.details, length)),
        key=f"{key}-{entry.name}",
        type="tertiary",
        help=help_text,
        on_click=choose,
        args=(entry.name,),
    )


@lru_cache(maxsize=256)
def thumbnail(path: Path, mtime_ns: int) -> bytes | None:
    """A square JPEG of the picture's middle, or None for what is no picture."""
    try:
        picture = load_picture(path, path.name)
    except BadInput:
        return None
    side = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return encode_jpeg(ImageOps.fit(picture, side, Image.Resampling.LANCZOS), 90)


def date_of(name: str) -> str:
    """When the run of that folder name began, for people; "" for other names."""
    made = began_at(name)
    return f"{made.day} {made:%b %Y, %H:%M}" if made else ""
