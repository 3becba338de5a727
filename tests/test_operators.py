"""Private operators of PyTorch: each in turn is missing, or computes something else."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from torch import Tensor

import logic
from logic import VQGANCLIPRun
from studio.engines.device import FULL_PRECISION, Precision
from studio.engines.fast import frozen, frozen_layers, onednn, operators
from studio.engines.fast.guarded import Guarded
from studio.engines.fast.packed import packed_convolutions
from studio.engines.vqgan_clip import models
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from studio.engines.warm import WarmModels
from studio.settings.values import make

GUARDED = [packed_convolutions] + [
    value
    for module in (operators, onednn)
    for value in vars(module).values()
    if isinstance(value, Guarded)
]
ANYWHERE = [
    ("aten", "threshold_backward"),
    ("aten", "silu_backward"),
    ("aten", "convolution_backward"),
    ("torch", "native_group_norm"),
]
WITH_VNNI = [
    ("mkldnn", "_reorder_convolution_weight"),
    ("mkldnn", "_convolution_pointwise"),
    ("onednn", "qlinear_prepack"),
    ("onednn", "qlinear_pointwise"),
    ("onednn", "qconv_prepack"),
    ("onednn", "qconv2d_pointwise"),
]
OVERLOADS = ("binary", "grad_input")

FLOATS = (FULL_PRECISION, (1e-5, 1e-5))
EIGHT_BITS = (Precision(torch.bfloat16, True), (0.02, 0.2))
# Each with a precision that uses it, and the relative errors allowed for picture and gradient.
SPOILT = [
    *(pytest.param(*n, *FLOATS, id=n[1]) for n in ANYWHERE),
    *(
        pytest.param(*names, *EIGHT_BITS, id=names[1], marks=pytest.mark.vnni)
        for names in WITH_VNNI
    ),
]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No operator has been tried yet, nor afterwards; tiny networks use all of them."""
    monkeypatch.setattr(frozen, "WORTHWHILE", 0)
    monkeypatch.setattr(frozen_layers, "SMALL", 0)
    forget(monkeypatch)
    yield
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget which operators are sound, and the models that were made accordingly."""
    for operator in GUARDED:
        operator._is_sound = None
    monkeypatch.setattr(models, "warm", WarmModels())


def removed(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    def called(*args: Any, **how: Any) -> Any:
        raise AttributeError(f"there is no {name}")

    return called


def falsified(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Packed weights get the wrong sign; results also get the wrong size."""

    def called(*args: Any, **how: Any) -> Any:
        if name.endswith(("prepack", "reorder_convolution_weight")):
            return call(-args[0], *args[1:], **how)
        found = call(*args, **how)
        if isinstance(found, Tensor):
            return -0.5 * found
        return tuple(part if part is None else -0.5 * part for part in found)

    return called


def spoil(monkeypatch: pytest.MonkeyPatch, owner: str, name: str, how: Callable) -> None:
    """Replace an operator, its overloads included."""
    namespace = torch if owner == "torch" else getattr(torch.ops, owner)
    operator = getattr(namespace, name)
    fake = how(operator, name)
    for overload in OVERLOADS:
        if hasattr(operator, overload):
            setattr(fake, overload, how(getattr(operator, overload), name))
    monkeypatch.setattr(namespace, name, fake)


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    tiny_models.write_tiny_assets(folder)
    torch.save(tiny_models.clip_state_dict(resnet=True), folder / "tiny_resnet.pt")
    return folder


@pytest.mark.parametrize("how", [removed, falsified])
@pytest.mark.parametrize(("owner", "name", "precision", "shares"), SPOILT)
def test_picture_and_gradient_stay_as_they_are(
    owner: str,
    name: str,
    precision: Precision,
    shares: tuple[float, float],
    how: Callable,
    assets: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(logic, "compute_precision", lambda _: precision)
    expected = first_step(assets)
    assert not caplog.records
    forget(monkeypatch)
    spoil(monkeypatch, owner, name, how)
    found = first_step(assets)
    (told,) = caplog.records
    assert "is not used, so runs take longer" in told.getMessage()
    assert [operator.probe() for operator in GUARDED].count(False) == 1
    for ours, theirs, share in zip(found, expected, shares, strict=True):
        assert (ours - theirs).norm() <= share * theirs.norm()


def first_step(assets: Path) -> tuple[Tensor, Tensor]:
    """The picture of tiny networks, and its gradient at the latent."""
    given = {"text_input": "a red heart", "vqgan_ckpt": "tiny_f8", "clip_model": "tiny_resnet"}
    given |= {"Xdim": 48, "ydim": 32, "cutn": 4, "seed": 1}
    chosen = make(VQGANCLIPSettings, given)
    run = VQGANCLIPRun(chosen, assets_dir=assets, device=torch.device("cpu"))
    run.load_model()
    run.model_init()
    step = run.iterate()
    return torch.from_numpy(step.picture).float(), run._latent.z.grad


@pytest.mark.vnni
def test_all_operators_are_sound_on_this_machine() -> None:
    assert all(operator.probe() for operator in GUARDED)


@pytest.mark.parametrize(
    "result", [torch.ones(3) * 1.2, torch.ones(4), torch.ones(3).double(), torch.ones(3) * math.nan]
)
def test_what_disagrees_is_not_trusted(result: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    operator = Guarded(
        "sum", quick=lambda x: result, plain=lambda x: x, examples=lambda: [(torch.ones(3),)]
    )
    assert torch.equal(operator(torch.zeros(3)), torch.zeros(3))
    assert not operator.probe() and len(caplog.records) == 1


def test_an_operator_is_tried_once_and_draws_no_random_numbers() -> None:
    before, tries = torch.get_rng_state(), []
    for operator in GUARDED:
        operator.probe()
    assert torch.equal(torch.get_rng_state(), before)
    counted = Guarded("x", quick=lambda x: x, plain=tries.append, examples=lambda: [(1,)])
    assert not counted.probe() and not counted.probe() and len(tries) == 1
