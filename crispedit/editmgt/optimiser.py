"""AdamW on a model's trainable weights, the learning rate of each step, and the moving average of the weights."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from crispedit.editmgt.settings import Optimiser

FLOOR = 0.1  # the end of the cosine schedule, as a share of the rate


def adamw(weights: Mapping[str, Tensor], settings: Optimiser) -> torch.optim.Optimizer:
    """Two groups: weights that decay; and norms, biases and embeddings, which do not.

    ModuleNotFoundError for 8 bits without bitsandbytes.
    """
    constant = [weight for name, weight in weights.items() if not decays(name, weight)]
    decayed = [weight for name, weight in weights.items() if decays(name, weight)]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": constant, "weight_decay": 0.0}]
    options: dict[str, Any] = settings.model_dump(include={"betas", "eps", "weight_decay"}) | {"lr": settings.rate}
    if settings.bits == 8:
        from bitsandbytes.optim.adamw import AdamW8bit

        return AdamW8bit(groups, **options)
    return torch.optim.AdamW(groups, **options, fused=all(weight.is_cuda for weight in weights.values()))


def decays(name: str, weight: Tensor) -> bool:
    """Matrices and convolutions decay; vectors (norms, biases) and tables of learnt vectors do not."""
    return weight.ndim > 1 and not name.endswith(("embed.embeddings.weight", "connector.latents"))


def rate_at(step: int, steps: int, settings: Optimiser) -> float:
    """The rate of a step, 0 <= step < steps: linear warm-up over at most a tenth of the steps, then the schedule."""
    warmup = min(settings.warmup_steps, steps // 10)
    if step < warmup:
        return settings.rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.rate
    progress = (step - warmup) / max(1, steps - warmup)
    return settings.rate * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


class EMA:
    """average <- decay average + (1 - decay) weight after every step; fp32, by name, sharded wherever the weights are.

    torch's AveragedModel copies the module, which a module sharded by FSDP2 does not allow; tensors can be cloned.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.weights = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor], n: int) -> None:
        """Average the weights after the n-th update, n >= 1, with a decay of at most (1 + n) / (10 + n)."""
        decay = min(self.decay, (1 + n) / (10 + n))
        new = [weights[name].detach() for name in self.weights]
        torch._foreach_lerp_(list(self.weights.values()), new, 1.0 - decay)
