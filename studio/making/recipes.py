"""Earlier runs as a source of settings: what a details.json or an output.PNG says. No torch.

Files of the older layout, which recorded less, are read as well.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from studio.base.errors import BadInput, shortened
from studio.base.files import MAX_PATH, parse_json, read_json
from studio.base.paths import ASSETS_DIR
from studio.base.yaml_files import read_yaml
from studio.engines import registry
from studio.engines.contract import Engine, ForeignSettings
from studio.making.changes import Change, at_its_end, changes_in
from studio.making.frames import frame_of
from studio.media.exif import text_in_exif
from studio.media.pictures import opened_image
from studio.media.png_writer import SIGNATURE
from studio.runs import run_index, storage
from studio.runs.details_keys import PARENT_FRAME, as_frame, engine_of
from studio.runs.storage import RunFolder
from studio.settings.common import AVOIDED
from studio.settings.declare import default_of
from studio.settings.run_settings import RunSettings
from studio.settings.values import check_values, make
from studio.settings.weighted import parted, with_weight

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP")
PICTURE_SIGNATURES = (SIGNATURE, b"\xff\xd8\xff", b"RIFF")
MAX_ANCESTORS = 10_000
GIVE = "Give the details.json or the output.PNG of a run."
LOST_STATE = (
    f"The state that this run began with, {storage.START_CHECKPOINT}, is not there any more. A new"
    " run begins from the picture alone, so its result will differ."
)
SHARED = ("text_input", "Xdim", "ydim")  # and AVOIDED: what another engine takes over, if it has it
YAML_SUFFIXES = (".yaml", ".yml")  # of other programs' settings
PICTURES = ("init_image", "mask", "image_prompt", "image_prompts")


@dataclass(frozen=True)
class Recipe:
    """What a new run takes from an earlier one.

    values: settings, pictures among them as paths. start: the picture that was continued, as a file
    or, if it is a frame of a film, as a picture.
    checkpoint: the state that was continued, if one was kept; its picture is used before `start`.
    ancestors: the folder names of the runs that lead here, oldest first; start and checkpoint are
    from the last of them. frame: of the last one's film, if it was continued from there instead of
    from its end. lacks: what is missing by now, in words for the person; "" if nothing is.
    changes: what changed while it went. began_with: what the settings that changed were before.
    said: sentences for the person about what was taken and what was left.
    """

    values: dict[str, Any]
    start: Path | Image.Image | None = None
    checkpoint: Path | None = None
    ancestors: Sequence[str] = ()
    frame: int | None = None
    lacks: str = ""
    changes: Sequence[Change] = ()
    began_with: Mapping[str, Any] = field(default_factory=dict)
    said: Sequence[str] = ()

    @property
    def is_continued(self) -> bool:
        """Whether the earlier run continued another one."""
        return bool(self.start or self.checkpoint)

    def changed_otherwise(self, values: Mapping[str, Any]) -> str | None:
        """A setting that changed in the earlier run, and begins with another value here."""
        began = self.began_with.items()
        return next((name for name, value in began if values.get(name) != value), None)


def settings_in(details: Mapping[str, Any]) -> RunSettings:
    """The settings that a run began with. Raises BadInput for another layout or unknown engine."""
    kind = registry.get(engine_of(details)).settings
    return make(kind, _recorded(details, kind))


def _recorded(details: Mapping[str, Any], kind: type[RunSettings]) -> dict[str, Any]:
    """The settings of that kind in a run's details, where `num_steps` counts the steps done."""
    values = {name: details[name] for name in kind.model_fields if name in details}
    if details.get("planned_num_steps") is not None:
        values["num_steps"] = details["planned_num_steps"]
    return values


