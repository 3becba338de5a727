"""Settings: ranges by table, which layer wins, and the files that are written from them."""

import ast
from pathlib import Path

import pytest
import yaml

from studio.base.errors import BadInput
from studio.cli import settings_docs
from studio.engines import registry
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.settings.common import MAX_SEED
from studio.settings.declare import (
    choices,
    default_text,
    members,
    meta,
    option_name,
    range_text,
    value_type,
)
from studio.settings.values import check_values, make, read_defaults

ROOT = Path(__file__).parents[1]
KIND = VQGANCLIPSettings
FIELDS = KIND.model_fields


@pytest.mark.parametrize(
    "name, value",
    [
        ("num_steps", 0),
        ("num_steps", -2),
        ("num_steps", "many"),
        ("num_steps", 1.5),
        ("num_steps", True),
        ("num_steps", None),
        ("Xdim", 7),
        ("ydim", 16_385),
        ("seed", -1),
        ("seed", MAX_SEED + 1),
        ("seed", "0x10"),
        ("mse_weight", "nan"),
        ("mse_weight", float("inf")),
        ("mse_weight", 1001),
        ("mse_weight_decay", -0.1),
        ("mse_weight_decay_steps", -1),
        ("tv_loss_weight", "-inf"),
        ("translation_x", 5000),
        ("rotation_angle", -1),
        ("rotation_angle", 361),
        ("zoom_factor", 0),
        ("zoom_factor", 11),
        ("transform_interval", 0),
        ("step_size", 0),
        ("step_size", float("nan")),
        ("cutn", 0),
        ("cutn", 1.5),
        ("cut_pow", -1),
        ("whole_views", 1.1),
        ("use_cutout_augmentations", "perhaps"),
        ("image_prompt", "one.png"),
        ("text_input", 5),
        ("text_input", "x" * 10_001),
        ("text_input", "lone \ud800 surrogate"),
        ("nonsense", 1),
    ],
)
def test_out_of_range_even_where_the_group_is_off(name, value):
    off = {meta(f)["group"]: False for f in FIELDS.values() if meta(f)["group"]}
    with pytest.raises(BadInput, match=option_name(name) if name in FIELDS else name) as refused:
        make(KIND, {"text_input": "a"} | off | {name: value})
    assert "\n" not in str(refused.value)
    str(refused.value).encode()  # a terminal takes it


@pytest.mark.parametrize("value", ["", "x" * 5000, "1.5.1", None, [], {}, b"\xff", 1e400])
@pytest.mark.parametrize("name", FIELDS)
def test_a_refusal_speaks_of_labels_on_the_page_and_of_options_in_a_terminal(name, value):
    try:
        make(KIND, {"text_input": "a"}, {name: value})
        return  # which the setting takes
    except BadInput as refused:
        on_page, on_command_line = refused.on_page, str(refused)
    assert f"'{meta(FIELDS[name])['label']}' must be " in on_page or "No prompt" in on_page
    assert name not in on_page or "_" not in name
    assert option_name(name) in on_command_line or "No prompt" in on_command_line
    for foreign in ("nput should", "valid integer", "valid number", "unable to parse", "string"):
        assert foreign not in on_page + on_command_line
    assert len(on_page) < 300


@pytest.mark.parametrize(
    "values",
    [
        {"num_steps": "-1"},
        {"seed": str(MAX_SEED)},
        {"mse_weight": "-0.5"},
        {"step_size": "1e-3"},
        {"mse_weight_decay_steps": 0},
        {"text_input": "", "image_prompt": ["a.png"]},
    ],
)
def test_accepted(values):
    made = make(KIND, {"text_input": "a"} | values)
    assert made.model_dump(mode="json").keys() == FIELDS.keys()


@pytest.mark.parametrize("text", ["", "  ", " | "])
def test_nothing_to_aim_at(text):
    with pytest.raises(BadInput, match="No prompt"):
        make(KIND, {"text_input": text})


def test_every_wrong_value_is_named():
    with pytest.raises(BadInput) as refused:
        make(KIND, {"text_input": "a", "Xdim": 1, "cutn": 0})
    assert str(refused.value) == (
        "--xdim must be a whole number from 8 to 16384 px; it was 1."
        " --cutn must be a whole number from 1 to 1024; it was 0."
    )
    assert refused.value.on_page.startswith("'Xdim' must be") and "'Cutouts'" in (
        refused.value.on_page
    )


def test_later_layers_win():
    made = make(KIND, {"text_input": "a", "cutn": 1, "Xdim": 64}, {"cutn": 2}, {"Xdim": 32})
    assert (made.cutn, made.Xdim) == (2, 32)


@pytest.mark.parametrize("name", [name for name, f in FIELDS.items() if meta(f)["group"]])
def test_a_value_of_a_group_switches_it_on(name):
    switch, value = meta(FIELDS[name])["group"], FIELDS[name].default
    off, on = choices(FIELDS[switch]) or (False, True)
    assert getattr(make(KIND, {"text_input": "a", switch: off}, {name: value}), switch) == on
    assert getattr(make(KIND, {"text_input": "a"}, {name: value, switch: off}), switch) == off
    later = {"text_input": "a", switch: off}
    assert getattr(make(KIND, {name: value}, later), switch) == off


