"""Gradient descent as all models that ship are trained: AdamW, a warm-up and a cosine, averaged weights."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Descent:
    """Trains these weights; `finish` gives them their averages.

    The rate rises to `rate` in `warmup` steps, then falls along a cosine to 1 % of it. decay: weight decay of matrices,
    and of vectors. average: the largest decay of the moving average; it is lower in the first steps.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        rate: float,
        steps: int,
        warmup: float,
        decay: tuple[float, float] = (0.05, 0.0),
        average: float = 0.0,
    ) -> None:
        self.weights = [weight.requires_grad_(True) for weight in weights]
        self.rate, self.steps, self.warmup, self.average = rate, steps, warmup, average
        self.averages = [weight.detach().clone() for weight in self.weights]
        matrices, vectors = ([w for w in self.weights if (w.ndim > 1) == wanted] for wanted in (True, False))
        groups = [{"params": matrices, "weight_decay": decay[0]}, {"params": vectors, "weight_decay": decay[1]}]
        self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))

    def step(self, loss: Tensor, step: int) -> None:
        """Update the weights by the gradient of a loss. step: 1 for the first."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * step / self.steps)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(1.0, step / self.warmup) * cosine
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.weights, 1 - min(self.average, step / (step + 10)))

    @torch.no_grad()
    def finish(self) -> None:
        for weight, average in zip(self.weights, self.averages, strict=True):
            weight.requires_grad_(False).copy_(average)
