"""CLIP as a run sees with it, and how far its embeddings are apart."""

import math
import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio.base.errors import BadInput
from studio.engines.device import FULL_PRECISION, Precision
from studio.engines.fast.frozen import frozen_visual
from studio.engines.fast.frozen_layers import own
from studio.models.catalogue import find_clip
from studio.models.clip_package import clip_part, clip_tokenizer, tokens_of
from studio.models.weight_files import StateDict, read_state_dict
from studio.models.without_memory import without_memory

if TYPE_CHECKING:
    from clip.model import CLIP

# Mean and spread of the pictures that OpenAI trained CLIP on (clip.clip._transform).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer


class Perceptor(nn.Module):
    """An OpenAI CLIP that turns pictures and texts into unit embeddings [N, D].

    It encodes pictures in `precision`, by a frozen network with gradients at its input alone, and
    texts in float32.
    """

    mean: Tensor

    def __init__(self, model: "CLIP", precision: Precision = FULL_PRECISION) -> None:
        super().__init__()
        self.input_resolution: int = model.visual.input_resolution
        self.context_length: int = model.context_length
        self.embed_dim: int = model.text_projection.shape[1]
        self.dtype = precision.dtype
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
        self.register_buffer("mean", mean, persistent=False)
        first = model.visual.conv1.weight
        first.data = first / std  # so that normalising leaves only the mean to subtract
        self.visual = frozen_visual(model.visual, precision)
        self.text = model
        del model.visual
        for part in self.text.parameters():
            part.data = own(part, torch.float32)

    def encode_image(self, pictures: Tensor) -> Tensor:
        """Unit embeddings of pictures [N, 3, S, S] in [0, 1], S the input resolution in pixels."""
        centred = (pictures - self.mean).to(self.dtype)
        features = self.visual(centred.contiguous(memory_format=torch.channels_last))
        return F.normalize(features.float(), dim=-1)

    def encode_text(self, texts: list[str]) -> Tensor:
        """Unit embeddings of texts, in the way of `clip.model.CLIP.encode_text`.

        Text beyond the context length is left out.
        """
        rows = [torch.tensor(tokens_of(text, self.context_length)) for text in texts]
        padded = [F.pad(row, (0, self.context_length - len(row))) for row in rows]
        tokens = torch.stack(padded).to(self.mean.device)
        text = self.text
        x = text.token_embedding(tokens) + text.positional_embedding
        x = text.transformer(x.transpose(0, 1)).transpose(0, 1)
        ends = text.ln_final(x)[torch.arange(len(x)), tokens.argmax(dim=-1)]
        return F.normalize(ends @ text.text_projection, dim=-1)

    def cut_off(self, text: str) -> str:
        """The end of a text, beyond the context length; empty where the whole text fits."""
        room = self.context_length - 2  # one token marks the start, one the end
        tokenizer = clip_tokenizer()
        return tokenizer.decode(tokenizer.encode(text)[room:]).strip()


def find_clip_model(name: str, assets_dir: Path) -> Path:
    """The checkpoint of a CLIP: NAME.pt in `assets_dir`, one of OpenAI's names, or a path.

    OpenAI's models are cached in ~/.cache/clip, downloaded there if need be, and checked by their
    checksum. Raises BadInput where there is no such model, listing what there is.
    """
    return find_clip(assets_dir, name) or _published_clip(name)


def _published_clip(name: str) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # clip imports pkg_resources, which warns of its end
        from clip.clip import _MODELS as addresses
        from clip.clip import _download as download
    cache, address = Path("~/.cache/clip").expanduser(), addresses[name]
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        return Path(download(address, str(cache)))
    except (OSError, RuntimeError) as error:
        raise BadInput(
            f"The CLIP model {name} is neither cached in {cache} nor reachable: {error}. Connect to"
            f" the internet once, put the file {Path(address).name} there, or"
            " choose a CLIP in the assets folder."
        ) from None
    finally:
        socket.setdefaulttimeout(patience)


def load_clip_model(path: Path, precision: Precision = FULL_PRECISION) -> Perceptor:
    """The CLIP of a checkpoint, on the CPU, no gradients. Raises BadInput.

    Takes a state dict and the TorchScript archives that OpenAI publishes; neither runs anything.
    """
    state_dict = read_state_dict(path)
    try:
        model = _clip_of(state_dict)
    except MemoryError:
        raise
    except Exception as error:  # sizes come from the weights, so wrong ones fail anywhere
        reason = f"{type(error).__name__} {str(error).splitlines()[0] if str(error) else ''}"
        raise BadInput(
            f"{path} is not a CLIP model in OpenAI's format. Its first weights are"
            f" {', '.join(list(state_dict)[:3])} ({reason.strip()[:160]})."
        ) from None
    known = len(clip_tokenizer().encoder)
    if model.vocab_size < known:
        raise BadInput(f"{path} knows {model.vocab_size} tokens; CLIP's tokeniser has {known}.")
    return Perceptor(model.eval().requires_grad_(False), precision)


def _clip_of(state_dict: StateDict) -> "CLIP":
    """The model on the tensors of the state dict themselves; `build_model` would copy them twice.

    `build_model` reads the sizes from the shapes, and gets tensors without memory to do so.
    """
    with without_memory(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # copying without memory does nothing, as intended
        model = clip_part("model").build_model(dict(state_dict))
    sizes = ("input_resolution", "context_length", "vocab_size")
    weights = {key: tensor for key, tensor in state_dict.items() if key not in sizes}
    model.load_state_dict(weights, assign=True)
    mask = torch.full((model.context_length, model.context_length), -math.inf).triu(1)
    for block in model.transformer.resblocks:
        block.attn_mask = mask
    return model


def prompt_loss(images: Tensor, prompt: Tensor, weight: float, stop: float = -math.inf) -> Tensor:
    """How far unit embeddings of cutouts [N, D] are from a prompt's unit embedding [1, D].

    |w| mean(2 arcsin(|a - b| / 2)^2 sign(w)), which is half the square of the angle. A cutout whose
    signed distance is under `stop` counts, but no longer pulls. After Crowson et al. 2022,
    "VQGAN-CLIP".
    """
    half_chord = (images - prompt).norm(dim=-1) / 2
    # The slope of the arcsine is infinite at 1, so opposite embeddings stay just below it.
    angles = half_chord.clamp(max=1 - 1e-6).arcsin()
    distances = 2 * angles.square() * math.copysign(1.0, weight)
    pulling = torch.where(distances > stop, distances, distances.detach())
    return abs(weight) * pulling.mean()
