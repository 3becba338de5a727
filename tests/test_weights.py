"""The weights' folder: what is found there, and what is refused before anything is loaded."""

import struct

import pytest
import yaml
from fake_engine import write_assets

from studio.base.errors import BadInput
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.models import catalogue
from studio.settings.values import make

CONFIG = {"model": {"target": "x", "params": {"ddconfig": {"ch_mult": [1, 1, 2]}}}}


@pytest.fixture
def assets(tmp_path):
    return write_assets(tmp_path / "assets")


def add(folder, name, config=CONFIG, suffix=".ckpt"):
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    (folder / f"{name}{suffix}").write_bytes(b"PK")


def test_preferred_weights_come_first(assets):
    assert list(catalogue.find_weights(assets)) == ["plain", "small"]
    add(assets, "emoji_f8")
    add(assets, "vqgan_imagenet_f16_1024", suffix=".safetensors")
    found = ["vqgan_imagenet_f16_1024", "emoji_f8", "plain", "small"]
    assert list(catalogue.find_weights(assets)) == found
    assert catalogue.default_weights(assets) == found[0]


def test_no_weights_at_all(tmp_path):
    with pytest.raises(BadInput, match="no weights"):
        catalogue.default_weights(tmp_path)


@pytest.mark.parametrize("name", ["none", "../assets/small", "/etc/passwd", "", "small.yaml", "\0"])
def test_unknown_name_lists_what_there_is(assets, name):
    with pytest.raises(BadInput, match="plain, small"):
        catalogue.get_weights(assets, name)


def test_yaml_without_checkpoint(assets):
    (assets / "plain.ckpt").unlink()
    with pytest.raises(BadInput, match=r"plain\.ckpt"):
        catalogue.get_weights(assets, "plain")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "model: 5",
        "model: {params: 5}",
        "a: [",
        "[" * 5000,
        "model: {params: {ddconfig: 1}}",
        "a: 2021-13-45",
        "a: !!bool perhaps",
        f"a: {'9' * 5000}",
        "a: &a [x]\n" + "".join(f"b{n}: &a [*a, *a, *a]\n" for n in range(20)),
        "a: &a {x: 1}\n" + "".join(f"b{n}: &a {{<<: [*a, *a, *a]}}\n" for n in range(20)),
        "a: !!python/object/apply:os.system ['true']",
    ],
)
def test_broken_yaml(assets, text):
    (assets / "plain.yaml").write_text(text)
    with pytest.raises(BadInput, match=r"plain\.yaml") as refused:
        _ = catalogue.get_weights(assets, "plain").factor
    assert "\n" not in str(refused.value)


def test_factor_and_size(assets):
    found = catalogue.get_weights(assets, "small")
    assert found.factor == 8
    assert catalogue.picture_size(found, 70, 64) == (64, 64)
    with pytest.raises(BadInput, match="at least 8"):
        catalogue.picture_size(found, 7, 64)
    nested = {"model": {"params": {"first_stage_config": CONFIG["model"]}}}
    add(assets, "nested", nested)
    assert catalogue.get_weights(assets, "nested").factor == 4


def test_recommended_values_are_checked(assets):
    recommended = VQGANCLIPSettings.recommended
    assert recommended({"vqgan_ckpt": "small"}, assets)["cutn"] == 4
    assert recommended({}, assets) == {"vqgan_ckpt": "plain"}
    wrong_ones = ({"cutn": 0}, {"nonsense": 1}, {1: 2}, {None: 2}, 5, {"init_image": "mine.png"})
    for wrong in wrong_ones:
        add(assets, "bad", CONFIG | {"recommended": wrong})
        with pytest.raises(BadInput, match=r"bad\.yaml"):
            recommended({"vqgan_ckpt": "bad"}, assets)


@pytest.mark.parametrize(
    "suffix, data, says",
    [
        (".ckpt", b"", "empty"),
        (".ckpt", b"\n<!DOCTYPE html><html>", "web page"),
        (".ckpt", b"version https://git-lfs.github.com/spec/v1", "LFS"),
        (".ckpt", b"PK\x03\x04 and no end", "truncated"),
        (".ckpt", b"\x89PNG", "neither"),
        (".safetensors", struct.pack("<Q", 10**9) + b"{}", "truncated"),
        (".safetensors", b"short", "truncated"),
    ],
)
def test_files_that_are_not_checkpoints(tmp_path, suffix, data, says):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=says):
        catalogue.check_checkpoint(path)


def test_files_that_may_be_checkpoints(assets):
    catalogue.check_checkpoint(assets / "small.ckpt")
    legacy = assets / "legacy.ckpt"
    legacy.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    catalogue.check_checkpoint(legacy)
    safe = assets / "a.safetensors"
    safe.write_bytes(struct.pack("<Q", 2) + b"{}")
    catalogue.check_checkpoint(safe)


def test_find_clip(assets):
    assert catalogue.find_clip(assets, "ViT-B/32") is None
    path = assets / "small_clip.pt"
    assert (
        catalogue.find_clip(assets, "small_clip") == catalogue.find_clip(assets, str(path)) == path
    )
    for name in ("nope", "", str(assets), "\0", "x" * 5000):
        with pytest.raises(BadInput, match=r"small_clip.*ViT-B/32"):
            catalogue.find_clip(assets, name)


def test_openai_models_are_those_that_clip_lists():
    import clip

    assert list(catalogue.OPENAI_CLIP_MODELS) == clip.available_models()


def test_there_is_no_sketch_without_a_sketcher(assets):
    (assets / "own.pt").write_bytes(b"\x80")
    given = {"text_input": "a cat", "vqgan_ckpt": "small", "init_sketch": True}
    for clip in ("own", "ViT-B/32"):
        wanted = make(VQGANCLIPSettings, given | {"clip_model": clip})
        fitted, (warning,) = wanted.fitted(assets)
        assert not fitted.init_sketch and f"{clip} has no network that draws sketches" in warning
        assert fitted.fitted(assets) == (fitted, [])


def test_a_sketcher_is_checked_before_a_run(assets):
    (assets / "own.pt").write_bytes(b"\x80")
    sketcher = assets / "own.sketcher.safetensors"
    sketcher.write_bytes((2).to_bytes(8, "little") + b"{}")
    given = {"text_input": "a cat", "vqgan_ckpt": "small", "init_sketch": True, "clip_model": "own"}
    wanted = make(VQGANCLIPSettings, given)
    assert wanted.fitted(assets) == (wanted, [])
    sketcher.write_bytes(b"version https://git-lfs")
    with pytest.raises(BadInput, match="LFS"):
        wanted.fitted(assets)


def test_settings_are_fitted_to_the_weights(assets):
    wanted = make(VQGANCLIPSettings, {"text_input": "a", "vqgan_ckpt": "small", "Xdim": 71})
    fitted, warnings = wanted.fitted(assets)
    assert (fitted.Xdim, fitted.ydim) == (64, 128)
    assert "71x128" in warnings[0] and "64x128" in warnings[0]
    assert fitted.fitted(assets) == (fitted, [])
    (assets / "small.ckpt").write_bytes(b"<html>")
    with pytest.raises(BadInput, match="web page"):
        fitted.fitted(assets)


@pytest.mark.parametrize("name", catalogue.PUBLISHED_VQGANS)
def test_published_weights_that_are_not_there_are_answered_with_how_to_get_them(tmp_path, name):
    with pytest.raises(BadInput, match=rf"'./download-weights.sh {name}'.*There are: none"):
        catalogue.get_weights(tmp_path, name)
