"""crispedit: the commands. Each is a module with `add_arguments(parser)` and `run(args)`, imported when called."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "build": ("crispedit.pipelines.build", "every step of a run, in order"),
    "curate": ("crispedit.pipelines.step", "normalise and measure photographs"),
    "annotate": ("crispedit.pipelines.step", "write edit jobs for kept photographs"),
    "edit": (
        "crispedit.pipelines.step",
        "make the candidates of every job; with --model, edit images with EditMGT",
    ),
    "score": ("crispedit.pipelines.step", "measure candidates"),
    "compare": ("crispedit.pipelines.step", "let the judge compare the candidates of each job that pass"),
    "select": ("crispedit.pipelines.step", "apply bounds, duplicates and quotas"),
    "pack": ("crispedit.pipelines.step", "write WebDataset shards"),
    "view": ("crispedit.pipelines.view", "look at pairs, bounds and labels in a web browser"),
    "audit": ("crispedit.pipelines.audit", "what was kept and why the rest was not"),
    "calibrate": (
        "crispedit.pipelines.calibration.calibrate",
        "prove filters on known defects, and learn bounds",
    ),
    "evaluate": ("crispedit.pipelines.evaluate", "score editors on benchmarks, beside two controls"),
    "verify": ("crispedit.pipelines.sharing.verify", "check a shard set"),
    "inspect": ("crispedit.pipelines.sharing.inspect", "show pairs of a shard set"),
    "export": ("crispedit.pipelines.sharing.export", "write a shard set in another layout"),
    "merge": ("crispedit.pipelines.sharing.merge", "one shard set from several"),
    "reshard": ("crispedit.pipelines.sharing.merge", "pack a shard set again"),
    "tokenize": (
        "crispedit.pipelines.training.tokenize",
        "encode a shard set into tokens for training",
    ),
    "train": ("crispedit.pipelines.train", "train EditMGT on a shard set"),
}
"""Name, module, and the line that `crispedit --help` shows."""


def module_of(command: str, arguments: Sequence[str]) -> str:
    """The module that carries out a command. `edit` is a step of a run, or, of a `--model`, a tool by itself."""
    if command == "edit" and any(argument.partition("=")[0] == "--model" for argument in arguments):
        return "crispedit.pipelines.edit"
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
