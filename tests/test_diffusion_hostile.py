"""Weights from strangers who would like to run code: they are data, or they are refused."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_diffusion
import torch

from studio.base.errors import BadInput
from studio.engines.diffusion import classes
from studio.engines.diffusion.models import Models
from studio.engines.diffusion.vaes import get_vae
from studio.engines.diffusion.weights import find_weights, get_weights

CPU = torch.device("cpu")
CODE = "from pathlib import Path\nPath(__file__).with_name('executed').touch()\n"
CODE += "class UNet2DConditionModel: pass\nclass Evil: pass\n"


class Run:
    """Stands for a run that asks for models."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets") / "tiny"
    tiny_diffusion.write(tiny_diffusion.tiny_sd(), folder)
    for path in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        (path / "evil.py").write_text(CODE)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "assets/tiny"))


def add(path: Path, **told: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | told))


def load_all(folder: Path) -> None:
    models = Models(Run(), get_weights(folder.parent, folder.name), CPU, torch.float32)
    models.check()
    models.text_encoders(), models.decoder(), models.denoiser()


def executed(folder: Path) -> list[Path]:
    return list(folder.parent.rglob("executed"))


CODE_IN: dict[str, tuple[str, dict[str, Any]]] = {  # that is not refused, as nobody reads it
    "a pipeline of its own": ("model_index.json", {"_class_name": ["evil", "Evil"]}),
    "another part": ("model_index.json", {"image_encoder": ["evil", "Evil"]}),
    "a config with a map": (
        "text_encoder/config.json",
        {"auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}},
    ),
    "a class by another name": ("text_encoder/config.json", {"architectures": ["evil.Evil"]}),
    "code for attention": ("text_encoder/config.json", {"attn_implementation": "evil/kernel"}),
    "code for attention, inside": (
        "text_encoder/config.json",
        {"_attn_implementation_internal": "evil/kernel", "_attn_implementation": "evil/kernel"},
    ),
    "quantisation": (
        "text_encoder/config.json",
        {"quantization_config": {"quant_method": "evil", "modules": "evil.Evil"}},
    ),
    "a denoiser with a map": ("unet/config.json", {"auto_map": {"AutoModel": "evil.Evil"}}),
    "a denoiser's class": ("unet/config.json", {"_class_name": "Evil", "_module": "evil"}),
    "a tokeniser with a map": (
        "tokenizer/tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"},
    ),
}


@pytest.mark.parametrize("where", CODE_IN)
def test_code_in_a_folder_never_runs(where: str, folder: Path) -> None:
    name, told = CODE_IN[where]
    add(folder / name, **told)
    load_all(folder)
    assert executed(folder) == []


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a file beside": ({"unet": ["evil", "UNet2DConditionModel"]}, r"unet is a evil\.UNet2D"),
    "a path": ({"vae": ["../../evil", "AutoencoderKL"]}, r"vae is a \.\./\.\./evil\.Autoenc"),
    "a library's other class": ({"text_encoder": ["transformers", "pipeline"]}, "which the studio"),
    "one word": ({"unet": ["UNet2DConditionModel"]}, "which the studio does not know"),
    "no list": ({"unet": "UNet2DConditionModel"}, "lacks unet"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_classes_that_are_not_on_the_list_are_refused(case: str, folder: Path) -> None:
    told, words = REFUSED[case]
    add(folder / "model_index.json", **told)
    with pytest.raises(BadInput, match=words):
        get_weights(folder.parent, "tiny")
    assert find_weights(folder.parent) == {} and executed(folder) == []


def test_only_listed_values_reach_a_text_encoder() -> None:
    told = {"hidden_size": 32, "attn_implementation": "evil/kernel", "auto_map": {}, "_name": "x"}
    inner = {"vision_config": {"hidden_size": 16, "attn_implementation": "evil/kernel"}}
    assert classes._of_clip(told | inner) == {
        "hidden_size": 32,
        "vision_config": {"hidden_size": 16},
    }


class Evil:
    """A pickle of it leaves a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "model.ckpt"])
def test_pickles_in_a_folder_are_refused_unread(part: str, name: str, folder: Path) -> None:
    mark = folder / "executed"
    next((folder / part).glob("*.safetensors")).unlink()
    torch.save({"weight": torch.zeros(1), "evil": Evil(mark)}, folder / part / name)
    with pytest.raises(BadInput, match=rf"{name} is a pickle"):
        get_weights(folder.parent, "tiny")
    assert not mark.exists()


def test_a_pickle_in_disguise_is_refused_unread(folder: Path) -> None:
    mark, file = folder / "executed", next((folder / "unet").glob("*.safetensors"))
    file.write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(BadInput, match="not a safetensors file"):
        get_weights(folder.parent, "tiny")
    (folder.parent / "vae").mkdir()
    (folder.parent / "vae/x.safetensors").write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(BadInput, match="not a safetensors file"):
        get_vae(folder.parent, "x")
    assert not mark.exists()


def test_an_index_of_shards_leads_nowhere(folder: Path) -> None:
    """The names in it are not followed: what counts is what lies in the folder."""
    outside = folder.parent.parent / "outside.safetensors"
    file = next((folder / "unet").glob("*.safetensors"))
    shutil.copy(file, outside)
    shard = file.with_name("diffusion_pytorch_model-00001-of-00001.safetensors")
    file.rename(shard)
    index = {"weight_map": {"conv_in.weight": "../../../outside.safetensors"}}
    (folder / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    outside.write_bytes(b"nobody reads this")
    load_all(folder)


def test_a_link_to_another_file_is_read_as_data_only(folder: Path, tmp_path: Path) -> None:
    """As in the cache of the Hugging Face hub, whose snapshots consist of links."""
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    file = next((folder / "unet").glob("*.safetensors"))
    file.rename(tmp_path / "blob")
    file.symlink_to(tmp_path / "blob")
    load_all(folder)
    file.unlink()
    file.symlink_to(secret)
    with pytest.raises(BadInput) as told:
        get_weights(folder.parent, "tiny")
    assert "the secret" not in str(told.value)
    assert secret.read_text() == "the secret"
