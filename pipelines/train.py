"""crispedit train: pairs from shards, through the trainer, to a model that `crispedit edit --model` takes.

    crispedit train configs/train/tiny.yaml shards=runs/mine/shards run=runs/tiny
    torchrun --nproc-per-node 8 pipelines/train.py configs/train/stage2-full.yaml shards=... run=...
    accelerate launch --multi_gpu --num_processes 8 pipelines/train.py ...                           (the same)
    crispedit train configs/train/stage2-full.yaml ray.workers=8 shards=... run=...          (Ray Train, same loop)

The same command resumes a run that was stopped or killed, and with a larger `steps` also a finished one.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # When run as a file, Python puts `pipelines/` on the path; the checkout is needed there instead.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import os
import shutil
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
import yaml
from numpy.typing import NDArray

from crispedit import parts
from crispedit.pipelines.training import recipe as train_recipe
from crispedit.pipelines.training.recipe import TrainRecipe
from crispedit.shards import storage
from crispedit.shards.decode import Shape, aspect_shapes
from crispedit.shards.index import Index, read_manifest
from crispedit.shards.read import Batch, ShardReader, TokenBatch

if TYPE_CHECKING:
    import torch

    from crispedit.editmgt.pipeline import EditMGTPipeline
    from crispedit.editmgt.text import TextFeatures
    from crispedit.editmgt.trainer import Encode
    from crispedit.editmgt.transformer import Transformer

MODEL = "model"
"""The finished model, in the run's folder."""
TOKENISED = "tokenised"
"""The manifest's field that says what tokenised a set."""
STOPPED = 143
"""Exit status after SIGTERM, which tells schedulers that there is more to do."""


def train(recipe: TrainRecipe, write_model: bool = True) -> bool:
    """Train as one process of a run; returns whether it is finished (and was not told to stop). ValueError for
    impossible settings."""
    import torch

    from crispedit.editmgt.examples import Encoder
    from crispedit.editmgt.observer import Observer
    from crispedit.editmgt.trainer import Trainer, make_accelerator
    from crispedit.pipelines.training.source import ShardSource

    tokenised = are_tokenised(recipe)
    accelerator = make_accelerator(recipe)
    source = ShardSource(training_reader(recipe, tokenised), recipe.global_batch // recipe.batch)
    pipeline = starting_model(recipe)
    # Stored examples need no encoders: these stay on the CPU, for the finished model and the previews.
    move(pipeline, torch.device("cpu") if tokenised else accelerator.device)
    if tokenised:
        encode, empty = stored_examples(recipe, pipeline, accelerator.device)
    else:
        data, chance = recipe.data, recipe.objective.text_to_image
        encode, empty = Encoder(pipeline.vq, pipeline.text, data.crop, recipe.seed, chance), pipeline.text.encode([""])
    main = accelerator.is_main_process
    whole = Encoder(pipeline.vq, pipeline.text)
    looked_at = [whole(batch) for batch in pairs_to_watch(recipe)] if main else []
    observer = Observer(recipe.run, pipeline.vq, looked_at, empty, recipe.watch, bool(recipe.data.held_out))
    if main:
        recipe.run.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
        (recipe.run / "recipe.yaml").write_text(text)
    trainer = Trainer(pipeline.transformer, source, encode, empty, recipe, accelerator, observer)
    finished = trainer.train() == "finished"
    source.close()
    if source.damage and main:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(source.damage.items()))
        print(f"left out as unreadable: {counts}", file=sys.stderr)
    if finished and write_model:
        if (model := trainer.snapshot()) is not None:
            export(model, pipeline, recipe.run)
        accelerator.wait_for_everyone()
    accelerator.end_training()
    return finished


