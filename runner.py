"""From a person's choices to a run folder: check, submit, execute.

`prepare` checks all that can be checked without torch, `submit` makes the folder, `execute` computes
it. The command line and the worker share them; between submit and execute everything is on disk.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from settings import RunSettings
from stopping import Stop
from storage import RunFolder

if TYPE_CHECKING:
    from logic import Step

DEFAULT_MODEL = "VQGAN-CLIP"


@dataclass(frozen=True)
class Request:
    """What a person asked for.

    given: what they set this time, by the settings' names; values may be text.
    uploads: pictures that are no files: `init_image` and `image_prompt` may name them.
    """

    given: Mapping[str, Any]
    output_dir: Path
    assets_dir: Path
    model: str = DEFAULT_MODEL
    settings_file: Path | None = None
    continue_run: str | None = None
    uploads: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A request that was found possible.

    settings: complete; the seed is the one to use, the size is a multiple of f.
    init_image, image_prompts: the JPEG files to keep and to use. start: the continued picture.
    warnings: for the person.
    """

    model: str
    settings: RunSettings
    output_dir: Path
    warnings: list[str]
    init_image: bytes | None
    image_prompts: Sequence[bytes]
    start: Image.Image | None
    parent: str | None


def prepare(request: Request) -> Plan:
    """Check everything that needs no torch. Makes nothing. Raises BadInput."""
    raise NotImplementedError


def submit(plan: Plan, status: str = "queued") -> RunFolder:
    """Make the run's folder, with all that `execute` needs. Raises BadInput.

    status: "queued" for the worker to take, "running" to execute it here at once.
    """
    raise NotImplementedError


def execute(
    folder: RunFolder,
    *,
    assets_dir: Path,
    gpu: int | None = None,
    on_step: "Callable[[Step], None] | None" = None,
    stop: Stop | None = None,
) -> str:
    """Compute the run of that folder in this process; returns "done" or "stopped".

    stop: see `stopping.Stop`; the folder's own stop flag counts as well.
    Raises BadInput (a checkpoint that is none, a GPU that is not there) and RunFailed, after having
    recorded them in the folder.
    """
    raise NotImplementedError
