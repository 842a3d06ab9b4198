"""What a command shows on the screen beside its answer: progress, on a terminal, unless `-q` asks for none."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

QUIET = "CRISPEDIT_QUIET"
"""The variable that tells the processes of a command, too."""


@contextmanager
def quiet(asked: bool) -> Iterator[None]:
    """No progress inside, if `asked`."""
    before = os.environ.get(QUIET)
    if asked:
        os.environ[QUIET] = "1"
    try:
        yield
    finally:
        if asked:
            os.environ.pop(QUIET)
            os.environ.update({} if before is None else {QUIET: before})


def is_quiet() -> bool:
    """Whether `-q` was given."""
    return bool(os.environ.get(QUIET))


def shows_progress() -> bool:
    """Whether bars belong on the screen: on a terminal, and not with `-q`."""
    return sys.stderr.isatty() and not is_quiet()