def continued(
    folder: RunFolder, engine: str, given: Collection[str] = (), frame: int | None = None
) -> Recipe:
    """What a new run takes over from the run in `folder`, which it continues. Raises BadInput.

    engine: of the new run. given: names of settings that need not be read, as the person gave
    others. The earlier run's starting image is left out, since its result is the start; settings
    that changed while it went are as they were at its end.
    frame: of its film, counted from 1, to begin with in place of its end.
    """
    if (status := folder.proven_status()) in storage.ACTIVE:
        raise BadInput(f"The run {folder.name} is still {status}. Continue it when it is done.")
    details = folder.read()
    checkpoint = _if_there(folder.path / storage.CHECKPOINT) if frame is None else None
    picture = folder.picture_path() if frame is None else frame_of(folder, frame)
    if picture is None and checkpoint is None:
        raise BadInput(f"The run {folder.name} has no picture to continue. Choose another.")
    of_start = registry.get(engine).settings.OF_START
    values = _values(at_its_end(details), folder.path, engine, {*given, *of_start})
    if checkpoint is None and not values.get("set_seed"):
        values.pop("seed", None)
    ancestors = [*_ancestors(details, folder.path.parent), folder.name]
    return Recipe(values, picture, checkpoint, ancestors, frame)


def from_file(
    path: Path,
    output_dir: Path,
    engine: str,
    given: Collection[str] = (),
    called: str | None = None,
    assets_dir: Path = ASSETS_DIR,
) -> Recipe:
    """What makes the picture of a `details.json` or `output.PNG` once more. Raises BadInput.

    The pictures that the run used are looked for beside the file, and in the run's own folder.
    Or what another program's yaml file or picture sets.
    engine, given: as for `continued`. called: what messages call the file, if not by its path.
    assets_dir: with the weights that another program's picture may name.
    """
    if foreign := _foreign(path, assets_dir):
        return _foreign_recipe(foreign, shortened(called or path, MAX_PATH), engine, given)
    details = _read_details(path, shortened(called or path, MAX_PATH))
    folder = _home(details, path, output_dir)
    values = _values(details, folder, engine, given)
    if "seed" in values:
        values["set_seed"] = True
    if details.get("status") == "stopped" and details.get("num_steps"):
        values["num_steps"] = details["num_steps"]  # its picture is from the last of them
    again = _changes_again(details, engine)
    if not details.get("continue_prev_run"):
        return Recipe(values, **again)
    if "continue_resize" in registry.get(engine).settings.model_fields:
        values.setdefault("continue_resize", "crop")  # what older versions did
    checkpoint = _if_there(folder / storage.START_CHECKPOINT)
    start = _start(details, folder, output_dir, has_state=checkpoint is not None)
    ancestors, frame = _ancestors(details, output_dir), as_frame(details.get(PARENT_FRAME))
    lacks = _lost_state(details, folder)
    return Recipe(values, start, checkpoint, ancestors, frame, lacks, **again)


def _changes_again(details: Mapping[str, Any], engine: str) -> dict[str, Any]:
    """The fields of a Recipe that tell of changes; another engine cannot make them."""
    kind = registry.get(engine).settings
    if engine_of(details) != engine:
        return {}
    changes = changes_in(details)
    names = {name for change in changes for name in change.settings if name in kind.model_fields}
    began_with = {name: details.get(name, default_of(kind.model_fields[name])) for name in names}
    return {"changes": changes, "began_with": began_with}


def image_weights(details: Mapping[str, Any], count: int | None = None) -> list[float]:
    """The weights of a run's image prompts; 1 each where older details say nothing of them.

    count: of the prompts, if the details need not know it. Raises BadInput.
    """
    count = len(details["image_prompts"]) if count is None else count
    texts = details.get("image_prompt")
    known = texts if isinstance(texts, list) and len(texts) == count else [""] * count
    return [parted(str(text))[1] for text in known]


def engine_in(path: Path, called: str | None = None) -> str:
    """The name of the engine in a settings file, even if it is unknown here. Raises BadInput."""
    if foreign := _foreign(path, ASSETS_DIR):
        return foreign[0]
    return engine_of(_read_details(path, shortened(called or path, MAX_PATH)))


def _foreign(path: Path, assets_dir: Path) -> tuple[str, ForeignSettings] | None:
    """What the settings of another program mean, and to which engine; None for other files.

    Raises BadInput for a yaml file that no engine knows.
    """
    if path.suffix in YAML_SUFFIXES:
        content = read_yaml(path)
        if found := _first_found(lambda engine: engine.foreign_settings(content, path)):
            return found
        raise BadInput(f"{shortened(path, MAX_PATH)} is of no kind that the studio knows. {GIVE}")
    try:
        with path.open("rb") as file, opened_image(file, PICTURE_FORMATS) as image:
            if _our_text(image):
                return None
            return _first_found(lambda engine: engine.settings_in_picture(image, assets_dir))
    except Exception:  # no picture, or a broken one, which makes the decoder raise as it likes
        return None