def test_members():
    assert members(KIND, "use_mse_regularization") == [
        "mse_weight",
        "mse_weight_decay",
        "mse_weight_decay_steps",
    ]


@pytest.mark.parametrize("name, field", FIELDS.items())
def test_every_setting_is_described(name, field):
    assert meta(field)["label"] and field.description.endswith(".")
    if value_type(field) in (int, float):
        assert range_text(field)
    assert default_text(field, field.default)
    assert option_name(name) == "PROMPT" or option_name(name).startswith("--")


@pytest.mark.parametrize(
    "name, text",
    [
        ("num_steps", "-1 to 10000000 steps"),
        ("step_size", "above 0 to 10"),
        ("zoom_factor", "0.1 to 10"),
        ("set_seed", ""),
    ],
)
def test_range_text(name, text):
    assert range_text(FIELDS[name]) == text


def test_shipped_defaults_are_those_declared():
    text = (ROOT / "defaults.yaml").read_text()
    assert text == settings_docs.defaults_yaml(), "run `make docs`"
    assert list(yaml.safe_load(text)) == registry.names()
    assert yaml.safe_load(text)["VQGAN-CLIP"].keys() == FIELDS.keys()
    values = registry.defaults("VQGAN-CLIP")
    assert all(FIELDS[name].default == value for name, value in values.items())
    assert not values.keys() & {"vqgan_ckpt", "clip_model", "step_size", "cutn", "cut_pow"}


def test_readme_lists_the_settings():
    readme = (ROOT / "README.md").read_text()
    tables = settings_docs.readme_tables()
    assert settings_docs.with_tables(readme, tables) == readme, "run `make docs`"
    assert tables in readme


def test_a_default_is_declared_in_one_place():
    """Its declaration in the engine's settings: no other code assigns a constant to its name."""
    for path in [*ROOT.glob("*.py"), *(ROOT / "studio").rglob("*.py")]:
        if path.name == "settings.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            names = {getattr(target, "id", "") for target in targets if target}
            assert not (
                names & FIELDS.keys() and isinstance(getattr(node, "value", 0), ast.Constant)
            )


@pytest.mark.parametrize(
    "text, says",
    [
        ("nonsense: 1", "nonsense"),
        ("Xdim: 1", "Xdim"),
        ("Xdim: [", "cannot be read"),
        ("- 1", "setting: value"),
        ("[" * 5000, "cannot be read"),
        ("mse_weight: .nan", "mse_weight"),
        ("num_steps: yes", "num_steps"),
        ("cutn: 2021-13-45", "cannot be read"),
        ("cutn: !!int many", "cannot be read"),
        ("1: 2", "not a setting"),
        ("a: !!python/object/apply:os.system ['true']", "cannot be read"),
    ],
)
def test_broken_defaults(tmp_path, text, says):
    path = tmp_path / "defaults.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=says) as refused:
        read_defaults(KIND, "VQGAN-CLIP", is_first=True, path=path)
    assert "\n" not in str(refused.value) and "defaults.yaml" in str(refused.value)


@pytest.mark.parametrize(
    "text, first, other",
    [
        (None, {}, {}),
        ("# nothing\n", {}, {}),
        ("VQGAN-CLIP:\n", {}, {}),
        ("VQGAN-CLIP:\n  cutn: 3\n  seed:\n", {"cutn": 3}, {}),
        ("Other: {cutn: 4}\nGone: {nonsense: 1}\n", {}, {"cutn": 4}),
        ("text_input: ''\ncutn: 3\nseed:\n", {"text_input": "", "cutn": 3}, {}),
        ("cutn: 3\nseed: 1\nVQGAN-CLIP: {cutn: 5}\n", {"cutn": 5, "seed": 1}, {}),
    ],
)
def test_defaults_have_a_section_for_each_engine(tmp_path, text, first, other):
    """Keys outside the sections are the first engine's, as in older files."""
    path = tmp_path / "defaults.yaml"
    if text is not None:
        path.write_text(text)
    assert read_defaults(KIND, "VQGAN-CLIP", is_first=True, path=path) == first
    assert read_defaults(KIND, "Other", is_first=False, path=path) == other


@pytest.mark.parametrize("text", ["Other: 3", "Other: [1]", "Other: {nonsense: 1}"])
def test_a_broken_section_is_reported(tmp_path, text):
    path = tmp_path / "defaults.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"Other|nonsense"):
        read_defaults(KIND, "Other", is_first=False, path=path)


def test_values_are_checked_without_a_prompt():
    check_values(KIND, {"cutn": 3}, "here")
    with pytest.raises(BadInput, match="In here: cutn"):
        check_values(KIND, {"cutn": -3}, "here")
