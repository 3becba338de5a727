"""The weights of diffusion models in `assets/`, told apart by their files. Never imports torch.

Weights are a folder in diffusers' format, or one `.safetensors` file of the original layout.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from studio.base.errors import BadInput, Wording, shortened
from studio.base.yaml_files import read_yaml
from studio.engines.diffusion.folders import (
    INDEX,
    PICKLES,
    SUFFIX,
    check_classes,
    config,
    no_pickle,
    weight_files,
)
from studio.engines.diffusion.samplers import sampler_of
from studio.engines.diffusion.vaes import OF_WEIGHTS, PLAIN_SCALE, PREFIXES, Vae, get_vae, of_file
from studio.models.hub import HUB, is_name
from studio.models.safetensors_header import Header, read_header

BUNDLED = "emoji_diffusion"
LARGE = 100_000_000  # parameters of a denoiser from which half precision pays
STUDIO_FILE = "studio.yaml"
PUBLISHED = (  # what download-weights.sh gets
    *("v1-5-pruned-emaonly", "sd-v1-5-inpainting", "v2-1_768-ema-pruned", "sd_turbo"),
    *("sd_xl_base_1.0", "sd_xl_turbo_1.0_fp16"),
)
OTHERS = ("vae/", "loras/", "embeddings/", "upscalers/")  # folders in assets/ of something else
CHECKER, CHECKER_CLASS = "safety_checker", "StableDiffusionSafetyChecker"
EXTRACTOR = "feature_extractor/preprocessor_config.json"
UNET = "model.diffusion_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
XL_CLIP, XL_OPEN_CLIP = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
CLIPPING = ("DDIMScheduler", "DDPMScheduler")  # schedulers that clip unless told not to
NOT_DRAWING = {  # parts of names in files that hold something else
    "lora": "a LoRA, which goes into assets/loras/",
    "hada_": "a LoRA of the LyCORIS kind",
    "control_model.": "a ControlNet",
    "double_blocks.": "a Flux model",
    "joint_blocks.": "a Stable Diffusion 3 model",
    "emb_params": "a textual inversion, which goes into assets/embeddings/",
    "conditioner.embedders.0.model.": "an SDXL refiner, which only refines pictures of SDXL",
    "model.diffusion_model.": "a denoiser",
    "down_blocks.": "one part of a model in diffusers' format",
    "first_stage_model.": "an autoencoder",
    "decoder.": "an autoencoder",
    "text_model.": "a text encoder",
}
KINDS = "Stable Diffusion 1.x, 2.x and SDXL, their turbo, LCM and inpainting kinds"
Family = Literal["sd1", "sd2", "sdxl"]
LATENT_SCALE: Mapping[Family, float] = {"sd1": PLAIN_SCALE, "sd2": PLAIN_SCALE, "sdxl": 0.13025}
SIDES: Mapping[Family, int] = {"sd1": 512, "sd2": 512, "sdxl": 1024}
FEW_STEPS = {  # words in a name that tell of weights that need few steps: how to draw with them
    "turbo": {"num_steps": 4, "guidance_scale": 1.0, "sampler": "Euler a"},
    "lightning": {"num_steps": 4, "guidance_scale": 1.0, "sampler": "Euler"},
    "lcm": {"num_steps": 4, "guidance_scale": 1.0, "sampler": "LCM"},
}


@dataclass(frozen=True)
class Weights:
    """A diffusion model.

    family: by its text encoders. in_channels: of the denoiser; 9 for inpainting. factor: how many
    pixels one position of the latent covers, along each axis. side: of the pictures it was trained
    on. parameters: of the denoiser. decoder_width: channels at full size. knows_guidance: whether
    the guidance scale is an input of the denoiser, as in LCM. header: of a single file. latent: its
    channels and its scale. vae: what takes the place of the weights' own autoencoder. checker:
    whether they bring a safety checker; "lost" if they name one that is not there, or unknown.
    """

    name: str
    path: Path
    family: Family
    in_channels: int
    factor: int
    side: int
    parameters: int
    decoder_width: int
    knows_guidance: bool = False
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    header: Header | None = None
    latent: tuple[int, float] = (4, PLAIN_SCALE)
    vae: Vae | None = None
    checker: Literal["none", "there", "lost"] = "none"

    @property
    def is_large(self) -> bool:
        """Whether they are of published size, and half precision pays."""
        return self.parameters >= LARGE

    @property
    def is_inpainting(self) -> bool:
        """Whether the denoiser sees the mask and the picture around it."""
        return self.in_channels == 9

    @property
    def files(self) -> list[Path]:
        """All files that the weights consist of."""
        if self.header:
            return [self.path]
        return sorted(path for path in self.path.rglob("*") if path.is_file())

    @property
    def recommended(self) -> dict[str, Any]:
        """Settings that suit the weights: by what they are, then by their own studio.yaml."""
        values: dict[str, Any] = {"Xdim": self.side, "ydim": self.side}
        if sampler := sampler_of(self.scheduler):
            values["sampler"] = sampler
        if self.knows_guidance:
            values |= FEW_STEPS["lcm"] | {"guidance_scale": 8.5}
        for word, few in FEW_STEPS.items():
            if word in self.name.lower() and not self.knows_guidance:
                values |= few
        return values | self._told("recommended", dict)

    @property
    def draws(self) -> str:
        """What the weights can draw, in words; "" if they are silent."""
        return " ".join(self._told("draws", str).split())

    def examples(self) -> list[Path]:
        """Pictures that were made with these weights."""
        return sorted((self.path / "examples").glob("*.png"))

    def _told(self, key: str, kind: type) -> Any:
        """What studio.yaml in the folder, or NAME.studio.yaml beside the file, says of `key`."""
        inside = self.path / STUDIO_FILE
        path = self.path.with_suffix(f".{STUDIO_FILE}") if self.header else inside
        content = read_yaml(path) if path.is_file() else {}
        told = content.get(key) if isinstance(content, dict) else None
        return told if isinstance(told, kind) else kind()


def find_weights(assets_dir: Path) -> dict[str, Weights]:
    """All diffusion models in the folder by name, the bundled one first.

    Those from the Hugging Face hub are one folder further down: `owner/name`.
    """
    found = {}
    patterns = (f"*/{INDEX}", f"*/*/{INDEX}", f"*{SUFFIX}", f"*/*{SUFFIX}")
    for path in sorted(path for pattern in patterns for path in assets_dir.glob(pattern)):
        path = path.parent if path.name == INDEX else path
        name = path.relative_to(assets_dir).as_posix().removesuffix(SUFFIX)
        if name.startswith(OTHERS) or "/." in f"/{name}":
            continue  # not weights, or only a part of them
        with suppress(BadInput):
            found[name] = read_weights(path)
    first = {BUNDLED: found.pop(BUNDLED)} if BUNDLED in found else {}
    return first | found


def get_weights(assets_dir: Path, name: str, vae: str = OF_WEIGHTS) -> Weights:
    """The weights of that name: in the folder, else by their path. Raises BadInput.

    vae: of the autoencoder that takes the place of their own, as for `vaes.get_vae`.
    """
    other = None if vae == OF_WEIGHTS else get_vae(assets_dir, vae)
    try:
        for path in (assets_dir / name, assets_dir / f"{name}.safetensors", Path(name)):
            if name and (path.is_file() or (path / INDEX).is_file()):
                return read_weights(path, other)
        if name and (assets_dir / name).is_dir():
            raise BadInput(f"{assets_dir / name} lacks {INDEX}: it is not in diffusers' format.")
        _refuse_pickle(assets_dir, name)
    except (OSError, ValueError):
        pass  # too long, or with a zero byte: not a path either
    there = ", ".join(find_weights(assets_dir)) or "none"
    if is_name(name):
        raise BadInput(
            f"The weights {name} are not in {assets_dir} yet. There are: {there}. To download them"
            f" from {HUB}, ",
            Wording(
                page=f"press 'Look up {name}' above the prompt.",
                command=f"choose them on the command line: --weights {name}.",
            ),
        )
    if name in PUBLISHED:
        raise BadInput(
            f"The weights {name} are not in {assets_dir} yet. './download-weights.sh {name}', in"
            f" the studio's folder, gets them into assets/. There are: {there}."
        )
    raise BadInput(
        f"There are no diffusion weights named '{shortened(name)}' in {assets_dir}. There are:"
        f" {there}. {_how_to_get()}"
    )


def is_elsewhere(assets_dir: Path, name: str) -> bool:
    """Whether it is a name of the Hugging Face hub, of weights that are not here."""
    return is_name(name) and not any(
        path.exists() for path in (assets_dir / name, assets_dir / f"{name}{SUFFIX}", Path(name))
    )


def default_weights(assets_dir: Path) -> str:
    """The name to use where a person did not choose. Raises BadInput where there is none."""
    for name in find_weights(assets_dir):
        return name
    raise BadInput(f"There are no diffusion weights in {assets_dir}. {_how_to_get()}")


def _how_to_get() -> str:
    return (
        "Put a folder in diffusers' format or one .safetensors file of Stable Diffusion there:"
        " './download-weights.sh' lists some. Or choose a name of the Hugging Face hub."
    )


def _refuse_pickle(assets_dir: Path, name: str) -> None:
    for path in (assets_dir / f"{name}{suffix}" for suffix in PICKLES):
        if path.is_file():
            raise BadInput(no_pickle(path))


def read_weights(path: Path, vae: Vae | None = None) -> Weights:
    """What a folder or a file is. Raises BadInput with what was found there.

    vae: what takes the place of the autoencoder that is there, or is not there.
    """
    if path.suffix in PICKLES:
        raise BadInput(no_pickle(path))
    weights = _of_folder(path) if path.is_dir() else _of_file(path, vae)
    return _with(weights, vae) if vae else weights


def _with(weights: Weights, vae: Vae) -> Weights:
    """The weights with another autoencoder. Raises BadInput if its latents are others."""
    channels, scale = weights.latent
    found = {"channels": (vae.channels, channels), "px a position": (vae.factor, weights.factor)}
    found |= {"as its scale": (vae.scale or scale, scale)}
    wrong = [f"{a:g} {what} where they have {b:g}" for what, (a, b) in found.items() if a != b]
    is_xl = weights.family == "sdxl"
    if not wrong and vae.scale is None and not is_xl and "sdxl" in vae.name.lower():
        wrong = ["by its name the scale of SDXL's"]  # the shapes are those of all families
    if wrong:
        raise BadInput(
            f"The VAE {vae.name} is for other latents than those of {weights.name}: it has"
            f" {', '.join(wrong)}. Choose another VAE, or '{OF_WEIGHTS}'."
        )
    return replace(weights, vae=vae, decoder_width=vae.width)


# --- one file ------------------------------------------------------------------------------------


def _of_file(path: Path, vae: Vae | None) -> Weights:
    header = read_header(path)
    family = _family(header)
    _check_parts(header, family, needs_vae=vae is None)
    in_channels = header.shape(f"{UNET}input_blocks.0.0.weight")[1]
    name = path.stem
    if in_channels not in (4, 9):
        what = {5: "a depth-to-image model", 7: "an upscaler", 8: "an instruct-pix2pix model"}
        raise _unknown(path, what.get(in_channels, f"a denoiser of {in_channels} input channels"))
    decoder = vae or of_file(header)
    return Weights(
        name=name,
        path=path,
        family=family,
        in_channels=in_channels,
        factor=decoder.factor,
        side=_side(header, family),
        parameters=sum(math.prod(e.shape) for k, e in header.tensors.items() if UNET in k),
        decoder_width=decoder.width,
        knows_guidance=bool(header.shape(f"{UNET}time_embed.cond_proj.weight")),
        scheduler=scheduler_config(header, family),
        header=header,
        latent=(header.shape(f"{UNET}out.2.weight")[0], LATENT_SCALE[family]),
    )


def _side(header: Header, family: Family) -> int:
    if family == "sd2" and is_v_prediction(header, family):
        return 768
    return 512 if "turbo" in header.path.stem.lower() else SIDES[family]


def _family(header: Header) -> Family:
    """By the text encoder. Raises BadInput for anything else."""
    if header.has(UNET) and header.shape(f"{UNET}input_blocks.0.0.weight"):
        if header.has(XL_OPEN_CLIP) or header.has(XL_CLIP):
            return "sdxl"
        if header.has(OPEN_CLIP):
            return "sd2"
        if header.has(CLIP):
            return "sd1"
    raise _unknown(header.path, _what_it_is(header))


def _check_parts(header: Header, family: Family, needs_vae: bool) -> None:
    """Raises BadInput that names the parts that are missing and those that are there."""
    texts = {"sd1": (CLIP,), "sd2": (OPEN_CLIP,), "sdxl": (XL_CLIP, XL_OPEN_CLIP)}[family]
    wanted = {"denoiser": UNET}
    prefix = next((prefix for prefix in PREFIXES[:-1] if header.has(prefix)), PREFIXES[0])
    if needs_vae:
        wanted["autoencoder"] = prefix
    wanted |= {f"text encoder{n}": key for n, key in zip(("", " 2"), texts, strict=False)}
    missing = {part: key for part, key in wanted.items() if not header.has(key)}
    ends = {f"{UNET}time_embed.0.weight", f"{UNET}out.2.weight"}
    if needs_vae:
        ends |= {f"{prefix}{name}.weight" for name in ("encoder.conv_in", "decoder.conv_in")}
    lost = sorted(name for name in ends if not header.shape(name))
    if missing or lost:
        there = ", ".join(part for part in wanted if part not in missing)
        lacks = ", ".join(f"{p} ({k}…)" for p, k in missing.items()) or ", ".join(lost)
        raise BadInput(
            f"{header.path} lacks its {lacks}; it has: {there}. Get the whole model, with all its"
            f" parts in one file{_OR_A_VAE if 'autoencoder' in missing else ''}."
        )


_OR_A_VAE = ", or choose a VAE in assets/vae/ with it"


def _what_it_is(header: Header) -> str:
    for part, what in NOT_DRAWING.items():
        if any(part in name for name in header.tensors):
            return what
    names = ", ".join(shortened(name, 60) for name in list(header.tensors)[:3])
    return f"a file of {len(header.tensors)} tensors{names and f' such as {names}'}"


def _unknown(path: Path, what: str) -> BadInput:
    return BadInput(f"{path} is {what}, not a whole diffusion model. There are: {KINDS}.")


def is_v_prediction(header: Header, family: Family) -> bool:
    """Whether the denoiser predicts v instead of the noise, by what the file and its name say.

    Nothing else in a file tells: the shapes are the same. Of Stable Diffusion 2, the published
    weights for 768 pixels predict v, and those for 512 pixels the noise.
    """
    if "v_pred" in header.tensors:
        return True
    told = " ".join(header.metadata.get(f"modelspec.{key}", "") for key in ("prediction_type",))
    if told.strip():
        return "v" in told.lower().split("_")[0].split("-")[0]
    if beside := _yaml_beside(header.path):
        return 'parameterization: "v"' in beside or "parameterization: v" in beside
    name = header.path.stem.lower()
    words = name.replace("_", "-").split("-")
    if "base" in words or "turbo" in name or "512" in words:
        return "vpred" in name
    return (
        "vpred" in name
        or "v-pred" in name.replace("_", "-")
        or (family == "sd2" and not _inpaints(header))
    )


def _inpaints(header: Header) -> bool:
    return header.shape(f"{UNET}input_blocks.0.0.weight")[1] == 9


def _yaml_beside(path: Path) -> str:
    beside = path.with_suffix(".yaml")
    with suppress(OSError, UnicodeDecodeError):
        return beside.read_text(encoding="utf-8")
    return ""


def scheduler_config(header: Header, family: Family) -> dict[str, Any]:
    """What published weights of the family are drawn with, in diffusers' words."""
    few = any(word in header.path.stem.lower() for word in ("turbo", "lightning"))
    return {
        "_class_name": "EulerDiscreteScheduler" if family == "sdxl" else "PNDMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "timestep_spacing": "trailing" if few else "leading",
        "prediction_type": "v_prediction" if is_v_prediction(header, family) else "epsilon",
        "rescale_betas_zero_snr": "ztsnr" in header.tensors,
    }


