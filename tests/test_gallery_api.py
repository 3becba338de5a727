"""The gallery's answers to programs, held against their own description."""

import re
from datetime import date

import pytest
from gallery_runs import make_run, open_gallery

from studio.gallery.query import PARAMETERS


@pytest.fixture
def output(tmp_path):
    for number in range(5):
        make_run(tmp_path / "output", number, text_input=f"picture {number}")
    return tmp_path / "output"


def resolve(description, schema):
    while "$ref" in schema:
        schema = description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


KINDS = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict,
    "array": list, "null": type(None),
}  # fmt: skip


def check(description, schema, value, where="answer"):
    """Check a value as JSON Schema asks, as far as our description uses it."""
    schema = resolve(description, schema)
    if "anyOf" in schema:
        resolved = [resolve(description, option) for option in schema["anyOf"]]
        schema = next(s for s in resolved if isinstance(value, KINDS[s["type"]]))
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    assert any(isinstance(value, KINDS[kind]) for kind in kinds), f"{where}: {value!r}"
    assert value in schema.get("enum", [value]), where
    for key in schema.get("required", []):
        assert key in value, f"{where} lacks {key}"
    for item in value if isinstance(value, list) else ():
        check(description, schema["items"], item, f"{where}[]")
    known = schema.get("properties", {})
    for key, item in value.items() if isinstance(value, dict) and known else ():
        assert key in known, f"{where} has {key}, which is not described"
        check(description, known[key], item, f"{where}.{key}")


@pytest.mark.parametrize("kiosk", [False, True])
def test_answers_are_as_described(output, kiosk):
    make_run(output, 9, picture=None, status="failed", num_steps=None)
    client = open_gallery(output, kiosk=kiosk)
    description = client.get("/api/openapi.json").json
    name = client.get("/api/runs").json["runs"][0]["run_id"]
    for path, methods in description["paths"].items():
        assert list(methods) == ["get"]
        answer = client.get(path.format(run_id=name))
        schema = methods["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert answer.status_code == 200 and answer.mimetype == "application/json"
        check(description, schema, answer.json)
    for path in ("/api/runs?page=x", "/api/runs/nobody"):
        assert client.get(path).status_code in (400, 404) and client.get(path).json["error"]


def test_every_route_and_every_filter_is_described(output):
    client = open_gallery(output)
    description = client.get("/api/openapi.json").json
    rules = {
        re.sub(r"<(\w+)>", r"{\1}", rule.rule) for rule in client.application.url_map.iter_rules()
    }
    assert set(description["paths"]) == {rule for rule in rules if rule.startswith("/api/")}
    parameters = description["paths"]["/api/runs"]["get"]["parameters"]
    assert {parameter["name"] for parameter in parameters} == set(PARAMETERS)


def test_pages_and_filters(output):
    client = open_gallery(output, per_page=2)
    first = client.get("/api/runs").json
    assert (first["total"], first["page"], first["pages"], first["n"]) == (5, 1, 3, 2)
    last = client.get("/api/runs?page=99").json
    assert (last["page"], len(last["runs"])) == (3, 1) and "no page 99" in last["message"]
    found = client.get("/api/runs?q=picture&steps_min=1&size=32x24&sort=oldest&n=200").json
    assert [run["prompt"] for run in found["runs"]] == [f"picture {n}" for n in range(5)]
    run = client.get("/api/runs/" + found["runs"][0]["run_id"]).json
    assert client.get(run["picture"]).mimetype == client.get(run["files"]["output.PNG"]).mimetype
    assert date.fromisoformat(run["began"][:10]) == date(2026, 1, 1)


@pytest.mark.parametrize(
    "query",
    [
        *("page=", "page=0", "page=1&page=2", "n=201", "n=1.5", "sort=", "status=none", "size=0x"),
        *("date_to=x", "steps_max=-1", "favourite=maybe", "q=" + "x" * 501),
    ],
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(output, query):
    answer = open_gallery(output).get(f"/api/runs?{query}")
    assert answer.status_code == 400 and query.partition("=")[0] in answer.json["error"]
