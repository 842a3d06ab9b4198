"""Measurements of training steps: losses by mask ratio and category, throughput, memory and FLOPs."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from crispedit.editmgt.objective import MaskedBatch
from crispedit.editmgt.transformer import Transformer, TransformerConfig

RATIOS = 5
"""Bins of the masked share."""

NUMBERS = ("loss", "pairs", "tokens", "flops", "wait_s", "encode_s", "stop")


class Tally:
    """Sums over a process's batches of one step; a flat tensor, so that one reduction sums over the processes.

    For each group (bins of the masked share, then categories): the summed loss of its tokens, and their number. Then
    `NUMBERS`: weighted loss, pairs, tokens inside the transformer, FLOPs, seconds of waiting and encoding, stop flag.
    """

    def __init__(self, config: TransformerConfig, categories: Sequence[str], device: torch.device) -> None:
        self.config, self.categories = config, list(categories)
        self.groups = torch.zeros(RATIOS + len(self.categories), 2, device=device)
        self.numbers = dict.fromkeys(NUMBERS, 0.0)

    def add(self, batch: MaskedBatch, losses_M: Tensor) -> None:
        masked, examples = batch.masked.flatten(1), batch.examples
        count = masked.sum(1)
        total = torch.zeros_like(masked, dtype=torch.float32).masked_scatter(masked, losses_M).sum(1)
        bins = (batch.timestep / 1000.0 * RATIOS).long().clamp(0, RATIOS - 1)
        indices = [self.categories.index(name) for name in examples.categories]
        category = torch.tensor(indices, device=count.device)
        sums = torch.stack([total, count], 1)
        for group in (bins, RATIOS + category):
            self.groups.index_add_(0, group, sums)
        rows, columns = examples.edited.shape[1:]
        text, source = examples.sequence.shape[1], examples.source is not None
        images = (1 + source) * rows * columns // self.config.stride**2
        self.numbers["pairs"] += len(examples)
        self.numbers["tokens"] += len(examples) * (images + text)
        self.numbers["flops"] += len(examples) * training_flops(self.config, rows, columns, text, source)

    def flat(self) -> Tensor:
        numbers = torch.tensor(list(self.numbers.values()), device=self.groups.device)
        return torch.cat([self.groups.flatten(), numbers])


class Meter:
    """Adds up the reduced tallies of the steps since the last reset."""

    def __init__(
        self, config: TransformerConfig, categories: Sequence[str], device: torch.device, processes: int
    ) -> None:
        self.categories, self.device, self.processes = list(categories), device, processes
        self.peak = peak(device)
        self.reset()

    def reset(self) -> None:
        self.groups = torch.zeros(RATIOS + len(self.categories), 2)
        self.numbers = dict.fromkeys(NUMBERS, 0.0)
        self.seconds = 0.0

    def take(self, flat: Tensor) -> dict[str, float]:
        """Add a step's reduced tally (on the CPU); its numbers by name."""
        split = self.groups.numel()
        self.groups += flat[:split].view_as(self.groups)
        step = dict(zip(NUMBERS, flat[split:].tolist(), strict=True))
        for name, value in step.items():
            self.numbers[name] += value
        return step

    def read(self) -> dict[str, Any]:
        """The measurements; None if unknown. Losses are unweighted means over tokens."""
        means = [total / count if count else None for total, count in self.groups.tolist()]
        numbers, seconds = self.numbers, max(self.seconds, 1e-9)
        edges = [f"{i / RATIOS:g}-{(i + 1) / RATIOS:g}" for i in range(RATIOS)]
        return {
            "loss_by_masked_share": dict(zip(edges, means[:RATIOS], strict=True)),
            "loss_by_category": dict(zip(self.categories, means[RATIOS:], strict=True)),
            "pairs_per_s": numbers["pairs"] / seconds,
            "tokens_per_s": numbers["tokens"] / seconds,
            "mfu": None if self.peak is None else numbers["flops"] / seconds / self.processes / self.peak,
            "data_wait_share": numbers["wait_s"] / self.processes / seconds,
            "encode_share": numbers["encode_s"] / self.processes / seconds,
            "memory_gb": memory_gb(self.device),
        }


def memory_gb(device: torch.device) -> float:
    """Peak memory of this process in GiB: GPU memory, or on a CPU resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def finite(value: Any) -> Any:
    """The same value with None for NaN and infinity, which JSON cannot hold."""
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def flat_items(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested numbers as {"a/b": 1.0}, without unknown ones, as trackers expect."""
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_items(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            flat[prefix + name] = float(value)
    return flat


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
