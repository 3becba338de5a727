"""Runs like one that a person likes: each continues it with a seed of its own. Never imports torch.

What it takes besides another seed to be similar but not the same, an engine's settings say:
`RunSettings.varied`.
"""

from pathlib import Path

from studio.engines import registry
from studio.making.prepare import Request
from studio.runs.details_keys import engine_of
from studio.runs.storage import RunFolder


def like(folder: RunFolder, count: int, assets_dir: Path) -> list[Request]:
    """Requests for so many runs like that one. Raises BadInput where its engine is unknown here."""
    details = folder.read()
    engine = engine_of(details)
    given = registry.get(engine).settings.varied(details, assets_dir) | {"set_seed": False}
    if details.get("planned_num_steps", 0) < 0:  # a run without an end, which a person stopped
        given.setdefault("num_steps", max(1, details.get("num_steps") or 1))
    request = Request(
        given=given,
        output_dir=folder.path.parent,
        assets_dir=assets_dir,
        engine=engine,
        continue_run=folder.name,
        new_seed=True,
    )
    return [request] * count
