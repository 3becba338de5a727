"""The gallery's pages and files. Never imports torch."""

import json
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any
from urllib.parse import quote, urlsplit

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    redirect,
    render_template,
    request,
    url_for,
)

from gallery_utils import FoundRun, Shelf, media_type
from studio.base.errors import BadInput
from studio.gallery import search
from studio.gallery.details import Difference, differences, readable, steps_to_make
from studio.gallery.facets import FACETS, RANGES
from studio.gallery.library import Library
from studio.gallery.lineage import Lineage, lineage
from studio.gallery.query import SORTS, Query
from studio.gallery.search import Tile
from studio.gallery.sending import send_file
from studio.gallery.upscaling import Job, jobs_of, larger_files, shown_pictures
from studio.gallery.zipping import as_zip
from studio.runs import trash
from studio.runs.details_keys import engine_of

pages = Blueprint("pages", __name__)

MAX_JSON_SHOWN = 200_000
MAX_TRASH = 200
MAX_CHILDREN = 12  # whose changes are told
STEPS_TO = {"newest": ("Newer", "Older"), "oldest": ("Older", "Newer")}  # by the list's order


def library() -> Library:
    """What all requests share."""
    return current_app.extensions["gallery"]


def need_tile(run_id: str) -> Tile:
    """A run by its id. Answers 404 if there is none."""
    tile = library().tile(run_id)
    if tile is None:
        abort(404, f"There is no run {run_id[:100]}. It may have been removed or renamed.")
    return tile


@pages.get("/")
def wall() -> str:
    """All runs, or those asked for."""
    own = library()
    own.catch_up()
    revision = own.revision  # read first, so that no later change is missed
    asked = own.read_query(request.args)
    found = own.find(asked.query)
    problems = [f"{problem} It was left out." for problem in asked.problems]
    problems += own.troubles()
    return render_template(
        "gallery/wall.html",
        query=asked.query,
        facets=FACETS,
        ranges=RANGES,
        found=found,
        messages=[*problems, found.message] if found.message else problems,
        choices={} if own.options.kiosk else own.choices(),
        sorts=SORTS,
        progress={t.name: progress(t) for t in found.tiles if t.status == "running"},
        removed=_removed(request.args.get("removed", "")),
        compare=None if own.options.kiosk else own.tile(request.args.get("compare", "")),
        is_readable=not own.index.problem,
        revision=revision,
    )


@pages.get("/runs/<run_id>")
def run(run_id: str) -> Any:
    """One run, and its place in the list that the address asks for."""
    own, tile = library(), need_tile(run_id)
    revision = own.revision  # read first, so that no later change is missed
    query = own.read_query(request.args).query
    if tile.name != run_id:
        return redirect(run_address(tile, query))
    found = own.run(tile.name)
    place = search.place(own.store, query, tile, kiosk=own.options.kiosk)
    relatives = None if own.options.kiosk else lineage(own.store, tile)
    settings, records = ([], []) if own.options.kiosk else readable(found.details)
    return render_template(
        "gallery/run.html",
        tile=tile,
        run=found,
        files=found.files,
        shown=shown_pictures(found, tile, request.args.get("shown", "")),
        jobs=_jobs(own, tile),
        upscalers=own.upscalers() if own.options.can_change and not tile.is_active else [],
        engine=engine_of(found.details),
        settings=settings,
        records=records,
        to_make=steps_to_make(found.details),
        troubles=own.troubles(),
        as_json=_as_json(found),
        progress=progress(tile),
        query=query,
        place=place,
        steps_to=STEPS_TO.get(query["sort"], ("Previous", "Next")),
        revision=revision,
        relatives=relatives,
        changes=_changes(own, tile, relatives) if relatives else {},
        app_links=_app_links(own.app_url(urlsplit(request.host_url).hostname or ""), tile),
    )


@pages.get("/runs/<run_id>/all.zip")
def download(run_id: str) -> Response:
    """All files of a run as one zip."""
    if library().options.kiosk:
        abort(404)
    tile = need_tile(run_id)
    files = [name for names in library().run(tile.name).files.values() for name in names]
    archive = as_zip(tile.name, files, partial(library().open, tile.name))
    response = Response(archive, mimetype="application/zip", direct_passthrough=True)
    response.content_length = archive.remain
    _offer(response, f"{tile.name}.zip")
    return response


@pages.get("/compare")
def compare() -> Any:
    """Two runs side by side."""
    own = library()
    if own.options.kiosk:
        abort(404)
    first, second = (need_tile(request.args.get(name, "")) for name in "ab")
    details = [own.run(tile.name).details for tile in (first, second)]
    return render_template(
        "gallery/compare.html", first=first, second=second, changes=differences(*details)
    )


@pages.get("/trash")
def removed() -> str:
    """The removed runs."""
    shelf = _trash()
    runs = []
    folders = trash.trashed(library().output_dir)
    for folder in folders[:MAX_TRASH]:
        try:
            runs.append(shelf.read(folder.name))
        except FileNotFoundError:
            continue  # restored meanwhile
    return render_template("gallery/trash.html", runs=runs, more=len(folders) - len(runs))


@pages.get("/slideshow")
def slideshow() -> str:
    """One picture after the other, by itself, also without JavaScript."""
    own = library()
    own.catch_up()
    tile = own.tile(request.args.get("at", ""))
    if tile and tile.is_whole:
        cursor = search.slide_cursor(own.store, tile)
    else:
        tile, cursor = search.next_slide(own.store, request.args.get("after", ""))
    return render_template("gallery/slideshow.html", tile=tile, cursor=cursor)


# --- Files -------------------------------------------------------------------------------------


