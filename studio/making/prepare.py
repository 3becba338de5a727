"""From a person's request to a plan that is known to be possible. Never imports torch.

`prepare` checks all that can be checked without torch, `submit.submit` makes the run folder,
`execute.execute` computes it. The command line and the worker share them; between submit and
execute everything is on disk.
"""

import itertools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from studio.base.errors import BadInput, shortened
from studio.engines import registry
from studio.making import changes, recipes
from studio.making.changes import Change
from studio.making.recipes import Recipe
from studio.media.frame_marks import FrameOf, mark_of, marked_jpeg
from studio.media.pictures import (
    at_size,
    crop_or_cover,
    encode_png,
    load_picture,
    read_picture,
    saved_copy,
    scaled,
)
from studio.runs import checkpoints, storage
from studio.runs.checkpoints import Checkpoint
from studio.runs.details_keys import engine_of
from studio.settings.run_settings import RunSettings
from studio.settings.values import make
from studio.settings.weighted import picture_and_weight


@dataclass(frozen=True)
class Request:
    """What a person asked for.

    given: the settings that the person gave this time, by name; values may be text.
    engine: by name; None for the engine of the run that the settings come from, else the default.
    settings_file: a details.json or output.PNG, or another program's yaml or picture, for all other
    settings.
    continue_run: the run whose picture to continue, as `storage.find_run` takes it.
    continue_frame: of that run's film, counted from 1, to continue in place of the run's end.
    origin: where an earlier run began, for this run to begin there too, and what changed while it
    went; its values are not used.
    new_seed: unless a seed is set, draw a new one even where the run continues another, whose
    random numbers it would take on otherwise.
    """

    given: Mapping[str, Any]
    output_dir: Path
    assets_dir: Path
    engine: str | None = None
    settings_file: Path | None = None
    continue_run: str | None = None
    continue_frame: int | None = None
    origin: Recipe | None = None
    new_seed: bool = False


@dataclass(frozen=True)
class Plan:
    """A request that is known to be possible.

    settings: complete; the seed is the one to use, the size is one that the engine can make.
    init_image, image_prompts: the JPEG files to keep and to use. image_weights: of the prompts.
    start: the picture that the run continues. checkpoint: the file of the state that it continues.
    ancestors: the folder names of the runs before it, oldest first; it continues the last one.
    parent_frame: of the last one's film, if the run begins with that frame, not with its end.
    mask: the PNG file of what is drawn anew, if the engine has one.
    init_image_from: the frame of a run's film that the starting image is, if it is one.
    warnings: for the person. changes: those to make at the steps of an earlier run.
    """

    engine: str
    settings: RunSettings
    output_dir: Path
    init_image: bytes | None
    image_prompts: Sequence[bytes]
    image_weights: Sequence[float]
    start: Image.Image | None
    checkpoint: bytes | None
    ancestors: Sequence[str]
    parent_frame: int | None
    init_image_from: FrameOf | None
    mask: bytes | None
    warnings: list[str]
    changes: Sequence[Change] = ()


def prepare(request: Request) -> Plan:
    """Check everything that needs no torch. Makes nothing. Raises BadInput."""
    engine = engine_for(request)
    registry.check_available(engine)
    earlier = _earlier(request, engine)
    settings = _settings(request, engine, [recipe.values for recipe in earlier])
    origin = _origin(request, earlier)
    checkpoint = checkpoints.read(origin.checkpoint) if origin and origin.checkpoint else None
    before = _picture_before(origin, checkpoint)
    settings, kept = _of_kept_size(settings, before)
    if settings.grows_start:
        settings = settings.grown(
            *_under(settings, before, "Outpainting needs a picture to go beyond").size
        )
    settings, warnings = settings.fitted(request.assets_dir, begins_with_picture=origin is not None)
    warnings += [sentence for recipe in earlier for sentence in recipe.said]
    warnings += kept + ([origin.lacks] if origin and origin.lacks else [])
    if origin and _value(settings, "init_image"):
        warnings.append("The starting image is not used: the run continues another one.")
        settings = settings.model_copy(update={"init_image": None})
    if not settings.set_seed:
        settings = settings.model_copy(update={"seed": _unset_seed(request, checkpoint)})
    changes_again, left_out = _changes(request, earlier, settings)
    image = _value(settings, "init_image")
    prompts = [picture_and_weight(text) for text in _value(settings, "image_prompt") or []]
    is_same = checkpoint is not None and checkpoint.engine == engine
    state = origin.checkpoint if origin and is_same else None
    init_image = _copy("starting image", image) if image is not None else None
    return Plan(
        engine=engine,
        settings=settings,
        output_dir=request.output_dir,
        init_image=init_image,
        image_prompts=[_copy("image prompt", path) for path, _ in prompts],
        image_weights=[weight for _, weight in prompts],
        start=_start(before, settings),
        checkpoint=state.read_bytes() if state else None,
        ancestors=origin.ancestors if origin else (),
        parent_frame=origin.frame if origin else None,
        init_image_from=mark_of(init_image) if init_image else None,
        mask=_mask(settings, before),
        warnings=warnings + left_out,
        changes=changes_again,
    )


def _unset_seed(request: Request, checkpoint: Checkpoint | None) -> int:
    """The seed of a run that sets none: a random one, or that of the state that it continues."""
    if checkpoint is None or request.new_seed:
        return secrets.randbits(64)
    return checkpoint.settings.get("seed", 0)


def engine_for(request: Request) -> str:
    """The name of the engine: the one that was asked for, else that of the run to build on.

    Raises BadInput for an engine that is unknown here.
    """
    if request.engine is not None:
        registry.get(request.engine)
        return registry.known_name(request.engine)
    if request.settings_file is not None:
        return _known(recipes.engine_in(request.settings_file), "The settings")
    if request.continue_run is not None:
        parent = storage.find_run(request.output_dir, request.continue_run)
        return _known(engine_of(parent.read()), f"The run {parent.name}")
    return registry.DEFAULT


