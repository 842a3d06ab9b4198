"""FLOPs of a training step, computed from shapes, and the peak rates of GPUs."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from crispedit.editmgt.transformer import Transformer, TransformerConfig

PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Dense bf16 FLOP/s from data sheets (SXM versions), by a word of the device's name."""


def peak(device: torch.device) -> float | None:
    """Peak bf16 FLOP/s of the device, from its data sheet; None if unknown."""
    if device.type != "cuda":
        return None
    words = torch.cuda.get_device_name(device).replace("-", " ").split()
    return next((value for name, value in PEAKS.items() if name in words), None)


@lru_cache(maxsize=256)
def training_flops(config: TransformerConfig, rows: int, columns: int, text: int, source: bool = True) -> float:
    """FLOPs of one example, forward and backward, with the head applied to every token.

    rows, columns: size of both token grids. text: length of the text features. source: with a source image. The
    backward pass counts as two forward passes; recomputation by gradient checkpointing does not count.
    """
    with torch.device("meta"):
        model = Transformer(config)
        grid = torch.zeros(1, rows, columns, dtype=torch.long)
        features = torch.zeros(1, text, config.joint_attention_dim)
        pooled, micro = torch.zeros(1, config.pooled_projection_dim), torch.zeros(1, 5)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(grid, features, pooled, micro, torch.zeros(1), grid if source else None)
    return 3.0 * counter.get_total_flops()