@pages.get("/files/<run_id>/<name>")
def file(run_id: str, name: str) -> Response:
    """A file of a run; in a kiosk only its pictures and its film."""
    own = library()
    try:
        if own.options.kiosk and not _is_shown_in_kiosk(run_id, name):
            raise FileNotFoundError(name)
        opened = own.open(run_id, name)
    except OSError:
        abort(404, "There is no such file, or it cannot be read.")
    response = send_file(opened, media_type(name))
    if "download" in request.args:
        _offer(response, f"{run_id}-{name}")
    return response


def _is_shown_in_kiosk(run_id: str, name: str) -> bool:
    tile = library().tile(run_id)
    if tile is None:
        return False
    found = library().run(tile.name)
    pictures = {*found.pictures, *larger_files(found)}
    return name in (tile.picture, tile.animation) or name in pictures


@pages.get("/thumbs/<run_id>")
def thumb(run_id: str) -> Response:
    """A thumbnail of a run's picture; a drawing if there is no picture to show."""
    own = library()
    tile = need_tile(run_id)
    try:
        return _small(own.thumbnail_of(tile), f"{tile.name}-{tile.stamp}")
    except BadInput:
        return _no_picture()


@pages.get("/trash/<run_id>/thumb")
def trashed_thumb(run_id: str) -> Response:
    """As `thumb`, for a removed run."""
    shelf = _trash()
    if not shelf.has(run_id):
        abort(404, f"There is no run {run_id[:100]} in the trash.")
    try:
        picture = shelf.read(run_id).picture
        return _small(library().thumbnail(shelf, run_id, picture or ""), run_id)
    except (OSError, BadInput):
        return _no_picture()


@pages.get("/static/<name>")
def static(name: str) -> Response:
    """The gallery's style and scripts; the folder holds those of the app as well."""
    if name != "icon.svg" and not name.startswith("gallery"):
        abort(404)
    return current_app.send_static_file(name)


# --- Parts of pages ----------------------------------------------------------------------------


def progress(tile: Tile) -> dict[str, Any]:
    """step, planned (None without an end) and seconds_left of a running run, else empty."""
    if tile.status != "running":
        return {}
    told = library().shelf.progress(tile.name)
    step, planned, left = (
        told.get(key) if isinstance(told.get(key), int | float) else None
        for key in ("step", "planned_num_steps", "seconds_left")
    )
    return {
        "step": step or 0,
        "planned": planned if planned and planned > 0 else None,
        "seconds_left": left,
    }


def local_address(address: str) -> str:
    """Where to go back to: the address if it is ours, else the wall."""
    parts = urlsplit(address.replace("\\", "/"))
    is_ours = address.startswith("/") and not address.startswith("//") and address.isprintable()
    return address if is_ours and not parts.netloc and not parts.scheme else url_for("pages.wall")


def _removed(run_id: str) -> str:
    """The name of a run whose removal can be undone: it is in the trash; else ""."""
    if not run_id or not library().options.can_change:
        return ""
    with suppress(BadInput):  # the trash is a link
        return run_id if _trash().has(run_id) else ""
    return ""


def _jobs(own: Library, tile: Tile) -> list[Job]:
    """The upscalings of a run; strangers see those that are under way, and a kiosk none."""
    if own.options.kiosk:
        return []
    return [job for job in jobs_of(own.output_dir, tile) if job.is_active or own.options.can_change]


def _trash() -> Shelf:
    """The removed runs. Answers 404 to people who may not restore them."""
    if not library().options.can_change:
        abort(404)
    return Shelf(trash.folder_of(library().output_dir))


def _as_json(found: FoundRun) -> str:
    if library().options.kiosk:
        return ""
    text = json.dumps(found.details, indent=2, ensure_ascii=False)
    return text if len(text) <= MAX_JSON_SHOWN else f"{text[:MAX_JSON_SHOWN]}\n…"


def _changes(own: Library, tile: Tile, family: Lineage) -> dict[str, list[Difference]]:
    """What each run of a chain changed in the run that it continues, by the run's name."""
    chain = [*family.ancestors, tile]
    steps = [*pairwise(chain), *((tile, child) for child in family.children[:MAX_CHILDREN])]
    details = {t.name: own.run(t.name).details for t in {t for step in steps for t in step}}
    return {
        after.name: differences(details[before.name], details[after.name])
        for before, after in steps
    }


def _app_links(app_url: str, tile: Tile) -> dict[str, str]:
    run_id = quote(tile.name, safe="")
    return {word: f"{app_url}/?{word}={run_id}" for word in ("continue", "use")}


def _small(data: bytes, version: str) -> Response:
    response = Response(data, mimetype="image/jpeg")
    response.add_etag()
    response.headers["Cache-Control"] = "no-cache"
    response.make_conditional(request)
    return response


def _no_picture() -> Response:
    return current_app.send_static_file("gallery-no-picture.svg")


def _offer(response: Response, name: str) -> None:
    """Have the browser save the answer as a file with that name, in any alphabet."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)
    full = quote(name.encode("utf-8", "replace"), safe="")
    response.headers["Content-Disposition"] = (
        f"attachment; filename=\"{plain}\"; filename*=UTF-8''{full}"
    )


def query_address(query: Query, **changes: Any) -> str:
    """The wall's address for a query."""
    return url_for("pages.wall", **query.as_arguments(**changes))


def run_address(tile: Tile, query: Query, shown: str | None = None) -> str:
    """The address of a run's page, with the list that it was opened from.

    shown: which version of its picture, by the key of `upscaling.Version`.
    """
    asked = query.as_arguments(page=1)
    return url_for("pages.run", run_id=tile.name, shown=shown, **asked)
