"""crispedit: the commands. Each is a module with `add_arguments(parser)` and `run(args)`, imported when called."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "build": ("pipelines.build", "every step of a run, in order"),
    "curate": ("pipelines.step", "normalise and measure photographs"),
    "annotate": ("pipelines.step", "write edit jobs for kept photographs"),
    "edit": ("pipelines.step", "make the candidates of every job; with --model, edit images with EditMGT"),
    "score": ("pipelines.step", "measure candidates"),
    "compare": ("pipelines.step", "let the judge compare the candidates of each job that pass"),
    "select": ("pipelines.step", "apply bounds, duplicates and quotas"),
    "pack": ("pipelines.step", "write WebDataset shards"),
    "audit": ("pipelines.audit", "what was kept and why the rest was not"),
    "calibrate": ("pipelines.calibrate", "prove filters on known defects, and learn bounds"),
    "evaluate": ("pipelines.evaluate", "score editors on benchmarks, beside two controls"),
    "verify": ("pipelines.verify", "check a shard set"),
    "inspect": ("pipelines.inspect_shards", "show pairs of a shard set"),
    "export": ("pipelines.export", "write a shard set in another layout"),
    "merge": ("pipelines.merge", "one shard set from several"),
    "reshard": ("pipelines.merge", "pack a shard set again"),
    "tokenize": ("pipelines.tokenize", "a shard set again, with what a model's tokenizers make of it"),
    "train": ("pipelines.train", "train EditMGT on a shard set"),
}
"""Name, module, and the line that `crispedit --help` shows."""


def module_of(command: str, arguments: Sequence[str]) -> str:
    """The module that carries out a command. `edit` is a step of a run, or, of a `--model`, a tool by itself."""
    if command == "edit" and any(argument.partition("=")[0] == "--model" for argument in arguments):
        return "pipelines.edit"
    return COMMANDS[command][0]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; a user's mistake is one clear line and exit status 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="crispedit", description=__doc__, add_help=True)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if arguments[:1] == [name]:  # only the chosen command's module is loaded
            importlib.import_module(module_of(name, arguments)).add_arguments(command)
    args = parser.parse_args(arguments)
    try:
        return int(importlib.import_module(module_of(args.command, arguments)).run(args))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