def _known(engine: str, source: str) -> str:
    """The engine of a run to build on. Raises BadInput if it is unknown here."""
    try:
        registry.get(engine)
    except BadInput as error:
        raise error.prefixed(f"{source} cannot be used here. ") from None
    return engine


def _earlier(request: Request, engine: str) -> list[Recipe]:
    """The runs that this one builds on. Values of later ones win."""
    earlier = []
    given = [name for name, value in request.given.items() if value is not None]
    if request.continue_run is not None:
        parent = storage.find_run(request.output_dir, request.continue_run)
        earlier.append(recipes.continued(parent, engine, given, request.continue_frame))
    if request.settings_file is not None:
        recipe = recipes.from_file(
            request.settings_file,
            request.output_dir,
            engine,
            given,
            assets_dir=request.assets_dir,
        )
        earlier.append(recipe)
    return earlier


def _settings(request: Request, engine: str, earlier: Sequence[Mapping[str, Any]]) -> RunSettings:
    """Defaults, then values of earlier runs, then what was given; later values win."""
    kind = registry.get(engine).settings
    given = {name: value for name, value in request.given.items() if value is not None}
    layers = [registry.defaults(engine), *earlier, given]
    wanted = dict(itertools.chain.from_iterable(layer.items() for layer in layers))
    return make(kind, kind.recommended(wanted, request.assets_dir), *layers)


def _origin(request: Request, earlier: Sequence[Recipe]) -> Recipe | None:
    """The earlier run whose picture this one continues."""
    if request.origin:
        earlier = [request.origin]
    elif request.continue_run is None and request.given.get("init_image"):
        return None
    return next((recipe for recipe in earlier if recipe.is_continued), None)


def _changes(
    request: Request, earlier: Sequence[Recipe], settings: RunSettings
) -> tuple[Sequence[Change], list[str]]:
    """What changes at which step, as in the earlier run; and a warning if that is left out.

    Who gives another prompt, say, wants that, not those of the earlier run. Raises BadInput.
    """
    recipes_at_hand = [request.origin] if request.origin else earlier
    again = next((recipe for recipe in recipes_at_hand if recipe.changes), None)
    if again is None:
        return (), []
    if other := again.changed_otherwise(settings.model_dump()):
        return (), [changes.left_out(again.changes, type(settings), other)]
    changes.check(settings, again.changes)
    return again.changes, []


def _picture_before(origin: Recipe | None, checkpoint: Checkpoint | None) -> Image.Image | None:
    """The last picture of the run that this one continues, at the earlier run's size."""
    if checkpoint and checkpoint.picture is not None:
        (picture,) = at_size([checkpoint.picture], checkpoint.grows_to)
        return Image.fromarray(picture)
    start = origin.start if origin else None
    if start is None or isinstance(start, Image.Image):
        return start
    return load_picture(start, f"The picture to continue, {start},")


def _value(settings: RunSettings, name: str) -> Any:
    """None for a setting that the engine does not have."""
    return getattr(settings, name, None)


def _size(settings: RunSettings) -> tuple[int, int] | None:
    """Width and height, where the engine lets a person choose them."""
    width, height = _value(settings, "Xdim"), _value(settings, "ydim")
    return (width, height) if width and height else None


def _of_kept_size(
    settings: RunSettings, before: Image.Image | None
) -> tuple[RunSettings, list[str]]:
    """The settings with the earlier picture's size, if that is to be kept, and warnings."""
    size, resize = _size(settings), _value(settings, "continue_resize")
    if before is None or size is None or resize != "keep" or before.size == size:
        return settings, []
    width, height = before.size
    kept = make(type(settings), settings.model_dump() | {"Xdim": width, "ydim": height})
    return kept, [f"The size stays {width}x{height}, that of the run that is continued."]


def _start(before: Image.Image | None, settings: RunSettings) -> Image.Image | None:
    """The picture that a continuing run begins with, at the size of that run."""
    size = _size(settings)
    if before is None or size is None or settings.grows_start:
        return before
    fit = crop_or_cover if _value(settings, "continue_resize") == "crop" else scaled
    return fit(before, size)


def _mask(settings: RunSettings, before: Image.Image | None) -> bytes | None:
    """The file to keep of a mask, without any loss. Raises BadInput.

    before: the picture that the run continues, which the mask then lies on.
    """
    path = _value(settings, "mask")
    if not path:
        return None
    mask = load_picture(Path(path), f"The mask '{shortened(path)}'")
    under = _under(settings, before, "A mask needs the picture that it lies on")
    if mask.size != under.size:
        (w, h), (width, height) = mask.size, under.size
        raise BadInput(
            f"The mask is {w}x{h} pixels large, and the picture that it lies on {width}x{height}."
            " Make them the same size."
        )
    return encode_png(mask)


def _under(settings: RunSettings, before: Image.Image | None, need: str) -> Image.Image:
    """The picture that a run starts from. Raises BadInput if there is none. need: of it."""
    image = _value(settings, "init_image")
    if before is None and image is None:
        raise BadInput(f"{need}: give a starting image, or continue a run.")
    return before or load_picture(Path(str(image)), f"The starting image '{shortened(image)}'")


def _copy(what: str, path: str) -> bytes:
    """The bytes to keep of a picture that a setting names, with its mark. Raises BadInput."""
    called = f"The {what} '{shortened(path)}'"
    data = read_picture(Path(path), called)
    return marked_jpeg(saved_copy(data, called), mark_of(data))
