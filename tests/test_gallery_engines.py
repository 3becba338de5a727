"""Several engines in one gallery: their names, their settings, and runs with other files."""

import io
import json
import sqlite3
import zipfile

import numpy as np
import pytest
from gallery_runs import look_again, make_bare_run, make_run, open_gallery, runs_on
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.engines import registry
from studio.engines.contract import Engine
from studio.gallery import details, facets, store
from studio.gallery.details import Difference, differences, readable
from studio.gallery.parameters import Parameter
from studio.gallery.query import PARAMETERS
from studio.runs.details_keys import BOOKKEEPING, OF_THIS_RUN, engine_of
from studio.settings import common
from studio.settings.declare import setting
from studio.settings.run_settings import RunSettings

SECRET = "SECRET-OF-THE-HOUSE"


class WaveSettings(RunSettings):
    num_steps: int = common.num_steps(3)
    set_seed: bool = common.set_seed()
    seed: int = common.seed()
    checkpoint_seconds: float = common.checkpoint_seconds()
    upscale: common.Scale = common.upscale()
    upscale_always: bool = common.upscale_always()
    use_echo: bool = setting(False, "With an echo", "Whether there is an echo.")
    echo: int = setting(
        3, "Echo's length", "How far the echo reaches.", unit="px", group="use_echo", ge=0, le=99
    )
    cutn: int = setting(1, "Waves", "How many waves there are.", ge=0, le=99)


class Waves(Engine):
    settings = WaveSettings
    run = "nowhere:Run"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


@pytest.fixture
def waves(monkeypatch):
    """An engine named Waves beside the real ones."""
    monkeypatch.setitem(registry.ENGINES, "Waves", f"{__name__}:Waves")
    details._declared_by.cache_clear()
    yield
    details._declared_by.cache_clear()


# --- Names and settings ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "engine"),
    [({}, ""), ({"seed": 1}, "VQGAN-CLIP"), ({"model": None}, "VQGAN-CLIP"), ({"model": 5}, "5")],
)
def test_details_name_their_engine_and_older_ones_are_of_the_first(known, engine):
    assert engine_of(known) == engine


def test_runs_are_filtered_by_engine(output):
    old, named = make_run(output, 1).name, make_run(output, 2, model="VQGAN-CLIP").name
    client = open_gallery(output)
    assert 'name="engine"' not in client.get("/").text, "there is nothing to choose"
    other = make_run(output, 3, model="Waves").name
    page = client.get("/")
    assert '<option value="VQGAN-CLIP">VQGAN-CLIP (2)</option>' in page.text
    assert '<option value="Waves">Waves (1)</option>' in page.text
    assert runs_on(client.get("/?engine=Waves")) == [other]
    assert runs_on(client.get("/?engine=VQGAN-CLIP")) == [named, old]
    assert "engine: Waves" in client.get("/?engine=Waves").text


def test_the_only_engine_stays_in_the_form_where_another_is_asked_for(output):
    make_run(output, 1)
    page = open_gallery(output).get("/?engine=Waves").text
    assert '<option value="Waves" selected>Waves (0)</option>' in page


def test_programs_are_told_the_engine(output):
    make_run(output, 1)
    make_run(output, 2, model="Waves")
    client = open_gallery(output)
    runs = client.get("/api/runs?engine=Waves").json["runs"]
    assert [run["engine"] for run in runs] == ["Waves"]
    described = client.get("/api/openapi.json").json
    assert "engine" in described["components"]["schemas"]["Run"]["properties"]
    assert "engine" not in open_gallery(output, kiosk=True).get("/api/runs").json["runs"][0]


@pytest.mark.parametrize("known", [{"model": "Waves"}, {}])
def test_a_runs_page_names_its_engine(output, known):
    name = make_run(output, 1, **known).name
    engine = known.get("model", "VQGAN-CLIP")
    page = open_gallery(output).get(f"/runs/{name}").text
    assert f"<dt>Engine</dt><dd>{engine}</dd>" in page and f"<span>{engine}</span>" in page


