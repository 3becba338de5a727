"""Weights by a name of the Hugging Face hub, against a hub on this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_hub
import pytest
import tiny_diffusion
from fake_hub import FakeHub

from studio.base.errors import BadInput, RunFailed
from studio.engines.diffusion.engine import Diffusion
from studio.engines.diffusion.published import look_up
from studio.engines.diffusion.weights import find_weights, get_weights
from studio.models.hub import is_name

NAME = "somebody/tiny-sd"
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a repository has it: the same weights several times, and much else."""
    folder = tmp_path_factory.mktemp("published") / "tiny"
    tiny_diffusion.write(tiny_diffusion.tiny_sd(), folder)
    for path in list(folder.rglob("*.safetensors")):
        half = path.with_name(f"{path.stem}.fp16.safetensors")
        shutil.copy(path, half)
        path.with_suffix(".bin").write_bytes(b"a pickle")
        path.with_name(f"{path.stem}.non_ema.safetensors").write_bytes(path.read_bytes())
    (folder / "v1-5-pruned.safetensors").write_bytes(b"the same again")
    (folder / "v1-5-pruned.ckpt").write_bytes(b"a pickle")
    (folder / "README.md").write_text("many words")
    (folder / "unet/model.onnx").write_bytes(b"another format")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> Iterator[FakeHub]:
    hub = fake_hub.started()
    hub.publish(NAME, tiny)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield hub
    hub.shutdown()
    hub.server_close()


