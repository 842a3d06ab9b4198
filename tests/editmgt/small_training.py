"""A small model and endless generated examples, for the trainer's tests, in this process or in others."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import torch
import torch.distributed as dist

from crispedit import recipe
from crispedit.editmgt.examples import Examples
from crispedit.editmgt.settings import Training
from crispedit.editmgt.text import TextFeatures
from crispedit.editmgt.trainer import Trainer, make_accelerator
from crispedit.editmgt.transformer import Transformer, TransformerConfig
from crispedit.record import seed_of

CONFIG = TransformerConfig(
    num_layers=1,
    num_single_layers=2,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=24,
    pooled_projection_dim=16,
    axes_dims_rope=(4, 6, 6),
    vocab_size=40,
    codebook_size=32,
    downsample=False,
)
SETTINGS = "{run: RUN, steps: 6, batch: 2, global_batch: 4, save: {every: 2}, watch: {tracker: none, log_every: 2}}"


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
    empty = TextFeatures(torch.full((1, 5, 24), 0.5), torch.full((1, 16), 0.5))
    encode = encode or (lambda number, step: examples(number))
    source = Numbers(of.global_batch // of.batch, before)
    return Trainer(fresh(), source, encode, empty, of, make_accelerator(of), **more)


def read_by_peft(model: Transformer, folder: Path) -> Transformer:
    """The model with the adapters of a folder in peft's layout, as peft reads them; every tensor of it is used."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.utils import set_peft_model_state_dict
    from safetensors.torch import load_file

    model = inject_adapter_in_model(LoraConfig.from_pretrained(str(folder)), model)
    left = set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
    assert not left.unexpected_keys
    assert not [name for name in left.missing_keys if "lora_" in name]
    return model.eval()


def curve(run: Path, name: str = "loss") -> list[float]:
    """That number of every step, in order."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if name in row]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row[name] for row in rows]


def launch(*runs: tuple[Path, Sequence[str]], processes: int = 1, kill: int = -1) -> list[int | None]:
    """Train these runs (a folder and overrides), one after the other, in processes of their own; how each ended.

    They are forked from a server that has imported what takes seconds. `kill`: the step at which they are killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["crispedit.editmgt.lora", "crispedit.editmgt.trainer"])
    meeting = runs[0][0].with_name(f"{uuid4().hex}.store").as_uri()
    started = [
        context.Process(target=_process, args=(rank, processes, meeting, runs, kill)) for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    return [process.exitcode for process in started]


def _process(rank: int, processes: int, meeting: str, runs: Sequence[tuple[Path, Sequence[str]]], kill: int) -> None:
    torch.set_num_threads(1)
    if processes > 1:  # as torchrun says it, but for the place where they meet
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        os.environ |= {"OMP_NUM_THREADS": "1", **{name: str(value) for name, value in told.items()}}
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)

    def before(step: int) -> None:
        if step == kill:
            os.kill(os.getpid(), signal.SIGKILL)

    for run, overrides in runs:
        trainer(settings(run, *overrides), before).train()
    if processes > 1:
        dist.destroy_process_group()