def test_labels_come_from_the_runs_own_engine(waves):
    settings, _ = readable({"cutn": 2, "echo": 5, "use_echo": False, "model": "Waves"})
    assert [(s.label, s.value, s.used) for s in settings] == [
        ("Engine", "Waves", True),
        ("With an echo", "off", True),
        ("Echo's length (px)", "5", False),
        ("Waves", "2", True),
    ]
    settings, _ = readable({"cutn": 2, "echo": 5})
    assert [s.label for s in settings] == ["Engine", "Cutouts", "Echo"]


def test_labels_of_an_unknown_engine_are_made_from_its_keys():
    settings, _ = readable({"model": "Gone", "cutn": 2, "use_mse": False, "tile_overlap": 32})
    assert [s.label for s in settings] == ["Engine", "Cutn", "Use mse", "Tile overlap"]
    assert all(setting.used for setting in settings)


def test_runs_of_two_engines_are_compared(waves):
    found = differences({"cutn": 8, "seed": 1}, {"cutn": 9, "seed": 1, "model": "Waves", "echo": 2})
    assert found == [
        Difference("Engine", "VQGAN-CLIP", "Waves"),
        Difference("Cutouts", "8", "9"),
        Difference("Echo's length (px)", "–", "2"),
    ]


# --- Several pictures --------------------------------------------------------------------------


@pytest.fixture
def several(output):
    """A run with eleven pictures, each with metadata."""
    folder = make_run(output, 1, model="Waves")
    for number in range(1, 12):
        told = PngInfo()
        told.add_text("details", SECRET)
        name = "output.PNG" if number == 1 else f"output-{number}.PNG"
        Image.new("RGB", (30, 20), (number * 20, 0, 0)).save(folder / name, pnginfo=told)
    return folder


NAMES = ["output.PNG", *(f"output-{number}.PNG" for number in range(2, 12))]


def test_the_page_of_a_run_shows_all_its_pictures_each_with_its_download(output, several):
    client = open_gallery(output)
    page = client.get(f"/runs/{several.name}").text
    places = [page.index(f'src="/files/{several.name}/{name}?v=') for name in NAMES]
    assert places == sorted(places), "by their numbers"
    for name in NAMES:
        address = f"/files/{several.name}/{name}?download=1"
        assert page.count(f'href="{address}" download') == 1
        sent = client.get(address)
        assert sent.data == (several / name).read_bytes()
        assert f"{several.name}-{name}" in sent.headers["Content-Disposition"]


def test_a_run_with_one_picture_has_no_further_ones(output):
    folder = make_run(output, 1)
    page = open_gallery(output).get(f"/runs/{folder.name}").text
    assert page.count("?download=1") == 1 and "Picture 2" not in page


def test_walls_thumbnails_and_slides_show_the_first_picture(output, several):
    client = open_gallery(output)
    assert client.get("/api/runs").json["runs"][0]["picture"].endswith("/output.PNG")
    assert client.get("/api/slides/next").json["slide"]["picture"].endswith("/output.PNG")
    small = Image.open(io.BytesIO(client.get(f"/thumbs/{several.name}").data))
    assert abs(small.getpixel((5, 5))[0] - 20) < 4


def test_all_pictures_are_in_the_zip_and_in_the_api(output, several):
    client = open_gallery(output)
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"/runs/{several.name}/all.zip").data))
    assert {f"{several.name}/{name}" for name in NAMES} <= set(archive.namelist())
    files = client.get(f"/api/runs/{several.name}").json["files"]
    assert set(NAMES) <= set(files)


@pytest.mark.parametrize("options", [{"kiosk": True}, {"read_only": True}])
def test_strangers_get_all_pictures_without_metadata(output, several, options):
    client = open_gallery(output, **options)
    page = client.get(f"/runs/{several.name}").text
    for name in NAMES:
        address = f"/files/{several.name}/{name}"
        sent = client.get(address)
        assert address in page and sent.status_code == 200 and SECRET.encode() not in sent.data
        before, after = (Image.open(f) for f in (several / name, io.BytesIO(sent.data)))
        assert np.array_equal(np.asarray(before), np.asarray(after))
    assert client.get(f"/files/{several.name}/output-12.PNG").status_code == 404