def all_files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_only_what_is_needed_comes_and_it_is_whole(
    hub: FakeHub, tmp_path: Path, tiny: Path
) -> None:
    found = look_up(NAME, tmp_path)
    assert found.licence == "openrail++"
    assert not (tmp_path / "somebody").exists()  # so far it only looked
    seen: list[int] = []
    found.fetch(seen.append)
    folder = tmp_path / NAME
    names = all_files(folder)
    networks = [name for name in names if name.endswith((".safetensors", ".bin", ".ckpt"))]
    assert networks == [
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    assert "model_index.json" in names and "unet/config.json" in names
    assert {"README.md", "unet/model.onnx"}.isdisjoint(names)
    assert found.size == sum((folder / name).stat().st_size for name in names)
    assert seen[-1] == found.size and seen == sorted(seen)
    assert all((folder / name).read_bytes() == (tiny / name).read_bytes() for name in names)
    assert list(find_weights(tmp_path)) == [NAME]
    assert get_weights(tmp_path, NAME).path == folder
    assert list((tmp_path / "somebody").iterdir()) == [folder]


def test_nothing_is_asked_of_the_hub_for_weights_that_are_here(
    hub: FakeHub, tmp_path: Path
) -> None:
    engine, chosen = Diffusion(), {"weights": NAME}
    assert engine.lacks(chosen, tmp_path) == NAME
    engine.look_up(NAME, tmp_path).fetch(lambda count: None)
    asked = len(hub.asked)
    assert engine.lacks(chosen, tmp_path) == ""
    assert get_weights(tmp_path, NAME).family == "sd1" and len(hub.asked) == asked


def test_a_download_goes_on_where_it_broke_off(hub: FakeHub, tmp_path: Path) -> None:
    found = look_up(NAME, tmp_path)
    size = sum(file.size or 0 for file in found.files)

    class Stop(Exception):
        pass

    def stop(count: int) -> None:
        if count > size / 2:
            raise Stop

    with pytest.raises(Stop):
        found.fetch(stop)
    assert find_weights(tmp_path) == {}
    part = tmp_path / "somebody/.tiny-sd.part"
    (broken,) = part.rglob("*.incomplete")
    had, whole = broken.stat().st_size, [p for p in all_files(part) if p in hub.fetched()]
    assert had > 0 and whole
    hub.asked = []
    found.fetch(lambda count: None)
    assert hub.asked[0][0].endswith(broken.name.removesuffix(".incomplete"))
    assert hub.asked[0][1] == f"bytes={had}-"
    assert not set(whole) & set(hub.fetched())
    assert list(find_weights(tmp_path)) == [NAME]


def test_an_answer_that_breaks_off_is_asked_for_again(hub: FakeHub, tmp_path: Path) -> None:
    hub.cut = 1000
    look_up(NAME, tmp_path).fetch(lambda count: None)
    assert ("bytes=1000-") in [wanted for _, wanted in hub.asked]
    assert list(find_weights(tmp_path)) == [NAME]


def test_what_arrives_damaged_is_not_kept(hub: FakeHub, tmp_path: Path) -> None:
    hub.lie = "unet/diffusion_pytorch_model.fp16.safetensors"
    with pytest.raises(RunFailed, match=r"unet/diffusion_pytorch_model.*damaged.*again"):
        look_up(NAME, tmp_path).fetch(lambda count: None)
    assert find_weights(tmp_path) == {}
    hub.lie = ""
    look_up(NAME, tmp_path).fetch(lambda count: None)
    assert list(find_weights(tmp_path)) == [NAME]


def test_parts_of_another_revision_are_not_mixed_in(hub: FakeHub, tmp_path: Path) -> None:
    hub.lie = "vae/diffusion_pytorch_model.fp16.safetensors"
    with pytest.raises(RunFailed):
        look_up(NAME, tmp_path).fetch(lambda count: None)
    hub.lie, hub.revision, hub.asked = "", "c" * 40, []
    found = look_up(NAME, tmp_path)
    found.fetch(lambda count: None)
    assert set(hub.fetched()) == {file.path for file in found.files}


def test_a_hub_that_tells_no_sizes_will_do(hub: FakeHub, tmp_path: Path) -> None:
    hub.tells_sizes = False
    found = look_up(NAME, tmp_path)
    assert found.size is None and "unknown size" in found.in_words()
    found.fetch(lambda count: None)
    assert list(find_weights(tmp_path)) == [NAME]


def test_full_precision_comes_where_there_is_no_half(
    hub: FakeHub, tmp_path: Path, tiny: Path
) -> None:
    files = hub.repositories[NAME]
    hub.repositories[NAME] = {n: data for n, data in files.items() if "fp16" not in n}
    look_up(NAME, tmp_path).fetch(lambda count: None)
    networks = [name for name in all_files(tmp_path / NAME) if name.endswith(".safetensors")]
    assert networks[1] == "unet/diffusion_pytorch_model.safetensors" and len(networks) == 3


def test_a_single_file_comes_where_there_is_no_folder(hub: FakeHub, tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    tiny_diffusion.write_single_file(tiny_diffusion.tiny_sd(), path)
    hub.repositories["x/one"] = {"one.safetensors": path.read_bytes(), "one.ckpt": b"a pickle"}
    assets = tmp_path / "assets"
    look_up("x/one", assets).fetch(lambda count: None)
    assert get_weights(assets, "x/one").path == assets / "x/one.safetensors"
    assert all_files(assets) == ["x/one.safetensors"]
    assert list(find_weights(assets)) == ["x/one"]


REFUSED: dict[str, tuple[dict[str, bytes], str]] = {
    "two files": (
        {"a.safetensors": b"", "b.safetensors": b""},
        r"several models: a\.safet.*hf down",
    ),
    "a pickle alone": ({"model.ckpt": b""}, r"model\.ckpt is a pickle"),
    "nothing": ({"README.md": b""}, r"lacks model_index\.json.*it has: README\.md"),
    "a broken index": ({"model_index.json": b"["}, "broken"),
    "a large index": ({"model_index.json": b" " * 5_000_000}, "too large"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_repositories_are_refused_before_they_come(
    case: str, hub: FakeHub, tmp_path: Path
) -> None:
    files, words = REFUSED[case]
    hub.repositories["x/y"] = files
    with pytest.raises(BadInput, match=words):
        look_up("x/y", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("part", "named", "words"),
    [
        ("unet", ["my_code", "UNet2DConditionModel"], r"its unet is a my_code\.UNet2D"),
        ("unet", ["diffusers", "EvilModel"], r"its unet is a diffusers\.EvilModel"),
        ("text_encoder", None, "lacks text_encoder"),
    ],
)
def test_foreign_classes_are_refused_before_they_come(
    part: str, named: Any, words: str, hub: FakeHub, tmp_path: Path
) -> None:
    files = hub.repositories[NAME]
    index = json.loads(files["model_index.json"]) | {part: named}
    files["model_index.json"] = json.dumps(index).encode()
    files["my_code.py"] = b"raise SystemExit"
    with pytest.raises(BadInput, match=words):
        look_up(NAME, tmp_path)
    assert hub.fetched() == ["model_index.json"]


def test_a_folder_of_pickles_on_the_hub_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    files = hub.repositories[NAME]
    hub.repositories[NAME] = {n: d for n, d in files.items() if not n.endswith(".safetensors")}
    with pytest.raises(BadInput, match=r"unet/diffusion_pytorch_model\.bin is a pickle"):
        look_up(NAME, tmp_path)


def test_names_that_lead_elsewhere_are_not_fetched(hub: FakeHub, tmp_path: Path) -> None:
    bad = ("../evil.json", "unet/../../evil.json", "/etc/evil.json", "unet\\..\\evil.json")
    bad += (".git/config.json", "unet/.evil.json", "unet/a/b.json", "unet/..json")
    files = hub.repositories[NAME]
    files |= dict.fromkeys(bad, b"{}")
    look_up(NAME, tmp_path / "assets").fetch(lambda count: None)
    assert not [name for name in hub.fetched() if "evil" in name or name in bad]
    assert [path.name for path in tmp_path.iterdir()] == ["assets"]


@pytest.mark.parametrize(
    "name", ["../x", "a/..", "a/../b", "/a/b", "a", "a/b/c", "a//b", "a/b ", ""]
)
def test_what_is_no_name_of_the_hub(name: str, tmp_path: Path) -> None:
    assert not is_name(name)
    assert Diffusion().lacks({"weights": name}, tmp_path) == ""


def test_what_the_hub_does_not_give(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"There is no x/nothing on the Hugging Face hub"):
        look_up("x/nothing", tmp_path)
    hub.gated = True
    with pytest.raises(BadInput, match=r"agreed to its licence.*hf auth login"):
        look_up(NAME, tmp_path)


def test_without_a_network_it_says_so_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        BadInput, match=r"^x/y could not be downloaded: .* cannot be reached"
    ) as told:
        look_up("x/y", tmp_path)
    assert "\n" not in str(told.value)


def test_a_network_that_is_switched_off_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match="HF_HUB_OFFLINE is set"):
        look_up("x/y", tmp_path)


def command(hub: FakeHub, tmp_path: Path, *options: str) -> "subprocess.Popen[str]":
    where = ["--output-dir", str(tmp_path / "output"), "--assets-dir", str(tmp_path / "assets")]
    args = [sys.executable, "generate.py", "a heart", "--engine", "diffusion", *where, *options]
    env = os.environ | {"HF_ENDPOINT": hub.url}
    how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(args, cwd=ROOT, env=env, **how)


def test_the_command_line_downloads_and_draws(hub: FakeHub, tmp_path: Path) -> None:
    how = ["--weights", NAME, "--xdim", "64", "--ydim", "64", "--num-steps", "2"]
    out, said = (process := command(hub, tmp_path, *how)).communicate(timeout=300)
    assert process.returncode == 0, said
    assert f"Downloading {NAME}: " in said and "licence: openrail++" in said
    details = json.loads((Path(out.strip()) / "details.json").read_text())
    assert details["weights"] == NAME and details["status"] == "done"


def test_settings_of_others_download_nothing(hub: FakeHub, tmp_path: Path) -> None:
    file = tmp_path / "details.json"
    told = {"model": "Diffusion", "weights": NAME, "text_input": "a heart", "schema_version": 1}
    file.write_text(json.dumps(told))
    process = command(hub, tmp_path, "--settings", str(file))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2 and f"--weights {NAME}" in said
    assert hub.asked == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_command_goes_on_with_its_download(
    how: signal.Signals, hub: FakeHub, tmp_path: Path
) -> None:
    files = hub.repositories[NAME]
    large = "unet/diffusion_pytorch_model.fp16.safetensors"
    process, slow = command(hub, tmp_path, "--weights", NAME, "--num-steps", "2"), []
    part = tmp_path / "assets/somebody/.tiny-sd.part" / f"{large}.incomplete"
    hub_send = fake_hub.Handler._answer

    def slowly(handler: Any, status: int, body: bytes, *rest: Any, **headers: str) -> None:
        if len(body) == len(files[large]) and not slow:
            slow.append(True)
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            time.sleep(60)
        hub_send(handler, status, body, *rest, **headers)

    fake_hub.Handler._answer = slowly  # type: ignore[method-assign]
    try:
        until = time.monotonic() + 120
        while not (part.exists() and part.stat().st_size) and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
    finally:
        fake_hub.Handler._answer = hub_send  # type: ignore[method-assign]
    if how == signal.SIGINT:
        assert process.returncode == 130 and "goes on with the download" in said
    had = part.stat().st_size
    assert 0 < had < len(files[large])
    look_up(NAME, tmp_path / "assets").fetch(lambda count: None)
    assert f"bytes={had}-" in [wanted for _, wanted in hub.asked]
    assert (tmp_path / "assets" / NAME / large).read_bytes() == files[large]
