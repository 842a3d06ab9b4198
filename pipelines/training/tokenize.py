"""crispedit tokenize: copies a shard set and adds each pair's VQ tokens and text features, so that training encodes
nothing.

    crispedit tokenize SHARDS OUT --recipe configs/train/stage2-full.yaml [model.start=PATH ...]

The recipe gives the model's tokenizers and the buckets; training must use the same. The new set has everything of the
old one plus one member per pair, so all other tools can read it. Each shard is an independent task; existing ones are
not made again.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from crispedit import console
from crispedit.pipelines import engine
from crispedit.pipelines.recipe import EngineSpec
from crispedit.pipelines.train import TOKENISED, identity, move, shapes, starting_model
from crispedit.pipelines.training import recipe as train_recipe
from crispedit.pipelines.training.recipe import TrainRecipe
from crispedit.record import canonical_json, content_key
from crispedit.shards import layout, storage
from crispedit.shards.fetch import ABSENT
from crispedit.shards.index import read_manifest
from crispedit.shards.pack import Folder, ShardEntry, ShardPlan, committed, finish, write_shard
from crispedit.shards.read import ShardReader


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", help="a finished shard set")
    parser.add_argument("out", help="folder of the new set, or a URL")
    parser.add_argument("--recipe", required=True, help="the training recipe, with model and data.resolution")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="recipe values, such as data.resolution=512")
    parser.add_argument("--actors", type=int, default=0, help="number of Ray actors; 0: work in this process")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs of each actor")
    parser.add_argument("--address", help="the Ray cluster; default: RAY_ADDRESS, else a new one")


def run(args: argparse.Namespace) -> int:
    recipe = train_recipe.load(args.recipe, [f"shards={args.shards}", *args.overrides])
    entries = tokenize(recipe, args.out, args.actors, args.gpus, args.address)
    pairs = sum(entry.pairs for entry in entries)
    print(f"{pairs} pairs in {len(entries)} shards: {args.out}")
    if not pairs:
        print(f"error: {args.shards} gave no pairs", file=sys.stderr)
        return 1
    return 0


def tokenize(
    recipe: TrainRecipe, out: Folder, actors: int = 0, gpus: float = 0.0, address: str | None = None
) -> list[ShardEntry]:
    """Write the set of the recipe's `data.shards`, tokenised. Pairs that cannot be read are left out, and named.

    ValueError for a crop (stored tokens cannot be cropped), more than one set, or the given set itself as `out`.
    """
    (given,) = recipe.data.shards if len(recipe.data.shards) == 1 else ("",)
    if not given or recipe.data.crop != 1:
        raise ValueError("tokenize: give one shard set (crispedit merge makes one of several) and data.crop=1")
    storage.check_lasts("out", out)
    place = storage.absolute(os.fspath(out))  # actors have another working directory
    if place.rstrip("/") == given.rstrip("/") or (
        os.path.exists(place) and os.path.exists(given) and os.path.samefile(place, given)
    ):
        raise ValueError(f"{out}: cannot be the set itself; give a new folder")
    names = [shard["name"] for shard in read_manifest(given)["shards"]]
    settings = EngineSpec(kind="ray" if actors else "inprocess", address=address)
    entries: list[ShardEntry] = []
    meta: dict[str, Any] = {TOKENISED: {}}
    with engine.cluster(settings):
        work = _work(recipe, place, names, actors, gpus)
        hidden = not console.shows_progress()
        for entry, made_by, unreadable in tqdm(work, "tokenize", len(names), unit="shard", disable=hidden):
            meta = {TOKENISED: made_by}
            entries += [] if entry is None else [entry]
            for text in unreadable:
                print(f"left out: {text}", file=sys.stderr)
    finish(place, entries, meta)
    return entries


TokenizedShard = tuple[ShardEntry | None, dict[str, Any], list[str]]
"""The shard's entry (None if no pair can be read), what tokenised it, and the errors of pairs that cannot be read."""


def _work(recipe: TrainRecipe, out: str, names: Sequence[str], actors: int, gpus: float) -> Iterator[TokenizedShard]:
    if not actors:
        tokenizer = Tokenizer(recipe, out)
        yield from (tokenizer.shard(name) for name in names)
        return
    import ray
    from ray.util import ActorPool

    engine.check_room(f"--actors {actors}", actors, 1.0, gpus)
    made = ray.remote(num_gpus=gpus, num_cpus=1, max_restarts=2, max_task_retries=2)(Tokenizer)
    pool = ActorPool([made.remote(recipe, out) for _ in range(actors)])
    yield from pool.map_unordered(lambda actor, name: actor.shard.remote(name), names)


class Tokenizer:
    """A model's tokenizers in one process, shard by shard."""

    def __init__(self, recipe: TrainRecipe, out: str) -> None:
        import torch

        from crispedit.editmgt import stored
        from crispedit.editmgt.examples import Encoder

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        pipeline = starting_model(recipe)
        move(pipeline, device)
        self.recipe, self.out = recipe, out
        self.encode = Encoder(pipeline.vq, pipeline.text)
        self.empty = pipeline.text.encode([""])
        self.made_by = identity(recipe, pipeline)
        self.digest = content_key("tokenize", canonical_json(self.made_by))
        with storage.replaced(storage.join(out, stored.EMPTY)) as file:
            file.write(stored.empty_to_bytes(self.empty))

    def shard(self, name: str) -> TokenizedShard:
        """Write that shard, unless it exists."""
        (given,) = self.recipe.data.shards
        tar = storage.join(given, name)
        with ShardReader(tar, decode=False, on_damage="skip") as pairs:
            index = pairs.index
            masked = bool((index.offsets[:, layout.MEMBERS.index(layout.MASK)] != ABSENT).all())
            whole = ShardPlan(name, index.categories[0], tuple(index.keys.to_pylist()), masked)
            digest = content_key(self.digest, index.fingerprint)
            entry = committed(self.out, whole, digest)
            unreadable: list[str] = []
            if entry is None:
                tokens, unreadable = self._tokens(tar)
                keys = tuple(key for key in whole.keys if key in tokens)
                made = (replace(pairs.get(key), tokens=tokens[key]) for key in keys)
                entry = write_shard(self.out, replace(whole, keys=keys), made, digest) if keys else None
            return entry, self.made_by, unreadable

    def _tokens(self, tar: str) -> tuple[dict[str, bytes], list[str]]:
        """The stored bytes of every readable pair of a shard by key, and the errors of the others."""
        from crispedit.editmgt import stored

        tokens: dict[str, bytes] = {}
        workers, buckets = self.recipe.data.workers, shapes(self.recipe)
        with ShardReader(tar, on_damage="skip", batch_size=1, shapes=buckets, workers=workers) as reader:
            for batch in reader:
                tokens[batch.keys[0]] = stored.to_bytes(self.encode(batch), self.empty)[0]
            return tokens, [str(found) for found in reader.damaged]
