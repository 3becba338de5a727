"""The denoiser's answer for a latent, moved away from what the prompt does not say."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from studio.engines.diffusion.conditioning import Conditioning, Text

TOGETHER = 64 * 64  # positions of a latent up to which two small passes take longer than one of two


@dataclass
class Denoiser:
    """A UNet. size: width and height of the picture, which SDXL is told. dtype: it computes in."""

    unet: Any
    size: tuple[int, int]
    dtype: torch.dtype
    _same: dict[tuple[int, ...], bool] = field(default_factory=dict)  # together as alone, by shape

    def predict_each(
        self, latents: Sequence[Tensor], time: Tensor, texts: Conditioning, guidance: float
    ) -> Sequence[Tensor]:
        """`predict` for each latent: the same bytes as alone.

        Small ones are computed together, if the first time shows that no byte differs: that
        depends on how the machine's libraries multiply.
        """
        said = len(texts.wishes), texts.wishes[0].text.tokens.shape[1], guidance > 1
        shape = len(latents), *said, *latents[0].shape
        positions = len(latents) * latents[0].shape[-2] * latents[0].shape[-1]
        if len(latents) == 1 or positions >= TOGETHER or self._same.get(shape) is False:
            return [self.predict(latent, time, texts, guidance) for latent in latents]
        together = self.predict(torch.cat(list(latents)), time, texts, guidance).split(1)
        if shape in self._same:
            return together
        alone = [self.predict(latent, time, texts, guidance) for latent in latents]
        self._same[shape] = all(map(torch.equal, together, alone))
        return alone

    def predict(self, latent: Tensor, time: Tensor, texts: Conditioning, guidance: float) -> Tensor:
        """What the denoiser says of scaled latents [n, d, h, w], in float32.

        Classifier-free guidance (Ho, Salimans 2022): u + guidance · (p - u), where p is the answer
        to the prompt and u the answer to what is to be avoided. Of several prompts, the weighted
        differences are added (Liu et al. 2022, "Compositional Visual Generation"). A gradient
        passes.
        """
        told = None  # of the guidance, which is an input of LCM's denoisers
        if self.unet.config.time_cond_proj_dim is not None:
            told, guidance = guidance, 1.0
        wishes = texts.wishes
        if guidance <= 1 and len(wishes) == 1 and wishes[0].weight == 1:
            return self._answers(latent, time, [texts.prompt], told)
        every = [texts.avoid, *(wish.text for wish in wishes)]
        if latent.shape[-2] * latent.shape[-1] < TOGETHER:
            avoided, *wished = self._answers(latent, time, every, told).split(len(latent))
        else:
            avoided, *wished = (self._answers(latent, time, [text], told) for text in every)
        pulls = (wish.weight * (w - avoided) for wish, w in zip(wishes, wished, strict=True))
        return avoided + guidance * sum(pulls)

    def _answers(
        self, latent: Tensor, time: Tensor, texts: list[Text], guidance: float | None = None
    ) -> Tensor:
        each, device = len(latent), self.unet.device
        more: dict[str, Any] = {}
        if guidance is not None:
            width = self.unet.config.time_cond_proj_dim
            more["timestep_cond"] = guidance_embedding(guidance - 1, width).to(device, self.dtype)
        pooled = [text.pooled for text in texts if text.pooled is not None]
        if pooled:
            more["added_cond_kwargs"] = {
                "text_embeds": torch.cat(pooled).to(device, self.dtype).repeat_interleave(each, 0),
                "time_ids": self._sizes.to(device, self.dtype).repeat(len(texts) * each, 1),
            }
        tokens = torch.cat([text.tokens for text in texts]).to(device, self.dtype)
        tokens = tokens.repeat_interleave(each, 0)
        given = latent.to(device, self.dtype).repeat(len(texts), 1, 1, 1)
        answer = self.unet(given, time, encoder_hidden_states=tokens, return_dict=False, **more)[0]
        return answer.float().contiguous()  # as a checkpoint brings latents back

    @property
    def _sizes(self) -> Tensor:
        """Original size, corner of the cutout, wanted size: height before width each time."""
        width, height = self.size
        return torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32)


def guidance_embedding(scale: float, width: int) -> Tensor:
    """A guidance scale as sines and cosines [1, width] (Meng et al. 2023, as in LCM)."""
    half = width // 2
    rates = torch.exp(torch.arange(half) * -(torch.log(torch.tensor(10000.0)) / (half - 1)))
    angles = torch.tensor([[scale]]) * 1000.0 * rates[None]
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, width % 2))
