"""The gallery for programs: runs as JSON, and the description of it. Never imports torch."""

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, jsonify, request, url_for

from gallery_utils import STATUSES, clean
from studio.base.version import __version__
from studio.gallery import search
from studio.gallery.facets import INDEXED
from studio.gallery.lineage import lineage
from studio.gallery.pages import library, need_tile, progress
from studio.gallery.query import PARAMETERS
from studio.gallery.search import Tile

api = Blueprint("api", __name__, url_prefix="/api")


@api.get("/runs")
def runs() -> Any:
    """A page of the runs that match."""
    own = library()
    own.catch_up()
    asked = own.read_query(request.args, strict=True)
    if asked.problems:
        return jsonify(error=" ".join(asked.problems)), 400
    found = own.find(asked.query)
    return jsonify(
        runs=[summary(tile) for tile in found.tiles],
        total=found.total,
        page=found.number,
        pages=found.pages,
        n=asked.query["n"],
        message=found.message,
    )


@api.get("/runs/<run_id>")
def run(run_id: str) -> Response:
    """All that is known of a run."""
    own, tile = library(), need_tile(run_id)
    if own.options.kiosk:
        return jsonify(summary(tile))
    found, relatives = own.run(tile.name), lineage(own.store, tile)
    files = {
        name: url_for("pages.file", run_id=tile.name, name=name)
        for names in found.files.values()
        for name in names
    }
    return jsonify(
        summary(tile)
        | {
            "details": found.details,
            "files": files,
            "note": tile.note,
            "ancestors": [relative.name for relative in relatives.ancestors],
            "children": [relative.name for relative in relatives.children],
            "siblings": [relative.name for relative in relatives.siblings],
        }
    )


@api.get("/activity")
def activity() -> Response:
    """What pages poll: whether anything changed, and how far running runs are."""
    own = library()
    own.catch_up()
    running = [] if own.options.kiosk else _running()
    return jsonify(revision=own.revision, running=running)


@api.get("/slides/next")
def next_slide() -> Response:
    """The picture to show after another one."""
    own = library()
    own.catch_up()
    tile, cursor = search.next_slide(own.store, request.args.get("after", ""))
    return jsonify(slide=tile and summary(tile), cursor=cursor)


@api.get("/openapi.json")
def openapi() -> Response:
    """This description."""
    return jsonify(DESCRIPTION)


def summary(tile: Tile) -> dict[str, Any]:
    """A run as JSON; in a kiosk only its picture and its prompt."""
    file = {
        kind: name and url_for("pages.file", run_id=tile.name, name=name)
        for kind, name in (("picture", tile.picture), ("animation", tile.animation))
    }
    shown = {
        "run_id": tile.name,
        "prompt": tile.prompt,
        "picture": file["picture"],
        "animation": file["animation"],
        "thumb": url_for("pages.thumb", run_id=tile.name, v=tile.stamp),
        "width": tile.width,
        "height": tile.height,
    }
    if library().options.kiosk:
        return shown
    return shown | {
        "page": url_for("pages.run", run_id=tile.name),
        "began": tile.date.astimezone().isoformat() if tile.date else None,
        "status": tile.status,
        "problem": tile.problem,
        "steps": clean(tile.steps),
        **{facet.in_api: tile.facets[facet.name] for facet in INDEXED},
        "favourite": tile.favourite,
        "tags": list(tile.tags),
    }


def _running() -> list[dict[str, Any]]:
    tiles = search.select_tiles(library().store, "status = ?", ["running"], limit=20)
    return [
        {
            "run_id": tile.name,
            "thumb": url_for("pages.thumb", run_id=tile.name, v=tile.stamp),
            **progress(tile),
        }
        for tile in tiles
    ]


# --- OpenAPI -----------------------------------------------------------------------------------


