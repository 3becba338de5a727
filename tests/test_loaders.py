"""Weights in: every published kind equals taming's own modules; nothing else gets in or runs."""

import pickle
import struct
import urllib.request
import warnings
import zipfile
from pathlib import Path
from typing import Any

import clip
import pytest
import tiny_models
import torch
import yaml
from clip.model import build_model
from safetensors.torch import save_file
from torch import Tensor, nn

from studio.base.errors import BadInput
from studio.engines.device import Precision
from studio.engines.fast import frozen
from studio.models.catalogue import OPENAI_CLIP_MODELS
from studio.models.weight_files import read_state_dict
from vqgan_utils import Perceptor, find_clip_model, load_clip_model, load_vqgan_model

CONFIGS = {
    "VQModel": tiny_models.vq_config,
    "GumbelVQ": tiny_models.gumbel_config,
    "Net2NetTransformer": tiny_models.net2net_config,
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def vqgan_files(tmp_path: Path) -> Path:
    tiny_models.write_vqgan(tmp_path, "a", tiny_models.vq_config())
    return tmp_path


def load(folder: Path, name: str = "a", suffix: str = ".ckpt") -> Any:
    return load_vqgan_model(folder / f"{name}.yaml", folder / f"{name}{suffix}")


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def taming_encode(theirs: tiny_models.TamingVQGAN, x: Tensor) -> Tensor:
    h = theirs.quant_conv(theirs.encoder(x))
    if not theirs.is_gumbel:
        return h
    logits = theirs.quantize.proj(h)
    one_hot = nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]).float()
    return torch.einsum("bhwn,nd->bdhw", one_hot, theirs.quantize.embed.weight)


# --- VQGAN -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_equals_tamings_modules(kind: str, suffix: str, tmp_path: Path) -> None:
    theirs = tiny_models.write_vqgan(tmp_path, "a", CONFIGS[kind]())
    if suffix == ".safetensors":
        save_file(read_state_dict(tmp_path / "a.ckpt"), tmp_path / "a.safetensors")
    ours = load(tmp_path, suffix=suffix)

    x = torch.rand(2, 3, 32, 48) * 2 - 1
    z = taming_encode(theirs, x)
    assert_close(ours.encode(x), z)
    assert_close(ours.decode(z), theirs.decoder(theirs.post_quant_conv(z)))
    codebook = theirs.quantize.embed if theirs.is_gumbel else theirs.quantize.embedding
    assert torch.equal(ours.codebook, codebook.weight)


def test_is_ready_for_use(vqgan_files: Path) -> None:
    model = load(vqgan_files)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_full_size_vqgan_equals_tamings_modules(tmp_path: Path) -> None:
    config = tiny_models.vq_config(
        ch=128,
        ch_mult=[1, 1, 2, 2, 4],
        num_res_blocks=2,
        attn_resolutions=[16],
        resolution=256,
        z_channels=256,
    )
    config["model"]["params"] |= {"embed_dim": 256, "n_embed": 1024}
    theirs = tiny_models.write_vqgan(tmp_path, "a", config)
    ours = load(tmp_path)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    z = taming_encode(theirs, x)
    assert_close(ours.encode(x), z)
    assert_close(ours.decode(z), theirs.decoder(theirs.post_quant_conv(z)))


def test_a_vqgan_without_residual_blocks_in_its_encoder(tmp_path: Path) -> None:
    config = tiny_models.vq_config(num_res_blocks=0, ch_mult=[1, 1, 1, 3], attn_resolutions=[])
    theirs = tiny_models.write_vqgan(tmp_path, "a", config)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    assert_close(load(tmp_path).encode(x), taming_encode(theirs, x))


def test_half_precision_weights_become_float32(vqgan_files: Path) -> None:
    content = {key: value.half() for key, value in read_state_dict(vqgan_files / "a.ckpt").items()}
    torch.save({"state_dict": content}, vqgan_files / "a.ckpt")
    assert load(vqgan_files).codebook.dtype == torch.float32


