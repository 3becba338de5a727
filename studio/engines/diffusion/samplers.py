"""The samplers by their usual names, and diffusers' classes for them. Never imports torch.

The pairs of names are those of diffusers' table "Schedulers":
https://huggingface.co/docs/diffusers/api/schedulers/overview
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

SamplerName = Literal[
    "DDIM",
    "PNDM",
    "LMS",
    "Heun",
    "Euler",
    "Euler a",
    "DPM++ 2M",
    "DPM++ 2M Karras",
    "DPM++ SDE Karras",
    "UniPC",
    "LCM",
]
KARRAS = "use_karras_sigmas"


class Sampler(NamedTuple):
    """A scheduler: the name of diffusers' class, and what its configuration adds."""

    class_name: str
    config: Mapping[str, Any] = {}
    evaluations: int = 1  # of the denoiser, in a step


SAMPLERS: Mapping[SamplerName, Sampler] = {
    "DDIM": Sampler("DDIMScheduler"),
    "PNDM": Sampler("PNDMScheduler"),
    "LMS": Sampler("LMSDiscreteScheduler"),
    "Heun": Sampler("HeunDiscreteScheduler", evaluations=2),
    "Euler": Sampler("EulerDiscreteScheduler"),
    "Euler a": Sampler("EulerAncestralDiscreteScheduler"),
    "DPM++ 2M": Sampler("DPMSolverMultistepScheduler"),
    "DPM++ 2M Karras": Sampler("DPMSolverMultistepScheduler", {KARRAS: True}),
    "DPM++ SDE Karras": Sampler("DPMSolverSinglestepScheduler", {KARRAS: True}),
    "UniPC": Sampler("UniPCMultistepScheduler"),
    "LCM": Sampler("LCMScheduler"),
}
ALIASES = {"plms": "PNDM", "k_euler": "Euler", "k_euler_a": "Euler a", "euler ancestral": "Euler a"}
assert tuple(SAMPLERS) == get_args(SamplerName)


def sampler_of(config: Mapping[str, Any]) -> SamplerName | None:
    """The sampler that a scheduler's configuration describes; None for one that has no name."""
    found: list[SamplerName] = [
        name for name, s in SAMPLERS.items() if s.class_name == config.get("_class_name")
    ]
    karras = bool(config.get(KARRAS))
    same: list[SamplerName] = [
        name for name in found if bool(SAMPLERS[name].config.get(KARRAS)) == karras
    ]
    return next(iter(same or found), None)


def known_name(text: str) -> str:
    """The sampler that a person means, in whatever case; the text itself if there is none."""
    names: dict[str, str] = {name.lower(): name for name in SAMPLERS} | ALIASES
    return names.get(" ".join(text.lower().split()), text)


def first_step(num_steps: int, strength: float) -> int:
    """How many of the steps a starting image skips: the stronger, the fewer."""
    return num_steps - min(int(num_steps * strength), num_steps)
