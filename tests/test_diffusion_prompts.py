"""Prompts in runs of the engine Diffusion: what is shared, weighed, scheduled and refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from studio.making import recipes


def written(folder: Path, **details: Any) -> Path:
    path = folder / "details.json"
    path.write_text(json.dumps({"schema_version": 1, **details}))
    return path


@pytest.mark.parametrize(
    ("made_by", "given", "engine", "expected"),
    [
        ("VQGAN-CLIP", {"avoid": "fog"}, "Diffusion", {"negative_prompt": "fog"}),
        ("VQGAN-CLIP", {"avoid": ""}, "Diffusion", {}),
        ("Diffusion", {"negative_prompt": "fog"}, "VQGAN-CLIP", {"avoid": "fog"}),
        ("Diffusion", {"negative_prompt": "fog"}, "Diffusion", {"negative_prompt": "fog"}),
        ("Diffusion", {"guidance_scale": 3.0}, "VQGAN-CLIP", {}),
    ],
)
def test_engines_share_what_is_to_be_avoided_by_their_own_names(
    made_by: str, given: dict[str, Any], engine: str, expected: dict[str, Any], tmp_path: Path
) -> None:
    path = written(tmp_path, model=made_by, text_input="a heart", Xdim=64, ydim=72, **given)
    values = recipes.from_file(path, tmp_path, engine).values
    assert values == {"text_input": "a heart", "Xdim": 64, "ydim": 72} | expected
