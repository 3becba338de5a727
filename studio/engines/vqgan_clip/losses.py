"""The losses on the latent itself, and all losses as numbers."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.base.errors import RunFailed
from studio.engines.vqgan_clip.settings import VQGANCLIPSettings
from vqgan_utils import mse_weight_at, tv_loss


def regularisation(
    z: Tensor, anchor: Tensor, step: int, settings: VQGANCLIPSettings
) -> dict[str, Tensor]:
    """What holds a latent near its anchor, and what keeps it smooth, where they are switched on.

    step: optimisation steps so far, by which the weight of the MSE decays.
    """
    s, losses = settings, {}
    if s.use_mse_regularization:
        weight = mse_weight_at(step, s.mse_weight, s.mse_weight_decay, s.mse_weight_decay_steps)
        losses["mse"] = weight * F.mse_loss(z, anchor)
    if s.use_tv_loss_regularization:
        losses["tv"] = s.tv_loss_weight * tv_loss(z)
    return losses


def as_numbers(losses: Mapping[str, Tensor], step: int) -> dict[str, float]:
    """The losses with their sum, "total", by one transfer from the device.

    Raises RunFailed where the sum is not finite. step: optimisation steps so far.
    """
    parts = torch.stack([loss.detach() for loss in losses.values()])
    values = torch.cat([parts, parts.sum(dim=0, keepdim=True)]).tolist()
    numbers = dict(zip([*losses, "total"], values, strict=True))
    if math.isfinite(numbers["total"]):
        return numbers
    wrong = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
    raise RunFailed(
        f"After {step} steps the loss is not a number any more ({wrong}). Lower the step size or"
        " the weights of prompts and regularisations, and run it again."
    )
