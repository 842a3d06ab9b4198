"""Operations of a training step: every matrix product and attention counted, once forward and twice backward."""

from __future__ import annotations

import torch
from torch import nn

from crispedit.editmgt.meter import peak, training_flops
from crispedit.editmgt.transformer import PointwiseConv, Transformer
from editmgt.small_training import CONFIG, examples


def test_operations_are_those_of_the_layers_and_the_attention():
    model, batch, counted = Transformer(CONFIG), examples(0, 1), 0.0
    model.initialize()

    def count(layer, inputs, output):
        nonlocal counted
        counted += 2 * inputs[0].shape[-1] * output.numel()

    for layer in model.modules():
        if isinstance(layer, nn.Linear | PointwiseConv):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model(batch.edited, batch.sequence, batch.pooled, batch.micro, torch.tensor([9.0]), batch.source)
    tokens, text = batch.edited.numel(), batch.sequence.shape[1]
    keys = 2 * tokens + text
    # Scores and their use, 2 operations each; the last block asks for the image only.
    queries = keys * (CONFIG.blocks - 1) + tokens
    expected = 3 * (counted + 4 * queries * keys * CONFIG.dim)
    assert training_flops(CONFIG, *batch.edited.shape[1:], text) == expected


def test_the_peak_of_a_cpu_is_not_known():
    assert peak(torch.device("cpu")) is None
