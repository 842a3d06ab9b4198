"""crispedit: the commands. Each is a module with `add_arguments(parser)` and `run(args)`, imported when called."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from crispedit import machine
from crispedit.pipelines import failure

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
    "status": ("crispedit.pipelines.status", "what a run has, and what its build is doing"),
    "view": ("crispedit.pipelines.view", "look at pairs, bounds and labels in a web browser"),
    "audit": ("crispedit.pipelines.audit", "what was kept and why the rest was not"),
    "calibrate": (
        "crispedit.pipelines.calibration.calibrate",
        "prove filters on known defects, and learn bounds",
    ),
    "evaluate": ("crispedit.pipelines.evaluate", "score editors on benchmarks, beside two controls"),
    "judge-bench": ("crispedit.pipelines.judge_bench", "hold chat models against people's preferences"),
    "verify": ("crispedit.pipelines.sharing.verify", "check a shard set"),
    "inspect": ("crispedit.pipelines.sharing.inspect", "show pairs of a shard set"),
    "export": ("crispedit.pipelines.sharing.export", "write a shard set in another layout"),
    "decontaminate": (
        "crispedit.pipelines.sharing.decontaminate",
        "find copies of benchmark pictures in a shard set",
    ),
    "duplicates": (
        "crispedit.pipelines.sharing.duplicates",
        "find pairs whose sources show the same, by CLIP",
    ),
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


STOPPED = 128 + signal.SIGTERM
INTERRUPTED = 128 + signal.SIGINT


class Stopped(BaseException):
    """The process was sent SIGTERM, as schedulers do before they kill."""


MAKING = ("build", "curate", "annotate", "edit", "score", "compare", "select", "pack", "calibrate")
"""Commands whose pixels and scores are the same on every processor."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. What it raises is said in one sentence, with exit status 2; `--traceback` shows where."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = [argument for argument in given if argument != "--traceback"]
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    if command in MAKING:
        os.environ.update({**machine.alike(), **os.environ})
    try:
        with _told_of_sigterm():
            return _run(arguments)
    except (Exception, KeyboardInterrupt, Stopped) as error:
        if len(arguments) < len(given):
            traceback.print_exc()
        return _ended(error, command)


def _run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="crispedit", description=__doc__, add_help=True)
    parser.add_argument("--traceback", action="store_true", help="show where a command failed")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if arguments[:1] == [name]:  # only the chosen command's module is loaded
            importlib.import_module(module_of(name, arguments)).add_arguments(command)
    args = parser.parse_args(arguments)
    try:
        return int(importlib.import_module(module_of(args.command, arguments)).run(args))
    except SystemExit as ended:
        if ended.code == signal.SIGTERM:  # Ray's own handler, in place of ours
            raise Stopped from None
        raise


def _ended(error: BaseException, command: str) -> int:
    """Say why the command ended; its exit status."""
    if isinstance(error, BrokenPipeError):  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, Stopped):
        print(f"stopped by SIGTERM; {failure.AGAIN}", file=sys.stderr)
        return STOPPED
    if isinstance(error, KeyboardInterrupt):
        print(f"interrupted; {failure.AGAIN}", file=sys.stderr)
        return INTERRUPTED
    print(f"error: {failure.sentence(error, command)}", file=sys.stderr)
    return 2


@contextmanager
def _told_of_sigterm() -> Iterator[None]:
    """SIGTERM raises `Stopped`, so that what is open is closed. (Only a main thread can listen.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    raise SystemExit(main())
