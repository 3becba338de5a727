"""CLIP's network and tokeniser without the rest of its package."""

import subprocess
import sys
from pathlib import Path

import clip
import clip.model
import pytest
import torch

from studio.models.clip_package import tokens_of
from studio.models.without_memory import without_memory

ROOT = Path(__file__).resolve().parents[1]
BARE = """
import sys
from studio.models.clip_package import clip_part, tokens_of
assert tokens_of("a red heart", 77)
assert "torch" not in sys.modules, "the tokeniser needs torch"
assert clip_part("model").CLIP
assert "torchvision" not in sys.modules, "the network needs torchvision"
import clip
assert clip.model.CLIP and clip.tokenize("a red heart").shape == (1, 77)
"""


@pytest.mark.parametrize("text", ["a red heart", "", "Ünï ☂ & &amp; cøde", "one word " * 50])
@pytest.mark.parametrize("context_length", [77, 16])
def test_tokens_are_those_of_the_package(text, context_length):
    theirs = clip.tokenize([text], context_length, truncate=True)[0]
    ours = torch.tensor(tokens_of(text, context_length))
    assert torch.equal(ours, theirs[: len(ours)]) and not theirs[len(ours) :].any()


def test_neither_torch_nor_torchvision_comes_along():
    subprocess.run([sys.executable, "-W", "ignore", "-c", BARE], cwd=ROOT, check=True)


@pytest.mark.parametrize("layers", [1, (1, 1, 1, 1)], ids=["ViT", "ResNet"])
def test_a_network_without_memory_has_its_shapes(layers):
    sizes = (8, 32, layers, 64, 16, 7, 49, 64, 2, 1)
    with without_memory():
        model = clip.model.CLIP(*sizes)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    real = clip.model.CLIP(*sizes).state_dict()
    assert shapes == {name: tuple(tensor.shape) for name, tensor in real.items()}
    assert all(tensor.is_meta for tensor in model.state_dict().values())


A_RUN = """
import sys
from studio.base.stopping import Stop
from studio.cli import generating
words = "a --num-steps 1 --cutn 2 --output-dir".split()
assert generating.run([*words, sys.argv[1]], Stop()) == 0
print({"torchvision", "sympy", "torch._dynamo"} & sys.modules.keys())
"""


def test_a_run_imports_what_it_uses_alone(tmp_path):
    """With the bundled weights and usual settings. Each of these takes up to a second."""
    words = [sys.executable, "-W", "ignore", "-c", A_RUN, str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()"
