"""What text encoders say of prompts, beside diffusers' own pipelines and a slow, obvious way."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
    StableDiffusionXLPipeline,
)
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from studio.base.errors import BadInput
from studio.engines.diffusion.brackets import Sections, parse_brackets
from studio.engines.diffusion.embeddings import Encoded, Reader, encode, lengthened
from studio.models.clip_package import clip_tokenizer

START, END = 49406, 49407
WIDTH, LAYERS = 32, 3
TEXT = "a red cat, with a hat on a blue background"


@cache
def tokenizer(padding: str = "<|endoftext|>") -> Any:
    own = clip_tokenizer()
    ranked: Any = sorted(own.bpe_ranks, key=own.bpe_ranks.__getitem__)
    vocabulary: Any = dict(own.encoder)
    return CLIPTokenizer(vocab=vocabulary, merges=ranked, pad_token=padding, model_max_length=77)


def text_model(kind: Any, seed: int, **config: Any) -> Any:
    """Tiny and random; its last norm is no identity."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        **{"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": LAYERS},
        **{"bos_token_id": START, "eos_token_id": END, "pad_token_id": 1},
        **{"vocab_size": END + 1, "num_attention_heads": 4, "projection_dim": 24},
    }
    model = kind(CLIPTextConfig(**sizes | config)).eval()
    norm = getattr(model, "text_model", model).final_layer_norm
    torch.nn.init.normal_(norm.weight, 1, 0.5)
    torch.nn.init.normal_(norm.bias, 0.5)
    return model


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(tokenizer(), text_model(CLIPTextModel, 0))


@pytest.fixture(scope="module")
def readers_xl(reader: Reader) -> list[Reader]:
    second = text_model(CLIPTextModelWithProjection, 1, hidden_size=40)
    return [reader, Reader(tokenizer("!"), second)]


def pipeline(*readers: Reader) -> Any:
    """diffusers' own, with nothing but text encoders: its constructor would want all the rest."""
    pipe: Any = object.__new__(
        (StableDiffusionPipeline, StableDiffusionXLPipeline)[len(readers) - 1]
    )
    pipe.register_to_config(force_zeros_for_empty_prompt=True)
    for reader, end in zip(readers, ("", "_2"), strict=False):
        object.__setattr__(pipe, f"tokenizer{end}", reader.tokenizer)
        object.__setattr__(pipe, f"text_encoder{end}", reader.model)
    return pipe


def read(text: str, *readers: Reader, **how: Any) -> Encoded:
    return encode(parse_brackets(text).at(1, 1), readers, **how)


@pytest.mark.parametrize(
    "text", ["", "a cat", f" {TEXT}\n", "cat " * 75, "\\(a\\)", "猫 ✨", "a|b: c"]
)
def test_a_prompt_without_marks_is_what_diffusers_makes_of_it(reader: Reader, text: str) -> None:
    plain = text.replace("\\", "")
    theirs, _ = pipeline(reader).encode_prompt(plain, "cpu", 1, False)
    ours = read(text, reader)
    assert torch.equal(ours.hidden[None], theirs)
    assert ours.pooled is None


def test_layers_are_skipped_as_diffusers_does(reader: Reader) -> None:
    ids = reader.tokenizer(TEXT, padding="max_length", return_tensors="pt").input_ids
    states = reader.model(ids, output_hidden_states=True).hidden_states
    for skipped in (1, 2):
        expected = reader.model.final_layer_norm(states[-(skipped + 1)])[0]
        assert torch.equal(read(TEXT, reader, skipped=skipped).hidden, expected)
    with pytest.raises(BadInput, match="leaves out 3 layers, but the text encoder has only 3"):
        read(TEXT, reader, skipped=3)


@pytest.mark.parametrize("skipped", [0, 1])
def test_both_encoders_of_sdxl(readers_xl: list[Reader], skipped: int) -> None:
    theirs, _, pooled, _ = pipeline(*readers_xl).encode_prompt(
        TEXT, device="cpu", do_classifier_free_guidance=False, clip_skip=skipped or None
    )
    ours = read(TEXT, *readers_xl, skipped=skipped, is_xl=True)
    assert torch.equal(ours.hidden[None], theirs)
    assert ours.pooled is not None
    assert torch.equal(ours.pooled[None], pooled)


def test_an_attention_mask_where_the_weights_want_one() -> None:
    own = Reader(tokenizer(), text_model(CLIPTextModel, 2, use_attention_mask=True))
    theirs, _ = pipeline(own).encode_prompt(TEXT, "cpu", 1, False)
    assert torch.equal(read(TEXT, own).hidden[None], theirs)


def slow(text: str, reader: Reader) -> Tensor:
    """The obvious way: chunk by chunk, token by token. No commas, no inversions, no BREAK in it."""
    tokens: list[int] = []
    weights: list[float] = []
    for piece in (p for section in parse_brackets(text).at(1, 1) for p in section):
        found = reader.tokenizer(piece.text, add_special_tokens=False).input_ids
        tokens += found
        weights += [piece.weight] * len(found)
    chunks = []
    for start in range(0, max(len(tokens), 1), 75):
        ids, own = tokens[start : start + 75], weights[start : start + 75]
        ids = [START, *ids, END] + [END] * (75 - len(ids))
        states = reader.model(torch.tensor([ids])).last_hidden_state[0]
        mean = states.mean()
        states = torch.stack(
            [state * ([1, *own, 1] + [1] * 75)[n] for n, state in enumerate(states)]
        )
        chunks.append(states * (mean / states.mean()))
    return torch.cat(chunks)