def test_a_picture_in_two_formats_is_shown_once(output):
    folder = make_run(output, 1)
    for name in ("output.jpeg", "output-2.jpeg"):
        Image.new("RGB", (30, 20)).save(folder / name)
    page = open_gallery(output).get(f"/runs/{folder.name}").text
    shown = [
        name for name in ("output.PNG", "output.jpeg", "output-2.jpeg") if f"{name}?v=" in page
    ]
    assert shown == ["output.PNG", "output-2.jpeg"]


# --- No picture at all -------------------------------------------------------------------------


def test_a_run_without_picture_prompt_and_losses_is_shown_on_every_page(output):
    one, two = make_bare_run(output, 1, echo=1).name, make_bare_run(output, 2, echo=2).name
    client = open_gallery(output)
    wall = client.get("/").text
    assert wall.count('<span class="prompt">Waves</span>') == 2
    assert wall.count(">no picture<") == 2
    assert "status-" not in wall and "It has no picture" not in wall, "nothing is wrong with it"
    page = client.get(f"/runs/{one}").text
    assert "No picture." in page and "3 steps" in page and "<dt>Echo</dt><dd>1</dd>" in page
    assert "Copy prompt" not in page and "Download the picture" not in page
    compared = client.get(f"/compare?a={one}&b={two}").text
    assert compared.count("No picture.") == 2 and "<td>1</td><td>2</td>" in compared
    assert client.get("/api/slides/next").json["slide"] is None
    assert runs_on(open_gallery(output, kiosk=True).get("/")) == []


def test_a_film_without_a_picture_is_reported(output):
    folder = make_bare_run(output, 1)
    (folder / "anim.mp4").write_bytes(b"1")
    assert "It has no picture." in open_gallery(output).get("/").text


# --- Said once ---------------------------------------------------------------------------------


def test_a_facet_is_a_column_a_parameter_and_a_key_of_the_api():
    for facet in facets.INDEXED:
        assert store.COLUMNS[facet.name] == "TEXT" and facet.in_api
    assert {facet.name for facet in facets.FACETS} < set(PARAMETERS)
    assert all(isinstance(parameter, Parameter) for parameter in PARAMETERS.values())


def test_an_index_with_other_columns_is_replaced(output, monkeypatch):
    """As after an update that adds a facet, or takes one away."""
    name = make_run(output, 1, model="Waves").name
    for tables in (
        store.INDEX_TABLES.replace("engine TEXT, ", ""),
        store.INDEX_TABLES.replace("engine TEXT", "engine TEXT, machine TEXT"),
    ):
        assert tables != store.INDEX_TABLES
        path = output / ".gallery" / "cache" / "index.sqlite"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with sqlite3.connect(path) as connection:
            connection.executescript(tables)
            connection.execute(f"PRAGMA user_version = {store.version_of(tables)}")
        client = open_gallery(output)
        assert runs_on(client.get("/?engine=Waves")) == [name]


def test_keys_of_one_run_alone_are_bookkeeping():
    assert set(BOOKKEEPING) > OF_THIS_RUN > {"run_id", "heartbeat", "loss_history"}
    one = {"seed": 1} | dict.fromkeys(BOOKKEEPING, "one")
    assert differences(one, {"seed": 1} | dict.fromkeys(BOOKKEEPING, "two")) == []


def test_a_change_of_the_engine_shows(output):
    folder = make_run(output, 1)
    client = open_gallery(output)
    before = client.get("/api/activity").json["revision"]
    known = json.loads((folder / "details.json").read_text())
    (folder / "details.json").write_text(json.dumps(known | {"model": "Waves"}))
    look_again(client)
    assert client.get("/api/activity").json["revision"] != before
