"""The optimiser: what decays, and how the rate moves."""

from __future__ import annotations

from itertools import pairwise

import pytest

from crispedit.editmgt.optimiser import FLOOR, adamw, decays, rate_at
from crispedit.editmgt.settings import Optimiser
from crispedit.editmgt.transformer import Transformer
from editmgt.small_training import CONFIG


def test_norms_biases_and_embeddings_do_not_decay():
    model = Transformer(CONFIG.model_copy(update={"downsample": True}))
    weights = dict(model.named_parameters())
    kept = {name for name, weight in weights.items() if not decays(name, weight)}
    assert {name for name in weights if name.endswith("bias")} < kept
    norms = {name for name, weight in weights.items() if "norm" in name and weight.ndim == 1}
    assert {"embed.layer_norm.weight", "transformer_blocks.0.attn.norm_q.weight"} < norms < kept
    assert kept - norms - {name for name in weights if name.endswith("bias")} == {"embed.embeddings.weight"}
    decayed = set(weights) - kept
    assert {"mlm_layer.conv2.weight", "embed.conv.weight", "transformer_blocks.0.attn.to_q.weight"} < decayed

    optimizer = adamw(weights, Optimiser(weight_decay=0.3))
    by_decay = {group["weight_decay"]: len(group["params"]) for group in optimizer.param_groups}
    assert by_decay == {0.3: len(decayed), 0.0: len(kept)}


def test_the_rate():
    constant = Optimiser(rate=1.0, warmup_steps=4)
    assert [rate_at(step, 40, constant) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert [rate_at(step, 20, constant) for step in range(3)] == [0.5, 1.0, 1.0]  # at most a tenth of a run
    cosine = Optimiser(rate=1.0, warmup_steps=2, schedule="cosine")
    rates = [rate_at(step, 22, cosine) for step in range(22)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[12] == pytest.approx((1 + FLOOR) / 2)
    assert all(a > b for a, b in pairwise(rates[2:]))
    assert rate_at(22, 22, cosine) == pytest.approx(FLOOR)
