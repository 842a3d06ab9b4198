"""Measurements of training steps: losses by mask ratio and category, throughput, memory and FLOPs."""

import resource
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from crispedit.editmgt.objective import MaskedBatch
from crispedit.editmgt.transformer import Transformer, TransformerConfig

RATIOS = 5  # bins of the masked share

NUMBERS = ("loss", "pairs", "tokens", "flops", "wait_s", "encode_s", "stop")


class Meter:
    """Adds up what is measured of the steps since the last reset, summed over the processes by one reduction a step.

    For each group (bins of the masked share, then categories): the summed loss of its tokens, and their number. Then
    `NUMBERS`: weighted loss, pairs, tokens inside the transformer, FLOPs, seconds of waiting and encoding, stop flag.
    """

    def __init__(self, config: TransformerConfig, categories: Sequence[str], accelerator: Accelerator) -> None:
        self.config, self.categories, self.accelerator = config, list(categories), accelerator
        self.device, self.peak = accelerator.device, peak(accelerator.device)
        self.reset()
        self.begin_step()

    def reset(self) -> None:
        self.total, self.seconds = torch.zeros(2 * (RATIOS + len(self.categories)) + len(NUMBERS)), 0.0

    def begin_step(self) -> None:
        self.groups = torch.zeros(RATIOS + len(self.categories), 2, device=self.device)
        self.step = dict.fromkeys(NUMBERS, 0.0)  # this process's numbers of the step

    def add(self, batch: MaskedBatch, losses_M: Tensor) -> None:
        """Add a batch of this process to the step."""
        masked, examples = batch.masked.flatten(1), batch.examples
        count = masked.sum(1)
        total = torch.zeros_like(masked, dtype=torch.float32).masked_scatter(masked, losses_M).sum(1)
        bins = (batch.timestep / 1000.0 * RATIOS).long().clamp(0, RATIOS - 1)
        indices = [RATIOS + self.categories.index(name) for name in examples.categories]
        for group in (bins, torch.tensor(indices, device=count.device)):
            self.groups.index_add_(0, group, torch.stack([total, count], 1))
        rows, columns = examples.edited.shape[1:]
        text, source = examples.sequence.shape[1], examples.source is not None
        images = (1 + source) * rows * columns // self.config.stride**2
        self.step["pairs"] += len(examples)
        self.step["tokens"] += len(examples) * (images + text)
        self.step["flops"] += len(examples) * training_flops(self.config, rows, columns, text, source)

    def end_step(self) -> dict[str, float]:
        """Sum the step over the processes and add it up; its numbers by name. Every process must call it."""
        numbers = torch.tensor(list(self.step.values()), device=self.device)
        step = self.accelerator.reduce(torch.cat([self.groups.flatten(), numbers]), "sum").cpu()
        self.total += step
        return dict(zip(NUMBERS, step[-len(NUMBERS) :].tolist(), strict=True))

    def read(self) -> dict[str, Any]:
        """The measurements; None if unknown. Losses are unweighted means over tokens."""
        groups, numbers = self.total[: -len(NUMBERS)].view(-1, 2), self.total[-len(NUMBERS) :]
        means = [total / count if count else None for total, count in groups.tolist()]
        per_s = dict(zip(NUMBERS, (numbers / max(self.seconds, 1e-9)).tolist(), strict=True))
        processes = self.accelerator.num_processes
        edges = [f"{i / RATIOS:g}-{(i + 1) / RATIOS:g}" for i in range(RATIOS)]
        return {
            "loss_by_masked_share": dict(zip(edges, means[:RATIOS], strict=True)),
            "loss_by_category": dict(zip(self.categories, means[RATIOS:], strict=True)),
            "pairs_per_s": per_s["pairs"],
            "tokens_per_s": per_s["tokens"],
            "mfu": None if self.peak is None else per_s["flops"] / processes / self.peak,
            "data_wait_share": per_s["wait_s"] / processes,
            "encode_share": per_s["encode_s"] / processes,
            "memory_gb": memory_gb(self.device),
        }


def memory_gb(device: torch.device) -> float:
    """Peak memory of this process in GiB: GPU memory, or on a CPU resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


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