def _first_found(
    ask: Callable[[Engine], ForeignSettings | None],
) -> tuple[str, ForeignSettings] | None:
    engines = ((name, registry.find(name)) for name in registry.names())
    told = ((name, ask(engine)) for name, engine in engines if engine)
    return next(((name, found) for name, found in told if found), None)


def _foreign_recipe(
    foreign: tuple[str, ForeignSettings], called: str, engine: str, given: Collection[str]
) -> Recipe:
    owner, found = foreign
    kind = registry.get(engine).settings
    values = found.values if engine == owner else _shared(found.values, kind)
    values = {n: v for n, v in values.items() if n in kind.model_fields and n not in given}
    check_values(kind, values, source=called)
    taken, left = ", ".join(found.taken) or "nothing", ", ".join(map(_left, found.left.items()))
    said = f"Taken from {found.program}'s {', '.join(found.files)}: {taken}."
    return Recipe(values, said=[said, f"Left out: {left}."] if left else [said])


def _left(item: tuple[str, str]) -> str:
    key, reason = (shortened(text) for text in item)
    return f"{key} ({reason})" if reason else key


def inputs_digest(inputs: Mapping[str, bytes]) -> str | None:
    """What a run begins with, as one digest: its files by their names in its folder."""
    if not inputs:
        return None
    digests = (f"{name} {hashlib.sha256(data).hexdigest()}" for name, data in inputs.items())
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _lost_state(details: Mapping[str, Any], folder: Path) -> str:
    """What to say if the state that a run began from is missing; the inputs' digest tells."""
    known, prompts = details.get("inputs_sha256"), details.get("image_prompts")
    if not known or (folder / storage.START_CHECKPOINT).is_file():
        return ""
    count = len(prompts) if isinstance(prompts, list) else 0
    names = [*(storage.image_prompt_name(n + 1) for n in range(count)), storage.START]
    inputs = {n: (folder / n).read_bytes() for n in names if (folder / n).is_file()}
    return "" if inputs_digest(inputs) == known else LOST_STATE


def _ancestors(details: Mapping[str, Any], output_dir: Path) -> list[str]:
    """The runs before this one, oldest first. The older layout names the last of them only."""
    found: list[str] = []
    while len(found) < MAX_ANCESTORS:
        if isinstance(known := details.get("ancestors"), list):
            return [*map(str, known), *found]
        earlier = details.get("prev_run_folder") or details.get("prev_run_id")
        if not earlier:
            break
        folder = _run(output_dir, earlier)
        if (name := folder.name if folder else str(earlier)) in found:
            break
        found.insert(0, name)
        try:
            details = RunFolder(folder).read() if folder else {}
        except BadInput:
            break
    return found


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None


def _read_details(path: Path, called: str) -> dict[str, Any]:
    """called: the file in messages, which say what to give instead."""
    try:
        with path.open("rb") as file:
            is_picture = file.read(len(SIGNATURE)).startswith(PICTURE_SIGNATURES)
        return _details_in_picture(path, called) if is_picture else read_json(path, called)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "a file cannot have that name"
        raise BadInput(f"{called} cannot be read: {reason}. {GIVE}") from None
    except BadInput as error:
        raise BadInput(*error.parts, f" {GIVE}") from None


