"""crispedit export: write a shard set in another layout, for tools that do not read tars; or write a run's preferences
between edits."""

import argparse
from functools import partial

from tqdm import tqdm

from crispedit import console, inverse
from crispedit.chat import ChatOption
from crispedit.pipelines.run import run_in
from crispedit.pipelines.sharing import preference
from crispedit.recipe import Strict, parse
from crispedit.shards.export import TARGETS, Invert, export
from crispedit.shards.remote import Cache

PREFERENCE = "preference"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    shards = f"sets, or plain tars; paths, globs, braces or URLs. --to {PREFERENCE} takes one run instead"
    by_rule = "add the inverse of each pair whose instruction a rule can undo (add, remove, replace, color)"
    by_chat = "the same, with a chat model where no rule applies; YAML: {backend: openai, model: ..., base_url: ...}"
    add("shards", nargs="+", help=shards)
    add("--to", choices=(*TARGETS, PREFERENCE), required=True, help="the layout to write")
    add("--output", required=True, help="a new folder, or a URL")
    add("--categories", nargs="+", help="only these categories")
    add("--inverse", action="store_true", help=by_rule)
    add("--inverse-chat", metavar="CHAT", help=by_chat)


class Inverses(Strict):
    """How the instructions of inverse pairs are written."""

    chat: ChatOption


def _by_model(spec: str) -> Invert:
    chat = parse(Inverses, f"chat: {spec}", name="--inverse-chat").chat
    chat.load()
    return partial(inverse.by_model, chat)


def run(args: argparse.Namespace) -> int:
    if args.to == PREFERENCE:
        if args.inverse or args.inverse_chat or len(args.shards) != 1:
            raise ValueError(f"--to {PREFERENCE}: give one run, without --inverse and --inverse-chat")
        count = preference.export(run_in(args.shards[0]), args.output, args.categories)
        print(f"{count} preferences: {args.output}")
        return 0
    invert = _by_model(args.inverse_chat) if args.inverse_chat else inverse.by_rule if args.inverse else None
    with tqdm(unit="pair", disable=not console.shows_progress()) as bar:
        count = export(args.shards, args.to, args.output, Cache(), args.categories, bar.update, invert)
    print(f"{count} pairs: {args.output}")
    return 0