def stored_examples(
    recipe: TrainRecipe, pipeline: EditMGTPipeline, device: torch.device
) -> tuple[Encode, TextFeatures]:
    """The functions that read a batch, and the empty instruction's features, for sets from `crispedit tokenize`.

    ValueError if another tokenizer or other buckets made one of them.
    """
    from crispedit.editmgt import stored
    from crispedit.editmgt.examples import Examples

    wanted = identity(recipe, pipeline)
    for path in recipe.data.shards:
        there = read_manifest(path)["meta"][TOKENISED]
        for name, value in wanted.items():
            if there[name] != value:
                raise ValueError(f"{path} was tokenised with other {name} than this recipe's: tokenise it again")
    place = storage.join(next(iter(recipe.data.shards)), stored.EMPTY)
    try:
        empty = stored.empty_from_bytes(storage.read_bytes(place))
    except FileNotFoundError as error:
        raise ValueError(f"{place} is missing: this is not a set that `crispedit tokenize` has finished") from error

    def encode(batch: TokenBatch, step: int) -> Examples:
        return stored.from_bytes(batch.keys, batch.categories, batch.tokens, empty, pipeline.vq.pixels).to(device)

    return encode, empty


def are_tokenised(recipe: TrainRecipe) -> bool:
    """Whether the pairs are stored as tokens. ValueError if only some are, or if the recipe needs what tokens cannot
    give."""
    paths = recipe.data.shards
    try:
        tokenised = [not path.endswith(".tar") and TOKENISED in read_manifest(path)["meta"] for path in paths]
    except ValueError as error:
        raise ValueError(f"data.shards: {error}") from error
    if any(tokenised) and not all(tokenised):
        raise ValueError("data.shards: all sets must be tokenised, or none; tokenise the others too")
    if any(tokenised) and recipe.data.crop != 1:
        raise ValueError("data.crop: stored tokens cannot be cropped; train on the images, or leave it at 1")
    if any(tokenised) and recipe.objective.text_to_image:
        raise ValueError("objective.text_to_image: captions are not stored; train on the images, or leave it at 0")
    return all(tokenised)


