"""A small model and endless generated examples, for the trainer's tests; run as a script, one process of several.

python small_training.py RUN [KEY=VALUE ...] [--kill STEP | --terminate STEP]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist

from crispedit import recipe
from crispedit.editmgt.examples import Examples, Unconditional
from crispedit.editmgt.settings import Training
from crispedit.editmgt.trainer import Trainer, make_accelerator
from crispedit.editmgt.transformer import Transformer, TransformerConfig
from crispedit.record import seed_of

CONFIG = TransformerConfig(
    num_layers=1,
    num_single_layers=2,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=32,
    pooled_projection_dim=16,
    axes_dims_rope=(4, 6, 6),
    vocab_size=40,
    codebook_size=32,
    downsample=False,
    text_dim=24,
)
SETTINGS = (
    "{run: RUN, steps: 6, batch: 2, global_batch: 4, save: {every: 2}, watch: {tracker: none, log_every: 2}}"
)


def examples(number: int, count: int = 2) -> Examples:
    """The batch of that number: an edit that copies the source but for a region, whose tokens follow from the text."""
    generator = torch.Generator().manual_seed(seed_of(str(number)))
    rows, columns = ((4, 4), (2, 6))[number % 2]
    source = torch.randint(0, CONFIG.codebook_size, (count, rows, columns), generator=generator)
    region = torch.rand(count, rows, columns, generator=generator) < 0.3
    answer = torch.randint(0, 4, (count,), generator=generator)
    return Examples(
        keys=[f"{number}-{i}" for i in range(count)],
        categories=[("add", "style")[number % 2]] * count,
        source=source,
        edited=torch.where(region, answer[:, None, None], source),
        region=region,
        sequence=torch.nn.functional.one_hot(answer, 24).float()[:, None].expand(-1, 5, -1).clone(),
        pooled=torch.nn.functional.one_hot(answer, 16).float(),
        micro=torch.tensor([[16.0 * columns, 16.0 * rows, 0.0, 0.0, 6.0]]).repeat(count, 1),
    )


class Numbers:
    """A source of numbers, which `examples` turns into batches; `before` is told each step as it is read."""

    categories = ("add", "style")

    def __init__(self, per_step: int, before: Callable[[int], None] = lambda step: None) -> None:
        self.per_step, self.before = per_step, before

    def steps(self, state, rank, processes) -> Iterator[tuple[list[int], dict[str, int]]]:
        step, share = 0 if state is None else state["step"], self.per_step // processes
        while True:
            self.before(step)
            first = step * self.per_step + rank * share
            step += 1
            yield list(range(first, first + share)), {"step": step}


def settings(run: Path, *overrides: str) -> Training:
    return recipe.parse(Training, SETTINGS.replace("RUN", str(run)), overrides)


def fresh() -> Transformer:
    """A model whose blocks are not the identity, as freshly initialised ones are: every weight has a gradient."""
    model = Transformer(CONFIG)
    generator = torch.Generator().manual_seed(0)
    model.initialize(generator)
    for modulation in [*model.modulations(), *(block.norm1_context for block in model.transformer_blocks)]:
        torch.nn.init.normal_(modulation.linear.weight, std=0.1, generator=generator)
    return model


def trainer(of: Training, before: Callable[[int], None] = lambda step: None, encode=None, **more) -> Trainer:
    """A trainer of that model."""
    empty = Unconditional(torch.full((1, 5, 24), 0.5), torch.full((1, 16), 0.5))
    encode = encode or (lambda number, step: examples(number))
    source = Numbers(of.global_batch // of.batch, before)
    return Trainer(fresh(), source, encode, empty, of, make_accelerator(of), **more)


def curve(run: Path, name: str = "loss") -> list[float]:
    """That number of every step, in order."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if name in row]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row[name] for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", help="a run's folder and its overrides, joined by commas")
    parser.add_argument("--kill", type=int, default=-1)
    parser.add_argument("--terminate", type=int, default=-1)
    args = parser.parse_args()
    torch.set_num_threads(1)

    def before(step: int) -> None:
        if step == args.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == args.terminate:
            os.kill(os.getpid(), signal.SIGTERM)

    for text in args.runs:
        run, *overrides = text.split(",")
        if trainer(settings(Path(run), *overrides), before).train() == "stopped":
            sys.exit(143)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
