"""The sampler's randomness is distributed as it should be, and the released draws come in their order."""

from __future__ import annotations

import torch

from crispedit.editmgt.noise import ReleasedNoise, SeededNoise


def test_inverse_cumulative_draws_follow_the_distribution():
    noise = SeededNoise([0], 40_000, "cpu")
    p = torch.tensor([0.5, 0.0, 0.3, 0.0, 0.2])
    noise.begin(5)
    picks = noise.pick(p.expand(40_000, -1), torch.arange(40_000))
    counts = picks.bincount(minlength=5) / 40_000
    assert (counts - p).abs().max() < 0.01  # four standard deviations
    assert counts[1] == counts[3] == 0


def test_extreme_draws_stay_inside_and_possible():
    noise = SeededNoise([0], 3, "cpu")
    noise.draws = torch.tensor([0.0, 0.5, 1.0])
    p = torch.zeros(3, 1000)
    p[:, 7] = 0.4
    p[:, 900] = 0.6
    picks = noise.pick(p, torch.arange(3))
    assert picks.tolist() == [7, 900, 900]


def test_gumbel_has_its_moments():
    draws = SeededNoise([1], 40_000, "cpu").gumbel()
    assert abs(draws.mean().item() - 0.5772) < 0.03
    assert abs(draws.std().item() - torch.pi / 6**0.5) < 0.03


def test_a_sample_draws_alone_what_it_draws_in_a_batch():
    batch = SeededNoise([5, 6, 7], 50, "cpu")
    alone = SeededNoise([6], 50, "cpu")
    for _ in range(3):
        batch.begin(4)
        alone.begin(4)
        assert torch.equal(batch.gumbel()[1:2], alone.gumbel())
    p = torch.rand(150, 4, generator=torch.Generator().manual_seed(0))
    picks = batch.pick(p, torch.arange(150))
    assert torch.equal(picks[50:100], alone.pick(p[50:100], torch.arange(50)))


def test_released_draws_are_torch_multinomials():
    p = torch.rand(60, 30, generator=torch.Generator().manual_seed(3)).softmax(-1)
    noise = ReleasedNoise(torch.Generator().manual_seed(9), 2, 30, "cpu")
    noise.begin(30)
    generator = torch.Generator().manual_seed(9)
    expected = torch.multinomial(p, 1, generator=generator)[:, 0]
    rows = torch.tensor([0, 3, 31, 59])
    assert torch.equal(noise.pick(p[rows], rows), expected[rows])
    u = torch.rand((2, 30), generator=generator)
    assert torch.allclose(noise.gumbel(), -torch.log(-torch.log(u)))