@pytest.mark.parametrize(
    "text",
    [
        "a (red:1.4) cat",
        "((a)) [b] (c:0.5) (d:-1) (e:0)",
        "(all of it:1.3)",
        "a cat " * 40 + "(with a hat:1.5)",
        "(a:1.2) " * 76,
        "b " * 400,
    ],
)
def test_weights_and_chunks(reader: Reader, text: str) -> None:
    found, expected = read(text, reader).hidden, slow(text, reader)
    assert found.shape == expected.shape
    assert len(found) % 77 == 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_weight_of_one_changes_nothing(reader: Reader) -> None:
    assert torch.equal(read("a (cat:1)", reader).hidden, read("a cat", reader).hidden)
    long = "b " * 75
    mixed, calm = read(f"{long}(c:2)", reader).hidden, read(long, reader).hidden
    torch.testing.assert_close(mixed[:77], calm, rtol=1e-5, atol=1e-6)
    assert not torch.equal(mixed[77:], read("c", reader).hidden)


def test_a_break_begins_a_chunk(reader: Reader) -> None:
    both = read("a cat BREAK a dog", reader).hidden
    apart = [read(text, reader).hidden for text in ("a cat", "a dog")]
    torch.testing.assert_close(both, torch.cat(apart))


def test_half_precision(reader: Reader) -> None:
    own = Reader(tokenizer(), text_model(CLIPTextModel, 0).to(torch.bfloat16))
    found = read("a (red:1.4) cat", own).hidden
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), slow("a (red:1.4) cat", reader), rtol=0.1, atol=0.1)


def with_tokens(reader: Reader, ids: Sequence[int]) -> Tensor:
    return reader.model(torch.tensor([[*ids, *[END] * (77 - len(ids))]])).last_hidden_state[0]


def test_an_inversion_stands_for_its_vectors(reader: Reader) -> None:
    """An inversion that has the vectors of two words is read as these."""
    words = reader.tokenizer("red cat", add_special_tokens=False).input_ids
    vectors = reader.model.get_input_embeddings().weight[words].detach()
    own = Reader(reader.tokenizer, reader.model, {"<My-Style>": vectors})
    assert torch.equal(read("a <my-style> on", own).hidden, read("a red cat on", reader).hidden)
    far = "b " * 75
    assert torch.equal(read(f"{far}<My-Style>", own).hidden, read(f"{far}red cat", reader).hidden)
    weighed = read("a (<My-Style>:1.5)", own).hidden
    torch.testing.assert_close(weighed, slow("a (red cat:1.5)", reader), rtol=1e-4, atol=1e-5)
    # The encoder itself stays as it was.
    assert torch.equal(read("a b", reader).hidden, with_tokens(reader, [START, 320, 321, END]))


def test_both_encoders_have_as_many_chunks(readers_xl: list[Reader]) -> None:
    first, second = readers_xl
    long = Reader(first.tokenizer, first.model, {"ink": torch.randn(60, WIDTH)})
    found = read("a ink ink", long, second, is_xl=True).hidden
    assert found.shape == (2 * 77, WIDTH + 40)
    empty = read("", second, is_xl=True).hidden
    torch.testing.assert_close(found[77:, WIDTH:], empty)


@pytest.mark.parametrize(
    "vectors, sentence",
    [
        (torch.zeros(2, 48), "vectors of 48 numbers, but these weights read 32"),
        (torch.zeros(32), "it is for another base"),
        (torch.zeros(76, 32), "has 76 vectors. At most 75"),
        (torch.zeros(0, 32), "has 0 vectors"),
    ],
)
def test_inversions_that_do_not_fit(reader: Reader, vectors: Tensor, sentence: str) -> None:
    with pytest.raises(BadInput) as error:
        Reader(reader.tokenizer, reader.model, {"ink": vectors})
    assert sentence in str(error.value)


def test_prompts_at_one_length(reader: Reader) -> None:
    texts = ("a", "b " * 100, "")
    hidden = [read(text, reader).hidden for text in texts]
    short, long, empty = (lengthened(one, 154, hidden[2]) for one in hidden)
    assert {len(one) for one in (short, long, empty)} == {154}
    assert torch.equal(short, torch.cat([hidden[0], hidden[2]]))
    assert torch.equal(long, hidden[1])


def test_an_encoder_that_reads_less() -> None:
    own = Reader(tokenizer(), text_model(CLIPTextModel, 3, max_position_embeddings=20))
    assert own.room == 18
    assert read("b " * 19, own).hidden.shape == (40, WIDTH)


def test_a_long_prompt(reader: Reader) -> None:
    sections: Sections = parse_brackets("a (red:1.2) cat, " * 1250).at(1, 1)
    found = encode(sections, [reader]).hidden
    assert len(found) % 77 == 0
    assert found.isfinite().all()
