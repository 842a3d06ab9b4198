"""The exponential moving average of trained weights: fp32, by name, sharded wherever the weights are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class EMA:
    """average <- decay average + (1 - decay) weight after every step; the decay is lower in the first steps.

    torch's AveragedModel copies the module, which a module sharded by FSDP2 does not allow; tensors can be cloned.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.weights = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Average the weights after a step: the n-th with a decay of at most (1 + n) / (10 + n)."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        new = [weights[name].detach() for name in self.weights]
        torch._foreach_lerp_(list(self.weights.values()), new, 1.0 - decay)