def training_reader(recipe: TrainRecipe, tokenised: bool) -> ShardReader:
    """An endless reader of full batches, in an order that depends on the seed. Damaged pairs are left out."""
    data = recipe.data
    return ShardReader(
        list(data.shards),
        mixture=data.shards,
        select=lambda index: ~held_out(recipe, index),
        workers=0 if tokenised else data.workers,
        tokens=tokenised,
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


def held_out(recipe: TrainRecipe, index: Index) -> NDArray[np.bool_]:
    """[N]: true for the pairs of `data.shards` that are held out: those with the lowest hashes."""
    wanted = recipe.data.held_out
    chosen = np.zeros(len(index), bool)
    if isinstance(wanted, int) and wanted:
        hashes = [xxhash.xxh3_64_intdigest(key.encode()) for key in index.keys.to_pylist()]
        order = np.argsort(np.array(hashes, np.uint64), kind="stable")
        chosen[order[: min(wanted, len(index) // 10)]] = True
    return chosen


def pairs_to_watch(recipe: TrainRecipe) -> Iterator[Batch]:
    """Batches of held-out pairs (or else of training pairs) for previews, from all categories."""
    data, watch = recipe.data, recipe.watch
    wanted = max(watch.samples, watch.held_out_pairs) if data.held_out else watch.samples
    paths = data.held_out if isinstance(data.held_out, str) else list(data.shards)
    with ShardReader(
        paths,
        select=partial(held_out, recipe) if isinstance(data.held_out, int) and data.held_out else None,
        batch_size=recipe.batch,
        shapes=shapes(recipe),
        categories=data.categories,
        shuffle=True,
        on_damage="skip",
    ) as reader:
        count = 0
        for batch in reader:
            if count >= wanted:
                return
            yield batch
            count += len(batch.keys)


def shapes(recipe: TrainRecipe, crop: float = 1.0) -> list[Shape]:
    """The buckets as (height, width) in pixels, enlarged by `crop`."""
    data = recipe.data
    found = aspect_shapes(data.resolution, data.multiple_px, data.max_aspect)
    return [(round(height * crop), round(width * crop)) for height, width in found]


def starting_model(recipe: TrainRecipe) -> EditMGTPipeline:
    """The model to train, with its tokenizers, on the CPU. ValueError if it is neither a preset nor a checkpoint."""
    import torch

    from crispedit.editmgt import preset
    from crispedit.editmgt.pipeline import EditMGTPipeline

    start = recipe.model.start
    if start.endswith(".yaml") or (preset.PRESETS / f"{start}.yaml").is_file():
        pipeline = preset.build(start, recipe.seed)
    else:
        with parts.loading(f"model.start {start}"):
            pipeline = EditMGTPipeline.from_pretrained(start, llm=recipe.model.llm, device="cpu", dtype=torch.float32)
    if recipe.model.connector is not None and pipeline.transformer.connector is None:
        connect(recipe, pipeline)
    if recipe.model.text_precision == "bf16":
        for encoder in (pipeline.text.clip, pipeline.text.llm):
            if encoder is not None:
                encoder.bfloat16()
    return pipeline


def connect(recipe: TrainRecipe, pipeline: EditMGTPipeline) -> None:
    """Give a Meissonic model the recipe's language model, through a fresh connector."""
    from transformers import AutoModel, AutoTokenizer

    from crispedit.editmgt.checkpoint import with_connector
    from crispedit.editmgt.text import LLM_TOKENS, TextEncoder

    llm, kind = recipe.model.llm, recipe.model.connector
    if llm is None or kind is None:
        raise ValueError("model.connector needs model.llm, the language model that it connects")
    language = AutoModel.from_pretrained(llm, use_safetensors=True)
    width = int(language.config.hidden_size)
    pipeline.transformer = with_connector(pipeline.transformer, kind, width, recipe.seed)
    text, tokenizer = pipeline.text, AutoTokenizer.from_pretrained(llm)
    pipeline.text = TextEncoder(text.clip_tokenizer, text.clip, tokenizer, language, llm_tokens=LLM_TOKENS)


def move(pipeline: EditMGTPipeline, device: torch.device) -> None:
    """Move the tokenizers to a device. (The trainer moves the transformer.)"""
    for module in (pipeline.vq.model, pipeline.text.clip, pipeline.text.llm):
        if module is not None:
            module.to(device)
    pipeline.text.forget()


def identity(recipe: TrainRecipe, pipeline: EditMGTPipeline) -> dict[str, Any]:
    """What stored tokens depend on besides the pair: the tokenizers and the buckets."""
    from crispedit.editmgt import stored

    return {
        "tokenizers": stored.fingerprint(pipeline),
        "buckets": [list(shape) for shape in shapes(recipe)],
        "text_precision": recipe.model.text_precision,
    }


def export(model: Transformer, pipeline: EditMGTPipeline, run: Path) -> None:
    """Write the finished model into the run's folder, atomically: with adapters merged, and the adapters separately."""
    from crispedit.editmgt.pipeline import EditMGTPipeline

    temporary = run / f".{MODEL}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    if hasattr(model, "peft_config"):
        from crispedit.editmgt.lora import merge_lora, save_lora

        save_lora(model, run / "lora")
        model = merge_lora(model)
    finished = EditMGTPipeline(model, pipeline.vq, pipeline.text, pipeline.resolution, pipeline.sampling)
    finished.save_pretrained(temporary)
    if (run / MODEL).exists():
        (run / MODEL).rename(run / f".{MODEL}.old.tmp")
    temporary.rename(run / MODEL)
    shutil.rmtree(run / f".{MODEL}.old.tmp", ignore_errors=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("recipe", help="a recipe file, the name of one in configs/train/ (tiny), or a run's folder")
    add("overrides", nargs="*", metavar="key=value", help="such as shards=runs/mine/shards run=runs/tiny")


def run(args: argparse.Namespace) -> int:
    """The command: train, or resume."""
    recipe = train_recipe.load(args.recipe, args.overrides)
    storage.check_lasts("run", recipe.run)
    if recipe.ray is None:
        finished = train(recipe)
    else:
        from crispedit.pipelines.training.on_ray import train_on_ray

        finished = train_on_ray(recipe)
    if os.environ.get("RANK", "0") == "0":  # only one of torchrun's processes prints
        if finished:
            print(f"model: {recipe.run / MODEL}")
        else:
            print(f"stopped and saved; the same command resumes: {recipe.run}", file=sys.stderr)
    return 0 if finished else STOPPED


if __name__ == "__main__":
    from crispedit.pipelines import cli

    raise SystemExit(cli.main(["train", *sys.argv[1:]]))