def _details_in_picture(path: Path, called: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file, opened_image(file, PICTURE_FORMATS) as image:
            text = _our_text(image)
    except Exception:  # a broken file makes the decoder raise whatever it likes
        raise BadInput(f"{called} is broken.") from None
    if not isinstance(text, str):
        raise BadInput(
            f"{called} carries no settings: it is neither the output.PNG of a run nor a picture"
            " with `parameters` of a web UI."
        )
    return parse_json(text, called)


def _our_text(image: Image.Image) -> Any:
    """The details in a picture of the studio; nothing in others. image: its header alone."""
    text = image.info.get(storage.PNG_KEY)
    return text or text_in_exif(image.getexif()).get(storage.PNG_KEY)


def _home(details: Mapping[str, Any], path: Path, output_dir: Path) -> Path:
    """The folder with the pictures that the settings name: the file's, or that of a run."""
    digest = details.get("inputs_sha256")
    if not digest or _recorded_digest(path.parent) == digest:
        return path.parent
    same = (e for e in run_index.entries(output_dir) if e.details.get("inputs_sha256") == digest)
    return next((entry.folder.path for entry in same), path.parent)


def _recorded_digest(folder: Path) -> object:
    try:
        return RunFolder(folder).read().get("inputs_sha256")
    except BadInput:
        return None


def _run(output_dir: Path, name: object) -> Path | None:
    try:
        return storage.find_run(output_dir, str(name)).path
    except BadInput:
        return None


def _start(
    details: Mapping[str, Any], folder: Path, output_dir: Path, has_state: bool
) -> Path | None:
    """The picture that a run continued. The older layout keeps it with the earlier run only.

    has_state: whether there is a state to continue from; then the picture may be missing.
    """
    kept = folder / storage.START
    earlier = _run(output_dir, details.get("prev_run_id"))
    if "schema_version" not in details and earlier and not kept.exists():
        kept = RunFolder(earlier).picture_path() or kept
    if has_state and not kept.exists():
        return None
    return _existing(kept, "the picture that it continued")


def _values(
    details: Mapping[str, Any], folder: Path, engine: str, besides: Collection[str]
) -> dict[str, Any]:
    """The settings in a run's details, its pictures as paths of the copies in its folder.

    From another engine's run, only what engines share is taken. besides: names to leave out.
    """
    kind = registry.get(engine).settings
    values = {n: value for n, value in _recorded(details, kind).items() if value is not None}
    if "schema_version" not in details:
        values = _older(details) | values
    if engine_of(details) != engine:
        values = _shared(details, kind)
    values = {n: value for n, value in values.items() if n not in (*PICTURES, *besides)}
    check_values(kind, values, source=f"the settings of {details.get('run_folder') or folder}")
    pictures = _pictures(details, folder, besides)
    return values | {name: paths for name, paths in pictures.items() if name in kind.model_fields}


def _shared(values: Mapping[str, Any], kind: type[RunSettings]) -> dict[str, Any]:
    """What settings of that kind take from another engine's: SHARED and what is to be avoided."""
    fields = kind.model_fields
    avoided = next((values[name] for name in AVOIDED if values.get(name)), None)
    shared = {name: values.get(name) for name in SHARED} | dict.fromkeys(AVOIDED, avoided)
    return {n: value for n, value in shared.items() if n in fields and value is not None}


def _older(details: Mapping[str, Any]) -> dict[str, Any]:
    """The switches, which the older layout did not record."""
    return {
        "use_mse_regularization": bool(details.get("mse_weight")),
        "use_tv_loss_regularization": bool(details.get("tv_loss_weight")),
        "use_scrolling_zooming": details.get("transform_interval") is not None,
    }


def _pictures(details: Mapping[str, Any], folder: Path, besides: Collection[str]) -> dict[str, Any]:
    """The pictures that a run used. Older details only say that there were some."""
    found: dict[str, Any] = {}
    if details.get("init_image") and "init_image" not in besides:
        found["init_image"] = str(_existing(folder / storage.INIT_IMAGE, "its starting image"))
    if details.get("mask") and "mask" not in besides:
        found["mask"] = str(_existing(folder / storage.MASK, "its mask"))
    prompts = details.get("image_prompts")
    if prompts and "image_prompt" not in besides:
        count = len(prompts) if isinstance(prompts, list) else _count_prompts(folder)
        paths = [folder / storage.image_prompt_name(n + 1) for n in range(max(count, 1))]
        existing = [_existing(path, "its image prompt") for path in paths]
        found["image_prompt"] = list(map(with_weight, existing, image_weights(details, len(paths))))
    return found


def _count_prompts(folder: Path) -> int:
    return len(list(folder.glob(storage.image_prompt_name("*"))))


def _existing(path: Path, what: str) -> Path:
    if path.is_file():
        return path
    raise BadInput(
        f"The run used a picture that is not there: {what}, {path}. Put it back, or keep the"
        " settings file in its run's folder."
    )