def test_prints_nothing(vqgan_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(vqgan_files)
    assert capsys.readouterr().out == ""


BAD_CONFIGS: dict[str, tuple[list[str | int], Any]] = {
    "target is unknown": (["target"], "taming.models.vqgan.VQSegmentationModel"),
    "target is missing": (["target"], None),
    "params is a list": (["params"], [1]),
    "no codes": (["params", "n_embed"], 0),
    "codes beyond memory": (["params", "n_embed"], 10**12),
    "width is text": (["params", "embed_dim"], "wide"),
    "ddconfig is text": (["params", "ddconfig"], "wide"),
    "channels beyond memory": (["params", "ddconfig", "ch"], 10**9),
    "channels negative": (["params", "ddconfig", "ch"], -32),
    "channels no multiple of 32": (["params", "ddconfig", "ch"], 33),
    "blocks without end": (["params", "ddconfig", "num_res_blocks"], 10**9),
    "parts that do not fit together": (
        ["params", "ddconfig"],
        tiny_models.ddconfig(ch_mult=[1, 2, 1, 1], num_res_blocks=0),
    ),
    "no levels": (["params", "ddconfig", "ch_mult"], []),
    "levels without end": (["params", "ddconfig", "ch_mult"], [1] * 10_000),
    "level is infinite": (["params", "ddconfig", "ch_mult"], [float("inf")]),
    "four colours": (["params", "ddconfig", "in_channels"], 4),
    "z missing": (["params", "ddconfig", "z_channels"], None),
    "attention is a number": (["params", "ddconfig", "attn_resolutions"], 8),
    "another width": (["params", "ddconfig", "ch"], 64),
    "more blocks": (["params", "ddconfig", "num_res_blocks"], 2),
    "no attention": (["params", "ddconfig", "attn_resolutions"], []),
    "more codes": (["params", "n_embed"], 65),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_an_impossible_yaml_is_refused(case: str, vqgan_files: Path) -> None:
    (*path, last), value = BAD_CONFIGS[case]
    config = tiny_models.vq_config()
    place: Any = config["model"]
    for key in path:
        place = place[key]
    place[last] = value
    (vqgan_files / "a.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(BadInput) as caught:
        load(vqgan_files)
    assert "a.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_net2net_without_first_stage_is_refused(vqgan_files: Path) -> None:
    config = tiny_models.net2net_config()
    del config["model"]["params"]["first_stage_config"]
    (vqgan_files / "a.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(BadInput, match="can be loaded"):
        load(vqgan_files)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda weights: weights.pop("post_quant_conv.bias"), "post_quant_conv.bias is missing"),
        (lambda weights: weights.update({"decoder.x": torch.ones(1)}), "decoder.x is not expected"),
        (lambda weights: weights.update({"quant_conv.bias": torch.ones(3)}), r"\[3\] where \[4\]"),
        (lambda weights: weights["quant_conv.bias"].fill_(torch.nan), "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: Any, named: str, vqgan_files: Path) -> None:
    weights = {key: value.clone() for key, value in read_state_dict(vqgan_files / "a.ckpt").items()}
    change(weights)
    torch.save(weights, vqgan_files / "a.ckpt")
    with pytest.raises(BadInput, match=named):
        load(vqgan_files)


# --- Checkpoint files --------------------------------------------------------------------------


class Explosive:
    """Its pickle is a call that makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("format", ["zip", "legacy", "pickle", "torchscript"])
def test_code_in_a_checkpoint_never_runs(format: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.ckpt"
    content = {"state_dict": {"decoder.conv_in.weight": Explosive(marker)}}
    if format == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    elif format == "torchscript":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("evil/data.pkl", pickle.dumps(content, protocol=2))
            archive.writestr("evil/constants.pkl", b"")
    else:
        torch.save(content, path, _use_new_zipfile_serialization=format == "zip")
    with pytest.raises(BadInput, match=r"refused.*(posix|nt)\.system"):
        read_state_dict(path)
    assert not marker.exists()


def test_a_callback_of_lightning_is_not_code(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    with tiny_models.lightning_callback() as callback:
        content = {"state_dict": {"a": torch.ones(2)}, "callbacks": [callback, callback()]}
        for is_zip in (True, False):
            torch.save(content, path, _use_new_zipfile_serialization=is_zip)
            assert read_state_dict(path)["a"].tolist() == [1, 1]


def _truncated(path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(10_000)}}, path)
    path.write_bytes(path.read_bytes()[:20_000])


def _truncated_legacy(path: Path) -> None:
    torch.save({"a": torch.ones(10_000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:20_000])


def _stretched(path: Path) -> None:
    torch.save({"a": torch.ones(1).expand(10**7, 10**7)}, path)


class _Call:
    """Its pickle is a call with an argument."""

    def __init__(self, function: Any, argument: int) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def _deflated(path: Path) -> None:
    """A pickle that unfolds to a hundred times its size."""
    torch.save({"a": torch.ones(2)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records.items():
            archive.writestr(name, data + b"\0" * 10**6 * name.endswith("data.pkl"))


def _calls(function: Any, is_zip: bool = True) -> Any:
    def write(path: Path) -> None:
        content = {"a": torch.ones(2), "b": _Call(function, 10**6)}
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)

    return write


NOT_CHECKPOINTS = {
    "unfolds beyond the file": _deflated,
    "asks for memory": _calls(bytearray),
    "asks for memory, legacy": _calls(bytearray, is_zip=False),
    "a tensor without numbers in the file": _calls(torch.Tensor),
    "empty": lambda path: path.touch(),
    "web page": lambda path: path.write_text("<!DOCTYPE html><html>Not found</html>"),
    "text": lambda path: path.write_text("just some words"),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "a folder": lambda path: path.mkdir(),
    "missing": lambda path: None,
    "truncated": _truncated,
    "truncated legacy": _truncated_legacy,
    "zip of something else": lambda path: zipfile.ZipFile(path, "w").writestr("a.txt", "hi"),
    "claims more than it has": _stretched,
    "a list": lambda path: torch.save([1, 2], path),
    "a lone tensor": lambda path: torch.save(torch.ones(2), path),
    "no tensor": lambda path: torch.save({"state_dict": {"a": 1}}, path),
}


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("case", NOT_CHECKPOINTS)
def test_other_files_are_refused_in_one_line(case: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    NOT_CHECKPOINTS[case](path)
    with pytest.raises(BadInput) as caught:
        read_state_dict(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_safetensors_header_beyond_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(BadInput):
        read_state_dict(path)


# --- CLIP ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16]
)  # published weights are in half precision
@pytest.mark.parametrize("resnet", [False, True])
def test_clip_equals_openais_own(resnet: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    weights = tiny_models.clip_state_dict(resnet, vision_layers=2)
    weights = {key: value.to(dtype) if value.is_floating_point() else value
               for key, value in weights.items()}  # fmt: skip
    torch.save(weights, tmp_path / "a.pt")
    theirs = build_model(dict(weights)).float()
    ours = load_clip_model(tmp_path / "a.pt")
    assert ours.input_resolution == 32

    pictures = torch.rand(2, 3, 32, 32)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    expected = theirs.encode_image((pictures - mean) / std)
    expected = expected / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(ours.encode_image(pictures), expected)


@pytest.mark.vnni
@pytest.mark.parametrize("resnet", [False, True])
def test_clip_sees_nearly_the_same_in_eight_bits(
    resnet: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "WORTHWHILE", 0)  # in tiny layers too
    torch.save(tiny_models.clip_state_dict(resnet, vision_layers=2), tmp_path / "a.pt")
    exact, rounded = (
        load_clip_model(tmp_path / "a.pt", Precision(torch.float32, eight_bits))
        for eight_bits in (False, True)
    )
    pictures = torch.rand(4, 3, 32, 32)
    seen, near = exact.encode_image(pictures), rounded.encode_image(pictures)
    assert not torch.equal(seen, near)
    assert ((seen * near).sum(dim=-1) > 0.999).all()
    assert torch.equal(exact.encode_text(["a dog"]), rounded.encode_text(["a dog"]))


def test_a_torchscript_archive_gives_the_same_clip(tmp_path: Path) -> None:
    model = build_model(tiny_models.clip_state_dict()).float()
    model.register_buffer("input_resolution", torch.tensor(32))
    sample = torch.rand(1, 3, 32, 32), torch.zeros(1, 16, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, sample, check_trace=False).save(tmp_path / "a.pt")
    ours = load_clip_model(tmp_path / "a.pt")
    del model.input_resolution
    pictures, plain = torch.rand(2, 3, 32, 32), Perceptor(model)
    assert torch.equal(ours.encode_image(pictures), plain.encode_image(pictures))
    assert torch.equal(ours.encode_text(["a dog"]), plain.encode_text(["a dog"]))


def test_a_torchscript_archive_with_repeated_parts_is_read_once(tmp_path: Path) -> None:
    """Thirty modules, each held twice by the next, with one tensor at the bottom."""
    holder = "__torch__\nA\n"
    pickled = f"(i{holder}(dS'x'\nctorch._utils\n_rebuild_tensor_v2\n((S'storage'\n"
    pickled += "ctorch\nFloatStorage\nS'0'\nS'cpu'\nI2\ntQI0\n(I2\nt(I1\nttRsb"
    pickled += f"p0\n0(i{holder}(dS'a'\ng0\nsS'b'\ng0\nsb" * 30
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickled + ".")
        archive.writestr("a/constants.pkl", b"")
        archive.writestr("a/data/0", struct.pack("<2f", 1, 2))
    ((name, tensor),) = read_state_dict(tmp_path / "a.pt").items()
    assert name == "a." * 30 + "x" and tensor.tolist() == [1, 2]


def test_the_end_that_is_cut_off_is_named(tmp_path: Path) -> None:
    torch.save(tiny_models.clip_state_dict(context_length=6), tmp_path / "a.pt")
    perceptor = load_clip_model(tmp_path / "a.pt")
    assert perceptor.cut_off("one two three four") == ""
    assert perceptor.cut_off("one two three four five six") == "five six"
    short, long = perceptor.encode_text(["one two three four", "one two three four five six"])
    torch.testing.assert_close(short, long)


@pytest.mark.parametrize(
    "weights",
    [
        {"decoder.weight": torch.ones(3)},
        {**tiny_models.clip_state_dict(), "visual.conv1.weight": torch.ones(5)},
        {**tiny_models.clip_state_dict(), "token_embedding.weight": torch.ones(10, 64)},
    ],
)
def test_other_models_are_not_taken_for_a_clip(weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "a.pt")
    with pytest.raises(BadInput, match=r"a\.pt"):
        load_clip_model(tmp_path / "a.pt")


def test_finds_a_clip_by_asset_name_or_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    path.touch()
    assert find_clip_model("mine", tmp_path) == path
    assert find_clip_model(str(path), tmp_path / "elsewhere") == path


def test_an_unknown_clip_lists_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").touch()
    with pytest.raises(BadInput, match=r"mine.*RN50.*ViT-B/32"):
        find_clip_model("nothing", tmp_path)


def test_openais_names_are_those_that_clip_knows() -> None:
    assert list(OPENAI_CLIP_MODELS) == clip.available_models()


def test_an_unreachable_clip_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    # urllib keeps its first opener for good, with the proxies of that moment.
    monkeypatch.setattr(urllib.request, "_opener", None)
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(BadInput, match=r"RN50 is neither cached .* nor reachable"):
        find_clip_model("RN50", tmp_path)
