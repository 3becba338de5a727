"""LoRAs and textual inversions of the engine Diffusion: read, merged, removed, refused."""

import json
import pickle
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_diffusion
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from safetensors.torch import save_file
from torch import Tensor

from studio.base.errors import BadInput
from studio.engines import registry
from studio.engines.diffusion.embeddings import vectors_of
from studio.engines.diffusion.inversions import read_inversion
from studio.engines.diffusion.run import DiffusionRun
from studio.engines.diffusion.settings import DiffusionSettings
from studio.making.prepare import Request, prepare

CPU = torch.device("cpu")
STEPS, SIDE, SEED = 3, 64, 5
SD2 = {"act": "gelu", "use_linear_projection": True, "attention_head_dim": (1, 1)}
KINDS: dict[str, Any] = {
    "sd1": tiny_diffusion.tiny_sd,
    "sd2": lambda: tiny_diffusion.tiny_sd(**SD2),
    "sdxl": tiny_diffusion.tiny_xl,
}
PARTS = ("unet", "text_encoder", "text_encoder_2")
RANK, ALPHA = 3, 6.0
AROUND = "text_model."


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Any]:
    return {kind: make() for kind, make in KINDS.items()}


@pytest.fixture(scope="module")
def assets(pipelines: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    for kind, pipeline in pipelines.items():
        tiny_diffusion.write(pipeline, folder / kind)
        tiny_diffusion.write_single_file(pipeline, folder / f"{kind}-file.safetensors")
    (folder / "loras").mkdir()
    (folder / "embeddings").mkdir()
    return folder


@pytest.fixture(autouse=True)
def empty_folders(assets: Path) -> None:
    for path in [*assets.glob("loras/*"), *assets.glob("embeddings/*")]:
        path.unlink()


def run_of(assets: Path, weights: str, prompt: str, **changes: Any) -> DiffusionRun:
    given = {"text_input": prompt, "weights": weights, "num_steps": STEPS, "seed": SEED}
    given |= {"Xdim": SIDE, "ydim": SIDE, "sampler": "DDIM"}
    run = DiffusionRun(DiffusionSettings(**(given | changes)), assets_dir=assets, device=CPU)
    run.load_model()
    run.model_init()
    return run


def picture(assets: Path, weights: str, prompt: str, **changes: Any) -> np.ndarray:
    run = run_of(assets, weights, prompt, **changes)
    found = [run.iterate() for _ in range(STEPS)][-1].picture
    assert found is not None
    return found


def theirs(pipeline: Any, prompt: str, assets: Path) -> np.ndarray:
    parts = dict(pipeline.components)
    beside = {} if hasattr(pipeline, "text_encoder_2") else {"requires_safety_checker": False}
    whole = type(pipeline)(**parts, **beside)
    kept: Any = PNDMScheduler.from_pretrained(assets / "sd1" / "scheduler")
    whole.scheduler = DDIMScheduler.from_config(kept.config)
    whole.set_progress_bar_config(disable=True)
    drawn = whole(
        prompt,
        width=SIDE,
        height=SIDE,
        num_inference_steps=STEPS,
        guidance_scale=7.5,
        generator=torch.Generator().manual_seed(SEED),
    )
    return np.asarray(drawn.images[0])


def difference(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


# --- LoRAs -----------------------------------------------------------------------------------

Layers = Mapping[tuple[str, str], tuple[Tensor, Tensor]]  # down and up, by part and layer


def matrices(pipeline: Any, size: float = 0.3) -> Layers:
    """For attention, feed-forward layers, convolutions and text encoders."""
    draw = torch.Generator().manual_seed(1)
    wanted = ("to_q", "to_k", "to_out.0", "ff.net.2", "proj_in", "q_proj", "out_proj", "fc1")
    wanted = (*wanted, "conv1", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj")
    found = {}
    for part in filter(lambda name: hasattr(pipeline, name), PARTS):
        for name, module in getattr(pipeline, part).named_modules():
            if name.endswith(wanted):
                out, into, *kernel = module.weight.shape
                down = torch.randn(RANK, into, *kernel, generator=draw) * size
                up = torch.randn(out, RANK, *(1 for _ in kernel), generator=draw) * size
                found[part, name.removeprefix(AROUND)] = down, up
    return found


def with_loras(pipeline: Any, *loras: tuple[Layers, float, float]) -> Any:
    """The obvious way: weights, each with what the LoRAs add. floats: of denoiser, of texts."""
    changed = deepcopy(pipeline)
    for layers, weight, text_weight in loras:
        for (part, name), (down, up) in layers.items():
            network = getattr(changed, part)
            layer = next(m for n, m in network.named_modules() if n.removeprefix(AROUND) == name)
            added = torch.einsum("or,ri...->oi...", up.flatten(1), down)
            factor = (weight if part == "unet" else text_weight) * ALPHA / RANK
            layer.weight.data += factor * added.reshape(layer.weight.shape)
    return changed


def kohya(pipeline: Any, layers: Layers) -> dict[str, Tensor]:
    short = {"unet": "unet", "text_encoder": "te", "text_encoder_2": "te2"}
    if hasattr(pipeline, "text_encoder_2"):
        short["text_encoder"] = "te1"
    found = {}
    for (part, name), (down, up) in layers.items():
        around = "" if part == "unet" else "text_model_"
        layer = f"lora_{short[part]}_{around}{name.replace('.', '_')}"
        found[f"{layer}.lora_down.weight"], found[f"{layer}.lora_up.weight"] = down, up
        found[f"{layer}.alpha"] = torch.tensor(ALPHA)
    return found


def kohya_original(pipeline: Any, layers: Layers) -> dict[str, Tensor]:
    """With the denoiser's names of the original layout, as LoRAs of SDXL have them."""
    found = {}
    count = pipeline.unet.config.layers_per_block
    for name, tensor in kohya(pipeline, layers).items():
        for part, layer in layers:
            ours = f"lora_unet_{layer.replace('.', '_')}."
            if part == "unet" and name.startswith(ours):
                original = tiny_diffusion._unet_name(f"{layer}.weight", count, pipeline.unet)
                original = original.removesuffix(".weight").replace(".", "_")
                name = name.replace(ours, f"lora_unet_{original}.")
                break
        found[name] = tensor
    return found


def peft(_: Any, layers: Layers) -> dict[str, Tensor]:
    found = {}
    for (part, name), (down, up) in layers.items():
        around = "" if part == "unet" else AROUND
        found[f"{part}.{around}{name}.lora_A.weight"] = down
        found[f"{part}.{around}{name}.lora_B.weight"] = up * (ALPHA / RANK)
    return found


def older(pipeline: Any, layers: Layers) -> dict[str, Tensor]:
    """As diffusers' first scripts had it, for attention alone."""
    found = {}
    for (part, name), (down, up) in layers.items():
        up = up * (ALPHA / RANK)
        if name.endswith(("to_q", "to_k", "to_out.0")):
            layer, _, end = name.removesuffix(".0").rpartition(".")
            place = f"unet.{layer}.processor.{end}_lora"
            found[f"{place}.down.weight"], found[f"{place}.up.weight"] = down, up
        elif part == "unet":
            found[f"unet.{name}.lora.down.weight"], found[f"unet.{name}.lora.up.weight"] = down, up
        else:
            place = f"{part}.{AROUND}{name}.lora_linear_layer"
            found[f"{place}.down.weight"], found[f"{place}.up.weight"] = down, up
    return found


def write_lora(
    assets: Path, name: str, tensors: Mapping[str, Tensor], metadata: Any = None
) -> None:
    kept = {key: tensor.clone().contiguous() for key, tensor in tensors.items()}
    save_file(kept, assets / "loras" / f"{name}.safetensors", metadata=metadata)


Format = Callable[[Any, Layers], dict[str, Tensor]]


@pytest.mark.parametrize("form", [kohya, kohya_original, peft, older])
@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_adds_to_the_weights_what_it_should(
    kind: str,
    form: Format,
    assets: Path,
    pipelines: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = pipelines[kind]
    layers = matrices(pipeline)
    write_lora(assets, "ink", form(pipeline, layers))
    changed = with_loras(pipeline, (layers, 0.7, 0.7))
    wanted = theirs(changed, "a cat", assets)
    assert difference(picture(assets, kind, "a cat <lora:ink:0.7>"), wanted) <= 2
    assert difference(wanted, picture(assets, kind, "a cat")) > 2
    # Quick layers do not show their weights.
    monkeypatch.setattr("studio.engines.diffusion.run.quickened", lambda network: network)
    on_file = run_of(assets, f"{kind}-file", "a cat <lora:ink:0.7>")
    ours, expected = on_file._denoiser.unet.state_dict(), changed.unet.state_dict()
    assert all(torch.allclose(ours[name], expected[name], atol=1e-5) for name in expected)
    texts = on_file._models.text_encoders()
    for reader, part in zip(texts, ("text_encoder", "text_encoder_2"), strict=False):
        ours, expected = reader.model.state_dict(), getattr(changed, part).state_dict()
        assert all(torch.allclose(ours[name], expected[name], atol=1e-5) for name in expected)


def test_several_loras_and_none_again(assets: Path, pipelines: dict[str, Any]) -> None:
    pipeline = pipelines["sd1"]
    first, second = matrices(pipeline), matrices(pipeline, 0.2)
    write_lora(assets, "ink", kohya(pipeline, first))
    write_lora(assets, "Clay 2", peft(pipeline, second))
    plain = picture(assets, "sd1", "a cat")
    both = picture(assets, "sd1", "a <lora:ink:0.3> cat <lora:clay 2:0.1:-0.5>")
    wanted = theirs(with_loras(pipeline, (first, 0.3, 0.3), (second, -0.5, 0.1)), "a cat", assets)
    assert difference(both, wanted) <= 2
    assert np.array_equal(picture(assets, "sd1", "a cat"), plain), "warm models are as before"
    assert np.array_equal(picture(assets, "sd1", "a cat <lora:ink:0>"), plain)


def test_a_prompt_that_changes_takes_its_loras_along(
    assets: Path, pipelines: dict[str, Any]
) -> None:
    write_lora(assets, "ink", kohya(pipelines["sd1"], matrices(pipelines["sd1"])))
    run = run_of(assets, "sd1", "a cat", tiling=True)
    run.iterate()
    state, words = run.state_dict(), "a dog <lora:ink>"
    run.change(run.settings.model_copy(update={"text_input": words}))
    resumed = run_of(assets, "sd1", words, tiling=True)
    resumed.load_state_dict(state)
    assert np.array_equal(run.iterate().pictures, resumed.iterate().pictures)


def test_alpha_may_stand_in_the_metadata(assets: Path, pipelines: dict[str, Any]) -> None:
    layers = {place: m for place, m in matrices(pipelines["sd1"]).items() if place[0] == "unet"}
    bare = {f"unet.{n}.lora_A.weight": down for (_, n), (down, _) in layers.items()}
    bare |= {f"unet.{n}.lora_B.weight": up for (_, n), (_, up) in layers.items()}
    told = json.dumps({"unet.r": RANK, "unet.lora_alpha": ALPHA})
    write_lora(assets, "told", bare, {"lora_adapter_metadata": told})
    wanted = theirs(with_loras(pipelines["sd1"], (layers, 1, 1)), "a cat", assets)
    assert difference(picture(assets, "sd1", "a cat <lora:told>"), wanted) <= 2


def test_a_kernel_between_two_matrices(assets: Path, pipelines: dict[str, Any]) -> None:
    """LoCon's Tucker decomposition is a 1x1 convolution, one with the kernel, and a 1x1 again."""
    name = "mid_block.resnets.0.conv1"
    layer = dict(pipelines["sd1"].unet.named_modules())[name]
    out, into, *kernel = layer.weight.shape
    down, mid = torch.randn(2, into, 1, 1) / 4, torch.randn(2, 2, *kernel)
    up, given = torch.randn(out, 2, 1, 1) / 4, torch.randn(1, into, 8, 8)
    place = f"lora_unet_{name.replace('.', '_')}"
    ways = {"down": down, "mid": mid, "up": up}
    write_lora(assets, "locon", {f"{place}.lora_{w}.weight": t for w, t in ways.items()})
    merged = dict(run_of(assets, "sd1", "a <lora:locon>")._denoiser.unet.named_modules())[name]
    conv = torch.nn.functional.conv2d
    wanted = layer(given) + conv(conv(conv(given, down), mid, padding=1), up)
    torch.testing.assert_close(merged(given), wanted, rtol=1e-4, atol=1e-4)


def bad_lora(case: str, pipelines: dict[str, Any]) -> tuple[dict[str, Tensor], str]:
    sd1, sdxl = pipelines["sd1"], pipelines["sdxl"]
    whole = kohya(sd1, matrices(sd1))
    some = next(name for name in whole if name.endswith("lora_up.weight"))
    number = torch.zeros(2, 2)
    wide = {
        f"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_{way}.weight": m
        for way, m in (("down", torch.zeros(4, 2048)), ("up", torch.zeros(64, 4)))
    }
    return {
        "another base": (kohya(sdxl, matrices(sdxl)), "is for another base than sd1: .* SDXL"),
        "another width": (wide, "for another base than sd1: it is for SDXL.* LoRAs that fit: fits"),
        "a part missing": (
            {name: tensor for name, tensor in whole.items() if name != some},
            "lacks the matrix 'up' of its layer .*; it has: .*down",
        ),
        "LoHa": ({"lora_unet_x.hada_w1_a": number}, "is a LoHa, not a LoRA"),
        "LoKr": ({"lora_unet_x.lokr_w1": number}, "is a LoKr, not a LoRA"),
        "DoRA": (whole | {"lora_unet_x.dora_scale": number}, "is a DoRA, not a LoRA"),
        "Flux": (
            {"lora_unet_double_blocks_0_img.lora_down.weight": number}
            | {"double_blocks.x": number},
            "is a LoRA of Flux",
        ),
        "a model": ({"model.diffusion_model.x": number}, "is a whole model, which goes"),
        "something": ({"sun": number}, "is a file with the tensor sun, not a LoRA"),
        "nothing": ({}, "is an empty file, not a LoRA"),
        "odd alpha": (whole | {"lora_unet_x.alpha": number}, "lacks the matrix 'down'"),
    }[case]


@pytest.mark.parametrize(
    "case",
    [
        *("another base", "another width", "a part missing", "LoHa", "LoKr", "DoRA", "Flux"),
        *("a model", "something", "nothing", "odd alpha"),
    ],
)
def test_a_lora_that_does_not_fit_is_refused_before_anything_loads(
    case: str, assets: Path, pipelines: dict[str, Any], tmp_path: Path
) -> None:
    tensors, said = bad_lora(case, pipelines)
    write_lora(assets, "fits", kohya(pipelines["sd1"], matrices(pipelines["sd1"])))
    write_lora(assets, "odd", tensors)
    refused(assets, tmp_path, "a cat <lora:odd:0.5>", said)


def refused(assets: Path, tmp_path: Path, prompt: str, said: str, weights: str = "sd1") -> None:
    given: dict[str, Any] = {"text_input": prompt, "weights": weights}
    with pytest.raises(BadInput, match=said):
        prepare(Request(given, tmp_path / "output", assets, engine="Diffusion"))
    assert not (tmp_path / "output").exists()
    settings = DiffusionSettings(**given)
    run = DiffusionRun(settings, assets_dir=assets, device=CPU)
    with pytest.raises(BadInput, match=said):
        run.load_model()
    assert not hasattr(run, "_denoiser")


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("<lora:none:1>", r"no LoRA 'none' in .*loras. There are: ink. Put its .safetensors"),
        ("<lora:../sd1-file>", r"no LoRA '../sd1-file'"),
        ("<lora:old>", r"The LoRA .*old.pt is a pickle"),
        (f"<lora:{'x' * 5000}>", "no LoRA 'xxx"),
        ("<lora:broken>", "broken.safetensors.*(damaged|cut short|not)"),
    ],
)
def test_a_lora_that_is_not_there(
    prompt: str, said: str, assets: Path, pipelines: dict[str, Any], tmp_path: Path
) -> None:
    write_lora(assets, "ink", kohya(pipelines["sd1"], matrices(pipelines["sd1"])))
    (assets / "loras" / "old.pt").write_bytes(b"x")
    if "broken" in prompt:
        (assets / "loras" / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}{}{}{}")
    refused(assets, tmp_path, prompt, said)


# --- textual inversions ----------------------------------------------------------------------


def vectors(count: int, width: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


FILES: dict[str, tuple[str, Callable[[Tensor], Any]]] = {
    "web UI": (".pt", lambda table: {"string_to_param": {"*": table}, "name": "x", "step": 3}),
    "a parameter": (
        ".pt",
        lambda table: {"string_to_param": {"*": torch.nn.Parameter(table)}},
    ),
    "diffusers, pickled": (".bin", lambda table: {"<x>": table}),
    "emb_params": (".safetensors", lambda table: {"emb_params": table}),
    "diffusers": (".safetensors", lambda table: {"<x>": table}),
}


def write_inversion(assets: Path, name: str, suffix: str, content: Any) -> Path:
    path = assets / "embeddings" / f"{name}{suffix}"
    if suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in content.items()}, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("case", FILES)
def test_an_inversion_is_read_by_its_file_name(case: str, assets: Path) -> None:
    suffix, content = FILES[case]
    path = write_inversion(assets, "Ink Style", suffix, content(vectors(2)))
    (found,) = vectors_of(read_inversion(path))
    assert torch.equal(found, vectors(2))
    plain = run_of(assets, "sd1", "a cat")._script.at(1).prompt.tokens
    for words in ("a ink style", "a <ink style>", "a embedding:Ink Style", "(a Ink Style:1)"):
        told = run_of(assets, "sd1", words)._script.at(1).prompt.tokens
        assert not torch.equal(told, plain)
        assert torch.equal(told, run_of(assets, "sd1", "a Ink Style")._script.at(1).prompt.tokens)


def test_an_inversion_of_one_vector_may_be_flat(assets: Path) -> None:
    path = write_inversion(assets, "ink", ".safetensors", {"<x>": vectors(1)[0]})
    assert torch.equal(vectors_of(read_inversion(path))[0], vectors(1))


def test_an_inversion_of_words_is_these_words(assets: Path, pipelines: dict[str, Any]) -> None:
    """In the negative prompt, too, and for both text encoders of SDXL."""
    pipe = pipelines["sdxl"]
    ids = pipe.tokenizer("red cat", add_special_tokens=False).input_ids
    tables = {
        key: encoder.get_input_embeddings().weight[ids].detach()
        for key, encoder in (("clip_l", pipe.text_encoder), ("clip_g", pipe.text_encoder_2))
    }
    write_inversion(assets, "ink", ".safetensors", tables)
    told = run_of(assets, "sdxl", "a ink", negative_prompt="ink")._script.at(1)
    wanted = run_of(assets, "sdxl", "a red cat", negative_prompt="red cat")._script.at(1)
    assert torch.equal(told.prompt.tokens, wanted.prompt.tokens)
    assert torch.equal(told.avoid.tokens, wanted.avoid.tokens)


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/tmp/studio-test-executed"),))


def test_a_pickle_that_is_more_than_data_is_refused(assets: Path, tmp_path: Path) -> None:
    write_inversion(assets, "ink", ".pt", {"string_to_param": {"*": vectors(1)}, "name": Evil()})
    refused(assets, tmp_path, "a ink", r"ink.pt is not only data: it names .*could run code")
    assert not Path("/tmp/studio-test-executed").exists()
    (assets / "embeddings" / "ink.pt").write_bytes(pickle.dumps(Evil()))
    refused(assets, tmp_path, "a ink", r"ink.pt cannot be read: .*as .safetensors")
    assert not Path("/tmp/studio-test-executed").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"emb_params": torch.zeros(2, 48)}, "for another base than sd1: its vectors have 48 numb"),
        ({"clip_l": vectors(1), "clip_g": vectors(1)}, "another base than sd1: .* 32, 32 numbers"),
        ({"emb_params": vectors(76)}, "has 76 vectors, and sd1 reads 75 at once"),
        ({"emb_params": vectors(0)}, "damaged"),
        ({"a": vectors(1), "b": vectors(1)}, "no textual inversion: it holds a, b"),
        ({"clip_l": vectors(1), "clip_g": vectors(2)}, "is damaged: it has 1, 2 vectors|2, 1"),
        ({"a": torch.zeros(2, 2, 2)}, "no textual inversion: it holds a"),
    ],
)
def test_inversions_that_do_not_fit(
    content: dict[str, Tensor], said: str, assets: Path, tmp_path: Path
) -> None:
    write_inversion(assets, "ink", ".safetensors", content)
    refused(assets, tmp_path, "a (ink:1.2)", said)
    assert prepare(Request({"text_input": "inky", "weights": "sd1"}, tmp_path, assets, "Diffusion"))


