"""The sampler's randomness: one stream per sample, or the released code's single stream, draw for draw."""

from collections.abc import Sequence

import torch
from torch import Tensor


class SeededNoise:
    """A generator per sample, always drawn on the CPU: a sample is the same in any batch and on any device.

    Per step: `begin`, then `pick` for any rows, then `gumbel` (not in the last). A token needs one random number
    (inverse transform sampling), not one per codebook entry.
    """

    def __init__(self, seeds: Sequence[int], tokens: int, device: torch.device | str) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._tokens, self._device = tokens, device

    def uniform(self) -> Tensor:
        """[B, N] in [0, 1); drawn before the first step if sampling starts from a partly masked image."""
        rows = [torch.rand(self._tokens, generator=generator) for generator in self._generators]
        return torch.stack(rows).to(self._device)

    def begin(self, _codebook: int) -> None:
        """Make this step's random draws."""
        self.draws = self.uniform().flatten()

    def pick(self, probabilities_MV: Tensor, rows_M: Tensor) -> Tensor:
        """[M] indices drawn from M distributions: those of the tokens at these positions of the flattened [B, N]."""
        cumulative = probabilities_MV.cumsum(-1)
        total = cumulative[:, -1:]
        # Strictly below the total, so that the index exists and its token has a probability above 0.
        below = torch.nextafter(total, torch.zeros_like(total))
        target = torch.minimum(self.draws[rows_M, None] * total, below)
        return torch.searchsorted(cumulative, target, right=True)[:, 0]

    def gumbel(self) -> Tensor:
        """[B, N] standard Gumbel noise, fp32: in bf16 ties would flip tokens."""
        return -(-self.uniform().clamp(min=1e-20).log()).clamp(min=1e-20).log()


class ReleasedNoise(SeededNoise):
    """The released code's random numbers in its order, from one CPU generator: the same seed gives the same tokens.

    torch.multinomial on the CPU is argmax p / e with e ~ Exp(1), drawn for every token and codebook entry, known
    tokens included: [B N, codebook] numbers per step, so `SeededNoise` is the default.
    """

    def __init__(self, generator: torch.Generator, batch: int, tokens: int, device: torch.device | str) -> None:
        super().__init__((), tokens, device)
        self._generator, self._batch = generator, batch

    def uniform(self) -> Tensor:
        return torch.rand((self._batch, self._tokens), generator=self._generator).to(self._device)

    def begin(self, codebook: int) -> None:
        self.draws = torch.empty(self._batch * self._tokens, codebook).exponential_(generator=self._generator)

    def pick(self, probabilities_MV: Tensor, rows_M: Tensor) -> Tensor:
        noise = self.draws[rows_M.to(self.draws.device)].to(probabilities_MV.device)
        return (probabilities_MV / noise).argmax(-1)
