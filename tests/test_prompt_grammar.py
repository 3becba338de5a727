"""Diffusion's prompt grammar: brackets, schedules, AND, LoRAs, and how many tokens there are."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studio.base.errors import BadInput
from studio.engines.diffusion.brackets import Piece, parse_brackets
from studio.engines.diffusion.chunks import NEAR, ROOM, Slot, chunks_of
from studio.engines.diffusion.prompt_grammar import (
    MOST_CONDITIONS,
    Lora,
    parse_negative,
    parse_prompt,
    prompt_parts,
    prompt_text,
)
from studio.engines.diffusion.text_length import TOKENIZER_FILE, prompt_length
from studio.engines.prompt_parts import Length, PromptPart
from studio.models import clip_text

ROOT = Path(__file__).resolve().parents[1]
COMMA = 7
CALM = 20_000  # characters
QUICK = 10.0  # seconds, on a machine that others use too; a quadratic reader takes minutes


def said(text: str, step: int = 1, steps: int = 10) -> list[list[tuple[str, float]]]:
    """What a prompt says in a step, its weights rounded."""
    sections = parse_brackets(text).at(step, steps)
    return [[(piece.text, round(piece.weight, 4)) for piece in section] for section in sections]


def plain(text: str, steps: int = 10) -> list[tuple[int, str]]:
    """The schedule of a prompt, as text without weights."""
    stretches = parse_brackets(text).schedule(steps)
    return [(s.last_step, "".join(p.text for part in s.sections for p in part)) for s in stretches]


@pytest.mark.parametrize(
    "text, pieces",
    [
        ("", []),
        ("a cat", [("a cat", 1)]),
        ("a (red) cat", [("a ", 1), ("red", 1.1), (" cat", 1)]),
        ("((red))", [("red", 1.21)]),
        ("(red:1.3)", [("red", 1.3)]),
        ("(red:.5)", [("red", 0.5)]),
        ("(red: 1.3 )", [("red", 1.3)]),
        ("(red:-1)", [("red", -1)]),
        ("[red]", [("red", 0.9091)]),
        ("[[red]]", [("red", 0.8264)]),
        ("((red:2))", [("red", 2.2)]),
        ("(a [b] (c:2):3)", [("a ", 3), ("b", 2.7273), (" ", 3), ("c", 6)]),
        ("([a])", [("a", 1)]),
        ("(a)(b)", [("ab", 1.1)]),
        (r"\(a\) \[b\] \\ \: \|", [(r"(a) [b] \ : |", 1)]),
        (r"(a\):2)", [("a)", 2)]),
        (r"a\b \n", [(r"a\b \n", 1)]),
        ("(red:hot)", [("red:hot", 1.1)]),
        ("(a:1:2)", [("a:1", 2)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("at 12:30, a|b", [("at 12:30, a|b", 1)]),
        ("[a:b]", [("a:b", 0.9091)]),
        ("[a:b:c:3]", [("a:b:c:3", 0.9091)]),
        ("()[]", []),
        # Without a partner, a bracket is text.
        ("a (red cat", [("a (red cat", 1)]),
        ("a (red cat:1.3", [("a (red cat:1.3", 1)]),
        ("a red) cat]", [("a red) cat]", 1)]),
        ("((red)", [("(", 1), ("red", 1.1)]),
        ("(red [hot) cat", [("red [hot", 1.1), (" cat", 1)]),
        ("(red:1.5 (hot)", [("(red:1.5 ", 1), ("hot", 1.1)]),
    ],
)
def test_weights(text: str, pieces: list[tuple[str, float]]) -> None:
    assert said(text) == [pieces]


@pytest.mark.parametrize(
    "text, sections",
    [
        ("a BREAK b", [[("a ", 1)], [(" b", 1)]]),
        ("(a BREAK b:2)", [[("a ", 2)], [(" b", 2)]]),
        ("BREAK a BREAK", [[], [(" a ", 1)], []]),
        ("aBREAK break BREAKs", [[("aBREAK break BREAKs", 1)]]),
    ],
)
def test_breaks(text: str, sections: list[list[tuple[str, float]]]) -> None:
    assert said(text) == sections


@pytest.mark.parametrize(
    "text, schedule",
    [
        ("a", [(10, "a")]),
        ("[a:b:0.25]", [(2, "a"), (10, "b")]),
        ("[a:b:.5]", [(5, "a"), (10, "b")]),
        ("[a:b:3]", [(3, "a"), (10, "b")]),
        ("[b:3]", [(3, ""), (10, "b")]),
        ("[:b:3]", [(3, ""), (10, "b")]),
        ("[a::3]", [(3, "a"), (10, "")]),
        ("[a:b: 3 ]", [(3, "a"), (10, "b")]),
        ("[a:b:1]", [(1, "a"), (10, "b")]),
        ("[a:b:1.0]", [(10, "a")]),
        ("[a:b:0]", [(10, "b")]),
        ("[a:b:-4]", [(10, "b")]),
        ("[a:b:10]", [(10, "a")]),
        ("[a:b:99]", [(10, "a")]),
        ("[a:b:" + "9" * 5000 + "]", [(10, "a")]),
        ("[a:b:-" + "9" * 5000 + "]", [(10, "b")]),
        ("x [a:[b:c:6]:3] y", [(3, "x a y"), (6, "x b y"), (10, "x c y")]),
        ("[a:b:5] [c:d:0.5]", [(5, "a c"), (10, "b d")]),
        ("[a:(b:1.5):5]", [(5, "a"), (10, "b")]),
        ("[a (b:c):d:5]", [(5, "a b:c"), (10, "d")]),
        ("([a:b:5]:1.5)", [(5, "a"), (10, "b")]),
        (r"[a\:b:c:5]", [(5, "a:b"), (10, "c")]),
        ("[a:a:5]", [(10, "a")]),
        ("[a:b:5", [(10, "[a:b:5")]),
        ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
    ],
)
def test_words_that_change(text: str, schedule: list[tuple[int, str]]) -> None:
    assert plain(text) == schedule


def test_words_that_take_turns() -> None:
    assert plain("a [b|c|d]", 5) == [(1, "a b"), (2, "a c"), (3, "a d"), (4, "a b"), (5, "a c")]
    assert plain("[a|]", 2) == [(1, "a"), (2, "")]
    assert plain("[a|b:2]", 2) == [(1, "a"), (2, "b:2")]
    assert plain("[[a|b]:c:2]", 9) == [(1, "a"), (2, "b"), (9, "c")]
    assert said("[a|(b:1.1)]", 2) == [[("b", 1.1)]]


def test_a_schedule_is_what_is_said_in_each_step() -> None:
    """The slow, obvious way: each step on its own."""
    draw = random.Random(1)
    for _ in range(300):
        tree, steps = parse_brackets(some_prompt(draw)), draw.randint(1, 12)
        stretches = tree.schedule(steps)
        told = [s for s in stretches for _ in range(s.last_step)]
        assert stretches[-1].last_step == steps
        lasts = [0, *(s.last_step for s in stretches)]
        told = [
            s for s, a, b in zip(stretches, lasts, lasts[1:], strict=False) for _ in range(b - a)
        ]
        assert [s.sections for s in told] == [tree.at(n, steps) for n in range(1, steps + 1)]


def some_prompt(draw: random.Random, length: int = 14) -> str:
    """Any mixture of what the grammar knows."""
    words = ["a", "cat ", " red", ", ", "1", "0.5", ":", ":2", "(", ")", "[", "]", "|", "\\", "\\("]
    words += ["b:1.3)", "c:0.5]", " AND ", " BREAK ", "<lora:x:0.5>", "\n", " :0.5", " AND b :-2"]
    return "".join(draw.choices(words, k=draw.randint(0, length)))


@pytest.mark.parametrize(
    "text, parts",
    [
        ("", []),
        ("a cat", [("a cat", 1)]),
        ("a AND b :0.5", [("a", 1), ("b", 0.5)]),
        ("a:0.5AND b", [("a:0.5AND b", 1)]),
        ("a:0.5 AND b: -2 AND c :.25", [("a", 0.5), ("b", -2), ("c", 0.25)]),
        ("a and b, SAND", [("a and b, SAND", 1)]),
        ("a AND AND b", [("a", 1), ("b", 1)]),
        ("a cat :2", [("a cat", 2)]),
        ("at 12:30", [("at 12:30", 1)]),
        (r"a\:2", [(r"a\:2", 1)]),
        (r"a\\:2", [(r"a\\", 2)]),
        ("a:2 :1", [("a:2", 1)]),
        ("a:2:1", [("a:2:1", 1)]),
        ("(a:1.3) AND [b:c:0.5]", [("(a:1.3)", 1), ("[b:c:0.5]", 1)]),
        ("a <lora:x:0.8> :0.5 AND b :2 <lora:y>", [("a <lora:x:0.8>", 0.5), ("b <lora:y>", 2)]),
    ],
)
def test_prompts_that_pull_at_once(text: str, parts: list[tuple[str, float]]) -> None:
    found = prompt_parts(text)
    assert [(part.text, part.weight) for part in found] == parts
    assert prompt_parts(prompt_text(found)) == found
    assert [c.weight for c in parse_prompt(text).conditions] == ([w for _, w in parts] or [1])


def test_a_written_prompt_is_read_as_the_same() -> None:
    draw = random.Random(2)
    for _ in range(2000):
        text = some_prompt(draw)
        parts = prompt_parts(text)
        again = prompt_text(parts)
        assert prompt_parts(again) == parts, text
        first, second = parse_prompt(text), parse_prompt(again)
        assert first.loras == second.loras
        for one, other in zip(first.conditions, second.conditions, strict=True):
            assert one.weight == other.weight
            assert spaced(one.schedule(7)) == spaced(other.schedule(7)), text


def spaced(schedule: list) -> list:
    """A schedule without the spaces at its ends, which no tokenizer sees."""
    return [
        (s.last_step, [[(" ".join(p.text.split()), p.weight) for p in part] for part in s.sections])
        for s in schedule
    ]


def test_a_slider_writes_a_weight_that_is_read() -> None:
    for weight in (0.5, -1.25, 2.0, 1e-7, 0.1234567891, 1234.5):
        parts = [PromptPart("a", weight), PromptPart("16:9"), PromptPart("b :2")]
        assert prompt_parts(prompt_text(parts))[0] == PromptPart("a", weight)
        assert prompt_parts(prompt_text(parts))[2] == PromptPart("b :2")
    assert prompt_text([PromptPart("a"), PromptPart("b", 0.5)]) == "a AND b :0.5"
    assert prompt_text([PromptPart("a cat")]) == "a cat"


@pytest.mark.parametrize(
    "text, loras",
    [
        ("a cat", []),
        ("a <lora:ink> cat", [Lora("ink")]),
        ("<lora:ink:0.8>", [Lora("ink", 0.8, 0.8)]),
        ("<lora:ink:0.5:0.8>", [Lora("ink", 0.8, 0.5)]),
        ("<lora:ink:te=0.5:unet=0.8>", [Lora("ink", 0.8, 0.5)]),
        ("<lora:ink:unet=0.8>", [Lora("ink", 0.8, 1.0)]),
        ("<lora:a:-1> AND b <lyco:c:2>", [Lora("a", -1, -1), Lora("c", 2, 2)]),
        ("<lora:open", []),
    ],
)
def test_loras_are_no_text(text: str, loras: list[Lora]) -> None:
    prompt = parse_prompt(text)
    assert prompt.loras == loras
    words = [p.text for c in prompt.conditions for s in c.tree.at(1, 1) for p in s]
    assert any("lora:" in word for word in words) == ("open" in text)


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("<lora:ink:much>", "<lora:ink:much> is not a LoRA with its weight"),
        ("<lora::1>", "is not a LoRA"),
        ("<lora:a:1:2:3>", "is not a LoRA"),
        ("<lora:a:dyn=1>", "is not a LoRA"),
        ("<lora:a:20000>", "The LoRA 'a' has the weight 20000"),
        ("a :20000", "The prompt 'a :20000' has the weight 20000"),
        ("(a:20000)", "'a' in the prompt has the weight 20000"),
        ("(a:" + "9" * 400 + ")", "has the weight inf"),
        ("[b:(c:200) (a:200:3] (d:(a:2000):50)", "'a' in the prompt has the weight 100000"),
        ("(" * 200 + "a" + ")" * 200, "'a' in the prompt has the weight"),
        (" AND ".join("a" * (MOST_CONDITIONS + 1)), "joins 33 prompts by AND. Join at most 32"),
    ],
)
def test_what_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(BadInput) as error:
        parse_prompt(text)
    assert sentence in str(error.value)


def test_brackets_without_a_partner_are_told() -> None:
    (one,) = parse_prompt("a cat, (red:hot").remarks
    assert "The bracket ( in “a cat, (red:hot” has no partner, so it is read as text" in one
    assert r"write \(" in one
    (many,) = parse_prompt("a ] b ((c)").remarks
    assert many.startswith("2 brackets have no partner") and r"\]" in many
    assert parse_prompt(r"(a) [b:c:0.5] \( \]").remarks == []
    (left,) = parse_prompt("a <hypernet:x:1>").remarks
    assert left == "<hypernet:x:1> is left out: there are only LoRAs."


def test_a_negative_prompt_is_one_condition() -> None:
    prompt = parse_negative("a AND (b:1.5) :2 <lora:ink>")
    (condition,) = prompt.conditions
    assert condition.weight == 1
    assert condition.tree.at(1, 1) == ((Piece("a AND "), Piece("b", 1.5), Piece(" :2 ")),)
    assert prompt.loras == ()
    assert prompt.remarks == [
        "The LoRA ink in the negative prompt is not used: name it in the prompt."
    ]


@pytest.mark.parametrize(
    "piece",
    [
        *("a word, ", "(", ")", "[", "]", "([", "(a", "a)", "[a|b:", "[a|b]", " ", ":", "|", ":1 "),
        *("\\", "\\(", "BREAK ", "AND ", "<lora:", "<lora:a>", "<", "> ", "AND :1", "[a:b:0.5]"),
        *("((((((((((", "[a:[b:", "] ", "(a:1.3), "),
    ],
)
def test_a_long_prompt_is_quick(piece: str) -> None:
    text = (piece * CALM)[:CALM]
    began = time.monotonic()
    for each in (text, text + "x", "(" * (CALM // 2) + text[: CALM // 2]):
        try:
            prompt = parse_prompt(each)
        except BadInput as error:
            assert len(str(error)) < 300
            continue
        assert len(" ".join(prompt.remarks)) < 500
        for condition in prompt.conditions:
            condition.schedule(20)
    assert time.monotonic() - began < QUICK


def test_brackets_may_be_deep() -> None:
    half = CALM // 2
    (section,) = parse_brackets("[" * half + "a" + "]" * half).at(1, 1)
    assert [piece.text for piece in section] == ["a"]
    assert section[0].weight < 1e-300
    deep = "[a:" * 2000 + "b" + ":0.5]" * 2000
    assert plain(deep) == [(5, "a"), (10, "b")]


def letters(text: str) -> list[int]:
    """A tokenizer: each word is a token, a number where it is one."""
    words = text.replace(",", f" {COMMA} ").split()
    return [int(word) if word.isdigit() else ord(word[0]) for word in words]


def obvious_chunks(tokens: list[int], room: int) -> list[list[int]]:
    """The rule, said slowly: of the commas near the end of a full chunk, the last ends it."""
    chunks = []
    while len(tokens) > room:
        end = room
        if tokens[room] != COMMA:
            places = range(room - NEAR, room)
            end = max((n + 1 for n in places if n >= 0 and tokens[n] == COMMA), default=room)
        chunks.append(tokens[:end])
        tokens = tokens[end:]
    return [*chunks, tokens] if tokens or not chunks else chunks


def test_chunks() -> None:
    draw = random.Random(3)
    for commas in (0, 0.02, 0.1, 0.5, 1):
        for count in (0, 1, 74, 75, 76, 100, 150, 151, 400):
            tokens = [COMMA if draw.random() < commas else 9 for _ in range(count)]
            sections = ((Piece(" ".join(map(str, tokens))),),)
            found = chunks_of(sections, letters)
            assert [[slot.token for slot in c] for c in found] == obvious_chunks(tokens, ROOM)
            assert all(slot == Slot(slot.token) for chunk in found for slot in chunk)


def test_a_chunk_ends_at_a_break() -> None:
    def lengths(text: str) -> list[int]:
        return list(map(len, chunks_of(parse_brackets(text).at(1, 1), letters)))

    assert lengths("") == [0]
    assert lengths("a b BREAK c") == [2, 1]
    assert lengths("a BREAK BREAK c BREAK") == [1, 0, 1]
    assert lengths("BREAK c") == [0, 1]


def test_weights_and_inversions_stay_with_their_tokens() -> None:
    sections = parse_brackets("1 2, (3 Ink-style 4:2) ink-styled").at(1, 1)
    (chunk,) = chunks_of(sections, letters, {"ink-style": 2, "ink": 1})
    ink = [Slot(0, 2, ("ink-style", 0)), Slot(0, 2, ("ink-style", 1))]
    start = [Slot(1), Slot(2), Slot(COMMA), Slot(3, 2), *ink, Slot(4, 2)]
    assert chunk[: len(start)] == start
    assert chunk[len(start) :] == [Slot(0, 1, ("ink", 0)), Slot(ord("-"))]


def test_an_inversion_is_not_split() -> None:
    text = "1 " * 73 + "ink 2"
    first, second = chunks_of(((Piece(text),),), letters, {"ink": 4})
    assert len(first) == 73
    assert [slot.vector for slot in second] == [*(("ink", n) for n in range(4)), None]
    # It moves on with the words behind a comma.
    text = "1 " * 70 + ", ink" + " 2" * 5
    first, second = chunks_of(((Piece(text),),), letters, {"ink": 3})
    assert len(first) == 71
    assert [slot.vector for slot in second] == [*(("ink", n) for n in range(3)), *[None] * 5]


def test_length_without_a_tokenizer_of_the_weights() -> None:
    assert prompt_length("a red cat") == Length(3, ROOM)
    assert prompt_length("a (red:1.3) cat <lora:ink:1>") == Length(3, ROOM)
    assert prompt_length("cat " * 76) == Length(76, 2 * ROOM)
    assert prompt_length("a BREAK b") == Length(2, 2 * ROOM)
    assert prompt_length("[a:a b c:0.5]") == Length(3, ROOM)
    assert prompt_length("") == Length(0, ROOM)
    assert prompt_length("in ink", inversions={"ink": 5}) == Length(6, ROOM)


def test_a_long_prompt_that_changes_is_counted_quickly() -> None:
    prompt_length("a")  # reads the tokenizer
    began = time.monotonic()
    assert prompt_length("[a|b] " * (CALM // 6), steps=500) == Length(3333, 45 * ROOM)
    assert time.monotonic() - began < QUICK


def test_without_any_tokenizer_the_length_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_text, "encode", lambda _: None)
    assert prompt_length("a cat") is None


def write_tokenizer(folder: Path) -> None:
    """One that knows few letters, so that it cannot read all."""
    letters = {letter: n for n, letter in enumerate("abct")}
    letters |= {f"{letter}</w>": n for n, letter in enumerate("abct", start=10)}
    content = {
        "version": "1.0",
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {
            "type": "BPE",
            "unk_token": "<end>",
            "end_of_word_suffix": "</w>",
            "vocab": letters | {"<end>": 20},
            "merges": [],
        },
    }
    (folder / TOKENIZER_FILE).write_text(json.dumps(content))


def test_what_a_tokenizer_cannot_read_is_told(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    assert prompt_length("a (cat:1.2)", tokenizer=tmp_path) == Length(4, ROOM)
    length = prompt_length("a 猫 cat ß 猫", tokenizer=tmp_path)
    assert length == Length(7, ROOM, "猫 ß")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 5}'])
def test_a_damaged_tokenizer_is_not_used(tmp_path: Path, content: str) -> None:
    (tmp_path / TOKENIZER_FILE).write_text(content)
    assert prompt_length("a cat", tokenizer=tmp_path) == Length(2, ROOM)
    assert prompt_length("a cat", tokenizer=tmp_path / "gone") == Length(2, ROOM)


def test_the_length_needs_no_torch() -> None:
    code = (
        "import sys; from studio.engines.diffusion.text_length import prompt_length;"
        "print(prompt_length('a cat').tokens, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["2", "False"], done.stderr