def _answer(what: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": what, "content": {"application/json": {"schema": schema}}}


def _object(needed: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(needed), "properties": {**needed, **more}}


def _asked(name: str, what: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": what, "schema": schema}


def _list(of: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
MAYBE_TEXT, MAYBE_NUMBER = {"type": ["string", "null"]}, {"type": ["integer", "null"]}
SHOWN = {
    "run_id": TEXT,
    "prompt": TEXT,
    "picture": MAYBE_TEXT,
    "animation": MAYBE_TEXT,
    "thumb": TEXT,
    "width": NUMBER,
    "height": NUMBER,
}
NOT_IN_KIOSK = {
    "page": TEXT,
    "began": {"type": ["string", "null"], "format": "date-time"},
    "status": {"type": "string", "enum": list(STATUSES)},
    "problem": {"type": "string", "description": "Why it counts as broken; else empty."},
    "steps": MAYBE_NUMBER,
    **{facet.in_api: TEXT for facet in INDEXED},
    "favourite": {"type": "boolean"},
    "tags": _list(TEXT),
}
ONE_RUN = {
    "details": {
        "type": "object",
        "description": "details.json. Integers beyond 2^53 are strings.",
        "additionalProperties": True,
    },
    "files": {
        "type": "object",
        "additionalProperties": TEXT,
        "description": "Addresses by file names.",
    },
    "note": TEXT,
    "ancestors": _list(TEXT),
    "children": _list(TEXT),
    "siblings": _list(TEXT),
}
ERROR = _object({"error": TEXT})
RUN_ID = {
    "name": "run_id",
    "in": "path",
    "required": True,
    "description": "A run folder's name, or its last 8 characters.",
    "schema": TEXT,
}
SUMMARY = {"$ref": "#/components/schemas/Run"}
RUN_PAGE = {"runs": _list(SUMMARY), "total": NUMBER, "page": NUMBER, "pages": NUMBER, "n": NUMBER}
ACTIVE_RUN = _object(
    {"run_id": TEXT, "thumb": TEXT},
    step=NUMBER,
    planned=MAYBE_NUMBER,
    seconds_left={"type": ["number", "null"]},
)


def _get(what: str, answer: Mapping[str, Any], *parameters: Any, **others: Any) -> dict[str, Any]:
    responses = {"200": answer} | {code[1:]: _answer(text, ERROR) for code, text in others.items()}
    return {"get": {"summary": what, "parameters": list(parameters), "responses": responses}}


DESCRIPTION = {
    "openapi": "3.1.0",
    "info": {
        "title": "VQGAN-CLIP Studio: the gallery",
        "version": __version__,
        "description": "Read-only. Of a run, a kiosk tells only the picture and the prompt.",
    },
    "paths": {
        "/api/runs": _get(
            "Search, filter and page through the runs.",
            _answer("A page of runs.", _object({**RUN_PAGE, "message": TEXT})),
            *(_asked(p.name, p.description, p.kind.schema) for p in PARAMETERS.values()),
            _400="A filter that makes no sense.",
        ),
        "/api/runs/{run_id}": _get(
            "All that is known of a run.",
            _answer("The run.", {"$ref": "#/components/schemas/OneRun"}),
            RUN_ID,
            _404="There is no such run.",
        ),
        "/api/activity": _get(
            "Whether anything changed, and how far running runs are.",
            _answer("The state.", _object({"revision": TEXT, "running": _list(ACTIVE_RUN)})),
        ),
        "/api/slides/next": _get(
            "The picture to show after another one; newly finished runs come first.",
            _answer(
                "The picture, null without any, and the cursor for the next one.",
                _object({"slide": {"anyOf": [SUMMARY, {"type": "null"}]}, "cursor": TEXT}),
            ),
            _asked("after", "The cursor of the previous answer.", TEXT),
        ),
        "/api/openapi.json": _get("This description.", _answer("OpenAPI 3.1.", {"type": "object"})),
    },
    "components": {
        "schemas": {
            "Run": _object(SHOWN, **NOT_IN_KIOSK),
            "OneRun": _object(SHOWN, **NOT_IN_KIOSK, **ONE_RUN),
        }
    },
}