# --- a folder ------------------------------------------------------------------------------------


def _of_folder(path: Path) -> Weights:
    if not (path / INDEX).is_file():
        raise BadInput(f"{path} lacks {INDEX}: it is not in diffusers' format.")
    index = config(path / INDEX)
    parts = check_classes(path, index, KINDS)
    unet, vae = (config(path / part / "config.json") for part in ("unet", "vae"))
    headers = [read_header(file) for file in weight_files(path, "unet")]
    for part in parts:
        for file in weight_files(path, part):
            read_header(file)
    factor = 2 ** (len(vae.get("block_out_channels") or [0]) - 1)
    side = unet.get("sample_size") or 64
    in_channels = unet.get("in_channels", 4)
    if in_channels != 9 and in_channels != vae.get("latent_channels", 4):
        raise _unknown(path, f"a model whose denoiser has {in_channels} input channels")
    return Weights(
        name=path.name,
        path=path,
        family="sdxl" if "text_encoder_2" in parts else "sd1",
        in_channels=in_channels,
        factor=factor,
        side=(max(side) if isinstance(side, list) else side) * factor,
        parameters=sum(math.prod(e.shape) for h in headers for e in h.tensors.values()),
        decoder_width=(vae.get("block_out_channels") or [64])[0],
        knows_guidance=bool(unet.get("time_cond_proj_dim")),
        scheduler=_as_pipelines_have_it(
            config(path / "scheduler" / "scheduler_config.json"), parts
        ),
        latent=(unet.get("out_channels", 4), vae.get("scaling_factor", PLAIN_SCALE)),
        checker=_checker(path, index),
    )


def _checker(path: Path, index: Mapping[str, Any]) -> Literal["none", "there", "lost"]:
    named = index.get(CHECKER)
    if not (isinstance(named, list) and named and named[-1]):
        return "none"
    if named[-1] != CHECKER_CLASS or not (path / EXTRACTOR).is_file():
        return "lost"
    try:
        weight_files(path, CHECKER)
    except BadInput:
        return "lost"
    return "there" if (path / CHECKER / "config.json").is_file() else "lost"


def _as_pipelines_have_it(config: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    """A scheduler's configuration as diffusers' pipelines correct older ones, except for SDXL."""
    mended = dict(config)
    if "text_encoder_2" in parts:
        return mended
    if mended.get("steps_offset", 0) != 1:
        mended["steps_offset"] = 1
    if mended.get("clip_sample", mended.get("_class_name") in CLIPPING):
        mended["clip_sample"] = False
    return mended