def test_what_looks_like_an_inversion_and_is_none_is_said(assets: Path) -> None:
    write_inversion(assets, "ink", ".safetensors", {"emb_params": vectors(1)})
    run = run_of(assets, "sd1", "a <clay>, embedding:mud (b:1.2", negative_prompt="<ink>")
    said = " ".join(run.warnings)
    assert "There is no textual inversion clay, mud in " in said and "There are: ink." in said
    assert "has no partner" in said
    assert not run_of(assets, "sd1", "a <ink>, 3 < 4 > 2, <lora:x:0>"[:8]).warnings


# --- how long a prompt is --------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["sd1", "sd2-file", "sdxl", "gone"])
def test_tokens_are_counted_as_the_encoder_reads_them(weights: str, assets: Path) -> None:
    write_inversion(assets, "ink", ".safetensors", {"emb_params": vectors(3)})
    engine = registry.get("Diffusion")
    values = {"weights": weights, "num_steps": 4}
    for text, tokens, room in (
        ("a red cat", 3, 75),
        ("a (red:1.2) cat, in <ink> style <lora:x:1>", 9, 75),
        ("cat " * 80, 80, 150),
    ):
        length = engine.length(text, values, assets)
        assert length and (length.tokens, length.room, length.cut_off) == (tokens, room, "")


def test_a_narrow_encoder_has_its_own_chunks(assets: Path, tmp_path: Path) -> None:
    """As the bundled weights, of 32 positions: the count is that of what a run encodes."""
    from transformers import CLIPTextModel

    from studio.engines.diffusion.tokenizer import published_tokenizer

    pipeline = tiny_diffusion.tiny_sd()
    config = tiny_diffusion.text_config(32)
    config.max_position_embeddings = 32
    pipeline.register_modules(
        text_encoder=CLIPTextModel(config).eval(), tokenizer=published_tokenizer(32)
    )
    tiny_diffusion.write(pipeline, tmp_path / "narrow")
    (tmp_path / "loras").mkdir()
    text = "a cat " * 20
    length = registry.get("Diffusion").length(text, {"weights": "narrow"}, tmp_path)
    assert length and (length.tokens, length.room) == (40, 60)
    run = run_of(tmp_path, "narrow", text)
    assert run._script.at(1).prompt.tokens.shape[1] == 2 * 32
    assert run._script.at(1).avoid.tokens.shape[1] == 2 * 32
    assert run.iterate().picture is not None
