"""The prompt grammar, by table."""

import math

import pytest

from studio.base.errors import BadInput
from studio.engines.clip.prompts import Prompt, parse_prompts

NEVER = -math.inf


@pytest.mark.parametrize(
    "text, prompts",
    [
        ("", []),
        (" | ", []),
        ("a red heart", [("a red heart", 1, NEVER)]),
        ("a cat:2", [("a cat", 2, NEVER)]),
        ("a cat:2:0.3", [("a cat", 2, 0.3)]),
        ("a cat:-1:-inf", [("a cat", -1, NEVER)]),
        ("sea : 0.5 | fog:-0.25 |", [("sea", 0.5, NEVER), ("fog", -0.25, NEVER)]),
        ("a cat:0", [("a cat", 0, NEVER)]),
        ("a cat:1e-1", [("a cat", 0.1, NEVER)]),
        ("photo:abc", [("photo:abc", 1, NEVER)]),
        ("photo:abc:2", [("photo:abc", 2, NEVER)]),
        ("1:2:3:4", [("1:2", 3, 4)]),
        ("https://example.org/a", [("https://example.org/a", 1, NEVER)]),
        ("http://example.org:8080", [("http://example.org:8080", 1, NEVER)]),
        ("http://example.org:8080:2", [("http://example.org:8080", 2, NEVER)]),
        ("http://example.org/a:2", [("http://example.org/a", 2, NEVER)]),
        ("ein Bär 🐻:2", [("ein Bär 🐻", 2, NEVER)]),
        ("\"quoted\" and 'quoted'", [("\"quoted\" and 'quoted'", 1, NEVER)]),
        ("ends with a colon:", [("ends with a colon:", 1, NEVER)]),
        ("at 12:30", [("at 12", 30, NEVER)]),
    ],
)
def test_grammar(text, prompts):
    assert parse_prompts(text) == [Prompt(*prompt) for prompt in prompts]


@pytest.mark.parametrize(
    "text, says",
    [
        ("spring ^ summer", "Serial"),
        (":2", "no text"),
        ("a | :2", "no text"),
        ("a:nan", "weight"),
        ("a:inf", "weight"),
        ("a:1e9", "weight"),
        ("a:1:nan", "stop"),
        ("a:1:inf", "stop"),
    ],
)
def test_refused(text, says):
    with pytest.raises(BadInput, match=says):
        parse_prompts(text)


@pytest.mark.parametrize("tail", [":99999", ":1:nan", ":1:inf"])
def test_a_long_prompt_is_cut_where_a_message_quotes_it(tail):
    with pytest.raises(BadInput) as refused:
        parse_prompts("word " * 2000 + tail)
    assert len(str(refused.value)) < 250
