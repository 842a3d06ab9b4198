# PYTHON_ARGCOMPLETE_OK
"""crispedit: the commands. Each is a module with `add_arguments(parser)` and `run(args)`, imported when called."""

import argparse
import difflib
import importlib
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import yaml

from crispedit import __version__, console, machine
from crispedit.pipelines import failure

GROUPS: Mapping[str, Mapping[str, tuple[str, str]]] = yaml.safe_load(
    Path(__file__).with_name("commands.yaml").read_text(encoding="utf-8")
)
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}

GENERAL = {"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose", "--traceback": "traceback"}
"""Flags of every command, allowed anywhere on the line."""
OVERRIDE = re.compile(r"[a-z][\w.-]*=")
COMPLETION = "_ARGCOMPLETE"
"""The variable that a shell sets when it asks for completions."""

STOPPED = 128 + signal.SIGTERM
INTERRUPTED = 128 + signal.SIGINT


class Stopped(BaseException):
    """The process was sent SIGTERM, as schedulers do before they kill."""


MAKING = ("build", "step", "edit", "select", "pack", "calibrate")
"""Commands whose pixels and scores must be the same on every processor."""


class Parser(argparse.ArgumentParser):
    """An argument parser that lists its arguments and suggests flags."""

    def actions(self) -> Iterator[argparse.Action]:
        """All arguments and flags, also those of its subcommands."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for nested in action.choices.values():
                    yield from nested.actions()
            else:
                yield action

    def check_flags(self, arguments: Sequence[str]) -> None:
        """End with the nearest flag's name if a flag of `arguments` does not exist."""
        flags = [flag for action in self.actions() for flag in action.option_strings]
        for argument in arguments:
            name = argument.partition("=")[0]
            if name == "--":
                return
            if name.startswith("--") and not any(flag.startswith(name) for flag in flags):
                self.error(f"there is no flag {name}{did_you_mean(name, flags)}")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """ "; did you mean X?" with the choice nearest in spelling; empty if none is near."""
    nearest = difflib.get_close_matches(word, list(choices), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. An error is printed as one sentence, with exit status 2; `--traceback` shows where it happened."""
    given = list(sys.argv[1:] if argv is None else argv)
    if COMPLETION in os.environ:
        given = os.environ.get("COMP_LINE", "").split()[1:]
    general = {GENERAL[argument] for argument in given if argument in GENERAL}
    arguments = [argument for argument in given if argument not in GENERAL]
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    if command in MAKING:
        os.environ.update({**machine.alike(), **os.environ})
    if "verbose" in general:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    try:
        with _told_of_sigterm(), console.quiet("quiet" in general):
            if not console.shows_progress():  # nor do libraries
                os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
            return _run(arguments, command)
    except (Exception, KeyboardInterrupt, Stopped) as error:
        if general & {"traceback", "verbose"}:
            traceback.print_exc()
        return _ended(error, command)


def parser_of(command: str) -> tuple[Parser, Parser]:
    """The parser of the whole line, and the command's own. Only this command's module is loaded."""
    width = max(map(len, COMMANDS))
    lines = ["Build, inspect and share datasets of image edits; train and evaluate EditMGT."]
    for group, listed in GROUPS.items():
        lines += ["", f"{group}:", *(f"  {name:{width}}  {text}" for name, (_, text) in listed.items())]
    whole = Parser(
        prog="crispedit",
        usage="crispedit [-q | -v] COMMAND ...",
        description="\n".join(lines),
        epilog="crispedit COMMAND --help explains a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"crispedit {__version__}", help="show the version")
    whole.add_argument("-q", "--quiet", action="store_true", help="no progress on the screen")
    whole.add_argument("-v", "--verbose", action="store_true", help="log more, and show where a command failed")
    whole.add_argument("--traceback", action="store_true", help="show where a command failed")
    commands = whole.add_subparsers(
        prog="crispedit", dest="command", required=True, metavar="COMMAND", help=argparse.SUPPRESS
    )
    chosen = whole
    for name, (_, text) in COMMANDS.items():
        parser = commands.add_parser(name, description=text[0].upper() + text[1:] + ".")
        if name == command:
            _module(name).add_arguments(parser)
            chosen = parser
    return whole, chosen


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"crispedit.pipelines.{COMMANDS[command][0]}")


def _run(arguments: Sequence[str], command: str) -> int:
    whole, chosen = parser_of(command)
    if COMPLETION in os.environ:
        importlib.import_module("argcomplete").autocomplete(whole)  # ends the process
    if not arguments:
        whole.print_help()
        return 2
    if command and command not in COMMANDS:
        whole.error(f"there is no command {command!r}{did_you_mean(command, COMMANDS) or '; see crispedit --help'}")
    chosen.check_flags(arguments[arguments.index(command) + 1 :] if command else arguments)
    args, further = whole.parse_known_args(arguments)
    if further:
        # argparse takes repeated values only up to the next option.
        if not hasattr(args, "overrides") or not all(OVERRIDE.match(word) for word in further):
            chosen.error(f"unrecognized arguments: {' '.join(further)}")
        args.overrides = [*args.overrides, *further]
    try:
        return int(_module(args.command).run(args))
    except SystemExit as ended:
        if ended.code == signal.SIGTERM:  # Ray replaced our handler by its own
            raise Stopped from None
        raise


def _ended(error: BaseException, command: str) -> int:
    """Print why the command ended, and return its exit status."""
    # An exception that a signal raises inside Ray's compiled code becomes a SystemError.
    asked = [one for one in failure.causes(error) if isinstance(one, KeyboardInterrupt | Stopped)]
    error = asked[0] if asked else error
    if isinstance(error, BrokenPipeError):  # `| head` has closed the pipe
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
    """Let SIGTERM raise `Stopped`, so that resources are closed. (Only in a main thread.)"""
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
