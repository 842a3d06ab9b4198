"""crispedit train: pairs from shards, through the trainer, to a model that `crispedit edit --model` takes.

    crispedit train configs/train/tiny.yaml shards=runs/mine/shards run=runs/tiny
    torchrun --nproc-per-node 8 pipelines/train.py configs/train/stage2-full.yaml shards=... run=...
    crispedit train configs/train/stage2-full.yaml ray.workers=8 shards=... run=...          (Ray Train, same loop)

The same command goes on with a run that was stopped or killed; with a larger `steps`, with one that had finished.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Run as a file, Python puts `pipelines/` on the path; what must be there is the checkout around it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import yaml

from pipelines import train_recipe
from pipelines.train_recipe import TrainRecipe
from shards.decode import Shape, aspect_shapes
from shards.read import Batch, ShardReader

if TYPE_CHECKING:
    from crispedit.editmgt.pipeline import EditMGTPipeline
    from crispedit.editmgt.transformer import Transformer

MODEL = "model"
"""The finished model, in the run's folder."""
STOPPED = 143
"""Exit status after SIGTERM, by which schedulers know that there is more to do."""


def train(recipe: TrainRecipe) -> bool:
    """One process's share of a run; whether it is finished (and not told to stop). ValueError for what cannot be."""
    from crispedit.editmgt.examples import Encoder, Unconditional
    from crispedit.editmgt.observer import Observer
    from crispedit.editmgt.trainer import Trainer, make_accelerator
    from pipelines.train_source import ShardSource

    accelerator = make_accelerator(recipe)
    source = ShardSource(training_reader(recipe), recipe.global_batch // recipe.batch)
    pipeline = starting_model(recipe)
    for module in (pipeline.vq.model, pipeline.text.clip, pipeline.text.llm):
        if module is not None:
            module.to(accelerator.device)
    encode = Encoder(pipeline.vq, pipeline.text, recipe.data.crop, recipe.seed)
    empty = Unconditional.of(pipeline.text)
    looked_at = [encode(batch) for batch in pairs_to_watch(recipe)] if accelerator.is_main_process else []
    observer = Observer(
        recipe.run, pipeline.vq, looked_at, empty, recipe.watch, recipe.data.held_out is not None
    )
    if accelerator.is_main_process:
        recipe.run.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
        (recipe.run / "recipe.yaml").write_text(text)
    trainer = Trainer(pipeline.transformer, source, encode, empty, recipe, accelerator, observer)
    finished = trainer.train() == "finished"
    source.close()
    if source.damage and accelerator.is_main_process:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(source.damage.items()))
        print(f"left out as unreadable: {counts}", file=sys.stderr)
    if finished:
        model = trainer.snapshot()
        if model is not None:
            export(model, pipeline, recipe.run)
        accelerator.wait_for_everyone()
    return finished


def training_reader(recipe: TrainRecipe) -> ShardReader:
    """Full batches for ever, in an order that the seed decides. What is damaged is left out."""
    data = recipe.data
    return ShardReader(
        data.shards,
        workers=data.workers,
        seed=recipe.seed,
        shuffle=True,
        window_shards=data.window_shards,
        categories=data.categories,
        weights=data.weights,
        batch_size=recipe.batch,
        shapes=shapes(recipe, data.crop),
        coverage="equal",
        on_damage="skip",
    )


def pairs_to_watch(recipe: TrainRecipe) -> Iterator[Batch]:
    """Batches of the pairs held out, or else of the first of those trained on, as many as are looked at."""
    data, watch = recipe.data, recipe.watch
    wanted = max(watch.samples, watch.held_out_pairs) if data.held_out is not None else watch.samples
    paths = data.shards if data.held_out is None else data.held_out
    with ShardReader(
        paths, batch_size=recipe.batch, shapes=shapes(recipe), categories=data.categories, on_damage="skip"
    ) as reader:
        count = 0
        for batch in reader:
            if count >= wanted:
                return
            yield batch
            count += len(batch.keys)


def shapes(recipe: TrainRecipe, crop: float = 1.0) -> list[Shape]:
    """The buckets, (height, width) in pixels, `crop` times as large."""
    data = recipe.data
    found = aspect_shapes(data.resolution, data.multiple_px, data.max_aspect)
    return [(round(height * crop), round(width * crop)) for height, width in found]


def starting_model(recipe: TrainRecipe) -> EditMGTPipeline:
    """The model to train, with its tokenizers, on the CPU. ValueError if it is neither a preset nor a checkpoint."""
    from crispedit.editmgt import preset
    from crispedit.editmgt.pipeline import EditMGTPipeline

    start = recipe.model.start
    if start.endswith(".yaml") or (preset.PRESETS / f"{start}.yaml").is_file():
        return preset.build(start, recipe.seed)
    return EditMGTPipeline.from_pretrained(start, llm=recipe.model.llm)


def export(model: Transformer, pipeline: EditMGTPipeline, run: Path) -> None:
    """Write the finished model into the run's folder, whole or not at all: adapters merged, and also by themselves."""
    from crispedit.editmgt.pipeline import EditMGTPipeline

    temporary = run / f".{MODEL}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    if hasattr(model, "peft_config"):
        from crispedit.editmgt.lora import merge_lora, save_lora

        save_lora(model, run / "lora")
        model = merge_lora(model)
    EditMGTPipeline(model, pipeline.vq, pipeline.text, pipeline.resolution).save_pretrained(temporary)
    if (run / MODEL).exists():
        (run / MODEL).rename(run / f".{MODEL}.old.tmp")
    temporary.rename(run / MODEL)
    shutil.rmtree(run / f".{MODEL}.old.tmp", ignore_errors=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", help="a recipe file, the name of one in configs/train/ (tiny), or a run's folder"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as shards=runs/mine/shards run=runs/tiny"
    )


def run(args: argparse.Namespace) -> int:
    """The command: train, or go on."""
    recipe = train_recipe.load(args.recipe, args.overrides)
    if not train(recipe):
        print(f"stopped and saved; the same command goes on: {recipe.run}", file=sys.stderr)
        return STOPPED
    print(f"model: {recipe.run / MODEL}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pipelines/train.py", description="Train EditMGT on shards.")
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
